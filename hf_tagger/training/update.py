"""Learning from verdicts: a trained model goes on with corrected products, mixed with others so that it forgets
nothing (experience replay: Rolnick et al. 2019, arXiv 1811.11682)."""

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hf_tagger.catalog.quarantine import Refusal
from hf_tagger.catalog.schema import Record
from hf_tagger.catalog.stream import Catalog
from hf_tagger.evaluation.predict import Predictions
from hf_tagger.training.arguments import ModelSettings, PhaseSettings, RunSettings

Holds = Mapping[tuple[str, str], bool]  # {(attribute, tag): whether a product has it}
HEADS = PhaseSettings(name="heads", train=["heads"], cached_views=1, epochs=10, batch_size=64, learning_rate=3e-4,
                      evaluate_every=0)
TOWERS = PhaseSettings(name="towers", epochs=2, learning_rate=1e-4, tower_learning_rate=1e-4)


LEAST_REPLAYED = 200


def corrected(tags: dict[str, list[str] | None], holds: Holds, kinds: Mapping[str, str]) -> dict[str, list[str] | None]:
    """A product's tags after what reviewers settled on.

    A `single` attribute has the tag that holds, and is unknown once the tag that it had does not. To a `multi` one are
    added what holds and taken away what does not; one of which nothing was known stays unknown, for of its other tags
    nobody said anything.
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
    """A catalogue of whose training split remain the corrected products and a share of the others, drawn by a hash of
    the id.

    Args:
        holds: {product: what was settled on of it}; share: of the other products, 0 to 1.
    """

    def __init__(self, catalog: Catalog, holds: Mapping[str, Holds], share: float):
        # Few products remain: a tag that is rare among them is not for that reason out of the vocabulary.
        attributes = {name: replace(settings, min_count=1) for name, settings in catalog.schema.attributes.items()}
        super().__init__(catalog.source, replace(catalog.schema, attributes=attributes), catalog.labels)
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
            elif draw(item["id"]) < self.share:
                yield item


def draw(product: str) -> float:
    """A number in [0, 1) that is the product's own."""
    return int.from_bytes(hashlib.blake2b(product.encode(errors="surrogatepass"), digest_size=8).digest()) / 2**64


def keep_vocabulary(start_from: str, folder: Path) -> None:
    """Gives a new version the vocabulary of the whole catalogue, not of what was replayed of it."""
    whole = Path(start_from) / "vocabulary.json"
    if whole.is_file():
        shutil.copyfile(whole, folder / "vocabulary.json")


def replay_share(corrected_products: int, products: int, each: float) -> float:
    """The share of other products that makes `each` of them for every corrected one, and no fewer than
    `LEAST_REPLAYED`."""
    others = max(1, products - corrected_products)
    return min(1.0, max(each * corrected_products, LEAST_REPLAYED) / others)


def update_settings(settings: RunSettings, start_from: str, output_dir: str, towers: bool) -> RunSettings:
    """The run that made a model -> the run that goes on from it."""
    # The kernel head is not fitted anew, for most products are not there: the towers must then stay as they are.
    phases = [HEADS, TOWERS] if towers else [HEADS]
    return replace(settings, start_from=start_from, output_dir=output_dir, model=ModelSettings(), phases=phases,
                   lora=settings.lora if towers else None, augmentation=None, save_adapter=False,
                   logit_fusion=replace(settings.logit_fusion, folds=0))


def joined(one: Predictions, other: Predictions) -> Predictions:
    """Of the products of both, by the same model."""
    together = {name: np.concatenate([getattr(one, name), getattr(other, name)]) for name in ("scores", "chosen",
                                                                                              "logits")}
    return replace(one, ids=one.ids + other.ids, tags=one.tags + other.tags, about=[], written=None, **together)


def verdict_agreement(predictions: Predictions, holds: Mapping[str, Holds]) -> float:
    """Share of the settled verdicts that the model's decisions agree with; a tag that it does not know it never gives.
    nan where there is none."""
    column = {(entry["name"], tag): place for place, (entry, tag) in enumerate(
        (entry, tag) for entry in predictions.attributes for tag in entry["tags"])}
    agreed = []
    for row, product in enumerate(predictions.ids):
        for item, yes in holds.get(product, {}).items():
            given = item in column and bool(predictions.chosen[row, column[item]])
            agreed.append(given == yes)
    return float(np.mean(agreed)) if agreed else float("nan")
