"""`decision_tagger.py` without torch: the same decisions from the same entries of the configuration."""

from collections.abc import Sequence

import numpy as np


def attribute_slices(attributes: Sequence[dict]) -> list[slice]:
    """Where each attribute's tags stand among the T columns."""
    slices, start = [], 0
    for attribute in attributes:
        slices.append(slice(start, start + len(attribute["tags"])))
        start = slices[-1].stop
    return slices


def upwards(attribute: dict) -> list[tuple[int, int]]:
    """(child, parent) columns within the attribute, every tag's own children before the tag itself."""
    parents = attribute.get("parents") or {}
    column = {tag: index for index, tag in enumerate(attribute["tags"])}

    def depth(tag: str) -> int:
        steps = 0
        while tag in parents and steps <= len(parents):
            tag, steps = parents[tag], steps + 1
        return steps

    known = [(child, parent) for child, parent in parents.items() if child in column and parent in column]
    return [(column[child], column[parent]) for child, parent in sorted(known, key=lambda pair: -depth(pair[0]))]


def tag_scores(attributes: Sequence[dict], logits: np.ndarray) -> np.ndarray:
    """Probabilities float32 [B, T] from logits [B, T + A], "none" of each attribute last."""
    tags = logits.shape[1] - len(attributes)
    scores = np.empty((len(logits), tags), np.float32)
    for index, (attribute, where) in enumerate(zip(attributes, attribute_slices(attributes), strict=True)):
        part = logits[:, where].astype(np.float32)
        if attribute["kind"] == "single":
            with_none = np.concatenate([part, logits[:, tags + index, None]], axis=1, dtype=np.float32)
            with_none /= np.float32(attribute.get("temperature") or 1.0)
            powers = np.exp(with_none - with_none.max(1, keepdims=True))
            scores[:, where] = (powers / powers.sum(1, keepdims=True))[:, :-1]
            continue
        calibration = attribute.get("calibration")
        if calibration is not None:
            part = part * np.float32(calibration["slopes"]) + np.float32(calibration["intercepts"])
        part = np.float32(0.5) * (1 + np.tanh(np.float32(0.5) * part))
        for child, parent in upwards(attribute):
            part[:, parent] = np.maximum(part[:, parent], part[:, child])
        scores[:, where] = part
    return scores


def predicted_tags(attributes: Sequence[dict], scores: np.ndarray) -> np.ndarray:
    """The tags a product gets, bool [B, T], from `tag_scores`."""
    chosen = np.zeros(scores.shape, bool)
    for attribute, where in zip(attributes, attribute_slices(attributes), strict=True):
        part, thresholds = scores[:, where], attribute.get("thresholds")
        thresholds = None if thresholds is None else np.float32(thresholds)
        if attribute["kind"] == "single":
            best = part.argmax(1)
            least = 1 - part.sum(1) if thresholds is None else thresholds[best]
            rows = np.arange(len(part))
            chosen[rows, where.start + best] = part[rows, best] >= least
        else:
            given = part >= (np.float32(0.5) if thresholds is None else thresholds)
            for child, parent in upwards(attribute):
                given[:, parent] |= given[:, child]
            chosen[:, where] = given
    return chosen
