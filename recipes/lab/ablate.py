"""What each mechanism behind a closed tag's score is worth: every one alone removed, on several catalogues.

    python recipes/lab/ablate.py recipes/configs/fashion.yaml recipes/lab/configs/marketplace.yaml --seeds 0 1 2

CONFIGs are training configurations on frozen towers (a phase on cached features, `lora: null`). The towers look at each
catalogue once; then, for each seed, every source is fitted on two of three folds to speak of the third, and on all
training products to speak of validation and test, with and without each mechanism. Products are seen in up to four
ways: with text and photo, with the text less the words of their own tags, without text, without photo. The fusion of
the sources is fitted as in training, and scores are calibrated on validation.

The rival is one logistic regression per attribute on TF-IDF of words and letters, frozen text features and 512
principal axes of the frozen photo features, fitted on every training product in all its views at once.

Choose by the out-of-fold figures: the report has them first, those of the test split beside them. Writes
OUTPUT/ablation.json after every seed (what is there is not computed again) and OUTPUT/ablation.md, the page that
model_cards/ablation.md is a copy of.
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import set_seed

from frozen_bench import ALONE, SPLITS, Bench, Change, Said, in_turns, look, model_change
from hf_tagger import cli
from hf_tagger.evaluation.calibration import fit_calibration
from hf_tagger.evaluation.machine import describe_machine
from hf_tagger.evaluation.predict import Predictions
from hf_tagger.evaluation.settings import CalibrationSettings
from hf_tagger.model.heads import LogitFusion
from hf_tagger.training.arguments import RunSettings
from hf_tagger.training.checkpoint import copied_heads, load_kept
from hf_tagger.training.frozen_heads import parts_of
from hf_tagger.training.heads.logit_fusion import SourceRows, fit_logit_fusion
from hf_tagger.training.refit import RefittedHeads
from rival import rival

PARTS = ("out of fold", "validation", "test")
SOURCES = ("tag_head", "lexical_head", "kernel_head")
ALL, RIVAL = "all together", "rival: one logistic regression on all features"
# What is taken away -> the source that is fitted without it, and its settings.
MECHANISMS: dict[str, tuple[str, Change]] = {
    "name match": ("lexical_head", model_change(lexical=lambda model: replace(model.lexical, name_match=False))),
    "words and letters": ("lexical_head", model_change(lexical=lambda model: replace(model.lexical, buckets=0))),
    "masked landmarks": ("kernel_head", model_change()),
    "logit adjustment": ("tag_head", lambda settings: replace(settings, training=replace(
        settings.training, loss=replace(settings.training.loss, logit_adjustment_tau=0.0)))),
}


@cli.recipe
def main(arguments: list[str]) -> None:
    options, overrides = parse(arguments)
    folder = Path(options.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "ablation.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for config in options.configs:
        name, bench = Path(config).stem, None
        with tempfile.TemporaryDirectory(prefix="features-") as features:
            for seed in options.seeds:
                if str(seed) not in found.get(name, {}):
                    bench = bench or look(config, [*overrides, "--output_dir", str(folder / name)], Path(features))
                    found.setdefault(name, {})[str(seed)] = ablate(bench, seed, options.processes)
                    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
                    (folder / "ablation.md").write_text(report(found), encoding="utf-8")
    print(report(found))


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = cli.parser(__doc__)
    parser.add_argument("configs", nargs="+", help="YAML files of `hf_tagger finetune`")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--processes", type=int, default=1, help="so many fits at once, of one thread each")
    parser.add_argument("--output_dir", default="runs/ablation")
    return parser.parse_known_args(arguments)


def ablate(bench: Bench, seed: int, processes: int = 1) -> dict[str, dict[str, dict[str, float]]]:
    """{what is taken away: {part: {way: mean macro-F1}}}."""
    settings, say, started = replace(bench.run.settings, seed=seed), bench.run.log.say, time.monotonic()
    jobs = {source: (source, bench.heads(ALONE[source](settings))) for source in SOURCES}
    for name, (source, change) in MECHANISMS.items():
        jobs[name] = source, bench.heads(ALONE[source](change(settings)), name != "masked landmarks")

    def hear(name: str) -> tuple[str, Said]:
        found = rival(bench, settings) if name == RIVAL else speak(bench, *jobs[name], seed)
        say(f"seed {seed}, {name}: {time.monotonic() - started:.0f} s")
        return name, found

    heard = dict(each_in_a_process(hear, [*jobs, RIVAL], processes))
    said = {source: heard[source] for source in SOURCES}
    kinds = {ALL: said} | {name: {source: said[source] for source in SOURCES if source != name} for name in SOURCES}
    kinds |= {"states of the text": said, "products out of fold": said}
    kinds |= {name: said | {source: heard[name]} for name, (source, _) in MECHANISMS.items()}
    kinds[RIVAL] = {"rival": heard[RIVAL]}

    def scored(name: str) -> tuple[str, dict[str, dict[str, float]]]:
        return name, score(bench, kinds[name], settings, states=name != "states of the text",
                           out_of_fold=name != "products out of fold")

    found = dict(each_in_a_process(scored, list(kinds), processes))
    return {name: found[name] for name in kinds}


def each_in_a_process(function: Callable, inputs: list, processes: int) -> list:
    """What `function` makes of each input, in any order. Forked processes see the features that are in memory."""
    if processes == 1:
        return [function(each) for each in inputs]
    global _forked
    _forked = function
    with multiprocessing.get_context("fork").Pool(processes, torch.set_num_threads, (1,)) as pool:
        return list(pool.imap_unordered(_call_forked, inputs))


def _call_forked(each):
    return _forked(each)


def speak(bench: Bench, source: str, heads: RefittedHeads, seed: int) -> Said:
    """What one source says of the training products, fitted without them, and of validation and test."""
    model, start = heads.model, copied_heads(heads.model)
    place = model.config.sources.index(source)

    def fit(rows: np.ndarray) -> None:
        load_kept(model, start)
        set_seed(seed)
        getattr(heads, f"fit_{source}")(rows)

    @torch.no_grad()
    def listen(rows: np.ndarray) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        model.eval()
        found = {}
        for way, (text, image) in bench.ways.items():
            # `heads` knows its own views of the plain features by identity.
            text = heads.plain if text is bench.plain else text
            parts = [heads.outputs(part, text, image) for part in parts_of(rows)]
            found[way] = (torch.cat([part.source_logits[:, place] for part in parts]),
                          torch.cat([part.fusion_features for part in parts]))
        return found

    return in_turns(bench, seed, fit, listen)


def score(bench: Bench, said: dict[str, Said], settings: RunSettings, states: bool = True,
          out_of_fold: bool = True) -> dict[str, dict[str, float]]:
    """Fits the fusion of these sources and the calibration, and scores every part in every way."""
    attributes = [entry for entry in bench.data.vocabulary.attributes if entry["tags"]]
    candidate = torch.tensor([index for index, entry in enumerate(attributes) for _ in entry["tags"]]
                             + list(range(len(attributes))))
    fusion = LogitFusion(attributes, len(said))
    fusion.reset()
    rows_of = dict(zip(PARTS, (bench.rows[split] for split in SPLITS), strict=True))
    of_states = said.get("lexical_head", next(iter(said.values())))

    def heard(part: str, way: str) -> tuple[torch.Tensor, torch.Tensor]:
        features = of_states[part][way][1]
        if not states:
            features = torch.zeros_like(features)
            features[..., 0] = 1.0
        return torch.stack([source[part][way][0] for source in said.values()], dim=1), features

    if len(said) > 1:
        fitted_on = PARTS[:2] if out_of_fold else PARTS[1:2]
        labels = {part: torch.from_numpy(bench.plain.tag_labels[rows_of[part]]) for part in fitted_on}
        fit_logit_fusion(fusion, attributes, candidate, [
            SourceRows(*heard(part, way), labels[part], "words" if way == "masked" else "")
            for part in fitted_on for way in bench.ways], settings.logit_fusion)

    @torch.no_grad()
    def predictions(part: str, way: str) -> Predictions:
        sources, features = heard(part, way)
        logits = fusion(sources, features, candidate).numpy()
        rows = rows_of[part]
        return Predictions(attributes, [bench.plain.ids[row] for row in rows], [bench.plain.tags[row] for row in rows],
                           logits=logits)

    calibrated, _ = fit_calibration(predictions("validation", next(iter(bench.ways))).decided(attributes),
                                    settings.calibration or CalibrationSettings())
    found: dict[str, dict[str, float]] = {}
    for part in PARTS:
        found[part] = {}
        for way in bench.ways:
            metrics = predictions(part, way).decided(calibrated).metrics()
            found[part][way] = float(np.mean([metrics[f"{entry['name']}/macro_f1"] for entry in attributes]))
    return found


def report(found: dict[str, dict[str, dict]]) -> str:
    """A page with a table for each catalogue."""
    machine = describe_machine()
    lines = ["# What each mechanism behind a closed tag's score is worth", "",
             "Macro-F1 in points, mean over attributes and seeds; in brackets what changes when one mechanism alone is "
             "taken away. Frozen towers (multilingual-e5-small, EfficientNet-Lite0). Out of fold: training products, "
             "every source fitted on the other two thirds of them; choices are made by these. *Whole*: all that a "
             "product has. *Masked*: its text without the words of its own tags. Written by "
             "`python recipes/lab/ablate.py recipes/configs/fashion.yaml recipes/lab/configs/*.yaml`, on "
             f"{machine['cpu']} with {machine['threads']} thread{'s' * (machine['threads'] > 1)}.", ""]
    for name, seeds in found.items():
        ways = list(next(iter(seeds.values()))[ALL]["test"])
        lines += [f"## {name}, seed{'s' * (len(seeds) > 1)} {', '.join(seeds)}", "",
                  f"| without | out of fold: mean | {' | '.join(ways)} | test: mean | {' | '.join(ways)} |",
                  "|---" * (3 + 2 * len(ways)) + "|"]
        whole = _mean(seeds, ALL)
        for without in next(iter(seeds.values())):
            mine, cells = _mean(seeds, without), []
            for part in ("out of fold", "test"):
                values, base = list(mine[part].values()), list(whole[part].values())
                pairs = [(float(np.mean(values)), float(np.mean(base))), *zip(values, base, strict=True)]
                cells += [f"{value:.1f}" if without == ALL else f"{value:.1f} ({value - of:+.1f})"
                          for value, of in pairs]
            label = "nothing" if without == ALL else without.replace("_", " ")
            lines.append(f"| {label} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _mean(seeds: dict[str, dict], without: str) -> dict[str, dict[str, float]]:
    every = [seed[without] for seed in seeds.values()]
    return {part: {way: 100 * float(np.mean([of[part][way] for of in every])) for way in every[0][part]}
            for part in every[0]}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
