"""One fine-tuning run, step by step: catalogue, model, phases, gate, what is saved, what is reported."""

import json
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from accelerate.utils import broadcast, set_seed

from hf_tagger.catalog.quarantine import TooManyBadRows
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.evaluation.calibration import fit_calibration, store_attributes
from hf_tagger.evaluation.machine import describe_machine
from hf_tagger.evaluation.predict import outputs_of_each, predict, predict_each
from hf_tagger.evaluation.protocols import reading_alike
from hf_tagger.evaluation.tables import score_table
from hf_tagger.evaluation.writing import free_form_table, score_written
from hf_tagger.model.pipeline_tagger import CRITIC, ProductTaggingPipeline
from hf_tagger.training.arguments import PhaseSettings
from hf_tagger.training.augment import masked_text
from hf_tagger.training.build import build_model, fit_standardise, load_model, set_trainable, with_lora
from hf_tagger.training.checkpoint import newest_checkpoint, write_safetensors
from hf_tagger.training.decoder import add_decoder
from hf_tagger.training.exemplars import fit_exemplars
from hf_tagger.training.folds import stratified_folds
from hf_tagger.training.gate import GateSettings, fit_gate
from hf_tagger.training.loop import Interrupted, NonFiniteLoss, TrainingLoop, kept_tensors, load_kept
from hf_tagger.training.lora import count_parameters, freeze_batch_norm, merge_adapter, save_adapter
from hf_tagger.training.losses import SequenceLoss, TaggingLoss
from hf_tagger.training.rare_tags import augment_run, judge_run
from hf_tagger.training.reading import CatalogRun
from hf_tagger.training.refit import RefittedHeads, exemplar_rows
from hf_tagger.training.words import fit_words, text_batches
from hf_tagger.training.written_scores import fit_free_form

PACKAGES = ("torch", "transformers", "datasets", "accelerate", "peft", "timm", "evaluate", "hf_tagger")


def exit_status(recipe: str, start: Callable[[], "FinetuneRun"]) -> int:
    """Executes a run as a recipe's main: what stops it is told in a line, not a traceback. Returns 0, 2 for an error of
    the user's, 130 when interrupted."""
    try:
        start().execute()
    except (ConfigError, TooManyBadRows, NonFiniteLoss) as error:
        print(f"{recipe}: {error}", file=sys.stderr)
        return 2
    except (Interrupted, KeyboardInterrupt) as error:
        print(f"{recipe}: {str(error) or 'interrupted; go on with --resume'}", file=sys.stderr)
        return 130
    return 0


class FinetuneRun(CatalogRun):
    """A run of `recipes/finetune.py`: what its steps are and what they leave behind."""

    def build_model(self) -> None:
        """Backbones, tag names, and what the words of the catalogue say of its tags."""
        settings, attributes = self.settings, [entry for entry in self.vocabulary.attributes if entry["tags"]]
        if settings.start_from:
            self.model, self.processor = load_model(settings.start_from)
            attributes = self.model.config.attributes
        else:
            self._new_model(attributes)
        decoder = settings.model.decoder
        if decoder is not None and self.model.decoder is None:
            set_seed(settings.seed)
            add_decoder(self.model, self.processor, self._records("train"), self.catalog_settings.schema,
                        self.vocabulary, decoder)
        if decoder is not None:
            self.model.config.decoder |= {"any_order": decoder.targets.order == "random",
                                          "closed_weight": decoder.closed_weight}
        self.say(f"model: {sum(weight.numel() for weight in self.model.parameters()):,} parameters")
        if settings.save_adapter and settings.lora is not None and self.accelerator.is_main_process:
            self.model.save_pretrained(self.folder / "base")
            self.processor.save_pretrained(self.folder / "base")
        self.model.to(self.accelerator.device)
        self.model.requires_grad_(True)
        resumable = self.resume and newest_checkpoint(self.checkpoints) is not None
        if not settings.start_from:
            if not resumable or settings.gate.folds:
                self._fit_scales()
            if not resumable:
                self._fit_words(attributes)
        # What a run draws from here on must not depend on whether it has settled or resumes.
        set_seed(settings.seed)
        adapts = settings.lora is not None and settings.moves_closed_tags
        self.adapted = with_lora(self.model, settings.lora) if adapts else None
        if not adapts and not (settings.model.vision_backbone or "scratch:").startswith("scratch:"):
            freeze_batch_norm(self.model)
        self.loop = TrainingLoop(
            self.accelerator, settings.training, TaggingLoss(attributes, settings.training.loss),
            self._validate if settings.evaluation.validation in self.catalog.splits else None,
            self.checkpoints, self.quarantine,
            None if decoder is None else (SequenceLoss(self.model.config.first_control_id, decoder.label_smoothing),
                                          decoder.weight),
            self.distillation,
        )
        # What the sources of evidence start from when they are fitted again.
        self._unfitted = None
        if settings.gate.folds:
            self._unfitted = {name: tensor.clone() for name, tensor in kept_tensors(self.model, set()).items()}
        if resumable:
            self.loop.resume(self.model)
        elif self.resume:
            self.say(f"no complete checkpoint in {self.checkpoints}: starting anew")
        self.accelerator.init_trackers("finetune")

    def _new_model(self, attributes: list[dict]) -> None:
        texts = (record["text"] for record in self._records("train") if record["text"])
        self.model, self.processor = build_model(self.settings.model, attributes, texts, self.settings.seed)

    def _fit_scales(self) -> None:
        """The scale of the towers' features, before any training."""
        reader = replace(self.settings.training.loader, batch_size=self.settings.evaluation.batch_size)
        sample = replace(self._loader("train", self._collator(), reader, shuffle=True),
                         rank=0, world_size=1)
        with self.accelerator.autocast():
            fit_standardise(self.model, self.settings.model, sample.epoch())

    def _fit_words(self, attributes: list[dict]) -> None:
        """The evidence of the words, before any training."""
        if self.model.words is None:
            return
        words = self.settings.model.words

        def texts(augment=None):
            return text_batches(self._records("train"), self.processor, attributes, augment)

        views = [[(1.0, texts())]]
        if words.masked_view:
            views.append([(1.0, texts()), (words.masked_weight, texts(masked_text))])
        fitted = fit_words(self.model.words.cpu(), attributes, self.model.candidate_attribute.cpu(), views, words)
        self.model.words.to(self.model.device)
        self.say("word evidence:", json.dumps(fitted))

    def train(self, index: int, phase: PhaseSettings) -> None:
        settings, loader = self.settings.training, None
        if self.loop.progress.phase <= index:
            loader = self._phase_loader(phase)
        if not phase.cached_views and phase.train != ["decoder"]:
            self._stored.clear()
        # After the features, for peft makes adapters trainable when it switches them on again.
        set_trainable(self.model, phase, self.adapted is not None, settings.embeddings)
        self.say(f"phase {index + 1}, {phase.name}: {count_parameters(self.model)}")
        rows = self.vocabulary.rows["total"] - self.vocabulary.rows["refused"]
        batches = rows / self.accelerator.num_processes / (phase.batch_size or settings.loader.batch_size)
        self.loop.run_phase(index, phase, self.model, loader, max(1, round(batches + 0.5)))

    def _phase_loader(self, phase: PhaseSettings):
        return self._feature_loader(phase) if phase.cached_views else self._train_loader(phase)

    def execute(self) -> None:
        """All of it, from the catalogue to the report; a step that the settings do not ask for does nothing."""
        self.prepare_catalog()
        self.build_model()
        for index, phase in enumerate(self.settings.phases):
            self.train(index, phase)
        self.augment()
        self.fit_exemplars()
        self.fit_gate()
        self.fit_free_form()
        self.calibrate()
        self.judge()
        self.save()
        self.report()
        self.accelerator.end_training()

    def augment(self) -> None:
        """Makes up for rare tags by retraining the tag head, see `training.rare_tags`."""
        if self.settings.augmentation is not None:
            self.critic = augment_run(self)

    def judge(self) -> None:
        """Whether the critic of tag sets, if one was trained, is asked by default."""
        if self.critic is not None:
            self.say("critic:", json.dumps(judge_run(self)))

    def _validate(self, model) -> dict[str, float]:
        protocol = next(iter(self.settings.evaluation.protocols.values()))
        batches = self._evaluation_batches(self.settings.evaluation.validation, protocol)
        with self.accelerator.autocast():
            return predict(model, batches, protocol.without).metrics()

    def fit_exemplars(self) -> None:
        """Remembers training products as the trained towers see them, with and without their tags' words."""
        if self.model.exemplars is None or not self.settings.moves_closed_tags:
            return
        attributes, settings = self.model.config.attributes, self.settings.model.exemplars
        rows = exemplar_rows(self.all_features("plain"), self.all_features("masked"), attributes, settings)
        fitted = fit_exemplars(self.model.exemplars.cpu(), attributes, rows, settings)
        self.model.exemplars.to(self.model.device)
        self.say("exemplars:", json.dumps(fitted))

    def fit_gate(self) -> None:
        """How far words and towers are trusted, from the validation split seen under every protocol and, if so set,
        from training products out of fold."""
        model, settings = self.model, self.settings.gate
        if model.evidence_gate.sources == 1 or not self.settings.moves_closed_tags:
            return
        rows = []
        if self.settings.evaluation.validation in self.catalog.splits:
            with self.accelerator.autocast():
                rows = list(self._validation_evidence())
        if settings.folds:
            rows += self._out_of_fold_evidence(settings)
        if self.accelerator.is_main_process:
            fitted = fit_gate(model.evidence_gate, model.config.attributes, model.candidate_attribute, rows, settings)
            self.say("evidence gate:", json.dumps(fitted))
        for fitted in (model.evidence_gate.weights.weight.data, model.evidence_gate.deference):
            fitted.copy_(broadcast(fitted))

    def _validation_evidence(self) -> Iterator[tuple[torch.Tensor, ...]]:
        for alike in reading_alike(self.settings.evaluation.protocols):
            protocols = list(alike.values())
            batches = self._evaluation_batches(self.settings.evaluation.validation, protocols[0], spread=False)
            without = [protocol.without for protocol in protocols]
            for _, batch, outputs in outputs_of_each(self.model, batches, without):
                yield outputs.evidence, outputs.gate_features, batch["tag_labels"].to(self.model.device)

    def _out_of_fold_evidence(self, settings: GateSettings) -> list[tuple[torch.Tensor, ...]]:
        store = self.all_features("plain")
        # Products of one text stay together: their words would know the answer.
        texts = store.ids if store.input_ids is None else [row.tobytes() for row in store.input_ids.numpy()]
        tags = (np.flatnonzero(row == 1) for row in store.tag_labels)
        fold = stratified_folds(texts, tags, settings.folds, self.settings.seed)
        chosen = np.zeros(len(fold), bool)
        chosen[np.random.default_rng(self.settings.seed).permutation(len(fold))[:settings.max_rows]] = True
        fitted = {name: tensor.clone() for name, tensor in kept_tensors(self.model, set()).items()}
        load_kept(self.model, self._unfitted)
        masked = self.all_features("masked") if self.model.config.text_config is not None else None
        rows = list(RefittedHeads(self, store=store, masked=masked).out_of_fold_evidence(fold, chosen))
        load_kept(self.model, fitted)
        return rows

    def calibrate(self) -> None:
        """Temperatures and thresholds, from the validation split as the first protocol sees it."""
        settings = self.settings.evaluation
        if self.settings.calibration is None or settings.validation not in self.catalog.splits:
            return
        protocol = next(iter(settings.protocols.values()))
        with self.accelerator.autocast():
            found = predict(self.model, self._evaluation_batches(settings.validation, protocol), protocol.without)
        self.model.config.attributes, fitted = fit_calibration(found, self.settings.calibration)
        self.say("calibration:", json.dumps(fitted))

    def fit_free_form(self) -> None:
        """Makes the scores of written tags probabilities, on the validation split seen under every protocol."""
        settings = self.settings.evaluation
        if self.settings.model.decoder is not None and settings.validation in self.catalog.splits:
            # Every process does all of it: the outcome is the same.
            views = [(self._evaluation_batches(settings.validation, protocol, spread=False), protocol.without)
                     for protocol in settings.protocols.values()]
            fitted = fit_free_form(self.model, self.processor, views, settings.one_attribute)
            self.say("scores of written tags:", json.dumps(fitted))

    def save(self) -> None:
        """The model folder, and beside it what made it: configuration, vocabulary, versions."""
        if self.adapted is not None:
            if self.settings.save_adapter and self.accelerator.is_main_process:
                size = save_adapter(self.adapted, self.folder / "adapter", self.folder / "base")
                self.processor.save_pretrained(self.folder / "adapter")
                store_attributes(self.folder / "adapter", self.model.config.attributes)
                self.say(f"adapter: {size / 2**20:.1f} MiB")
            self.model = merge_adapter(self.adapted)
            self.adapted = None
        if not self.accelerator.is_main_process:
            return
        # Through the pipeline: the folder then also opens where hf_tagger is not installed.
        ProductTaggingPipeline(self.model, processor=self.processor).save_pretrained(self.folder)
        if self.critic is not None:
            write_safetensors(self.folder / CRITIC, self.critic.state_dict())
        (self.folder / "training_config.yaml").write_text(
            yaml.safe_dump(self.data, sort_keys=False, allow_unicode=True), encoding="utf-8")
        self.vocabulary.save(self.folder / "vocabulary.json")
        (self.folder / "provenance.json").write_text(json.dumps(self._provenance(), indent=1) + "\n", encoding="utf-8")

    def _provenance(self) -> dict[str, Any]:
        git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True)
        return {
            "data_fingerprint": self.vocabulary.fingerprint,
            "rows": self.vocabulary.rows,
            "git_revision": git.stdout.strip() or None,
            "versions": {name: _version(name) for name in PACKAGES},
            "python": platform.python_version(),
            "machine": describe_machine(),
            "seconds": round(time.monotonic() - self.started),
            "processes": self.accelerator.num_processes,
            "mixed_precision": self.accelerator.mixed_precision,
            "validation": self.loop.progress.history,
        }

    def report(self) -> dict[str, dict[str, float]]:
        """Scores the test split under every protocol, prints a table, and says how to use the model."""
        settings = self.settings.evaluation
        results, written = {}, {}
        if settings.split in self.catalog.splits:
            for alike in reading_alike(settings.protocols):
                batches = self._evaluation_batches(settings.split, next(iter(alike.values())))
                with self.accelerator.autocast():
                    found = predict_each(self.model, batches, [protocol.without for protocol in alike.values()])
                results |= {name: predictions.metrics() for name, predictions in zip(alike, found, strict=True)}
            results = {name: results[name] for name in settings.protocols}
            for name, protocol in settings.protocols.items() if self.settings.model.decoder is not None else ():
                batches = self._evaluation_batches(settings.split, protocol)
                written[name] = score_written(self.model, self.processor, batches, protocol.without,
                                              settings.one_attribute)
                results[name] |= {f"free_form/{metric}": value for metric, value in written[name].items()}
        if not self.accelerator.is_main_process:
            return results
        (self.folder / "metrics.json").write_text(json.dumps({settings.split: results}, indent=1) + "\n")
        self.say(score_table(results, [entry["name"] for entry in self.model.config.attributes]))
        if written:
            self.say(free_form_table(written))
        self.say(self.quarantine.summary())
        for features in self.checkpoints.glob("features.rank*"):
            shutil.rmtree(features)
        self.say(f"model folder: {self.folder}")
        self.say(f'python -c "import hf_tagger; from transformers import pipeline; '
                 f"print(pipeline('product-tagging', model='{self.folder}')('Red cotton dress'))\"")
        return results


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # hf_tagger on the path, but not installed
        return None
