"""Which method makes up best for rare tags: a contest on frozen features, as a table and a plot.

    python recipes/lab/benchmark_rare_tags.py recipes/configs/fashion.yaml ../shared/data/fashion/long_tail.json
    python recipes/lab/benchmark_rare_tags.py CONFIG LONG_TAIL --seeds 3 --methods "balanced softmax"

LONG_TAIL names 30 tags of one attribute (head, medium, tail), few labelled training products and the test products; the
rest of the training split is unlabelled. The towers of the configuration see every product once, its text with the
words of its own tags taken out, and its photo; the features are kept in features.npz. Every method then trains
the same small head. `output_dir` gets rare_tags.json, .md and .png. Settings were chosen on the validation split.
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from hf_tagger import cli
from hf_tagger.augmentation.contest import Compressor, Contest, LongTail, hide_labels
from hf_tagger.augmentation.contest_report import markdown, plot
from hf_tagger.augmentation.settings import AugmentationSettings
from hf_tagger.augmentation.vectors import TaggedVectors
from hf_tagger.catalog.collate import Collator
from hf_tagger.catalog.loader import CatalogLoader
from hf_tagger.catalog.quarantine import Refusal
from hf_tagger.catalog.stream import Catalog
from hf_tagger.catalog.strict import ConfigError, build, did_you_mean
from hf_tagger.catalog.vocabulary import Vocabulary
from hf_tagger.evaluation.machine import describe_machine
from hf_tagger.model.kernel_head import feature_blocks
from hf_tagger.training.arguments import RunSettings, load_run
from hf_tagger.training.build import build_model
from hf_tagger.training.features import store_features
from hf_tagger.training.rare_tags import balanced_losses, tag_embeddings
from hf_tagger.training.settings import KernelSettings, LossSettings

SPLITS = ("train", "validation", "test")
PLAIN = "plain cross-entropy"
METHODS = {
    PLAIN: {"logit_adjustment_tau": 0},
    "class-balanced resampling": {"method": "resampling", "logit_adjustment_tau": 0},
    "balanced softmax": {},
    "Gaussian feature noise": {"method": "noise", "logit_adjustment_tau": 0},
    "same-class mixup": {"method": "mixup", "logit_adjustment_tau": 0},
    "residual transfer": {"method": "residual_transfer", "logit_adjustment_tau": 0},
    "pseudo-labels": {"method": "pseudo_labels", "logit_adjustment_tau": 0},
    "conditional GAN": {"method": "gan", "logit_adjustment_tau": 0},
    "conditional GAN + balanced softmax": {"method": "gan"},
    "semi-supervised GAN": {"method": "semi_supervised_gan", "logit_adjustment_tau": 0},
    "semi-supervised GAN + balanced softmax": {"method": "semi_supervised_gan"},
    "residual transfer + balanced softmax": {"method": "residual_transfer", "power": -1},
    "pseudo-labels + balanced softmax": {"method": "pseudo_labels"},
}
METHODS = {name: {"method": "none", "power": 0.0} | changed for name, changed in METHODS.items()}


@cli.recipe
def main(arguments: list[str]) -> None:
    options, overrides = parse(arguments)
    settings, _ = load_run(options.config, overrides)
    for name in options.methods:
        if name not in METHODS:
            raise ConfigError(f"--methods: there is no method {name!r}.{did_you_mean(name, METHODS)}")
    long_tail, started = LongTail.load(options.long_tail), time.perf_counter()
    options.output_dir.mkdir(parents=True, exist_ok=True)
    contest = prepare(settings, options, long_tail)
    extracted = time.perf_counter() - started
    results = hold(contest, options)
    report = {"config": options.config, "attribute": options.attribute, "seeds": options.seeds,
              "machine": describe_machine(), "seconds": {"features": extracted,
                                                         "all": time.perf_counter() - started}, "results": results}
    (options.output_dir / "rare_tags.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    table = markdown(results, PLAIN)
    (options.output_dir / "rare_tags.md").write_text(table, encoding="utf-8")
    print(table)
    plot(options.output_dir / "rare_tags.png", results)


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = cli.parser(__doc__, "config")
    parser.add_argument("long_tail", type=Path, help="the protocol, a JSON file: classes, train, test")
    parser.add_argument("--attribute", default="article_type")
    parser.add_argument("--text", nargs="+", default=["title_masked"], help="text columns that do not tell the tags")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/rare_tags"))
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--width", type=int, default=256, help="of the compressed features")
    parser.add_argument("--epochs", type=int, default=60, help="over the labelled products, of every head")
    return parser.parse_known_args(arguments)


def prepare(settings: RunSettings, options: argparse.Namespace, long_tail: LongTail) -> Contest:
    path = options.output_dir / "features.npz"
    if not path.exists():
        np.savez(path, **extract(settings, options, list(long_tail.classes)))
    stored = np.load(path)
    ids, labels = ({split: stored[f"{split}_{what}"] for split in SPLITS} for what in ("ids", "labels"))
    vectors = {split: stored[f"{split}_vectors"] for split in SPLITS}
    known = np.isin(ids["train"], list(long_tail.train)) & (labels["train"] == 1).any(1)
    train = TaggedVectors(vectors["train"], hide_labels(labels["train"], known))
    rows = {"test": np.isin(ids["test"], list(long_tail.test)), "validation": (labels["validation"] == 1).any(1)}
    attribute = {"name": options.attribute, "kind": "single", "tags": list(long_tail.classes),
                 "counts": train.counts().tolist(), "none_count": 0}

    def losses(tau):
        return balanced_losses([attribute], LossSettings(logit_adjustment_tau=tau))

    scored = {split: (torch.from_numpy(vectors[split][where]), labels[split][where]) for split, where in rows.items()}
    return Contest(long_tail, train, scored, attribute, torch.from_numpy(stored["tag_embeddings"]), losses)


def hold(contest: Contest, options: argparse.Namespace) -> dict[str, list[dict]]:
    results = {name: [] for name in options.methods}
    for seed in range(options.seeds):
        for name in options.methods:
            settings = build(AugmentationSettings, {"epochs": options.epochs} | METHODS[name])
            results[name].append(contest.run(settings, seed))
            tail = results[name][-1]["test"]["tail"]
            cli.say(f"seed {seed}, {name}: tail {tail:.3f}")
    return results


def extract(settings: RunSettings, options: argparse.Namespace, tags: list[str]) -> dict[str, np.ndarray]:
    schema = replace(settings.catalog.schema, text=options.text)
    catalog = Catalog(settings.catalog.source, schema)
    vocabulary = Vocabulary.scan(catalog.records("train"), schema)
    attribute = next((entry for entry in vocabulary.attributes if entry["name"] == options.attribute), None)
    if attribute is None:
        raise ConfigError(f"--attribute: the catalogue has no {options.attribute!r}."
                          f"{did_you_mean(options.attribute, schema.attributes)}")
    model_settings = replace(settings.model, kernel=KernelSettings(),
                             lexical=replace(settings.model.lexical, buckets=0, name_match=False))
    attribute = {"name": options.attribute, "kind": "single", "tags": tags}
    records = (record for record in catalog.records("train") if not isinstance(record, Refusal))
    texts = (record["text"] for record in records if record["text"])
    model, processor = build_model(model_settings, [attribute], texts, settings.seed)
    reader = replace(settings.training.loader, batch_size=settings.evaluation.batch_size)
    found, stored = {}, {}
    with TemporaryDirectory() as folder:
        for split in SPLITS:
            cli.say(f"the towers look at {split}")
            loader = CatalogLoader(catalog, split, Collator(processor, [attribute]), reader)
            features = store_features(model, [loader.epoch()], Path(folder) / split, 256, settings.seed)
            found[split] = torch.from_numpy(np.array(features.text[0])), torch.from_numpy(np.array(features.image[0]))
            stored |= {f"{split}_ids": np.array(features.ids), f"{split}_labels": features.tag_labels.astype(np.int8)}
        blocks = feature_blocks(model.encoder.feature_widths, model.encoder.stage_widths)
        compress = Compressor(blocks, KernelSettings().kernels[0], *found["train"], options.width)
        stored |= {f"{split}_vectors": compress(*found[split]).numpy() for split in SPLITS}
    return stored | {"tag_embeddings": tag_embeddings(model, processor).numpy()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
