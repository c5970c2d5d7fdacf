"""From logits to tags: calibrated probabilities, thresholds, abstention, hierarchies, and the list of a product's tags.

All of it is plain data in an entry of `TaggerConfig.attributes`, fitted on validation products
(`hf_tagger/evaluation/calibration.py`) and optional:

    "temperature": 1.3                                 single: logits, "none" included, are divided by it
    "calibration": {"slopes": [..], "intercepts": [..]}  multi, one per tag: logit -> slope * logit + intercept
    "label_frequency": 0.7                             multi: the share of right tags that lists held in training
    "thresholds": [..]                                 one per tag; lowest probability at which it is given
    "lists": {"used": true, "never_empty": true,       multi: the lists of common tags, by their columns, that training
              "common": [[0, 3], [2], ..]}             products have
    "parents": {tag: parent}                           multi: a tag implies its parents

In numpy: the model, the exported runtime and evaluation decide by the same lines.
"""

import unicodedata
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

# By so many log-odds must tags be likelier than every list that products had, to be given in its place; and so far
# below its threshold may the best tag be where no list is empty. Chosen out of fold, see model_cards/suite.md.
UNLIKE_ALL, LAST_RESORT = 0.5, 1.0
LIST_ROWS = 64  # products whose lists are compared at once


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
    "none". Of a `multi` attribute all tags that reach their thresholds (0.5 until these are fitted), and their parents;
    with "lists", see `as_products_have_them`.
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
            thresholds = np.full(part.shape[1], 0.5, np.float32) if thresholds is None else thresholds
            given, lists = part >= thresholds, attribute.get("lists")
            for first in range(0, len(part) if lists is not None and lists["used"] else 0, LIST_ROWS):
                some = slice(first, first + LIST_ROWS)
                given[some] = as_products_have_them(given[some], log_odds(part[some]) - log_odds(thresholds), lists)
            for child, parent in upwards(attribute):
                given[:, parent] |= given[:, child]
            chosen[:, where] = given
    return chosen


def as_products_have_them(given: np.ndarray, odds: np.ndarray, lists: dict) -> np.ndarray:
    """The tags of each product, bool [B, C], decided as a list and not one by one.

    Of the lists of common tags that training products have, the likeliest: the one with the highest sum of its tags'
    log-odds over their thresholds. It takes the place of the common tags that reach their thresholds, unless these are
    likelier than all such lists by `UNLIKE_ALL`; other tags stay as they are. Where no list is empty, neither is one
    decided, as long as a tag comes near its threshold. (A label powerset: Tsoumakas & Katakis 2007.)

    Args:
        given: tags that reach their thresholds [B, C].
        odds: log-odds of the tags less those of their thresholds [B, C].
    """
    given, common = given.copy(), [columns for columns in lists["common"] if columns]
    if common:
        columns = np.fromiter(chain.from_iterable(common), np.int64)
        starts, covered = np.cumsum([0, *map(len, common[:-1])]), np.unique(columns)
        sums = np.add.reduceat(odds[:, columns], starts, axis=1)
        best, likelihood, alone = sums.argmax(1), sums.max(1), (odds * given)[:, covered].sum(1)
        nothing = 0.0 if [] in lists["common"] else -np.inf
        for row in np.flatnonzero(np.maximum(likelihood, nothing) >= alone - UNLIKE_ALL):
            given[row, covered] = False
            if likelihood[row] >= nothing:
                given[row, common[best[row]]] = True
    if lists["never_empty"]:
        best, rows = odds.argmax(1), np.arange(len(odds))
        given[rows, best] |= ~given.any(1) & (odds[rows, best] > -LAST_RESORT)
    return given


def log_odds(probabilities):
    """Of a probability or an array of them, in its precision; certainty counts as one in a million."""
    clipped = np.clip(probabilities, 1e-6, 1 - 1e-6)
    return np.log(clipped / (1 - clipped))


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
