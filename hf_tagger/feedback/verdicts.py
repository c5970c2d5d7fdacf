"""A verdict: one reviewer's decision on one tag of one product."""

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime

from hf_tagger.catalog.duplicates import content_digest
from hf_tagger.catalog.schema import Record
from hf_tagger.catalog.strict import did_you_mean

UNDECIDED = "?"
DECISIONS = ("accept", "reject", "add", "unsure", "withdraw")


@dataclass(frozen=True)
class Verdict:
    product: str  # the product's id in the catalogue
    fingerprint: str  # `fingerprint` of the product as the reviewer was shown it
    attribute: str  # `UNDECIDED` if the reviewer named none
    tag: str  # one that the model does not know is a proposed one
    # "accept" or "reject" a predicted tag, "add" one that was not predicted, "unsure", or "withdraw" the same
    # reviewer's earlier verdict on it.
    decision: str
    reviewer: str  # the reviewer's name
    model_version: str  # of the model whose tags were shown
    score: float | None = None  # the score that was shown, if any
    at: datetime = field(default_factory=lambda: datetime.now(UTC))  # the time, with a zone
    # Verdicts of one key count once, so that adding one again is safe.
    key: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self):
        if self.decision not in DECISIONS:
            raise ValueError(f"{self.decision!r} is not a decision.{did_you_mean(self.decision, DECISIONS)}")
        for name in ("product", "fingerprint", "attribute", "tag", "reviewer", "model_version", "key"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip():
                raise ValueError(f"a verdict needs a {name}, got {value!r}")
        if self.score is not None and not 0 <= self.score <= 1:
            raise ValueError(f"score is a probability between 0 and 1 or None, got {self.score!r}")
        if self.at.tzinfo is None:
            raise ValueError(f"at needs a time zone, got {self.at}: pass datetime.now(UTC), say")

    @property
    def item(self) -> tuple[str, str, str]:
        """(product, attribute, tag)."""
        return self.product, self.attribute, self.tag


def fingerprint(record: Record) -> str:
    """A hash of a product's text and photos, 16 hexadecimal digits."""
    return f"{content_digest(record):016x}"
