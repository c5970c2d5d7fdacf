"""Which given tags are probably wrong: confident learning (Northcutt, Jiang and Chuang 2021, arXiv 1911.00068).

A product's tag is suspected where a model that was not trained on the product is as sure of another tag as it is on
average for products that carry that other one. This needs out-of-fold probabilities, for a model learns the errors that
it is trained on.
"""

from dataclasses import dataclass

import numpy as np

from hf_tagger.catalog.batching.collate import UNKNOWN
from hf_tagger.model.decisions import attribute_slices


@dataclass
class Suspect:
    """One attribute of one product whose given tags are probably wrong."""

    row: int  # index of the product
    attribute: str
    given: tuple[str, ...]  # () is none
    suggested: tuple[str, ...]  # what should rather be given
    # How much likelier the suggested tags are than the given ones, in (-1, 1]; of several doubtful tags of a `multi`
    # attribute the surest counts.
    score: float


@dataclass
class LabelIssues:
    """The suspects, and what was judged."""

    suspects: list[Suspect]  # most suspicious first, over all attributes
    skipped: dict[str, dict[str, int]]  # {attribute: {tag: positives}} of tags with too few to be judged ("" is none)
    judged: dict[str, int]  # {attribute: products whose tags were judged}
    # {attribute: how many of these are estimated to be wrong}, from the confident joint; of a `multi` attribute wrong
    # (product, tag) pairs.
    estimated: dict[str, float]


def find_label_issues(
    attributes: list[dict], tag_labels: np.ndarray, scores: np.ndarray, min_positives: int = 5
) -> LabelIssues:
    """Judges every attribute of every product whose tags of it are known.

    Args:
        tag_labels: [N, T] in {0, 1, -100 unknown}; unknown ones are never suspected.
        scores: out-of-fold probabilities [N, T]; of a `single` attribute they leave a rest to 1 for none.
        min_positives: tags (and, of a `single` attribute, none) with fewer products are neither judged nor suggested.

    Raises ValueError where the shapes do not fit or a score is no probability.
    """
    tags = sum(len(attribute["tags"]) for attribute in attributes)
    if tag_labels.shape != scores.shape or tag_labels.shape[1] != tags:
        raise ValueError(f"labels {tag_labels.shape} and scores {scores.shape} must both be [N, {tags}]")
    if not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError("scores must be probabilities between 0 and 1")
    found = LabelIssues([], {}, {}, {})
    for attribute, where in zip(attributes, attribute_slices(attributes), strict=True):
        known = np.flatnonzero((tag_labels[:, where] != UNKNOWN).all(1))
        judge = _judge_single if attribute["kind"] == "single" else _judge_multi
        judge(found, attribute, known, tag_labels[known, where] > 0, scores[known, where].astype(float), min_positives)
    found.suspects.sort(key=lambda suspect: -suspect.score)
    return found


def confident_joint(given: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The confident joint of K classes, from the given labels int [N], each of which occurs, and out-of-fold
    probabilities [N, K].

    Returns (joint, confident): joint int [K, K] counts rows by the given class (row) and the class of which the model
    is at least as sure as it is on average of that class's own rows (column; the likeliest of several); confident int
    [N] is that class, -1 where there is none.
    """
    classes = probabilities.shape[1]
    thresholds = np.array([probabilities[given == label, label].mean() for label in range(classes)])
    candidates = np.where(probabilities >= thresholds, probabilities, -1.0)
    confident = np.where(candidates.max(1) >= 0, candidates.argmax(1), -1)
    joint = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(joint, (given[confident >= 0], confident[confident >= 0]), 1)
    return joint, confident


def estimated_errors(joint: np.ndarray, counts: np.ndarray) -> float:
    """Expected number of wrong labels: the joint off its diagonal, each given class scaled to its `counts` [K]."""
    totals = joint.sum(1)
    right = np.where(totals > 0, np.diag(joint) / np.maximum(totals, 1), 1.0)
    return float(((1 - right) * counts).sum())


def _judge_single(found, attribute, rows, labels, scores, min_positives):
    name, tags = attribute["name"], [*attribute["tags"], ""]
    given = np.where(labels.any(1), labels.argmax(1), len(tags) - 1)
    counts = np.bincount(given, minlength=len(tags))
    kept = np.flatnonzero(counts >= min_positives)
    found.skipped[name] = {tags[label]: int(counts[label]) for label in range(len(tags))
                           if 0 < counts[label] < min_positives or (tags[label] and not counts[label])}
    judged = np.isin(given, kept)
    found.judged[name], found.estimated[name] = int(judged.sum()), 0.0
    if len(kept) < 2:
        return
    rows, given = rows[judged], np.searchsorted(kept, given[judged])
    probabilities = np.concatenate([scores, np.clip(1 - scores.sum(1, keepdims=True), 0, 1)], axis=1)[judged][:, kept]
    probabilities /= np.maximum(probabilities.sum(1, keepdims=True), 1e-12)
    joint, confident = confident_joint(given, probabilities)
    found.estimated[name] = estimated_errors(joint, counts[kept])
    for at in np.flatnonzero((confident >= 0) & (confident != given)):
        score = probabilities[at, confident[at]] - probabilities[at, given[at]]
        names = [tuple(filter(None, [tags[kept[label]]])) for label in (given[at], confident[at])]
        found.suspects.append(Suspect(int(rows[at]), name, *names, float(score)))


def _judge_multi(found, attribute, rows, labels, scores, min_positives):
    name, tags = attribute["name"], attribute["tags"]
    counts, doubts = labels.sum(0), np.full(labels.shape, -np.inf)
    found.skipped[name], found.judged[name], found.estimated[name] = {}, len(rows), 0.0
    for column, tag in enumerate(tags):
        if min(counts[column], len(rows) - counts[column]) < min_positives:
            found.skipped[name][tag] = int(counts[column])
            continue
        given, score = labels[:, column].astype(int), scores[:, column]
        joint, confident = confident_joint(given, np.stack([1 - score, score], axis=1))
        found.estimated[name] += estimated_errors(joint, np.bincount(given, minlength=2))
        wrong = (confident >= 0) & (confident != given)
        doubts[wrong, column] = np.where(given == 1, 1 - 2 * score, 2 * score - 1)[wrong]
    for at in np.flatnonzero((doubts > -np.inf).any(1)):
        toggled = labels[at] != (doubts[at] > -np.inf)
        given, suggested = (tag_path(attribute, [tag for tag, there in zip(tags, chosen, strict=True) if there])
                            for chosen in (labels[at], toggled))
        if given != suggested:
            found.suspects.append(Suspect(int(rows[at]), name, given, suggested, float(doubts[at].max())))


def tag_path(attribute: dict, tags: list[str]) -> tuple[str, ...]:
    """The tags and, in a tree of tags, all above them, from the root down, as the catalogue writes paths."""
    parents = attribute.get("parents") or {}
    depth = {}
    for tag in tags:
        line = [tag]
        while line[-1] in parents and parents[line[-1]] not in line:
            line.append(parents[line[-1]])
        depth.update({above: len(line) - index for index, above in enumerate(line)})
    return tuple(sorted(depth, key=depth.__getitem__))
