"""Active learning: which products a reviewer should look at next.

Each strategy gives every product a number; those with high numbers come first (`queue`). A survey: Settles (2009).
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import entr

from hf_tagger.catalog.strict import did_you_mean
from hf_tagger.model.decisions import attribute_slices

_TINY = 1e-12


def margin(attributes: Sequence[dict], scores: np.ndarray) -> np.ndarray:
    """1 - the lead of the best choice [N], mean over attributes. Of a `single` attribute, the lead is that of the best
    score over the second best, "none" included; of a `multi` one, twice the distance of a tag's score from 0.5, for the
    tag where it is smallest. `scores`: float [N, T], probabilities."""
    found = []
    for entry, part in _parts(attributes, scores):
        if entry["kind"] == "single":
            ranked = np.sort(_with_none(part), axis=1)
            found.append(1 - (ranked[:, -1] - ranked[:, -2]))
        else:
            found.append((1 - 2 * np.abs(part - 0.5)).max(1))
    return np.mean(found, axis=0)


def entropy(attributes: Sequence[dict], scores: np.ndarray) -> np.ndarray:
    """Entropy in nats [N], summed over attributes, and over the tags of a `multi` one."""
    total = np.zeros(len(scores))
    for entry, part in _parts(attributes, scores):
        if entry["kind"] == "single":
            total += entr(_with_none(part)).sum(1)
        else:
            total += (entr(part) + entr(1 - part)).sum(1)
    return total


def label_cost(scores: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Expected number of corrections [N]: the summed probability that a chosen tag is wrong or another one is right."""
    return np.where(chosen, 1 - scores, scores).sum(1)


def rare_tags(attributes: Sequence[dict], scores: np.ndarray) -> np.ndarray:
    """Sum of scores, each divided by the tag's number of training products + 1 [N]."""
    counts = np.concatenate([np.array(entry.get("counts") or [0] * len(entry["tags"]), float) for entry in attributes])
    return (scores / (counts + 1)).sum(1)


def k_center(vectors: np.ndarray, labelled: np.ndarray, count: int) -> np.ndarray:
    """Rows [count], each the farthest from all labelled and chosen ones by cosine distance: greedy k-center (Sener &
    Savarese 2018, arXiv 1708.00489).

    Args:
        vectors: float [N, D], pooled; labelled: bool [N]. If none is labelled, the row nearest the mean comes first.
    """
    if not 0 <= count <= (~labelled).sum():
        raise ValueError(f"{count} products asked for, and {(~labelled).sum()} are not labelled")
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _TINY)
    distance = np.full(len(unit), np.inf)
    for row in np.flatnonzero(labelled):
        distance = np.minimum(distance, 1 - unit @ unit[row])
    if not labelled.any():
        distance = -np.linalg.norm(unit - unit.mean(0), axis=1)
    free, chosen = ~labelled, []
    for _ in range(count):
        row = int(np.where(free, distance, -np.inf).argmax())
        reached = 1 - unit @ unit[row]
        distance = reached if not chosen and not labelled.any() else np.minimum(distance, reached)
        free[row] = False
        chosen.append(row)
    return np.array(chosen, dtype=np.int64)


def mix(values: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> np.ndarray:
    """Weighted sum of the strategies' ranks [N], each between 0 and 1, because their values have different scales.

    Raises ValueError for a weight of a strategy that is not there.
    """
    total = np.zeros(len(next(iter(values.values()))))
    for name, weight in weights.items():
        if name not in values:
            raise ValueError(f"there is no strategy {name!r}.{did_you_mean(name, values)}")
        order = np.argsort(np.argsort(values[name], kind="stable"), kind="stable")
        total += weight * order / max(len(order) - 1, 1)
    return total


def queue(values: np.ndarray, labelled: np.ndarray, count: int) -> np.ndarray:
    """At most `count` rows that are not labelled, those with the highest values first."""
    order = np.argsort(-values, kind="stable")
    return order[~labelled[order]][:count]


def _parts(attributes: Sequence[dict], scores: np.ndarray):
    return ((entry, scores[:, where]) for entry, where in zip(attributes, attribute_slices(attributes), strict=True))


def _with_none(part: np.ndarray) -> np.ndarray:
    return np.concatenate([part, np.clip(1 - part.sum(1, keepdims=True), 0, 1)], axis=1)
