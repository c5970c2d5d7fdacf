"""Tags that reviewers or the catalogue gave and the model does not know: proposed, approved or declined, and added to
the model."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from hf_tagger.catalog.schema import Record
from hf_tagger.catalog.spellings import loose_key
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.feedback.review_state import settle
from hf_tagger.feedback.store import FeedbackStore
from hf_tagger.feedback.verdicts import UNDECIDED, Verdict
from hf_tagger.model.text import clean_tag

CATALOGUE = "the catalogue"  # the reviewer of what it gives
MOST_PRODUCTS = 200  # that are kept of one tag


@dataclass(frozen=True)
class Proposal:
    """A tag that is not in the model's vocabulary."""

    attribute: str  # `verdicts.UNDECIDED` until the tag is approved for one
    tag: str
    products: list[str]  # ids of those that reviewers, or the catalogue, gave it to
    ruling: str | None  # "approve", "decline", or None while nobody has ruled
    # Tags of the vocabulary, and other proposed ones, of which it may be another spelling (case, accents, plural):
    # nobody should approve it without seeing them.
    alike: list[str]


def proposals(store: FeedbackStore, attributes: Sequence[dict]) -> list[Proposal]:
    """Proposed tags, those of most products first. `attributes` as in the model's config."""
    known = {entry["name"]: set(entry["tags"]) for entry in attributes}
    settled, rulings = settle(store.verdicts()), store.rulings()
    products: dict[tuple[str, str], set[str]] = {}
    for (product, attribute, tag), holds in settled.holds.items():
        tag = clean_tag(tag)
        if holds and attribute in known and tag and tag not in known[attribute]:
            products.setdefault((attribute, tag), set()).add(product)
    for (product, tag), holds in settled.undecided.items():
        tag = clean_tag(tag)
        if holds and tag and not any(tag in tags for tags in known.values()):
            ruled = [name for name in known if rulings.get((name, tag)) == "approve"]
            for attribute in ruled or [UNDECIDED]:
                products.setdefault((attribute, tag), set()).add(product)
    spellings: dict[str, set[str]] = {}
    for tag in (*(tag for tags in known.values() for tag in tags), *(tag for _, tag in products)):
        spellings.setdefault(loose_key(tag), set()).add(tag)
    found = [Proposal(attribute, tag, sorted(wanted), rulings.get((attribute, tag)),
                      sorted(spellings[loose_key(tag)] - {tag})) for (attribute, tag), wanted in products.items()]
    return sorted(found, key=lambda proposal: (-len(proposal.products), proposal.attribute, proposal.tag))


def approved(store: FeedbackStore, attributes: Sequence[dict]) -> dict[str, list[str]]:
    """{attribute: [tags]}, as `model.add_tags` takes them."""
    tags: dict[str, list[str]] = {}
    for proposal in proposals(store, attributes):
        if proposal.ruling == "approve":
            tags.setdefault(proposal.attribute, []).append(proposal.tag)
    return tags


@dataclass(frozen=True)
class Since:
    """Products of which a column has a date of the last days, today included."""

    days: int
    column: str

    @classmethod
    def of(cls, days: str, column: str) -> "Since":
        """Raises ConfigError for what is no number of days."""
        if not days.isdecimal():
            raise ConfigError(f"{days!r} is no number of days: write 30 {column}, say.")
        return cls(int(days), column)

    def __contains__(self, record: Record) -> bool:
        given = record["kept"].get(self.column)
        return given is not None and as_date(given, self.column) > datetime.now(UTC).date() - timedelta(self.days)


def as_date(value: Any, column: str) -> date:
    """Raises ConfigError for a cell that does not begin with a date such as 2026-11-28."""
    if isinstance(value, datetime):
        return value.date()
    try:
        return value if isinstance(value, date) else date.fromisoformat(str(value).strip()[:10])
    except ValueError as error:
        raise ConfigError(f"{column} is no column of dates such as 2026-11-28: it has {str(value)[:40]!r}.") from error


class UnknownTags:
    """What products have in an attribute, or as free-form tags, and the model does not know.

    Args:
        attributes: as in the model's config.
        least: products that a tag needs to be proposed.
        since: counts only these products.
    """

    def __init__(self, attributes: Sequence[dict], least: int, since: Since | None = None):
        self.known = {entry["name"]: set(entry["tags"]) for entry in attributes}
        self.least, self.since = least, since
        self.products: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)  # with their fingerprints

    def add(self, record: Record, fingerprint: str) -> None:
        if self.since is None or record in self.since:
            for item in self._of(record):
                if len(self.products[item]) < MOST_PRODUCTS:
                    self.products[item].setdefault(record["id"], fingerprint)

    def propose(self, store: FeedbackStore, version: str) -> None:
        """Stores proposals, as the catalogue's verdicts beside tags of the model's `version`; those that are there
        already are not stored again."""
        found = ((product, shown, attribute, tag) for (attribute, tag), products in self.products.items()
                 if len(products) >= self.least for product, shown in products.items())
        store.add(Verdict(product, shown, attribute, tag, "add", CATALOGUE, version, key=_key(product, attribute, tag))
                  for product, shown, attribute, tag in found)

    def _of(self, record: Record) -> Iterator[tuple[str, str]]:
        """(attribute, tag) of what the model does not know."""
        for name, tags in record["tags"].items():
            for tag in tags or ():
                if name in self.known and tag not in self.known[name]:
                    yield name, tag
        for name, tags in record.get("free_form", {}).items():
            for tag in tags or () if name not in self.known else ():
                if not any(tag in mine for mine in self.known.values()):
                    yield UNDECIDED, tag


def _key(*what: str) -> str:
    return hashlib.blake2b(repr(what).encode(errors="replace"), digest_size=16).hexdigest()
