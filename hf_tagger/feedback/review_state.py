"""Which verdicts count: the latest of each reviewer, and per tag the majority of reviewers."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from hf_tagger.feedback.verdicts import UNDECIDED, Verdict

SAYS = {"accept": True, "add": True, "reject": False}


def latest(verdicts: Iterable[Verdict]) -> dict[tuple[str, str, str], dict[str, Verdict]]:
    """{(product, attribute, tag): {reviewer: the last verdict}} of verdicts in the order in which they were stored,
    without withdrawn ones."""
    found: dict[tuple[str, str, str], dict[str, Verdict]] = defaultdict(dict)
    for verdict in verdicts:
        if verdict.decision == "withdraw":
            found[verdict.item].pop(verdict.reviewer, None)
        else:
            found[verdict.item][verdict.reviewer] = verdict
    return {item: by_reviewer for item, by_reviewer in found.items() if by_reviewer}


def decided(verdicts: Iterable[Verdict], attributes: Sequence[dict]) -> Iterator[Verdict]:
    """The verdicts. One whose attribute was left open gets the attribute that now has the tag, if exactly one has.
    `attributes` as in the model's config."""
    owners: dict[str, list[str]] = defaultdict(list)
    for entry in attributes:
        for tag in entry["tags"]:
            owners[tag].append(entry["name"])
    for verdict in verdicts:
        found = owners.get(verdict.tag, ()) if verdict.attribute == UNDECIDED else ()
        yield replace(verdict, attribute=found[0]) if len(found) == 1 else verdict


@dataclass(frozen=True)
class Settled:
    """The result of all reviewers' verdicts."""

    # {(product, attribute, tag): whether the product has the tag}, by the majority of those who were sure.
    holds: dict[tuple[str, str, str], bool]
    undecided: dict[tuple[str, str], bool]  # {(product, tag): the same} of tags whose attribute the reviewers left open
    disputed: list[tuple[str, str, str]]  # items with as many yes as no
    stale: list[Verdict]  # verdicts on a product that has changed since or is gone; they are not counted


def settle(verdicts: Iterable[Verdict], fingerprints: Mapping[str, str] | None = None) -> Settled:
    """`fingerprints`: {product: `fingerprint`} of the catalogue as it is now; None: no verdict is stale."""
    holds, undecided, disputed, stale = {}, {}, [], []
    for item, by_reviewer in latest(verdicts).items():
        fresh = []
        for verdict in by_reviewer.values():
            outdated = fingerprints is not None and fingerprints.get(verdict.product) != verdict.fingerprint
            (stale if outdated else fresh).append(verdict)
        votes = Counter(SAYS[verdict.decision] for verdict in fresh if verdict.decision in SAYS)
        if votes[True] != votes[False]:
            product, attribute, tag = item
            if attribute == UNDECIDED:
                undecided[product, tag] = votes[True] > votes[False]
            else:
                holds[item] = votes[True] > votes[False]
        elif votes:
            disputed.append(item)
    return Settled(holds, undecided, disputed, stale)
