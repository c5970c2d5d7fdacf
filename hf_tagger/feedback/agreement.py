"""How far reviewers agree: Cohen's kappa (Cohen 1960) of every pair, agreement beyond chance, at most 1."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from sklearn.metrics import cohen_kappa_score

from hf_tagger.feedback.review_state import SAYS, latest
from hf_tagger.feedback.verdicts import Verdict


@dataclass(frozen=True)
class Agreement:
    """Of two reviewers."""

    reviewers: tuple[str, str]
    items: int  # on how many tags of products both were sure
    agreed: float  # share of these on which they agree
    kappa: float  # nan where it is undefined, which is where all their answers are the same


def agreement(verdicts: Iterable[Verdict], attribute: str | None = None) -> list[Agreement]:
    """Of every two reviewers with at least one tag of a product in common, on one attribute or on all."""
    says: dict[str, dict[tuple, bool]] = {}
    for item, by_reviewer in latest(verdicts).items():
        if attribute is not None and item[1] != attribute:
            continue
        for reviewer, verdict in by_reviewer.items():
            if verdict.decision in SAYS:
                says.setdefault(reviewer, {})[item] = SAYS[verdict.decision]
    found = []
    for one, other in combinations(sorted(says), 2):
        common = sorted(says[one].keys() & says[other].keys())
        if common:
            answers = np.array([[says[one][item], says[other][item]] for item in common])
            undefined = len(np.unique(answers)) == 1
            kappa = float("nan") if undefined else float(cohen_kappa_score(answers[:, 0], answers[:, 1]))
            found.append(Agreement((one, other), len(common), float((answers[:, 0] == answers[:, 1]).mean()), kappa))
    return found
