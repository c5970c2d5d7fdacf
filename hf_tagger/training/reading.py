"""What a fine-tuning run reads: its catalogue, in batches, under a protocol, or as stored features of frozen towers."""

import shutil
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
from accelerate.utils import parse_flag_from_env, set_seed

from hf_tagger.augmentation.checks import check_augmentation
from hf_tagger.catalog.collate import Collator
from hf_tagger.catalog.free_form import TargetEncoder
from hf_tagger.catalog.loader import CatalogLoader, LoaderSettings
from hf_tagger.catalog.quarantine import Quarantine, Refusal
from hf_tagger.catalog.settings import CatalogSettings, with_labels, write_synthetic, written_synthetic
from hf_tagger.catalog.stream import Catalog
from hf_tagger.catalog.strict import ConfigError, did_you_mean
from hf_tagger.catalog.vocabulary import Vocabulary
from hf_tagger.evaluation.predict import Predictions
from hf_tagger.evaluation.protocols import Protocol, seen_through
from hf_tagger.model.pipeline_tagger import bf16_is_fast
from hf_tagger.training.arguments import PhaseSettings, RunSettings
from hf_tagger.training.augment import image_augmenter, masked_text, text_augmenter
from hf_tagger.training.features import FeatureLoader, store_features
from hf_tagger.training.memory import keep_freed_memory
from hf_tagger.training.optimizer import tower_of


class CatalogRun:
    """The catalogue of a run and the ways to read it; batches need the model and processor of `FinetuneRun`.

    Args:
        settings: the whole run; data: the plain YAML data that it was built from, saved beside the model.
        resume: go on from the newest checkpoint in `output_dir/checkpoints`.
    """

    def __init__(self, settings: RunSettings, data: dict, resume: bool = False):
        self.settings, self.data, self.resume = settings, data, resume
        self.folder, self.started = Path(settings.output_dir), time.monotonic()
        self.checkpoints = self.folder / "checkpoints"
        # Without an accelerator, accelerate must be told: else it takes each of several processes for the only one.
        cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
        precision = settings.training.mixed_precision
        if precision == "auto":
            precision = "bf16" if bf16_is_fast(PartialState(cpu=cpu).device) else "no"
        self.accelerator = Accelerator(
            cpu=cpu,
            log_with=settings.training.log_with or None,
            project_dir=self.folder,
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
            mixed_precision=precision,
        )
        if settings.training.keep_freed_memory:
            keep_freed_memory()
        set_seed(settings.seed)
        if self.accelerator.is_main_process:
            if not resume:
                shutil.rmtree(self.checkpoints, ignore_errors=True)
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        self.accelerator.wait_for_everyone()
        self.say = self.accelerator.print
        self._stored: dict[str, FeatureLoader] = {}
        if settings.gate.folds and self.accelerator.num_processes > 1:
            raise ConfigError("gate.folds: sources are refitted by one process; start one, or set gate.folds: 0")
        self.critic = self.distillation = None

    def prepare_catalog(self) -> None:
        """Opens the catalogue and counts its tags, or reads what an interrupted run counted."""
        main = self.accelerator.is_main_process
        catalog, path = self.settings.catalog, self.checkpoints / "vocabulary.json"
        counted = self.resume and path.exists()
        self.accelerator.wait_for_everyone()
        if catalog.synthetic is not None:
            catalog = self._synthetic_catalog(catalog, written=counted)
        self.catalog_settings = catalog
        self.catalog = self._open_catalog(catalog)
        name = "quarantine.jsonl" if main else f"quarantine.rank{self.accelerator.process_index}.jsonl"
        self.quarantine = Quarantine(self.folder / name, catalog.max_bad_fraction, resume=counted)
        if main and not counted:
            records = self._checked(self.catalog.records("train", drop_duplicates=catalog.drop_duplicates))
            vocabulary = Vocabulary.scan(records, catalog.schema)
            self.quarantine.check(final=True)
            if self.catalog.labels is not None:
                self.say(self.catalog.labels.check(vocabulary, catalog.schema))
            vocabulary.save(path)
        self.accelerator.wait_for_everyone()
        self.vocabulary = Vocabulary.load(path)
        if counted:
            # The quarantine brings the rows lost so far: out of these, not of the few that are read from here on.
            self.quarantine.saw(self.vocabulary.rows["total"] // (1 if main else self.accelerator.num_processes))
        self.say(self.vocabulary.summary())
        self._check_evaluation()

    def _open_catalog(self, settings: CatalogSettings) -> Catalog:
        return with_labels(settings)

    def _check_evaluation(self) -> None:
        """What evaluation would only find out after the training."""
        settings = self.settings.evaluation
        attributes = self.vocabulary.attributes
        if self.settings.augmentation is not None:
            check_augmentation(self.settings.augmentation, attributes, self.settings.model.fusion)
        tags = sum(len(attribute["tags"]) for attribute in attributes)
        known = Predictions(attributes, scores=np.zeros((0, tags)), chosen=np.zeros((0, tags), bool)).metrics()
        if self.settings.training.metric not in known:
            nearest = did_you_mean(self.settings.training.metric, known)
            raise ConfigError(f"training.metric: {self.settings.training.metric!r} is not measured.{nearest}")
        for name, protocol in settings.protocols.items():
            for split in {settings.validation, settings.split} & set(self.catalog.splits):
                try:
                    next(seen_through(self.catalog, protocol).records(split), None)
                except ConfigError as error:
                    raise ConfigError(f"evaluation.protocols.{name}: {error}") from error

    def _synthetic_catalog(self, catalog: CatalogSettings, written: bool) -> CatalogSettings:
        folder = self.folder / "catalog"
        if self.accelerator.is_main_process and not written:
            self.say(f"writing a synthetic catalogue of {catalog.synthetic.get('rows', 2000)} products to {folder}")
            write_synthetic(catalog, folder)
        self.accelerator.wait_for_everyone()
        return written_synthetic(catalog, folder)

    def _checked(self, records) -> Iterator[Any]:
        for record in records:
            if isinstance(record, Refusal):
                self.quarantine.add(record)
                self.quarantine.saw(int(record.fatal))
                self.quarantine.check()
            else:
                self.quarantine.saw()
            yield record

    def _records(self, split: str) -> Iterator[dict]:
        for item in self.catalog.records(split, drop_duplicates=self.catalog_settings.drop_duplicates):
            if not isinstance(item, Refusal):
                yield item

    def _loader(self, split: str, collator: Collator, settings: LoaderSettings, protocol: Protocol | None = None,
                **options) -> CatalogLoader:
        return CatalogLoader(
            seen_through(self.catalog, protocol), split, collator, settings, seed=self.settings.seed,
            rank=self.accelerator.process_index, world_size=self.accelerator.num_processes,
            drop_duplicates=self.catalog_settings.drop_duplicates, **options)

    def _train_loader(self, phase: PhaseSettings) -> CatalogLoader:
        settings = self.settings.training
        loader = replace(settings.loader, batch_size=phase.batch_size or settings.loader.batch_size)
        return self._loader("train", self._augmenting_collator(), loader, shuffle=True,
                            repeat_factors=self._repeat_factors())

    def _collator(self, *augmenters) -> Collator:
        targets, decoder = None, self.settings.model.decoder
        if decoder is not None:
            targets = TargetEncoder(self.processor.tag_tokenizer, self.model.config, decoder.targets)
        return Collator(self.processor, self.model.config.attributes, *augmenters,
                        allow_urls=self.catalog_settings.schema.allow_urls, encode_targets=targets)

    def _augmenting_collator(self) -> Collator:
        settings = self.settings.training
        return self._collator(text_augmenter(settings.text_augmentation), image_augmenter(settings.image_augmentation))

    def _view_collator(self, view: int) -> Collator:
        return self._augmenting_collator() if view else self._collator()

    def _feature_loader(self, phase: PhaseSettings, whole: bool = False) -> FeatureLoader:
        """Features of this process's share of the training split, or the whole of it, in the phase's views."""
        settings = self.settings.training
        plain = self._collator()
        reader = replace(settings.loader, batch_size=self.settings.evaluation.batch_size, bucket_batches=8)
        share = {"rank": 0, "world_size": 1} if whole else {}
        views = (replace(self._loader("train", self._view_collator(view), reader), **share).epoch(view)
                 for view in range(phase.cached_views))
        source = self._loader("train", plain, reader, repeat_factors=self._repeat_factors())
        options = {"repeat_factor": source.repeat_factor}
        name = "plain"
        if "decoder" in phase.train:
            name, options["encode_targets"] = "decoder", plain.encode_targets
        self._stored[name] = self._store(name, views, phase.batch_size or settings.loader.batch_size, **options)
        return self._stored[name]

    def _store(self, name: str, views, batch_size: int, **options) -> FeatureLoader:
        folder = self.checkpoints / f"features.rank{self.accelerator.process_index}" / name
        untouched = self.adapted is not None and not any(tower_of(name) for name in self.loop.changed)
        # An adapter that has not been trained adds nothing but time.
        with self.adapted.disable_adapter() if untouched else nullcontext(), self.accelerator.autocast():
            return store_features(self.model, views, folder, batch_size, self.settings.seed, **options)

    def all_features(self, name: str) -> FeatureLoader:
        """Features of all training products as the towers see them now: "plain", in the views of the last phase, or
        "masked", of the texts without the words of their own tags."""
        if name in self._stored and self.accelerator.num_processes == 1:
            return self._stored[name]
        if name == "masked":
            reader = replace(self.settings.training.loader, batch_size=self.settings.evaluation.batch_size,
                             bucket_batches=8)
            batches = replace(self._loader("train", self._collator(masked_text), reader), rank=0, world_size=1).epoch()
            self._stored[name] = self._store(name, [_texts_alone(batches)], 1, towers=("text",))
            return self._stored[name]
        # A resumed run has lost the features of its last phase: it stores as many views again.
        last = [phase for phase in self.settings.phases if phase.train != ["decoder"]][-1]
        views = last.cached_views or (2 if self.settings.augmentation is not None else 1)
        return self._feature_loader(replace(last, train=["heads"], cached_views=views), whole=True)

    def _repeat_factors(self) -> dict[str, dict[str, float]]:
        """Repeat-factor sampling (arXiv 1908.03195): sqrt(threshold / frequency) for tags rarer than the threshold."""
        threshold = self.settings.training.repeat_threshold
        rows = max(1, self.vocabulary.rows["total"] - self.vocabulary.rows["refused"])
        return {
            entry["name"]: {tag: factor for tag, count in zip(entry["tags"], entry["counts"], strict=True)
                            if (factor := (threshold * rows / max(count, 1)) ** 0.5) > 1}
            for entry in self.vocabulary.attributes if threshold
        }

    def _evaluation_batches(self, split: str, protocol: Protocol, spread: bool = True) -> Iterator[dict[str, Any]]:
        settings = replace(self.settings.training.loader, batch_size=self.settings.evaluation.batch_size)
        loader = self._loader(split, self._collator(), settings, protocol)
        return (loader if spread else replace(loader, rank=0, world_size=1)).epoch()


def _texts_alone(batches: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for batch in batches:
        none = torch.zeros(len(batch["ids"]), 1, dtype=torch.long)
        texts = {name: batch.get(name, none) for name in ("input_ids", "attention_mask")}
        yield texts | {name: batch[name] for name in ("ids", "tags", "tag_labels") if name in batch}
