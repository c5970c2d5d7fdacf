"""What the verdicts amount to: per reviewer the latest word, per tag what the reviewers settled on."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from hf_tagger.feedback.verdicts import Verdict

SAYS = {"accept": True, "add": True, "reject": False}


def latest(verdicts: Iterable[Verdict]) -> dict[tuple[str, str, str], dict[str, Verdict]]:
    """{(product, attribute, tag): {reviewer: the last verdict}} of verdicts in the order in which they were stored.
    What was withdrawn is not there."""
    found: dict[tuple[str, str, str], dict[str, Verdict]] = defaultdict(dict)
    for verdict in verdicts:
        if verdict.decision == "withdraw":
            found[verdict.item].pop(verdict.reviewer, None)
        else:
            found[verdict.item][verdict.reviewer] = verdict
    return {item: by_reviewer for item, by_reviewer in found.items() if by_reviewer}


@dataclass(frozen=True)
class Settled:
    """What reviewers settled on.

    Args:
        holds: {(product, attribute, tag): whether the product has the tag}, by the majority of those who were sure.
        disputed: items on which as many say yes as no.
        stale: verdicts about a product that has changed since, or is gone; they are kept, and count for nothing here.
    """

    holds: dict[tuple[str, str, str], bool]
    disputed: list[tuple[str, str, str]]
    stale: list[Verdict]


def settle(verdicts: Iterable[Verdict], fingerprints: Mapping[str, str] | None = None) -> Settled:
    """
    Args:
        fingerprints: {product: `fingerprint`} of the catalogue as it is now; None: no verdict is stale.
    """
    holds, disputed, stale = {}, [], []
    for item, by_reviewer in latest(verdicts).items():
        fresh = []
        for verdict in by_reviewer.values():
            outdated = fingerprints is not None and fingerprints.get(verdict.product) != verdict.fingerprint
            (stale if outdated else fresh).append(verdict)
        votes = Counter(SAYS[verdict.decision] for verdict in fresh if verdict.decision in SAYS)
        if votes[True] != votes[False]:
            holds[item] = votes[True] > votes[False]
        elif votes:
            disputed.append(item)
    return Settled(holds, disputed, stale)
