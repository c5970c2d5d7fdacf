"""Do reviewers agree? Cohen's kappa of every two of them (Cohen 1960): agreement beyond chance, 1 at most."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from sklearn.metrics import cohen_kappa_score

from hf_tagger.feedback.review_state import SAYS, latest
from hf_tagger.feedback.verdicts import Verdict


@dataclass(frozen=True)
class Agreement:
    """Of two reviewers: on how many tags both were sure, the share on which they said the same, and kappa, which is nan
    where it is undefined: both gave one and the same answer throughout."""

    reviewers: tuple[str, str]
    items: int
    agreed: float
    kappa: float


def agreement(verdicts: Iterable[Verdict], attribute: str | None = None) -> list[Agreement]:
    """Every two reviewers who judged a tag of a product in common, of one attribute or of all."""
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
