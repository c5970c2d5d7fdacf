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
from hf_tagger.model.decisions import fold
from hf_tagger.model.decoder import FreeFormTagger
from hf_tagger.model.generation import log_odds

LOWEST = 1e-30


def fit_free_form(model, processor, views: Iterable[tuple[Iterable[dict], Iterable[str]]], one_attribute: bool = False):
    """Fits scores and `min_score` of a model's written tags, in place; returns what was fitted.

    Args:
        views: batches of the validation split and the modalities hidden from the model, for each protocol.
    """
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
    evidence, right, chosen, heads_right, heads_wrong, missed = [], [], [], 0, 0, 0
    for part in parts:
        for row, tags in enumerate(part.tags):
            labels, heads = ([fold(tag["label"]) for tag in listed] for listed in (tags, part.closed[row]))
            reference, heads = set(unique(part.references[row])), set(heads)
            heads_right, heads_wrong = heads_right + len(heads & reference), heads_wrong + len(heads - reference)
            missed += len(reference - heads - set(labels))
            evidence += [(math.log(max(tag["score"], LOWEST)), 0.0 if closed is None else log_odds(closed),
                          closed is not None) for tag, closed in zip(tags, part.closed_scores[row], strict=True)]
            right += [label in reference for label in labels]
            chosen += [label in heads for label in labels]
    if not right or all(right) or not any(right):
        return {}
    x, y = torch.tensor(evidence, dtype=torch.float64), torch.tensor(right)
    x, known = torch.cat([x[:, :2], torch.ones(len(x), 1)], dim=1), x[:, 2] > 0
    own = [0, 2]
    fitted = {"calibration": _platt(x[:, own], y), "closed_calibration": None}
    scores = torch.sigmoid(x[:, own] @ fitted["calibration"])
    if known.any():
        if (~known).any():
            fitted["calibration"] = _platt(x[~known][:, own], y[~known])
        fitted["closed_calibration"] = _platt(x[known], y[known])
        scores = torch.where(known, x @ fitted["closed_calibration"], x[:, own] @ fitted["calibration"]).sigmoid()
    # What the heads choose is listed whatever its score as a written tag.
    further = ~np.array(chosen)
    scores = np.concatenate([np.ones(heads_right + heads_wrong), scores.numpy()[further]])
    given = np.concatenate([np.arange(heads_right + heads_wrong) < heads_right, y.numpy()[further]])
    min_score, _ = best_threshold(scores, given, missed, ThresholdSettings("f1"))
    return {name: None if weights is None else weights.tolist() for name, weights in fitted.items()} | {
        "min_score": float(min_score)}


def _platt(evidence: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Weights [K] of the evidence [N, K], 1 last, whose sum is the log-odds of being right [N]."""
    # Platt's targets are not quite 0 and 1: the slope stays finite even if the scores tell right from wrong perfectly.
    positives = right.sum()
    target = torch.where(right, (positives + 1) / (positives + 2), 1 / (len(right) - positives + 2)).double()
    start = torch.zeros(evidence.shape[1], dtype=torch.float64)
    start[-2] = 1.0

    def loss(weights):
        return torch.nn.functional.binary_cross_entropy_with_logits(evidence @ weights, target)

    return minimise(loss, start)
