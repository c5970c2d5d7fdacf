"""Which method makes up best for rare tags: a contest on frozen features, as a table and a plot.

    python recipes/lab/benchmark_rare_tags.py recipes/configs/fashion.yaml ../shared/data/fashion/long_tail.json
    python recipes/lab/benchmark_rare_tags.py CONFIG LONG_TAIL --seeds 3 --methods "balanced softmax"

LONG_TAIL names 30 tags of one attribute (head, medium, tail), few labelled training products and the test products; the
rest of the training split is unlabelled. The towers of the configuration see every product once, its text with the
words of its own tags taken out, and its photo; the features are kept in OUTPUT_DIR/features.npz. Every method then
trains the same small head on the same few vectors. Writes OUTPUT_DIR/rare_tags.{json,md,png}. Settings were chosen on
the validation split.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from conditional_gan import train_gan
from matplotlib.figure import Figure
from rare_tag_rivals import GaussianNoise, Resampling, SameTagMixup
from torch import Tensor, nn

from hf_tagger import cli
from hf_tagger.augmentation.gan import ConditionalGan
from hf_tagger.augmentation.methods import Problem, augment
from hf_tagger.augmentation.retrain import VectorSource
from hf_tagger.augmentation.settings import AugmentationSettings
from hf_tagger.augmentation.tag_sets import TagSetSampler
from hf_tagger.augmentation.vectors import TaggedVectors
from hf_tagger.catalog.batching.collate import UNKNOWN, Collator
from hf_tagger.catalog.batching.loader import CatalogLoader
from hf_tagger.catalog.reading.stream import Catalog
from hf_tagger.catalog.strict import ConfigError, build, did_you_mean
from hf_tagger.catalog.vocabulary import Vocabulary
from hf_tagger.evaluation.metrics import count_tags, tag_ratios
from hf_tagger.model.kernel_head import Blocks, feature_blocks
from hf_tagger.training.arguments import RunSettings, load_run
from hf_tagger.training.build import build_model
from hf_tagger.training.data import settled_for
from hf_tagger.training.features import store_features
from hf_tagger.training.rare_tags import balanced_losses, tag_embeddings
from hf_tagger.training.settings import KernelSettings, LossSettings
from measuring import conditions, readable

SPLITS, GROUPS = ("train", "validation", "test"), ("all", "head", "medium", "tail")
HIDDEN, DROPOUT = 256, 0.1
PLAIN = "plain cross-entropy"
METHODS = {
    PLAIN: {"logit_adjustment_tau": 0},
    "class-balanced resampling": {"logit_adjustment_tau": 0},
    "balanced softmax": {},
    "Gaussian feature noise": {"logit_adjustment_tau": 0},
    "same-class mixup": {"logit_adjustment_tau": 0},
    "residual transfer": {"method": "residual_transfer", "logit_adjustment_tau": 0},
    "pseudo-labels": {"method": "pseudo_labels", "logit_adjustment_tau": 0},
    "conditional GAN": {"logit_adjustment_tau": 0, "recombine": 0.3},
    "conditional GAN + balanced softmax": {"recombine": 0.3},
    "semi-supervised GAN": {"method": "semi_supervised_gan", "logit_adjustment_tau": 0},
    "semi-supervised GAN + balanced softmax": {"method": "semi_supervised_gan"},
    "residual transfer + balanced softmax": {"method": "residual_transfer", "power": -1},
    "pseudo-labels + balanced softmax": {"method": "pseudo_labels"},
}
METHODS = {name: {"method": "none", "power": 0.0} | changed for name, changed in METHODS.items()}
RIVALS = {"class-balanced resampling": Resampling, "Gaussian feature noise": GaussianNoise,
          "same-class mixup": SameTagMixup, "conditional GAN": ConditionalGan,
          "conditional GAN + balanced softmax": ConditionalGan}
# {method: per seed {"test", "validation": {group: macro-F1}}}
Results = dict[str, list[dict[str, dict[str, float]]]]


@cli.recipe
def main(arguments: list[str]) -> None:
    options, overrides = parse(arguments)
    settings, _ = load_run(options.config, overrides)
    for name in options.methods:
        if name not in METHODS:
            raise ConfigError(f"--methods: there is no method {name!r}.{did_you_mean(name, METHODS)}")
    long_tail, started = json.loads(options.long_tail.read_text(encoding="utf-8")), time.perf_counter()
    report = {"config": options.config, "attribute": options.attribute, "seeds": options.seeds, **conditions()}
    options.output_dir.mkdir(parents=True, exist_ok=True)
    contest = prepare(settings, options, long_tail)
    seconds = {"features": time.perf_counter() - started}
    results: Results = {name: [] for name in options.methods}
    for seed in range(options.seeds):
        for name in options.methods:
            augmentation = build(AugmentationSettings, {"epochs": options.epochs} | METHODS[name])
            results[name].append(contest.run(augmentation, seed, RIVALS.get(name)))
            cli.say(f"seed {seed}, {name}: tail {results[name][-1]['test']['tail']:.3f}")
    seconds["all"] = time.perf_counter() - started
    table = markdown(results, PLAIN)
    (options.output_dir / "rare_tags.json").write_text(
        json.dumps(report | {"seconds": seconds, "results": results}, indent=1) + "\n", encoding="utf-8")
    (options.output_dir / "rare_tags.md").write_text(table, encoding="utf-8")
    plot(options.output_dir / "rare_tags.png", results)
    print(table)


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


@dataclass
class Contest:
    """
    Args:
        train: vectors of the training split, labels known for the labelled ones only.
        scored: {"test", "validation"}: vectors [N, H] and labels int [N, T].
        attribute: the tags with their training counts, as in a model's config; groups: [T], "head", "medium" or "tail"
            of each.
        tag_embeddings: [T, E].
    """

    train: TaggedVectors
    scored: dict[str, tuple[Tensor, np.ndarray]]
    attribute: dict
    groups: np.ndarray
    tag_embeddings: Tensor
    teachers: dict[int, nn.Module] = field(default_factory=dict)
    gans: dict[int, ConditionalGan] = field(default_factory=dict)

    def run(self, settings: AugmentationSettings, seed: int,
            rival: type[Resampling] | type[ConditionalGan] | None = None) -> dict[str, dict[str, float]]:
        """Trains one head; macro-F1 by group on "test" and "validation"."""
        if (settings.method == "pseudo_labels" or rival is ConditionalGan) and seed not in self.teachers:
            plain = AugmentationSettings(method="none", epochs=settings.epochs)
            self.teachers[seed] = self._train(plain, seed, None, None).requires_grad_(False)
        source = None
        if rival is ConditionalGan:
            source = self._gan(settings, seed)
        elif rival is not None:
            source = rival(self.train, self._sampler(settings.power))
        head = self._train(settings, seed, self.teachers.get(seed), source)
        return {split: self._score(head, *products) for split, products in self.scored.items()}

    def _train(self, settings: AugmentationSettings, seed: int, teacher: nn.Module | None,
               source: VectorSource | None) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            # One hidden layer, as `concat` fusion and a linear tag head have.
            head = nn.Sequential(nn.Linear(self.train.width, HIDDEN), nn.GELU(), nn.LayerNorm(HIDDEN),
                                 nn.Dropout(DROPOUT), nn.Linear(HIDDEN, len(self.attribute["tags"]) + 1))
        losses = balanced_losses([self.attribute], LossSettings(logit_adjustment_tau=settings.logit_adjustment_tau))
        problem = Problem(self.train, [self.attribute], self.tag_embeddings, teacher, losses)
        augment(problem, head, settings, seed, source=source)
        return head

    def _sampler(self, power: float, recombine: float = 0.0) -> TagSetSampler:
        columns = list(range(len(self.attribute["tags"])))
        return TagSetSampler(self.train, columns, [slice(0, len(columns))], power, recombine)

    def _gan(self, settings: AugmentationSettings, seed: int) -> ConditionalGan:
        """One for each seed, with the loss of the teacher for tags that are equally frequent."""
        if seed not in self.gans:
            tags = len(self.attribute["tags"])
            loss = balanced_losses([self.attribute], LossSettings())(torch.ones(tags), torch.ones(1))
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self.gans[seed] = train_gan(
                    self.train, self._sampler(settings.power, settings.recombine), self.tag_embeddings, settings.gan,
                    lambda vectors, labels: loss(self.teachers[seed](vectors), labels),
                    torch.Generator().manual_seed(seed))
        return self.gans[seed]

    @torch.no_grad()
    def _score(self, head: nn.Module, vectors: Tensor, labels: np.ndarray) -> dict[str, float]:
        best = head(vectors)[:, :-1].argmax(1).numpy()
        f1 = tag_ratios(count_tags(labels, np.eye(labels.shape[1], dtype=int)[best]).tags)["f1"]
        return {group: float(f1[(self.groups == group) | (group == "all")].mean()) for group in GROUPS}


def prepare(settings: RunSettings, options: argparse.Namespace, long_tail: dict) -> Contest:
    path, tags = options.output_dir / "features.npz", list(long_tail["classes"])
    if not path.exists():
        np.savez(path, **extract(settings, options, tags))
    stored = np.load(path)
    ids, labels, vectors = ({split: stored[f"{split}_{what}"] for split in SPLITS}
                            for what in ("ids", "labels", "vectors"))
    known = np.isin(ids["train"], long_tail["train"]) & (labels["train"] == 1).any(1)
    train = TaggedVectors(vectors["train"], np.where(known[:, None], labels["train"], UNKNOWN).astype(np.int8))
    rows = {"test": np.isin(ids["test"], long_tail["test"]), "validation": (labels["validation"] == 1).any(1)}
    attribute = {"name": options.attribute, "kind": "single", "tags": tags, "counts": train.counts().tolist(),
                 "none_count": 0}
    scored = {split: (torch.from_numpy(vectors[split][where]), labels[split][where]) for split, where in rows.items()}
    groups = np.array([entry["group"] for entry in long_tail["classes"].values()])
    return Contest(train, scored, attribute, groups, torch.from_numpy(stored["tag_embeddings"]))


def extract(settings: RunSettings, options: argparse.Namespace, tags: list[str]) -> dict[str, np.ndarray]:
    schema = replace(settings.catalog.schema, text=options.text)
    catalog = Catalog(settings.catalog.source, schema)
    vocabulary = Vocabulary.scan(catalog.records("train"), schema, catalog.names)
    if options.attribute not in [entry["name"] for entry in vocabulary.attributes]:
        raise ConfigError(f"--attribute: the catalogue has no {options.attribute!r}."
                          f"{did_you_mean(options.attribute, schema.attributes)}")
    settings = settled_for(settings, catalog, vocabulary)
    model_settings = replace(settings.model, kernel=KernelSettings(landmarks=0),
                             lexical=replace(settings.model.lexical, buckets=0, name_match=False))
    attribute = {"name": options.attribute, "kind": "single", "tags": tags}
    texts = (record["text"] for record in readable(catalog, "train") if record["text"])
    model, processor = build_model(model_settings, [attribute], texts, settings.seed)
    reader = replace(settings.training.loader, batch_size=settings.evaluation.batch_size)
    found, stored = {}, {}
    with TemporaryDirectory() as folder:
        for split in SPLITS:
            cli.say(f"the towers look at {split}")
            loader = CatalogLoader(catalog, split, Collator(processor, [attribute]), reader)
            features = store_features(model, [loader.epoch()], Path(folder) / split, 256, settings.seed)
            found[split] = {name: torch.from_numpy(np.array(getattr(features, name)[0])) for name in ("text", "image")}
            labels = features.tag_labels[:].astype(np.int8)
            stored |= {f"{split}_ids": np.array(features.ids), f"{split}_labels": labels}
    blocks = feature_blocks(model.encoder.feature_widths, model.encoder.stage_widths)
    vectors = compress(blocks, KernelSettings().weights, found, options.width)
    stored |= {f"{split}_vectors": part.numpy() for split, part in vectors.items()}
    return stored | {"tag_embeddings": tag_embeddings(model, processor).numpy()}


def compress(blocks: Blocks, weights: dict[str, float], features: dict[str, dict[str, Tensor]],
             width: int) -> dict[str, Tensor]:
    """{split: vectors [N, width]} from {split: {"text", "image": tower features [N, F]}}: blocks of features (see
    `feature_blocks`) are standardised and brought to unit length times their weight, and the first principal axes of
    them all to a common scale of 1, as fitted on "train"."""
    parts: dict[str, list[Tensor]] = {split: [] for split in features}
    for name, weight in weights.items():
        if name in blocks:
            modality, columns = blocks[name]
            block = {split: found[modality][:, columns].float() for split, found in features.items()}
            mean, std = block["train"].mean(0), block["train"].std(0).clamp(min=1e-4)
            for split, part in block.items():
                parts[split].append(weight * nn.functional.normalize(((part - mean) / std).clamp(-4, 4), dim=1))
    joined = {split: torch.cat(part, dim=1) for split, part in parts.items()}
    mean = joined["train"].mean(0)
    centred = joined["train"] - mean
    axes = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -width:]
    scale = (centred @ axes).std()
    return {split: (part - mean) @ axes / scale for split, part in joined.items()}


def figures(results: Results, method: str, group: str, split: str = "test") -> np.ndarray:
    """Macro-F1 per seed."""
    return np.array([run[split][group] for run in results[method]])


def markdown(results: Results, reference: str) -> str:
    """A table: macro-F1 of each group of tags on test, tail on validation, and differences to the `reference` method,
    seed by seed, in points."""
    head = [*(f"{group} test" for group in GROUPS), "tail, difference", "head, difference", "tail validation"]
    lines = ["| method | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    for method in results:
        cells = [mean_and_std(figures(results, method, group)) for group in GROUPS]
        for group in ("tail", "head"):
            compared = reference in results and method != reference
            cells.append(mean_and_std(100 * (figures(results, method, group) - figures(results, reference, group)),
                                      "+.1f") if compared else "")
        cells.append(mean_and_std(figures(results, method, "tail", "validation")))
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def mean_and_std(values: np.ndarray, shape: str = ".3f") -> str:
    return f"{values.mean():{shape}} ± {std(values):{shape.removeprefix('+')}}"


def std(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def plot(path: Path, results: Results) -> None:
    """Bars of tail and head macro-F1 on test, with standard deviations, as PNG."""
    methods = sorted(results, key=lambda method: figures(results, method, "tail").mean())
    figure = Figure(figsize=(9, 1.5 + 0.4 * len(methods)), layout="constrained")
    axes = figure.add_subplot()
    for offset, group, colour in ((0.2, "tail", "C1"), (-0.2, "head", "C0")):
        values = [figures(results, method, group) for method in methods]
        axes.barh(np.arange(len(methods)) + offset, [value.mean() for value in values], height=0.38, color=colour,
                  xerr=[std(value) for value in values], label=f"{group} tags")
    lowest = min(figures(results, method, group).min() for method in methods for group in ("tail", "head"))
    axes.set(yticks=np.arange(len(methods)), yticklabels=methods, xlabel="macro-F1 on test, mean ± std over seeds",
             xlim=(max(0.0, lowest - 0.05), None))
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=2)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
