"""Learning from reviewers' verdicts: a model is trained further on corrected products, mixed with others so that it
forgets nothing (experience replay, Rolnick et al. 2019, arXiv 1811.11682)."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from transformers import Pipeline

from hf_tagger.catalog.quarantine import Refusal
from hf_tagger.catalog.reading.stream import Catalog
from hf_tagger.catalog.schema import Record
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.evaluation.calibration import fit_calibration, store_attributes
from hf_tagger.evaluation.machine import process_state
from hf_tagger.evaluation.predict import Predictions, hash_draw
from hf_tagger.evaluation.protocols import Evaluator
from hf_tagger.feedback.proposals import UnknownTags, proposals
from hf_tagger.feedback.review_state import decided, settle
from hf_tagger.feedback.store import FeedbackStore
from hf_tagger.feedback.verdicts import fingerprint
from hf_tagger.model.pipeline_tagger import ProductTaggingPipeline
from hf_tagger.training.arguments import PhaseSettings, RunSettings
from hf_tagger.training.batches import Batches
from hf_tagger.training.build import load_model
from hf_tagger.training.context import start_run
from hf_tagger.training.data import read_catalog
from hf_tagger.training.frozen_heads import fit_logit_fusion
from hf_tagger.training.phases import start_training, train_phases
from hf_tagger.training.report import calibrate
from hf_tagger.training.saving import save_run
from hf_tagger.training.starting_model import starting_model

Holds = Mapping[tuple[str, str], bool]  # {(attribute, tag): whether a product has it}
HEADS = PhaseSettings(name="heads", train=["heads"], cached_views=1, epochs=10, batch_size=64, learning_rate=3e-4,
                      evaluate_every=0)
TOWERS = PhaseSettings(name="towers", epochs=2, learning_rate=1e-4, tower_learning_rate=1e-4)
LEAST_REPLAYED = 200
HELD_OUT = 0.2  # of the corrected products


def corrected(tags: dict[str, list[str] | None], holds: Holds, kinds: Mapping[str, str]) -> dict[str, list[str] | None]:
    """A product's tags with what reviewers settled on.

    A `single` attribute gets the tag that holds; it becomes unknown if several hold, or if its tag does not. A `multi`
    attribute gains the tags that hold and loses those that do not; an unknown one stays unknown, for nobody judged its
    other tags.
    """
    result = dict(tags)
    for name in {attribute for attribute, _ in holds} & kinds.keys():
        true = [tag for (attribute, tag), yes in holds.items() if attribute == name and yes]
        false = {tag for (attribute, tag), yes in holds.items() if attribute == name and not yes}
        given = tags.get(name)
        if kinds[name] == "single":
            if true:
                result[name] = true[:1] if len(true) == 1 else None
            elif given and given[0] in false:
                result[name] = None
        elif given is not None:
            result[name] = [tag for tag in dict.fromkeys([*given, *true]) if tag not in false]
    return result


class CorrectedCatalog(Catalog):
    """A catalogue whose training split is cut down to the products whose verdicts `holds` has, corrected, and a share
    of the others, chosen by a hash of their ids."""

    def __init__(self, catalog: Catalog, holds: Mapping[str, Holds], share: float):
        # A tag that is rare among the few products left must stay in the vocabulary.
        attributes = {name: replace(settings, min_count=1) for name, settings in catalog.schema.attributes.items()}
        super().__init__(catalog.source, replace(catalog.schema, attributes=attributes), catalog.labels,
                         catalog.names)
        self.holds, self.share = holds, share

    def with_text(self, columns: list[str]) -> "CorrectedCatalog":
        return CorrectedCatalog(super().with_text(columns), self.holds, self.share)

    def records(self, split: str, **options: Any) -> Iterator[Record | Refusal]:
        judged = {attribute for settled in self.holds.values() for attribute, _ in settled}
        kinds = {name: self.schema.attribute(name).kind for name in judged}
        for item in super().records(split, **options):
            if isinstance(item, Refusal) or split != "train":
                yield item
            elif item["id"] in self.holds:
                yield item | {"tags": corrected(item["tags"], self.holds[item["id"]], kinds)}
            elif hash_draw(item["id"]) < self.share:
                yield item


@dataclass
class Feedback:
    """What reviewers settled on, {product: verdicts}."""

    learned: dict[str, Holds]  # what a new version learns
    held_out: dict[str, Holds]  # what it is tested on
    products: int  # of the training split, corrected or not
    verdicts: int  # that are settled
    summary: str  # a line for a person


def read_feedback(store: FeedbackStore, catalog: Catalog, attributes: list[dict],
                  unknown: UnknownTags | None = None, version: str = "") -> Feedback:
    """The verdicts on products of the training split; a fifth of these products, drawn by their ids, is held out. What
    is `unknown` of these products to this version of the model is proposed in the same pass."""
    verdicts = store.verdicts()
    records: dict[str, str] = {}
    repeated = set()  # ids of several different products: nobody knows which of them a verdict is about
    for record in catalog.records("train"):
        if not isinstance(record, Refusal):
            shown = fingerprint(record)
            if records.setdefault(record["id"], shown) != shown:
                repeated.add(record["id"])
            if unknown is not None:
                unknown.add(record, shown)
    if unknown is not None:
        unknown.propose(store, version)
    known = {product: shown for product, shown in records.items() if product not in repeated}
    settled = settle(decided(verdicts, attributes), known)
    waiting = [proposal for proposal in proposals(store, attributes) if proposal.ruling is None]
    holds: dict[bool, dict[str, dict]] = {True: {}, False: {}}
    for (product, attribute, tag), yes in settled.holds.items():
        learned = hash_draw(f"held out {product}") >= HELD_OUT
        holds[learned].setdefault(product, {})[attribute, tag] = yes
    summary = (f"{len(verdicts)} verdicts: {len(settled.holds)} settled, {len(settled.disputed)} disputed, "
               f"{len(settled.stale)} stale or not about a product of the training split; "
               f"{len(waiting)} proposed tags wait for approval")
    if alike := [f"{proposal.tag} (like {', '.join(proposal.alike)})" for proposal in waiting if proposal.alike]:
        summary += f", of which {len(alike)} may be other spellings: " + "; ".join(alike[:5]) + "; …" * (len(alike) > 5)
    if repeated:
        shown = ", ".join(sorted(repeated)[:3]) + ", …" * (len(repeated) > 3)
        summary += f"; {len(repeated)} ids are of several products, from which nothing is learned ({shown})"
    return Feedback(holds[True], holds[False], len(records), len(settled.holds), summary)


@dataclass
class Update:
    """The step from one version of a model to the next."""

    tagger: Pipeline  # of the version in use
    parent: Path  # its folder
    pending: Path  # the next version's folder
    settings: RunSettings  # of the run that made the first version
    data: dict  # the plain data of these settings
    catalog: Catalog
    feedback: Feedback

    def judge(self, tagger: Pipeline) -> tuple[dict[str, float], Predictions]:
        """Scores of a version: macro- and micro-F1 on validation, and agreement with held-out verdicts, if there are
        any; and its predictions on validation."""
        validation = self._look(tagger, self.catalog, self.settings.evaluation.validation)
        metrics = validation.metrics()
        found = {name: round(metrics[name], 4) for name in ("micro_f1", "macro_f1")}
        if self.feedback.held_out:
            seen = self._look(tagger, CorrectedCatalog(self.catalog, self.feedback.held_out, 0.0), "train")
            found["verdict_agreement"] = round(verdict_agreement(seen, self.feedback.held_out), 4)
        return found, validation

    def recalibrate(self, validation: Predictions) -> None:
        """Writes a copy of the parent with temperatures and thresholds fitted on validation and on the corrected
        products."""
        if self.settings.calibration is None:
            raise ConfigError("calibration is null in this configuration: give --calibration.objective f1, say")
        seen = self._look(self.tagger, CorrectedCatalog(self.catalog, self.feedback.learned, 0.0), "train")
        attributes, _ = fit_calibration(validation.and_of(seen), self.settings.calibration)
        ignored = shutil.ignore_patterns("lineage.json", "README.md")
        shutil.copytree(self.parent, self.pending, dirs_exist_ok=True, ignore=ignored)
        store_attributes(self.pending, attributes)

    def fine_tune(self, replay: float, new_tags: dict[str, list[str]], towers: bool) -> None:
        """Trains heads, and towers if so wished, on the corrected products and `replay` others for each of them; new
        tags are added first. Raises ConfigError where towers cannot move."""
        if towers and self.tagger.model.config.kernel_landmarks:
            raise ConfigError("this model's kernel head compares products as its towers see them: leave these alone, "
                              "with --how heads")
        start_from = self.parent
        if new_tags:
            model, processor = load_model(str(self.parent))
            model.add_tags(new_tags, processor)
            start_from = self.pending / "grown"
            ProductTaggingPipeline(model, processor=processor).save_pretrained(start_from)
        learned = self.feedback.learned
        share = replay_share(len(learned), self.feedback.products, replay)
        # The kernel head is not fitted anew, for most products are not there: its towers must stay as they are.
        phases, lora = ([HEADS, TOWERS], self.settings.lora) if towers else ([HEADS], None)
        run = start_run(self.settings.going_on(start_from, self.pending, phases, lora), self.data)
        catalogue = read_catalog(run, lambda catalog: CorrectedCatalog(catalog, learned, share))
        batches = Batches(catalogue, *starting_model(run, catalogue))
        training = start_training(run, batches)
        train_phases(run, training)
        fit_logit_fusion(run, training)
        calibrate(run, batches)
        save_run(run, training)
        if (start_from / "vocabulary.json").is_file():
            # That of the whole catalogue, not of what was replayed of it.
            shutil.copyfile(start_from / "vocabulary.json", self.pending / "vocabulary.json")

    def _look(self, tagger: Pipeline, catalog: Catalog, split: str) -> Predictions:
        settings = self.settings
        evaluator = Evaluator(tagger, catalog, settings.evaluation, settings.training.loader, process_state())
        return evaluator.predict(split, settings.evaluation.first_protocol)


def replay_share(corrected_products: int, products: int, each: float) -> float:
    """The share of other products that makes `each` of them for every corrected one, and no fewer than
    `LEAST_REPLAYED`."""
    others = max(1, products - corrected_products)
    return min(1.0, max(each * corrected_products, LEAST_REPLAYED) / others)


def verdict_agreement(predictions: Predictions, holds: Mapping[str, Holds]) -> float:
    """Share of the settled verdicts that the model's decisions agree with, nan where there are none. A tag that the
    model does not know counts as not given."""
    known = [(entry["name"], tag) for entry in predictions.attributes for tag in entry["tags"]]
    column = {item: place for place, item in enumerate(known)}
    agreed = []
    for row, product in enumerate(predictions.ids):
        for item, yes in holds.get(product, {}).items():
            given = item in column and bool(predictions.chosen[row, column[item]])
            agreed.append(given == yes)
    return float(np.mean(agreed)) if agreed else float("nan")
