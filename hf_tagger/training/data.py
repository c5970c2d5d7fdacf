"""The catalogue that a run learns from: opened, counted in one pass, and read."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hf_tagger.augmentation.checks import check_augmentation
from hf_tagger.catalog.batching.collate import Collator
from hf_tagger.catalog.batching.loader import CatalogLoader
from hf_tagger.catalog.photos import missing_photos
from hf_tagger.catalog.quarantine import Quarantine, Refusal
from hf_tagger.catalog.reading.stream import Catalog
from hf_tagger.catalog.schema import Record
from hf_tagger.catalog.settings import CatalogSettings, LoaderSettings, made_up, open_catalog
from hf_tagger.catalog.strict import ConfigError, did_you_mean
from hf_tagger.catalog.vocabulary import Vocabulary
from hf_tagger.evaluation.predict import Predictions
from hf_tagger.evaluation.progress import progress_bar
from hf_tagger.evaluation.protocols import seen_through
from hf_tagger.evaluation.settings import Protocol
from hf_tagger.model.configuration_tagger import TaggerConfig
from hf_tagger.model.saving import FormatError
from hf_tagger.model.urls import without_credentials
from hf_tagger.training.arguments import RunSettings
from hf_tagger.training.context import RunContext
from hf_tagger.training.defaults import choose, settle, settled


@dataclass
class TrainingData:
    """A run's catalogue, the tags of its training split, and the rows set aside."""

    run: RunContext
    settings: CatalogSettings  # of a made-up catalogue: how what was written is read
    catalog: Catalog
    vocabulary: Vocabulary
    quarantine: Quarantine

    @property
    def rows(self) -> int:
        """Products of the training split."""
        return self.vocabulary.rows["total"] - self.vocabulary.rows["refused"]

    def records(self, split: str) -> Iterator[Record]:
        """The products of a split, without refused rows."""
        for item in self.catalog.records(split, drop_duplicates=self.settings.drop_duplicates):
            if not isinstance(item, Refusal):
                yield item

    def loader(self, split: str, collator: Collator, settings: LoaderSettings, protocol: Protocol | None = None,
               whole: bool = False, **options) -> CatalogLoader:
        """Batches of this process's share of a split as the protocol sees it, or of all of it (`whole`); options as of
        `CatalogLoader`."""
        accelerator = self.run.accelerator
        share = {} if whole else {"rank": accelerator.process_index, "world_size": accelerator.num_processes}
        return CatalogLoader(seen_through(self.catalog, protocol), split, collator, settings,
                             seed=self.run.settings.seed, drop_duplicates=self.settings.drop_duplicates, **share,
                             **options)

    def repeat_factors(self) -> dict[str, dict[str, float]]:
        """Repeat-factor sampling (arXiv 1908.03195): sqrt(threshold / frequency) for tags rarer than the threshold."""
        threshold = self.run.settings.training.repeat_threshold
        return {
            entry["name"]: {tag: factor for tag, count in zip(entry["tags"], entry["counts"], strict=True)
                            if (factor := (threshold * max(1, self.rows) / max(count, 1)) ** 0.5) > 1}
            for entry in self.vocabulary.attributes if threshold
        }


def read_catalog(run: RunContext, part: Callable[[Catalog], Catalog] | None = None,
                 adopt: Callable[[list[dict]], list[dict]] | None = None) -> TrainingData:
    """Opens the catalogue and counts its tags, or reads what an interrupted run counted.

    Args:
        part: the catalogue -> the one to learn from: with corrections, without a fold.
        adopt: the catalogue's attributes -> those of the model, where these come from elsewhere.

    Raises ConfigError for what evaluation would only find out after the training, and where a resumed run would go on
    with another configuration or catalogue than it began with.
    """
    accelerator, main = run.accelerator, run.accelerator.is_main_process
    path = run.checkpoints / "vocabulary.json"
    counted = run.resume and path.exists()
    if main:
        _check_settings(run)
    accelerator.wait_for_everyone()
    settings, folder = run.settings.catalog, run.folder / "catalog"
    if settings.synthetic is not None and main and not counted:
        with run.log.step("made-up catalogue") as step:
            made_up(settings, folder)
            step.result = f"in {folder}"
    accelerator.wait_for_everyone()
    with run.log.step("catalogue") as step:
        settings = made_up(settings, folder, write=False)
        catalog = open_catalog(settings, folder)
        if part is not None:
            catalog = part(catalog)
        if run.settings.start_from:
            catalog.names.learn(_attributes_of(run.settings.start_from))
        name = "quarantine.jsonl" if main else f"quarantine.rank{accelerator.process_index}.jsonl"
        quarantine = Quarantine(run.folder / name, settings.max_bad_fraction, resume=counted)
        corrections = None
        if main and (run.resumable or not counted):
            vocabulary = _count(run, catalog, quarantine)
            if catalog.labels is not None:
                corrections = catalog.labels.check(vocabulary, catalog.schema, catalog.names)
            if counted and (changes := vocabulary.changes(Vocabulary.load(path))):
                raise ConfigError(f"--resume: the catalogue is no longer the one that this run began with: {changes}. "
                                  "Put it back, or start anew without --resume")
            vocabulary.save(path)
        accelerator.wait_for_everyone()
        data = TrainingData(run, settings, catalog, Vocabulary.load(path), quarantine)
        catalog.names.learn(data.vocabulary.attributes)
        if not main or (counted and not run.resumable):
            rows = data.vocabulary.rows
            quarantine.saw(rows["total"], rows["text_and_image"] + rows["image_only"] + quarantine.photos_lost)
        refused = quarantine.summary() if quarantine.counts else None
        step.result = "\n".join(filter(None, [data.vocabulary.summary(), corrections, refused]))
    if adopt is not None:
        data.vocabulary.attributes = adopt(data.vocabulary.attributes)
        catalog.names.learn(data.vocabulary.attributes)
    settle(run, data)
    _check_evaluation(run.settings, data)
    return data


def settled_for(settings: RunSettings, catalog: Catalog, vocabulary: Vocabulary) -> RunSettings:
    """The settings with what they leave open chosen for a catalogue, outside a run."""
    data = TrainingData(None, settings.catalog, catalog, vocabulary, Quarantine(None))
    return settled(settings, choose(settings, data))


# What may differ between a run and its continuation. Of phases also `epochs`: a run may go on for longer.
_FREE_KEYS = ("output_dir", "save_adapter", "training.threads", "training.log_with", "training.log_every",
              "training.checkpoint_steps", "training.keep_freed_memory", "training.loader.num_workers")


def _check_settings(run: RunContext) -> None:
    path = run.checkpoints / "settings.json"
    settings = json.loads(without_credentials(json.dumps(asdict(run.settings), default=str)))
    if not (run.resumable and path.exists()):
        waiting = path.with_suffix(".incomplete")
        waiting.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
        waiting.replace(path)
        return
    before, now = (_flat(data) for data in (json.loads(path.read_text(encoding="utf-8")), settings))
    changed = [f"{key} was {before.get(key)!r} and is {now.get(key)!r}" for key in before | now
               if before.get(key) != now.get(key) and key not in _FREE_KEYS and not key.endswith(".epochs")]
    if changed:
        raise ConfigError(f"--resume: {'; '.join(changed[:5])}. Set it back, or start anew without --resume")


def _flat(data: Any, key: str = "") -> dict[str, Any]:
    """{dotted key: value}."""
    if not isinstance(data, dict | list) or not data:
        return {key: data}
    items = data.items() if isinstance(data, dict) else enumerate(data)
    return {name: value for part, item in items for name, value in _flat(item, f"{key}.{part}".strip(".")).items()}


def _attributes_of(model: str) -> list[dict]:
    try:
        return TaggerConfig.from_pretrained(model).attributes
    except FormatError as error:
        raise ConfigError(str(error)) from error


def _count(run: RunContext, catalog: Catalog, quarantine: Quarantine) -> Vocabulary:
    records = progress_bar(catalog.records("train", drop_duplicates=run.settings.catalog.drop_duplicates),
                           desc="counting tags", unit="row", leave=False)
    looks = run.settings.start_from is not None or run.settings.model.vision_backbone is not None
    vocabulary = Vocabulary.scan(_checked(records, quarantine, looks), catalog.schema, catalog.names)
    quarantine.check(final=True)
    return vocabulary


def _checked(records: Iterable[Record | Refusal], quarantine: Quarantine, looks: bool) -> Iterator[Record | Refusal]:
    """Counts rows and refusals, and for a model that looks at photos sets those aside whose files are not there."""
    before = None
    for item in records:
        refused = [item] if isinstance(item, Refusal) else missing_photos(item) if looks else []
        for refusal in refused:
            quarantine.add(refusal)
        item = refused[0] if refused and refused[0].fatal else item
        lost = isinstance(item, Refusal)
        names_photos = any(refusal.photos_lost for refusal in refused) or (not lost and bool(item["images"]))
        # What is refused of a row comes one by one: its photos are counted once.
        row = (refused[0].file, refused[0].number) if refused else None
        quarantine.saw(rows=not lost or item.fatal, photos=looks and names_photos and (row is None or row != before))
        before = row
        if refused:
            quarantine.check()
        yield item


def _check_evaluation(run: RunSettings, data: TrainingData) -> None:
    settings, attributes = run.evaluation, data.vocabulary.attributes
    if run.augmentation is not None:
        check_augmentation(run.augmentation, attributes, run.model.fusion)
    tags = sum(len(attribute["tags"]) for attribute in attributes)
    known = Predictions(attributes, scores=np.zeros((0, tags)), chosen=np.zeros((0, tags), bool)).metrics()
    if run.training.metric not in known:
        nearest = did_you_mean(run.training.metric, known)
        raise ConfigError(f"training.metric: {run.training.metric!r} is not measured.{nearest}")
    for name, protocol in settings.protocols.items():
        for split in {settings.validation, settings.split} & set(data.catalog.splits):
            try:
                next(seen_through(data.catalog, protocol).records(split), None)
            except ConfigError as error:
                raise ConfigError(f"evaluation.protocols.{name}: {error}") from error
