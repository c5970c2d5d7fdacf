"""From logits to tags: calibrated probabilities, thresholds, abstention, hierarchies, and the list of a product's tags.

All of it is plain data in an entry of `TaggerConfig.attributes`, fitted on validation products
(`hf_tagger/evaluation/calibration.py`) and optional:

    "temperature": 1.3                                 single: logits, "none" included, are divided by it
    "calibration": {"slopes": [..], "intercepts": [..]}  multi, one per tag: logit -> slope * logit + intercept
    "label_frequency": 0.7                             multi: the share of right tags that lists held in training
    "thresholds": [..]                                 one per tag; lowest probability at which it is given
    "parents": {tag: parent}                           multi: a tag implies its parents

In numpy: the model, the exported runtime and evaluation decide by the same lines.
"""

import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np


def attribute_slices(attributes: Sequence[dict]) -> list[slice]:
    """Where each attribute's tags stand among the T columns."""
    slices, start = [], 0
    for attribute in attributes:
        slices.append(slice(start, start + len(attribute["tags"])))
        start = slices[-1].stop
    return slices


def upwards(attribute: dict) -> list[tuple[int, int]]:
    """(child, parent) columns within the attribute, deepest first: a tag's children come before the tag itself."""
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
    """Probabilities float32 [B, T] from logits [B, T + A], "none" of each attribute last.

    Of a `single` attribute: softmax over its tags and "none" (temperature scaling: arXiv 1706.04599). Of a `multi` one:
    a sigmoid per tag (after Platt scaling), a parent's at least as high as any child's; where lists are partial, the
    probability of being listed over that of a right tag to be listed (Elkan & Noto 2008).
    """
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
        if attribute.get("label_frequency") is not None:
            part = np.minimum(part / np.float32(attribute["label_frequency"]), np.float32(1.0))
        for child, parent in upwards(attribute):
            part[:, parent] = np.maximum(part[:, parent], part[:, child])
        scores[:, where] = part
    return scores


def predicted_tags(attributes: Sequence[dict], scores: np.ndarray) -> np.ndarray:
    """The predicted tags, bool [B, T], from `tag_scores`.

    Of a `single` attribute the best tag, if it reaches its threshold; without thresholds, if it is likelier than
    "none". Of a `multi` attribute all tags that reach their thresholds (0.5 until these are fitted), and their parents.
    """
    chosen = np.zeros(scores.shape, bool)
    for attribute, where in zip(attributes, attribute_slices(attributes), strict=True):
        part, thresholds = scores[:, where], attribute.get("thresholds")
        thresholds = None if thresholds is None else np.asarray(thresholds, np.float32)
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


def grown(attribute: dict, new: Sequence[str]) -> dict:
    """The entry with tags added at its end; their thresholds and calibration are the means of the others'."""
    entry = {**attribute, "tags": [*attribute["tags"], *new]}
    if attribute.get("counts") is not None:
        entry["counts"] = [*attribute["counts"], *[0] * len(new)]
    if attribute.get("thresholds") is not None:
        entry["thresholds"] = _with_means(attribute["thresholds"], len(new))
    if attribute.get("calibration") is not None:
        entry["calibration"] = {key: _with_means(values, len(new)) for key, values in attribute["calibration"].items()}
    return entry


def _with_means(values: Sequence[float], more: int) -> list[float]:
    return [*values, *[sum(values) / len(values)] * more]


def list_tags(entries: Sequence[dict], scores: Sequence[float], chosen: Sequence[bool], threshold: float | None = None,
              attributes: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The closed tags of one product, in config order, from its scores and the model's own choice, [T] each."""
    wanted = np.asarray(chosen) if threshold is None else np.asarray(scores, np.float64) >= threshold
    return [{"label": entry["tags"][column], "score": scores[where.start + column], "attribute": entry["name"],
             "source": "vocabulary"}
            for entry, where in zip(entries, attribute_slices(entries), strict=True)
            if attributes is None or entry["name"] in attributes for column in np.flatnonzero(wanted[where]).tolist()]


def best_first(listed: list[dict[str, Any]], written: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A product's closed and free-form tags, by score; a free-form tag that repeats a closed one is left out."""
    there = {fold(tag["label"]) for tag in listed}
    return sorted([*listed, *(tag for tag in written if fold(tag["label"]) not in there)],
                  key=lambda tag: -tag["score"])


def fold(label: str) -> str:
    """A key that is the same for two spellings of one tag: NFKC, without case and repeated spaces."""
    return " ".join(unicodedata.normalize("NFKC", label).casefold().split())
