"""Fits the scores of written tags to be probabilities, as those of closed tags are."""

import math
from collections.abc import Iterable

import torch

from hf_tagger.evaluation.calibration import best_threshold
from hf_tagger.evaluation.convex import minimise
from hf_tagger.evaluation.free_form import unique
from hf_tagger.evaluation.settings import ThresholdSettings
from hf_tagger.evaluation.writing import Written, write
from hf_tagger.model.decisions import fold
from hf_tagger.model.decoder import FreeFormTagger

LOWEST = 1e-30


def fit_free_form(model, processor, views: Iterable[tuple[Iterable[dict], Iterable[str]]], one_attribute: bool = False):
    """Fits scores and `min_score` of a model's written tags, in place; returns what was fitted.

    Args:
        views: batches of the validation split and the modalities hidden from the model, for each protocol.
    """
    model.config.decoder |= {"calibration": None, "min_score": 0.0}
    tagger = FreeFormTagger(model, processor)
    fitted = fit_written_scores(write(tagger, batches, without, one_attribute, gather=False)
                                for batches, without in views)
    model.config.decoder |= fitted
    return fitted


def fit_written_scores(parts: Iterable[Written]) -> dict[str, float | list[float]]:
    """Platt scaling (Platt 1999) of the mean log-probability of a tag, and the score from which F1 is highest.

    Args:
        parts: what was written, with scores not yet calibrated and no `min_score`.

    Returns {"calibration": [slope, intercept], "min_score"} for `TaggerConfig.decoder`, or {} where there is nothing to
    learn from: all tags were right, or none.
    """
    logs, right, true = [], [], 0
    for part in parts:
        for tags, reference in zip(part.tags, part.references, strict=True):
            reference = unique(reference)
            true += len(reference)
            logs += [math.log(max(tag["score"], LOWEST)) for tag in tags]
            right += [fold(tag["label"]) in reference for tag in tags]
    x, y = torch.tensor(logs, dtype=torch.float64), torch.tensor(right, dtype=torch.float64)
    if not len(y) or y.min() == y.max():
        return {}
    # Platt's targets are not quite 0 and 1: the slope stays finite even if the scores tell right from wrong perfectly.
    positives, negatives = y.sum(), len(y) - y.sum()
    target = torch.where(y > 0, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def loss(weights):
        return torch.nn.functional.binary_cross_entropy_with_logits(weights[0] * x + weights[1], target)

    slope, intercept = minimise(loss, torch.tensor([1.0, 0.0], dtype=torch.float64)).tolist()
    scores = torch.sigmoid(slope * x + intercept)
    min_score, _ = best_threshold(scores.numpy(), y.numpy() > 0, true - int(positives), ThresholdSettings("f1"))
    return {"calibration": [slope, intercept], "min_score": float(min_score)}
