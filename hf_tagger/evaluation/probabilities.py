"""How good the scores are as probabilities, and as a ranking of each product's tags.

Arguments as in `metrics`: references [N, C] in {0, 1, -100} of one attribute, scores [N, P <= C] as the model's
`tag_scores` gives them. Every function returns sums per product, so that a mean over any products, resampled ones too,
is a ratio of two sums.
"""

import numpy as np

from hf_tagger.catalog.batching.collate import UNKNOWN
from hf_tagger.evaluation.metrics import checked

BINS = 15
SMALLEST = 1e-7  # a float32 probability that has reached 0 costs 16 nats, as does a tag the model never learned


def log_losses(references, scores, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """(loss in nats, number of terms) per product, float [N].

    single: one term per known product, minus the log of the probability of its tag, or of "none". multi: one term per
    known tag, the binary log-loss; a given tag that the model does not know has the probability `SMALLEST`.
    """
    references, scores = checked(references, scores, "scores")
    width = scores.shape[1]
    unlearned = (references[:, width:] == 1).sum(1)
    inside = references[:, :width]
    if kind == "single":
        known = (references != UNKNOWN).any(1)
        probability = np.where(inside == 1, scores, 0.0).sum(1)
        none = known & ~(references == 1).any(1)
        probability[none] = 1 - scores[none].sum(1)
        return np.where(known, -np.log(probability.clip(SMALLEST, 1)), 0.0), known.astype(float)
    right = np.where(inside == 1, scores, 1 - scores).clip(SMALLEST, 1)
    losses = np.where(inside == UNKNOWN, 0.0, -np.log(right)).sum(1) - unlearned * np.log(SMALLEST)
    return losses, (inside != UNKNOWN).sum(1) + unlearned.astype(float)


def calibration_bins(references, scores, kind: str) -> np.ndarray:
    """Per product, for each of 15 equally wide bins of confidence: predictions, their summed confidence, and how many
    were right; float32 [N, 3, 15] (Guo et al. 2017, arXiv 1706.04599).

    single: one prediction per known product, the likeliest of its tags and "none". multi: one per known tag of the
    vocabulary, which is right where the tag is given.
    """
    references, scores = checked(references, scores, "scores")
    inside = references[:, : scores.shape[1]]
    if kind == "single":
        candidates = np.concatenate([scores, 1 - scores.sum(1, keepdims=True)], axis=1)
        best = candidates.argmax(1)
        rows = np.flatnonzero((references != UNKNOWN).any(1))
        none = ~(references == 1).any(1, keepdims=True)
        truth = np.concatenate([inside == 1, none], axis=1)
        confidence, right = candidates[rows, best[rows]], truth[rows, best[rows]]
    else:
        rows, columns = np.nonzero(inside != UNKNOWN)
        confidence, right = scores[rows, columns], inside[rows, columns] == 1
    bins = np.minimum((confidence.clip(0, 1) * BINS).astype(int), BINS - 1)
    found = np.zeros((len(references), 3, BINS), np.float32)
    for index, values in enumerate((np.ones(len(rows)), confidence, right)):
        np.add.at(found[:, index], (rows, bins), values)
    return found


def calibration_error(bins: np.ndarray):
    """Expected calibration error from summed `calibration_bins` [..., 3, 15]: the mean gap between confidence and the
    share that is right; NaN without predictions."""
    count, confidence, right = np.moveaxis(bins, -2, 0)
    with np.errstate(invalid="ignore"):
        return np.abs(confidence - right).sum(-1) / count.sum(-1)


def f1_at_k(references, scores, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(F1 of the k highest scores, 1 where it is measured) per product, float [N]: the harmonic mean of the precision
    and recall of the first k tags. Measured where at least one tag is given; unknown tags take none of the k places."""
    references, scores = checked(references, scores, "scores")
    width = scores.shape[1]
    given = (references == 1).sum(1)
    ranked = np.where(references[:, :width] == UNKNOWN, -np.inf, scores)
    top = np.argpartition(-ranked, min(k, width) - 1, axis=1)[:, :k] if width else np.zeros((len(given), 0), int)
    hits = (np.take_along_axis(references[:, :width], top, axis=1) == 1).sum(1)
    measured = given > 0
    return np.where(measured, 2 * hits / (k + given), 0.0), measured.astype(float)
