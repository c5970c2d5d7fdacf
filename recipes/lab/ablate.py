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
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import set_seed

from hf_tagger import cli
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.evaluation.calibration import fit_calibration
from hf_tagger.evaluation.machine import describe_machine
from hf_tagger.evaluation.predict import Predictions
from hf_tagger.evaluation.settings import CalibrationSettings
from hf_tagger.model.heads import LexicalHead, LogitFusion
from hf_tagger.model.lexical_features import LexicalFeatures
from hf_tagger.training.arguments import RunSettings, load_run
from hf_tagger.training.augment import image_augmenter, text_augmenter
from hf_tagger.training.batches import Batches
from hf_tagger.training.context import RunContext, start_run
from hf_tagger.training.data import TrainingData, read_catalog
from hf_tagger.training.features import FeatureLoader, store_features
from hf_tagger.training.folds import stratified_folds
from hf_tagger.training.frozen_heads import parts_of
from hf_tagger.training.lexical import SparseRows, fit_table
from hf_tagger.training.logit_fusion import fit_logit_fusion
from hf_tagger.training.loop import kept_tensors, load_kept
from hf_tagger.training.refit import RefittedHeads
from hf_tagger.training.settings import LexicalSettings
from hf_tagger.training.starting_model import fit_feature_scales, new_model, prepare_model

SPLITS = ("train", "validation", "test")
PARTS = ("out of fold", "validation", "test")
FOLDS, AXES = 3, 512
SOURCES = ("tag_head", "lexical_head", "kernel_head")
ALL, RIVAL = "all together", "rival: one logistic regression on all features"
# Which views of the training products the tag head learns from: view 2 is augmented, but has the words of its tags.
VIEWS = {"label masking": (0, 2)}
Change = Callable[[RunSettings], RunSettings]


def _model(**changes) -> Change:
    return lambda settings: replace(settings, model=replace(settings.model, **{
        name: value(settings.model) if callable(value) else value for name, value in changes.items()}))


# What is taken away -> the source that is fitted without it, and its settings.
MECHANISMS: dict[str, tuple[str, Change]] = {
    "name match": ("lexical_head", _model(lexical=lambda model: replace(model.lexical, name_match=False))),
    "words and letters": ("lexical_head", _model(lexical=lambda model: replace(model.lexical, buckets=0))),
    "a mixture of kernels per attribute": ("kernel_head", _model(kernel=lambda model: replace(
        model.kernel, kernels=model.kernel.kernels[:1]))),
    "masked landmarks": ("kernel_head", _model()),
    "label masking": ("tag_head", _model()),
    "names in the tag head": ("tag_head", _model(tag_head="linear")),
    "logit adjustment": ("tag_head", lambda settings: replace(settings, training=replace(
        settings.training, loss=replace(settings.training.loss, logit_adjustment_tau=0.0)))),
}
# What a source needs to speak alone: the others are switched off.
ALONE: dict[str, Change] = {
    "tag_head": _model(lexical=LexicalSettings(buckets=0, name_match=False),
                       kernel=lambda model: replace(model.kernel, landmarks=0)),
    "lexical_head": _model(kernel=lambda model: replace(model.kernel, landmarks=0)),
    "kernel_head": _model(lexical=LexicalSettings(buckets=0, name_match=False)),
}
# {part of the catalogue: {way of looking: (logits [n, C], fusion features [n, A, F])}}
Said = dict[str, dict[str, tuple[torch.Tensor, torch.Tensor]]]


@dataclass
class Bench:
    """A catalogue as its frozen towers see it.

    Args:
        plain: features of all splits, the training products in three views; masked: without the words of their tags.
        rows: {split: numbers of its products}; scales: of the towers' features.
    """

    run: RunContext
    data: TrainingData
    plain: FeatureLoader
    masked: FeatureLoader
    rows: dict[str, np.ndarray]
    scales: dict[str, torch.Tensor]

    @property
    def ways(self) -> dict[str, tuple[FeatureLoader | None, bool]]:
        """How products are seen: text read from where, and whether with the photo."""
        text, image = bool(self.plain.text), bool(self.plain.image)
        ways = {"whole": (self.plain, image), "masked": (self.masked, image)} if text else {}
        return ways | ({"no text": (None, True), "no photo": (self.plain, False)} if text and image else {})

    def heads(self, settings: RunSettings, views: tuple[int, ...] = (0, 1), masked: bool = True) -> RefittedHeads:
        """A new model of these settings, whose heads can be fitted on the stored features."""
        run = replace(self.run, settings=settings)
        data = replace(self.data, run=run)
        model, processor = new_model(run, data)
        prepare_model(run, data, model, processor)
        model.load_state_dict(self.scales, strict=False)
        plain = replace(self.plain, **{name: [getattr(self.plain, name)[view] for view in views]
                                       for name in ("text", "image", "present") if getattr(self.plain, name)})
        other = self.masked if masked else replace(self.masked, present=[np.zeros_like(self.masked.present[0])])
        return RefittedHeads(run, Batches(data, model, processor), plain, other)


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
                    found.setdefault(name, {})[str(seed)] = ablate(bench, seed)
                    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
                    (folder / "ablation.md").write_text(report(found), encoding="utf-8")
    print(report(found))


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = cli.parser(__doc__)
    parser.add_argument("configs", nargs="+", help="YAML files of `hf_tagger finetune`")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--output_dir", default="runs/ablation")
    return parser.parse_known_args(arguments)


def look(config: str, overrides: list[str], folder: Path) -> Bench:
    """Runs the towers over a catalogue, once."""
    settings, data = load_run(config, overrides)
    phase = next((phase for phase in settings.phases if phase.cached_views), None)
    if phase is None or settings.lora is not None:
        raise ConfigError(f"{config}: ablations need frozen towers: lora: null, and a phase with cached_views")
    settings = replace(settings, phases=[replace(phase, train=["heads"], evaluate_every=0)],
                       model=replace(settings.model, decoder=None))
    run = start_run(settings, data)
    catalogue = read_catalog(run)
    model, processor = new_model(run, catalogue)
    prepare_model(run, catalogue, model, processor)
    batches = Batches(catalogue, model, processor)
    training = settings.training
    unmasked = replace(training.text_augmentation, label_masking=0.0)
    collators = [batches.collator(), batches.augmenting_collator(),
                 batches.collator(text_augmenter(unmasked), image_augmenter(training.image_augmentation))]
    fit_feature_scales(run, batches)
    split_of: list[str] = []

    def view(number: int):
        batches.collate_view = lambda _: collators[number]
        for split in SPLITS:
            # Validation and test are looked at as they are; their other views are never drawn.
            for batch in batches.view(number, split):
                split_of.extend([split] * (len(batch["ids"]) if number == 0 else 0))
                yield batch

    def masked():
        for split in SPLITS:
            yield from batches.masked(split)

    with run.accelerator.autocast():
        plain = store_features(model, (view(number) for number in range(3)), folder / "plain", 1, settings.seed)
        # Where a text has nothing left, there is only the photo to look at, which is passed over here.
        without = store_features(model, [masked()], folder / "masked", 1, settings.seed, towers=("text",))
    rows = {split: np.flatnonzero(np.array(split_of) == split) for split in SPLITS}
    scales = {name: tensor for name, tensor in model.state_dict().items() if "_projection.0." in name}
    return Bench(run, catalogue, plain, without, rows, scales)


def ablate(bench: Bench, seed: int) -> dict[str, dict[str, dict[str, float]]]:
    """{what is taken away: {part: {way: mean macro-F1}}}."""
    settings, say, started = replace(bench.run.settings, seed=seed), bench.run.log.say, time.monotonic()
    said = {}
    for source in SOURCES:
        said[source] = speak(bench, bench.heads(ALONE[source](settings)), source, seed)
        say(f"seed {seed}, {source}: {time.monotonic() - started:.0f} s")
    found = {ALL: score(bench, said, settings)}
    for name in SOURCES:
        found[name] = score(bench, {source: said[source] for source in SOURCES if source != name}, settings)
    found["states of the text"] = score(bench, said, settings, states=False)
    found["products out of fold"] = score(bench, said, settings, out_of_fold=False)
    for name, (source, change) in MECHANISMS.items():
        heads = bench.heads(ALONE[source](change(settings)), VIEWS.get(name, (0, 1)), name != "masked landmarks")
        found[name] = score(bench, said | {source: speak(bench, heads, source, seed)}, settings)
        say(f"seed {seed}, without {name}: {time.monotonic() - started:.0f} s")
    found[RIVAL] = score(bench, {"rival": rival(bench, settings)}, settings)
    say(f"seed {seed}, rival: {time.monotonic() - started:.0f} s")
    return found


def speak(bench: Bench, heads: RefittedHeads, source: str, seed: int) -> Said:
    """What one source says of the training products, fitted without them, and of validation and test."""
    model, start = heads.model, {name: tensor.clone() for name, tensor in kept_tensors(heads.model, set()).items()}
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


def in_turns(bench: Bench, seed: int, fit: Callable, listen: Callable) -> Said:
    """Fits on all folds but one, and listens to what is said of that one; then on all training products."""
    train = bench.rows["train"]
    texts = [bench.plain.texts[row] or bench.plain.ids[row] for row in train]
    tags = (np.flatnonzero(bench.plain.tag_labels[row] == 1) for row in train)
    fold = stratified_folds(texts, tags, FOLDS, seed)
    turns, order = [], []
    for number in range(FOLDS):
        fit(train[fold != number])
        turns.append(listen(train[fold == number]))
        order.append(np.flatnonzero(fold == number))
    back = torch.from_numpy(np.concatenate(order).argsort())
    joined = {way: tuple(torch.cat([turn[way][kind] for turn in turns])[back] for kind in (0, 1)) for way in turns[0]}
    fit(train)
    return {"out of fold": joined, **{split: listen(bench.rows[split]) for split in SPLITS[1:]}}


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
        fit_logit_fusion(fusion, attributes, candidate, [
            (*heard(part, way), torch.from_numpy(bench.plain.tag_labels[rows_of[part]]))
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


def rival(bench: Bench, settings: RunSettings) -> Said:
    """One logistic regression per attribute on all features side by side, as further columns of a lexical head."""
    heads = bench.heads(_model(lexical=LexicalSettings(word_ngrams=2, name_match=False))(
        ALONE["lexical_head"](settings)))
    config, attributes = heads.model.config, heads.model.config.attributes
    words = LexicalFeatures(**config.lexical_features)
    head, dense = LexicalHead(config), _Dense(bench)
    wide = torch.nn.EmbeddingBag(config.lexical_buckets + dense.width, len(heads.model.candidate_attribute), mode="sum")
    head.table, head.idf = wide, torch.ones(config.lexical_buckets + dense.width)
    known = {}

    def rows_in(way: str, rows: np.ndarray) -> SparseRows:
        text, image = bench.ways[way]
        found = SparseRows.of_texts(words, (((text.texts[row] or "") if text else "", bench.plain.tag_labels[row])
                                            for row in rows))
        if "idf" in known:
            found.value *= torch.from_numpy(known["idf"] / found.idf)[found.bucket]
        return replace(found, dense=dense(text, image, rows))

    def fit(rows: np.ndarray) -> None:
        head.reset()
        known.pop("idf", None)
        dense.fit(rows)
        views = [rows_in(way, rows) for way in bench.ways]
        known["idf"] = views[0].idf
        ends = np.cumsum([0, *(len(view.labels) for view in views)])
        joined = {name: torch.cat([getattr(view, name) for view in views])
                  for name in ("bucket", "value", "match_id", "match_value", "labels", "dense")}
        joined |= {name: torch.cat([getattr(view, name) + end for view, end in zip(views, ends, strict=False)])
                   for name in ("row", "match_row")}
        fit_table(head, attributes, SparseRows(**joined, idf=views[0].idf), LexicalSettings(iterations=100))

    @torch.no_grad()
    def listen(rows: np.ndarray) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        found = {}
        for way in bench.ways:
            view = rows_in(way, rows)
            found_words = torch.sparse_coo_tensor(torch.stack([view.row, view.bucket]), view.value,
                                                  (len(rows), config.lexical_buckets))
            of_words, of_dense = head.table.weight.split([config.lexical_buckets, dense.width])
            logits = found_words @ of_words + view.dense @ of_dense + head.bias.weight[:, 0]
            found[way] = logits, torch.zeros(len(rows), len(attributes), LogitFusion.FEATURES).index_fill_(
                2, torch.tensor([0]), 1.0)
        return found

    return in_turns(bench, settings.seed, fit, listen)


class _Dense:
    """Frozen text features and principal axes of photo features, each of unit mean length."""

    def __init__(self, bench: Bench):
        self.bench = bench
        self.text_width = bench.plain.text[0].shape[1] if bench.plain.text else 0
        self.image_width = min(AXES, bench.plain.image[0].shape[1]) if bench.plain.image else 0
        self.width = self.text_width + self.image_width

    def fit(self, rows: np.ndarray) -> None:
        plain = self.bench.plain
        if self.text_width:
            self.text = _scale(torch.from_numpy(plain.text[0][rows].astype(np.float32)))
        if self.image_width:
            features = torch.from_numpy(plain.image[0][rows].astype(np.float32))
            self.image = _scale(features)
            centred = _scaled(features, self.image)
            self.axes = torch.linalg.eigh(centred.T @ centred)[1][:, -self.image_width:]
            self.length = (centred @ self.axes).norm(dim=1).mean()

    def __call__(self, text: FeatureLoader | None, image: bool, rows: np.ndarray) -> torch.Tensor:
        """[n, width]; zeros for what is not there."""
        parts = []
        if self.text_width:
            found = torch.zeros(len(rows), self.text_width)
            if text is not None:
                features = _scaled(torch.from_numpy(text.text[0][rows].astype(np.float32)), self.text)
                found = features / self.text_width**0.5 * torch.from_numpy(text.present[0][rows, :1])
            parts.append(found)
        if self.image_width:
            found = torch.zeros(len(rows), self.image_width)
            if image:
                features = torch.from_numpy(self.bench.plain.image[0][rows].astype(np.float32))
                found = _scaled(features, self.image) @ self.axes / self.length
                found = found * torch.from_numpy(self.bench.plain.present[0][rows, 1:])
            parts.append(found)
        return torch.cat(parts, dim=1)


def _scale(features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return features.mean(0), features.std(0).clamp(min=1e-4)


def _scaled(features: torch.Tensor, scale: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return ((features - scale[0]) / scale[1]).clamp(-6, 6)


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
