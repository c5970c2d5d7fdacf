"""Fits the scores of written tags to be probabilities, as those of closed tags are."""

import math
from collections.abc import Iterable

import numpy as np
import torch

from hf_tagger.evaluation.calibration import best_threshold
from hf_tagger.evaluation.convex import minimise
from hf_tagger.evaluation.free_form import unique
from hf_tagger.evaluation.settings import ThresholdSettings
from hf_tagger.evaluation.writing import Written, write
from hf_tagger.model.decisions import fold, log_odds
from hf_tagger.model.decoder import FreeFormTagger

LOWEST = 1e-30


def fit_free_form(model, processor, views: Iterable[tuple[Iterable[dict], Iterable[str]]], one_attribute: bool = False):
    """Fits scores and `min_score` of a model's written tags, in place; returns what was fitted. `views`: for each
    protocol the batches of the validation split and the modalities hidden from the model."""
    model.config.decoder |= {"calibration": None, "closed_calibration": None, "min_score": 0.0}
    tagger = FreeFormTagger(model, processor)
    fitted = fit_written_scores(write(tagger, batches, without, one_attribute, gather=False)
                                for batches, without in views)
    model.config.decoder |= fitted
    return fitted


def fit_written_scores(parts: Iterable[Written]) -> dict[str, float | list[float]]:
    """Platt scaling (Platt 1999) of the mean log-probability of a tag, and the score from which F1 is highest.

    Closed tags are scaled on their own, with what the heads say of them. The F1 is that of all that is listed, the
    heads' own choice of closed tags included.

    Args:
        parts: what was written, with scores not yet calibrated and no `min_score`.

    Returns {"calibration", "closed_calibration", "min_score"} for `TaggerConfig.decoder`, or {} where there is nothing
    to learn from: all tags were right, or none.
    """
    logs, odds, right, chosen, heads, missed = [], [], [], [], [], 0
    for part in parts:
        for row, tags in enumerate(part.tags):
            labels, listed = ([fold(tag["label"]) for tag in each] for each in (tags, part.closed[row]))
            reference = set(unique(part.references[row]))
            heads += [label in reference for label in listed]
            missed += len(reference.difference(listed, labels))
            logs += [math.log(max(tag["score"], LOWEST)) for tag in tags]
            odds += [np.nan if closed is None else log_odds(closed) for closed in part.closed_scores[row]]
            right += [label in reference for label in labels]
            chosen += [label in listed for label in labels]
    if not right or all(right) or not any(right):
        return {}
    closed, right, ones = ~np.isnan(odds), np.array(right), np.ones(len(logs))
    alone, with_heads = np.stack([logs, ones], axis=1), np.stack([logs, odds, ones], axis=1)
    new = ~closed if not closed.all() else closed
    fitted = {"calibration": _platt(alone[new], right[new]), "closed_calibration": None}
    scores = alone @ fitted["calibration"]
    if closed.any():
        fitted["closed_calibration"] = _platt(with_heads[closed], right[closed])
        scores[closed] = with_heads[closed] @ fitted["closed_calibration"]
    # What the heads choose is listed whatever its score as a written tag.
    further = ~np.array(chosen)
    scores = np.concatenate([np.ones(len(heads)), 1 / (1 + np.exp(-scores[further]))])
    min_score, _ = best_threshold(scores, np.array([*heads, *right[further]], bool), missed, ThresholdSettings("f1"))
    # The best threshold of a probability is half of the F1 reached, never above one half (Lipton et al. 2014): where
    # nothing that is written on validation pays, the sweep ends anywhere above.
    return {"min_score": min(float(min_score), 0.5)} | fitted


def _platt(evidence: np.ndarray, right: np.ndarray) -> list[float]:
    """Weights [K] of the evidence [N, K], 1 last, whose sum is the log-odds of being right [N]."""
    # Platt's targets are not quite 0 and 1: the slope stays finite even if the scores tell right from wrong perfectly.
    x, positives = torch.from_numpy(evidence), right.sum()
    target = torch.from_numpy(np.where(right, (positives + 1) / (positives + 2), 1 / (len(right) - positives + 2)))
    start = torch.zeros(x.shape[1], dtype=torch.float64)
    start[-2] = 1.0

    def loss(weights):
        return torch.nn.functional.binary_cross_entropy_with_logits(x @ weights, target)

    return minimise(loss, start).tolist()
