"""How many labels does a strategy of asking save? Simulated: labels are revealed on request.

    python recipes/lab/simulate_active_learning.py recipes/configs/fashion.yaml --output_dir runs/active-learning
    python recipes/lab/simulate_active_learning.py my.yaml --strategies random margin k_center --step 200

The configuration is one of recipes/finetune.py; every key of it can be overridden as `--key.sub value`. Its frozen
towers run once over training and test split. Then, for every strategy (hf_tagger/feedback/strategies.py), a first
batch of products drawn at random is labelled, all heads are fitted on what is labelled, and the strategy
asks for the next batch, until `--most` are labelled. `disagreement` asks where the whole model and its encoder alone
differ. In `output_dir`: active_learning.json and .png, macro-F1 on the test split by the number of labelled products;
and the number at which a strategy first reached 95 % of the macro-F1 that all labels give.
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import torch

from hf_tagger import cli
from hf_tagger.catalog.strict import ConfigError, did_you_mean
from hf_tagger.evaluation.machine import describe_machine
from hf_tagger.evaluation.predict import Predictions
from hf_tagger.feedback import strategies
from hf_tagger.model.decisions import attribute_slices
from hf_tagger.training.arguments import load_run
from hf_tagger.training.context import start_run
from hf_tagger.training.data import read_catalog
from hf_tagger.training.refit import RefittedHeads, heads_only

STRATEGIES = ("random", "margin", "entropy", "label_cost", "disagreement", "rare_tags", "k_center", "mix")
MIX = {"margin": 1.0, "rare_tags": 1.0}
ENOUGH = 0.95


@cli.recipe
def main(arguments: list[str]) -> None:
    options, overrides = parse(arguments)
    for name in options.strategies:
        if name not in STRATEGIES:
            raise ConfigError(f"there is no strategy {name!r}.{did_you_mean(name, STRATEGIES)}")
    settings, data = load_run(options.config, overrides)
    settings = heads_only(replace(settings, logit_fusion=replace(settings.logit_fusion, folds=0)))
    run = start_run(settings, data)
    catalogue = read_catalog(run)
    heads = RefittedHeads.of_splits(run, catalogue, ("train", settings.evaluation.split))
    pool, test = (np.flatnonzero(heads.split_of == name) for name in ("train", settings.evaluation.split))
    most = min(options.most or len(pool), len(pool))
    heads.fit(pool)
    full = score(heads, test)
    run.log.say(f"all {len(pool)} labels: macro-F1 {full:.4f}")
    curves = {name: simulate(heads, name, pool, test, options.step, most, settings.seed, run.log.say)
              for name in options.strategies}
    enough = {name: next((count for count, value in curve if value >= ENOUGH * full), None)
              for name, curve in curves.items()}
    folder = Path(settings.output_dir)
    report = {"products": len(pool), "full": round(full, 4), "reached_95_percent": enough, "curves": curves,
              "seed": settings.seed, "machine": describe_machine()}
    (folder / "active_learning.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    plot(folder / "active_learning.png", curves, full)
    for name, count in enough.items():
        print(f"{name}: {f'{count} labels' if count else f'not within {most} labels'}")
    print(f"written to {folder}")


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = cli.parser(__doc__, "config")
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES), metavar="NAME", help=", ".join(STRATEGIES))
    parser.add_argument("--step", type=int, default=200, help="products asked for at a time")
    parser.add_argument("--most", type=int, help="labelled products at which to stop (default: all)")
    return parser.parse_known_args(arguments)


def simulate(heads: RefittedHeads, name: str, pool: np.ndarray, test: np.ndarray, step: int, most: int, seed: int,
             say) -> list[tuple[int, float]]:
    """[(labelled products, macro-F1 on test)]; the first batch is the same for every strategy."""
    rng = np.random.default_rng(seed)
    labelled = np.zeros(len(pool), bool)
    labelled[rng.permutation(len(pool))[:step]] = True
    curve = []
    while True:
        heads.fit(pool[labelled])
        curve.append((int(labelled.sum()), round(score(heads, test), 4)))
        say(f"{name}: {curve[-1][0]} labels, macro-F1 {curve[-1][1]:.4f}")
        count = min(step, most - int(labelled.sum()))
        if count <= 0:
            return curve
        labelled[ask(heads, name, pool, labelled, count, rng)] = True


def ask(heads: RefittedHeads, name: str, pool: np.ndarray, labelled: np.ndarray, count: int, rng) -> np.ndarray:
    """The places in the pool [count] that the strategy wants labelled next. It sees labels of `labelled` alone."""
    if name == "random":
        return strategies.queue(rng.random(len(pool)), labelled, count)
    if name == "k_center":
        return strategies.k_center(heads.pooled(pool), labelled, count)
    attributes, scores = seen_so_far(heads, pool[labelled]), heads.scores(pool)
    chosen = heads.model.predicted_tags(torch.from_numpy(scores)).numpy()
    if name == "disagreement":
        alone = heads.model.predicted_tags(torch.from_numpy(heads.scores(pool, words=False))).numpy()
        return strategies.queue((chosen != alone).sum(1).astype(float), labelled, count)
    if name == "label_cost":
        return strategies.queue(strategies.label_cost(scores, chosen), labelled, count)
    wanted = list(MIX) if name == "mix" else [name]
    values = {one: getattr(strategies, one)(attributes, scores) for one in wanted}
    return strategies.queue(strategies.mix(values, MIX) if name == "mix" else values[name], labelled, count)


def seen_so_far(heads: RefittedHeads, rows: np.ndarray) -> list[dict]:
    """The attributes, with the tags' counts among these rows: those of the whole catalogue would be known too early."""
    counts = (heads.tag_labels[rows] == 1).sum(0)
    return [entry | {"counts": counts[where].tolist()} for entry, where in
            zip(heads.model.config.attributes, attribute_slices(heads.model.config.attributes), strict=True)]


def score(heads: RefittedHeads, rows: np.ndarray) -> float:
    scores = heads.scores(rows)
    chosen = heads.model.predicted_tags(torch.from_numpy(scores)).numpy()
    ids, tags = [heads.ids[row] for row in rows], [heads.tags[row] for row in rows]
    return Predictions(heads.model.config.attributes, ids, tags, scores, chosen).metrics()["macro_f1"]


def plot(path: Path, curves: dict[str, list[tuple[int, float]]], full: float) -> None:
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for name, curve in curves.items():
        axes.plot(*zip(*curve, strict=True), marker="o", markersize=3, label=name,
                  **({"color": "black", "linestyle": "--"} if name == "random" else {}))
    axes.axhline(ENOUGH * full, color="grey", linewidth=0.8, label="95 % of all labels")
    axes.set(xlabel="labelled products", ylabel="macro-F1 on test")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
