"""Why a product should be reviewed, in words: close scores, rare tags."""

from collections.abc import Sequence

import numpy as np

from hf_tagger.model.decisions import attribute_slices
from hf_tagger.review.predictions import Prediction

CLOSE, UNSURE, RARE = 0.3, 0.5, 10
NONE = "none"


def reasons(attributes: Sequence[dict], prediction: Prediction) -> dict[str, list[str]]:
    """{attribute: reasons}, for the attributes with any."""
    found = {}
    for entry, where in zip(attributes, attribute_slices(attributes), strict=True):
        scores, chosen = prediction.scores[where], prediction.chosen[where]
        why = _between(entry, scores) if entry["kind"] == "single" else _at_threshold(entry, scores)
        why += _rare(entry, chosen)
        if why:
            found[entry["name"]] = why
    return found


def _between(entry: dict, scores: np.ndarray) -> list[str]:
    """Of a `single` attribute's tags and "none"."""
    scores = np.append(scores, max(0.0, 1.0 - float(scores.sum())))
    best, second = np.argsort(-scores, kind="stable")[:2]
    names = [*entry["tags"], NONE]
    if scores[best] - scores[second] < CLOSE:
        return [f"close call: {names[best]} {scores[best]:.2f}, {names[second]} {scores[second]:.2f}"]
    return [f"even the best, {names[best]}, has only {scores[best]:.2f}"] if scores[best] < UNSURE else []


def _at_threshold(entry: dict, scores: np.ndarray) -> list[str]:
    thresholds = np.array(entry.get("thresholds") or [0.5] * len(entry["tags"]))
    near = np.flatnonzero(np.abs(scores - thresholds) < CLOSE / 2)
    near = near[np.argsort(np.abs(scores - thresholds)[near], kind="stable")][:3]
    return [f"{entry['tags'][tag]} {scores[tag]:.2f} is close to its threshold {thresholds[tag]:.2f}" for tag in near]


def _rare(entry: dict, chosen: np.ndarray) -> list[str]:
    counts = entry.get("counts")
    return [f"{entry['tags'][tag]} is rare: seen {counts[tag]} times in training"
            for tag in np.flatnonzero(chosen) if counts and counts[tag] < RARE]
