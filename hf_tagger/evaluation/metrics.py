"""Tagging metrics as an `evaluate.Metric` that needs no Hub, and one summary of a whole catalogue.

All of them take ONE attribute at a time:

    references   int   [N, C]  1 the tag is given, 0 it is not, -100 unknown (counted nowhere)
    predictions  {0,1} [N, P]  P <= C; columns past P are tags the model does not know: never predicted, so every
                               product that carries one counts as a miss
    scores       float [N, P]  any monotone score; columns past P are never retrieved

Average precision ranks all rows of a tag: give it a sample of a very large catalogue.
"""

from dataclasses import dataclass

import datasets
import evaluate
import numpy as np

from hf_tagger.catalog.batching.collate import UNKNOWN

ROWS_AT_ONCE = 65_536  # bounds the temporary masks while counting


@dataclass
class TagCounts:
    """Sufficient statistics of every counting metric.

    Leading dimensions are several sets of products counted side by side; every score then has them too.
    """

    tags: np.ndarray  # [..., 3, C]: true positives, false positives, false negatives of each tag
    rows: np.ndarray  # [..., 2]: products predicted exactly over their known tags, and products of which any is known

    def __add__(self, other: "TagCounts") -> "TagCounts":
        return TagCounts(self.tags + other.tags, self.rows + other.rows)

    def accuracy(self):
        """Share of rows predicted exactly over their known tags (subset accuracy); NaN without a known row."""
        return mean_over(self.rows[..., 0], self.rows[..., 1])


def tag_ratios(tags: np.ndarray) -> dict[str, np.ndarray]:
    """{"precision", "recall", "f1"} of each tag [..., C] from `TagCounts.tags`; 0 where a ratio is 0/0."""
    hits, false_alarms, misses = np.moveaxis(tags, -2, 0)
    return {"precision": _divide(hits, hits + false_alarms), "recall": _divide(hits, hits + misses),
            "f1": _divide(2 * hits, 2 * hits + false_alarms + misses)}


def averaged(tags: np.ndarray) -> dict[str, np.ndarray]:
    """Micro, macro and weighted precision, recall and F1 [...] from `TagCounts.tags` [..., 3, C], of one attribute or
    of several side by side; 0 where a ratio is 0/0, NaN where no tag occurs at all.

    Micro pools the counts of every tag. Macro is the plain mean over the tags that occur in the references, as
    scikit-learn gives with `labels=` those tags and `zero_division=0`; weighted is their mean by support.
    """
    support = tags[..., 0, :] + tags[..., 2, :]
    present, pooled, scores = support > 0, tag_ratios(tags.sum(-1, keepdims=True)), {}
    for name, values in tag_ratios(tags).items():
        scores[f"micro_{name}"] = np.where(present.any(-1), pooled[name][..., 0], np.nan)
        scores[f"macro_{name}"] = mean_over((values * present).sum(-1), present.sum(-1))
        scores[f"weighted_{name}"] = mean_over((values * support).sum(-1), support.sum(-1))
    return scores


def mean_over(total, count):
    """total / count, NaN where nothing was counted."""
    return np.where(np.asarray(count) > 0, total / np.maximum(count, 1), np.nan)


def mean_of_measured(values: np.ndarray):
    """The mean over the last axis of all that is not NaN; NaN where there is nothing else."""
    measured = ~np.isnan(values)
    return mean_over(np.where(measured, values, 0.0).sum(-1), measured.sum(-1))


def _divide(numerator, denominator):
    return np.where(denominator > 0, numerator / np.maximum(denominator, 1), 0.0)


def count_tags(references, predictions) -> TagCounts:
    """Count one attribute's hits and misses: references [N, C] in {0, 1, -100}, predictions {0, 1} [N, P <= C].

    Raises ValueError where the shapes do not fit or a value is none of these.
    """
    references, predictions = checked(references, predictions, "predictions")
    counts = TagCounts(np.zeros((3, references.shape[1]), np.int64), np.zeros(2, np.int64))
    for start in range(0, len(references), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        *tags, exact, known = (outcome.sum(0) for outcome in outcomes(references[rows], predictions[rows]))
        counts += TagCounts(np.stack(tags), np.stack([exact, known]))
    return counts


def outcomes(references: np.ndarray, predictions: np.ndarray) -> tuple[np.ndarray, ...]:
    """Hits, false alarms and misses, bool [N, C] each, and which products are predicted exactly over their known tags,
    and known at all, bool [N]; arguments as of `count_tags`."""
    predicted = np.zeros(references.shape, dtype=bool)
    predicted[:, : predictions.shape[1]] = predictions
    known, given = references != UNKNOWN, references == 1
    wrong = known & (predicted != given)
    known = known.any(1)
    return given & predicted, wrong & predicted, wrong & given, known & ~wrong.any(1), known


def average_precisions(references, scores, weights: np.ndarray | None = None) -> np.ndarray:
    """Average precision of each tag, float [C]: the sum over distinct scores of (recall step x precision).

    The definition of scikit-learn's `average_precision_score`, over the known rows. NaN for a tag no row carries.
    A score of -inf, like a column past the width of `scores`, is never retrieved. Raises ValueError as `count_tags`.
    `weights`: how often each row counts, [G, N] for G sets of rows; the result is then [G, C].
    """
    references, scores = checked(references, scores, "scores")
    counted = np.ones((1, len(references))) if weights is None else weights
    found = np.full((len(counted), references.shape[1]), np.nan)
    for column, reference in enumerate(references.T):
        relevant = counted[:, reference == 1].sum(1, dtype=float)
        retrieved = np.zeros(len(relevant))
        if column < scores.shape[1] and relevant.any():
            rows = np.flatnonzero((reference != UNKNOWN) & (scores[:, column] > -np.inf))
            rows = rows[np.argsort(-scores[rows, column], kind="stable")]
            ranked = scores[rows, column]
            ends_of_ties = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)[: len(rows)])
            drawn = counted[:, rows].astype(np.result_type(counted, np.float32))
            hits = np.cumsum(drawn * (reference[rows] == 1), axis=1)[:, ends_of_ties]
            listed = np.cumsum(drawn, axis=1)[:, ends_of_ties]
            retrieved = (hits / np.maximum(listed, 1) * np.diff(hits, prepend=0, axis=1)).sum(1)
        found[:, column] = mean_over(retrieved, relevant)
    return found[0] if weights is None else found


def checked(references, values, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays; `name` is "predictions" or "scores". Raises ValueError as `count_tags`."""
    references, values = np.asarray(references), np.asarray(values)
    if references.ndim != 2 or values.ndim != 2 or len(references) != len(values):
        raise ValueError(f"references {references.shape} and {name} {values.shape} must be matrices with one row per "
                         "product")
    if values.shape[1] > references.shape[1]:
        raise ValueError(f"{name} has {values.shape[1]} columns but references only {references.shape[1]}: references "
                         "need a column for every tag of the vocabulary")
    allowed = {"references": (references, (0, 1, UNKNOWN))}
    if name == "predictions":
        allowed[name] = (values, (0, 1))
    elif np.isnan(values).any():
        raise ValueError(f"{name} contain NaN: the model is broken, or a division by zero made them")
    for what, (array, legal) in allowed.items():
        illegal = ~np.isin(array, legal)
        if illegal.any():
            row, column = np.argwhere(illegal)[0]
            raise ValueError(f"{what}[{row}, {column}] is {array[row, column]}, not one of {legal}")
    return references, values


class TagMetrics(evaluate.Metric):
    """Scores of an attribute's tags: "accuracy" (products whose known tags are all predicted exactly), micro-, macro-
    and weighted precision, recall and F1 ("micro_f1" ...), and "average_precision", the mean area under the
    precision-recall curves of the tags that occur. Takes all rows at once, without evaluate's cache file."""

    def _info(self):
        matrix = datasets.Sequence(datasets.Sequence(datasets.Value("float32")))
        return evaluate.MetricInfo(
            description=type(self).__doc__ or "", citation="", inputs_description=__doc__ or "",
            features=datasets.Features(dict.fromkeys(("references", "predictions", "scores"), matrix)))

    def compute(self, *, references, predictions, scores) -> dict[str, float]:
        """references int [N, C], predictions {0, 1} [N, P], scores float [N, P]. Raises ValueError as `count_tags`."""
        return _scores(*self.of_tags(references, predictions, scores))

    def of_tags(self, references, predictions, scores) -> tuple[TagCounts, np.ndarray]:
        """Counts and average precision [C] of each tag; arguments as of `compute`."""
        return count_tags(references, predictions), average_precisions(references, np.asarray(scores, np.float32))


def _scores(counts: TagCounts, precisions: np.ndarray) -> dict[str, float]:
    scores = {"accuracy": counts.accuracy(), **averaged(counts.tags), "average_precision": mean_of_measured(precisions)}
    return {name: float(value) for name, value in scores.items()}


def score_attributes(attributes: dict) -> dict[str, float]:
    """Score a whole catalogue: {name: (kind, references, predictions, scores)}, arrays as in this module's docstring.

    Returns "<name>/accuracy", "<name>/micro_f1", "<name>/macro_f1", "<name>/weighted_f1" (precision and recall
    alike) and "<name>/average_precision" for each attribute, and over all of them "micro_f1" (counts of every tag
    pooled), "macro_f1" and "map" (plain means over every tag that occurs in the references, so an attribute weighs as
    many parts as it has tags). A score is NaN where the references hold nothing to measure.

    Raises ValueError where a `single` attribute has two tags predicted for one product, and as `count_tags` does.
    """
    metric, summary, every_count, every_precision = TagMetrics(), {}, [], []
    for name, (kind, references, predictions, scores) in attributes.items():
        several = np.asarray(predictions).sum(1) > 1
        try:
            if kind == "single" and several.any():
                raise ValueError(f"row {several.argmax()} has several tags predicted, a `single` attribute takes at "
                                 "most one")
            counts, precisions = metric.of_tags(references, predictions, scores)
        except ValueError as error:
            raise ValueError(f"attribute {name!r}: {error}") from error
        every_count.append(counts)
        every_precision.append(precisions)
        summary |= {f"{name}/{key}": value for key, value in _scores(counts, precisions).items()}
    if every_count:
        overall = averaged(np.concatenate([counts.tags for counts in every_count], axis=1))
        summary |= {name: float(overall[name]) for name in ("micro_f1", "macro_f1")}
        summary["map"] = float(mean_of_measured(np.concatenate(every_precision)))
    return summary
