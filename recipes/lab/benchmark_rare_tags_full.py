"""What making up for rare tags does for a whole catalogue: tail macro-F1 per attribute, with and without each method.

    python recipes/lab/benchmark_rare_tags_full.py recipes/configs/fashion.yaml --seeds 5
    python recipes/lab/benchmark_rare_tags_full.py recipes/configs/fashion.yaml --augmentation.logit_adjustment_tau 0.5

Trains the heads of the configuration on features of its frozen towers, once per seed, then, from those very weights,
each method's augmentation phase (settings: the `augmentation` section of the configuration). Scores the encoder's own
logits on the test split, text and photo: lexical head and kernel head are left out, for the phase changes neither.
Writes full_task.json and .md to the output folder, with the seconds that each phase took beside those of training the
heads. The features are seen once for all seeds: seeds differ in weights and batches. Choose settings with
`--evaluation.split validation`.
"""

import argparse
import copy
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from hf_tagger import cli
from hf_tagger.augmentation.settings import AugmentationSettings
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.evaluation.machine import describe_machine
from hf_tagger.evaluation.metrics import count_tags, tag_ratios
from hf_tagger.model.decisions import attribute_slices
from hf_tagger.training.arguments import RunSettings, load_run
from hf_tagger.training.batches import Batches
from hf_tagger.training.context import start_run
from hf_tagger.training.data import read_catalog
from hf_tagger.training.features import FeatureLoader, store_features
from hf_tagger.training.phases import start_training, train_phase
from hf_tagger.training.rare_tags import augment_rare_tags
from hf_tagger.training.settings import KernelSettings
from hf_tagger.training.starting_model import fit_feature_scales, starting_model

# As trained; and what each phase changes in the configuration's `augmentation`.
METHODS = {
    "as trained": None,
    "balanced softmax": {"method": "none"},
    "residual transfer": {"method": "residual_transfer"},
    "semi-supervised GAN": {"method": "semi_supervised_gan", "power": 0.0},
}


@cli.recipe
def main(arguments: list[str]) -> None:
    options, overrides = parse(arguments)
    settings, data = load_run(options.config, overrides)
    if settings.phases and (len(settings.phases) != 1 or not settings.phases[0].cached_views):
        raise ConfigError("phases: this benchmark trains heads on frozen towers: one phase with cached_views")
    results, spent, test, features = [], [], None, None
    for seed in range(options.seeds):
        run = start_run(encoder_only(settings, seed, options.output_dir / "run"), data)
        catalogue = read_catalog(run)
        batches = Batches(catalogue, *starting_model(run, catalogue))
        fit_feature_scales(run, batches)
        training, model = start_training(run, batches), batches.model
        start = time.perf_counter()
        # The towers are the same for every seed.
        phase = run.settings.phases[0]
        features = replace(features or training.features.of_phase(phase), seed=seed)
        train_phase(run, training, 0, phase, lambda _, features=features: features)
        seconds = {"features and heads": round(time.perf_counter() - start, 1)}
        test = test or test_features(batches, options.output_dir / "test")
        head, results_of_seed = copy.deepcopy(model.tag_head.state_dict()), {}
        for method in options.methods:
            model.tag_head.load_state_dict(head)
            start = time.perf_counter()
            if METHODS[method] is not None:
                augmentation = replace(settings.augmentation or AugmentationSettings(), **METHODS[method])
                augment_rare_tags(model, batches.processor, features, augmentation, settings.training.loss,
                                  run.folder / "augmentation", seed)
                seconds[method] = round(time.perf_counter() - start, 1)
            results_of_seed[method] = tail_scores(model, test, options.rare)
            cli.say(f"seed {seed}, {method}: {results_of_seed[method]}")
        results.append(results_of_seed)
        spent.append(seconds)
    report = {"config": options.config, "overrides": overrides, "machine": describe_machine(), "seconds": spent,
              "results": results}
    (options.output_dir / "full_task.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (options.output_dir / "full_task.md").write_text(table(results), encoding="utf-8")
    print(table(results))


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = cli.parser(__doc__, "config")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/rare_tags_full"))
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rare", type=int, default=20, help="a tag of at most so many training products is rare")
    return parser.parse_known_args(arguments)


def encoder_only(settings: RunSettings, seed: int, folder: Path) -> RunSettings:
    model = replace(settings.model, kernel=KernelSettings(),
                    lexical=replace(settings.model.lexical, buckets=0, name_match=False))
    return replace(settings, model=model, seed=seed, output_dir=str(folder), augmentation=None)


def test_features(batches: Batches, folder: Path) -> tuple[FeatureLoader, list[dict]]:
    """Features of the test split, and the tags of its products, those outside the vocabulary included."""
    evaluation = batches.settings.evaluation
    protocol = evaluation.first_protocol
    features = store_features(batches.model, [batches.evaluation(evaluation.split, protocol)], folder, 256, 0)
    return features, features.tags


@torch.no_grad()
def tail_scores(model, test: tuple[FeatureLoader, list[dict]], rare: int) -> dict[str, float]:
    """{"<attribute>/tail", "<attribute>/all"}: macro-F1 over the rare tags, and all tags, that the test split has."""
    features, tags = test
    model.eval()
    outputs = [model(features=batch["features"]) for batch in features.all_views()]
    scores = model.tag_scores(*(torch.cat([output[key] for output in outputs]) for key in
                                ("tag_logits", "none_logits")))
    chosen = model.predicted_tags(scores).numpy()
    found = {}
    for attribute, where in zip(model.config.attributes, attribute_slices(model.config.attributes), strict=True):
        known = np.array([row.get(attribute["name"]) is not None for row in tags])
        given = np.array([[tag in (row.get(attribute["name"]) or ()) for tag in attribute["tags"]] for row in tags])
        f1 = tag_ratios(count_tags(given[known].astype(int), chosen[known, where].astype(int)).tags)["f1"]
        present = given[known].any(0)
        tail = present & (np.array(attribute["counts"]) <= rare)
        found[f"{attribute['name']}/tail"] = float(f1[tail].mean()) if tail.any() else float("nan")
        found[f"{attribute['name']}/all"] = float(f1[present].mean())
    return found


def table(results: list[dict[str, dict[str, float]]]) -> str:
    """Mean ± std over seeds; differences to the first method, seed by seed, in points."""
    methods = list(results[0])
    lines = ["| macro-F1 | " + " | ".join([methods[0], *(f"{name} | difference" for name in methods[1:])]) + " |"]
    lines.append("|---" * (2 * len(methods)) + "|")
    for figure in results[0][methods[0]]:
        values = {name: np.array([run[name][figure] for run in results]) for name in methods}
        cells = []
        for name in methods:
            cells.append(f"{values[name].mean():.3f} ± {values[name].std():.3f}")
            if name != methods[0]:
                points = 100 * (values[name] - values[methods[0]])
                cells.append(f"{points.mean():+.1f} ± {points.std():.1f}")
        lines.append(f"| {figure} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
