"""Tags that reviewers gave and the model does not know: proposed, approved or declined, and added to the model."""

from collections.abc import Sequence
from dataclasses import dataclass

from hf_tagger.catalog.spellings import loose_key
from hf_tagger.feedback.review_state import settle
from hf_tagger.feedback.store import FeedbackStore
from hf_tagger.feedback.verdicts import UNDECIDED
from hf_tagger.model.text import clean_tag


@dataclass(frozen=True)
class Proposal:
    """A tag that is not in the model's vocabulary.

    Args:
        attribute: `verdicts.UNDECIDED` until the tag is approved for one.
        products: ids of those that reviewers gave it to.
        ruling: "approve", "decline", or None while nobody has ruled.
        alike: tags of the vocabulary, and other proposed ones, of which it may be another spelling (case, accents,
            plural): nobody should approve it without seeing them.
    """

    attribute: str
    tag: str
    products: list[str]
    ruling: str | None
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
