"""Which product a reviewer sees next: the strategies of `feedback.strategies`, after filters."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from hf_tagger.feedback import strategies
from hf_tagger.feedback.log import VerdictLog
from hf_tagger.feedback.review_state import settle
from hf_tagger.feedback.verdicts import Verdict
from hf_tagger.model.decisions import attribute_slices
from hf_tagger.review.predictions import CatalogPredictions, Prediction

MIX = {"margin": 1.0, "rare_tags": 1.0}
AHEAD = 100  # products that k-center orders at a time
CONFIDENCE = {"any": (0.0, 1.01), "low": (0.0, 0.5), "middle": (0.5, 0.8), "high": (0.8, 1.01)}
SHOW = ("open", "new", "second", "mine", "disputed", "stale")


@dataclass
class Filters:
    attribute: str | None = None  # the one to review; None: all
    language: str | None = None  # of the products; None: any
    confidence: str = "any"  # "any", "low", "middle" or "high" lowest score of a predicted tag, see `CONFIDENCE`
    # Products that this reviewer has not judged ("open"), nobody has judged ("new"), others but not this reviewer have
    # judged ("second"), this reviewer has judged ("mine"), on which reviewers differ ("disputed"), or that have changed
    # since they were judged ("stale").
    show: str = "open"
    strategy: str = "margin"  # of `ReviewQueue.strategies`


class ReviewQueue:
    """Products in the order of a strategy, as far as they have been predicted."""

    def __init__(self, predictions: CatalogPredictions, log: VerdictLog, has_vectors: bool):
        self.predictions, self.log = predictions, log
        self.attributes = predictions.attributes
        self.strategies = ["margin", "entropy", "label_cost", "rare_tags", "mix"]
        self.strategies += ["k_center"] * has_vectors + ["catalogue"]
        self._orders: dict[tuple, tuple[int, list[int]]] = {}
        self._fingerprints: dict[int, str] = {}

    def kept_filters(self, kept: Any) -> Filters:
        """Those that a browser has kept, without what there is not here: another model's attribute, another order."""
        known = {"attribute": [entry["name"] for entry in self.attributes], "confidence": CONFIDENCE, "show": SHOW,
                 "strategy": self.strategies}
        kept = kept if isinstance(kept, dict) else {}
        return Filters(**{name: kept[name] for name in vars(Filters()) if isinstance(kept.get(name), str) and (
            name == "language" or kept[name] in known[name])})

    def next(self, reviewer: str, filters: Filters, skip: Collection[int] = ()) -> int | None:
        """The row of the first product in order that passes the filters and is none of `skip`."""
        return next((row for row in self.order(filters) if row not in skip and self._passes(row, reviewer, filters)),
                    None)

    def progress(self, reviewer: str, filters: Filters) -> tuple[int, int]:
        """How many products of this language and confidence the reviewer has judged, and how many there are."""
        rows = [row for row in self.predictions.ready() if self._matches(row, filters)]
        return sum(reviewer in _reviewers(self._verdicts(row, filters)[0]) for row in rows), len(rows)

    def order(self, filters: Filters) -> list[int]:
        key = filters.strategy, filters.attribute
        rows = self.predictions.ready()
        if key not in self._orders or self._orders[key][0] != len(rows) or filters.strategy == "k_center":
            self._orders[key] = len(rows), [rows[place] for place in self._places(rows, filters)]
        return self._orders[key][1]

    def _places(self, rows: list[int], filters: Filters) -> Iterator[int]:
        if filters.strategy == "catalogue" or not rows:
            return range(len(rows))
        found = [self.predictions.of(row) for row in rows]
        if filters.strategy == "k_center":
            return self._spread(rows, found, filters)
        return np.argsort(-self._values(found, filters), kind="stable").tolist()

    def _values(self, found: list[Prediction], filters: Filters) -> np.ndarray:
        attributes, where = self._scope(filters.attribute)
        scores, chosen = (np.stack([getattr(one, name)[where] for one in found]) for name in ("scores", "chosen"))
        if filters.strategy == "label_cost":
            return strategies.label_cost(scores, chosen)
        wanted = list(MIX) if filters.strategy == "mix" else [filters.strategy]
        values = {name: getattr(strategies, name)(attributes, scores) for name in wanted}
        return strategies.mix(values, MIX) if filters.strategy == "mix" else values[filters.strategy]

    def _spread(self, rows: list[int], found: list[Prediction], filters: Filters) -> list[int]:
        vectors = np.stack([one.pooled for one in found])
        judged = np.array([bool(self._verdicts(row, filters)[0]) for row in rows])
        ahead = strategies.k_center(vectors, judged, min(AHEAD, int((~judged).sum()))).tolist()
        return ahead + [place for place in range(len(rows)) if place not in set(ahead)]

    def _scope(self, attribute: str | None) -> tuple[list[dict], slice]:
        """The attributes to review, and the columns of their tags."""
        if attribute is None:
            return self.attributes, slice(None)
        where = {entry["name"]: part for entry, part in
                 zip(self.attributes, attribute_slices(self.attributes), strict=True)}
        return [entry for entry in self.attributes if entry["name"] == attribute], where[attribute]

    def confidence(self, row: int, attribute: str | None) -> float:
        """The lowest score of a predicted tag; without any, 1 - the highest score."""
        found, (_, where) = self.predictions.of(row), self._scope(attribute)
        scores, chosen = found.scores[where], found.chosen[where]
        return float(scores[chosen].min() if chosen.any() else 1 - scores.max())

    def _matches(self, row: int, filters: Filters) -> bool:
        if filters.language is not None and self.predictions.products[row].language != filters.language:
            return False
        least, most = CONFIDENCE[filters.confidence]
        return filters.confidence == "any" or least <= self.confidence(row, filters.attribute) < most

    def _passes(self, row: int, reviewer: str, filters: Filters) -> bool:
        if not self._matches(row, filters):
            return False
        fresh, stale = self._verdicts(row, filters)
        if filters.show == "disputed":
            return bool(settle(fresh).disputed)
        judged = _reviewers(fresh)
        return {"open": reviewer not in judged, "new": not judged, "mine": reviewer in judged | _reviewers(stale),
                "second": bool(judged) and reviewer not in judged, "stale": bool(stale)}[filters.show]

    def _verdicts(self, row: int, filters: Filters) -> tuple[list[Verdict], list[Verdict]]:
        """The verdicts on a product, and the stale ones, on what it was before it changed."""
        fresh, stale = [], []
        for (attribute, _), by_reviewer in self.log.standing(self.predictions.products[row].id).items():
            if filters.attribute in (None, attribute):
                for verdict in by_reviewer.values():
                    (fresh if self.is_fresh(row, verdict) else stale).append(verdict)
        return fresh, stale

    def is_fresh(self, row: int, verdict: Verdict) -> bool:
        """Whether the product was unchanged since the verdict when `look` last read it."""
        if row not in self._fingerprints:
            self.look(row)
        return verdict.fingerprint == self._fingerprints[row]

    def look(self, row: int) -> str:
        """Reads the product's fingerprint as it is now."""
        self._fingerprints[row] = self.predictions.products[row].fingerprint
        return self._fingerprints[row]


def _reviewers(verdicts: list[Verdict]) -> set[str]:
    return {verdict.reviewer for verdict in verdicts}
