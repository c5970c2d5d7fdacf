"""Fits calibrated probabilities, and thresholds for an objective, on validation products alone.

What is fitted is plain data in the config's attributes; `hf_tagger/model/decisions.py` applies it.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hf_tagger.catalog.batching.collate import UNKNOWN
from hf_tagger.catalog.strict import ConfigError, did_you_mean
from hf_tagger.evaluation.convex import minimise
from hf_tagger.evaluation.predict import Predictions, blocks, few
from hf_tagger.evaluation.settings import CalibrationSettings, ThresholdSettings
from hf_tagger.model.decisions import attribute_slices, log_odds, predicted_tags, tag_scores

# The best F1 of a tag that is told badly lies where most products would get it: nothing less sure is given.
LEAST_SURE = 0.15
ENTRIES = 20_000_000  # products x tags that are fitted at once


def fit_calibration(validation: Predictions, settings: CalibrationSettings) -> tuple[list[dict], dict[str, dict]]:
    """Temperatures, Platt scalings and thresholds from validation products.

    Returns the attributes with what was fitted, and a report per attribute: log-loss before and after; with thresholds
    the precision, recall and coverage (the share of known products that get a tag) that they reach on validation. An
    attribute that is known of no product stays as it is.

    Raises ConfigError for settings of an attribute that the model does not have.
    """
    for name in settings.attributes:
        known = [entry["name"] for entry in validation.attributes]
        if name not in known:
            nearest = did_you_mean(name, known)
            raise ConfigError(f'calibration.attributes: the model has no attribute "{name}".{nearest}')
    plain = without_calibration(validation.attributes)
    calibrated, report = [], {}
    parts = zip(plain, validation.parts(), attribute_slices(plain), strict=True)
    for index, (attribute, (old, _, references, _, _), where) in enumerate(parts):
        known = (references != UNKNOWN).any(1)
        if not known.any():
            calibrated.append(old)
            continue
        references = references[known]
        if validation.logits is not None:
            columns = [*range(where.start, where.stop), len(validation.logits[0]) - len(plain) + index]
            logits = validation.logits[known][:, columns]
            attribute, losses = fit_probabilities(attribute, torch.from_numpy(logits), references,
                                                  settings.min_positives)
            scores = np.concatenate([tag_scores([attribute], logits[rows]) for rows in blocks(*logits.shape)])
            del logits
        else:
            scores, losses = validation.scores[known][:, where], {}
        chosen = settings.attributes.get(attribute["name"], settings)
        attribute, found = fit_thresholds(attribute, references, scores, chosen)
        calibrated.append(attribute)
        report[attribute["name"]] = {"products": int(known.sum()), **losses, **found}
    return calibrated, report


def without_calibration(attributes: Sequence[dict]) -> list[dict]:
    """The attributes without what is fitted here."""
    plain = [{key: value for key, value in entry.items() if key not in ("temperature", "calibration", "thresholds")}
             for entry in attributes]
    return [{**entry, "lists": {**entry["lists"], "used": False}} if "lists" in entry else entry for entry in plain]


def fit_probabilities(
    attribute: dict, logits: torch.Tensor, references: np.ndarray, min_positives: int
) -> tuple[dict, dict[str, float]]:
    """The attribute with a "temperature" (single) or a "calibration" (multi), and log-losses before and after, from
    logits [N, T + 1], "none" last, and references int [N, C >= T] of known products. What all tags share is fitted on a
    sample of the products, evenly spaced, where there are more than `ENTRIES` logits."""
    width = len(attribute["tags"])
    few_rows = few(*logits.shape, ENTRIES)
    if attribute["kind"] == "multi":
        return _fit_platt(attribute, logits[:, :width], references[:, :width], min_positives, few_rows)
    logits, references = logits[few_rows].double(), references[few_rows]
    inside = torch.from_numpy(references[:, :width])
    # A product whose tag the model never learned has no right answer among the candidates.
    usable = torch.from_numpy((references[:, :width] == 1).any(1) | ~(references == 1).any(1))
    if not usable.any():
        return attribute, {}
    target = torch.where(inside.amax(1) == 1, inside.argmax(1), width)[usable]
    log_scale = torch.zeros((), dtype=torch.float64)

    def loss(log_scale):
        return torch.nn.functional.cross_entropy(logits[usable] * log_scale.exp(), target)

    fitted = minimise(loss, log_scale, pull=1 / len(target))
    entry = {**attribute, "temperature": round(float((-fitted).exp()), 4)}
    return entry, {"log_loss_before": float(loss(log_scale)), "log_loss_after": float(loss(fitted))}


def _fit_platt(attribute: dict, logits: torch.Tensor, references: np.ndarray, min_positives: int, few_rows: slice):
    """Platt scaling (Platt 1999); tags with few positives share one slope and intercept. Platt's softened targets
    would, summed over many rare tags, raise every probability. In their place every fit is pulled towards its start
    with the weight of one product, so that few or separable examples do not lead to certainty."""
    given = torch.from_numpy(references)
    positives, negatives = (given == 1).sum(0), (given == 0).sum(0)

    def loss(parameters, columns, rows=few_rows):
        part = given[rows][:, columns]
        scaled = logits[rows][:, columns].double() * parameters[..., 0].exp() + parameters[..., 1]
        losses = torch.nn.functional.binary_cross_entropy_with_logits(scaled, (part == 1).double(), reduction="none")
        return losses[part != UNKNOWN].mean()

    start, all_tags = torch.zeros(2, dtype=torch.float64), slice(None)
    pull = 1 / len(logits[few_rows])
    shared = minimise(lambda parameters: loss(parameters, all_tags), start, pull=pull)
    fitted = shared.repeat(logits.shape[1], 1)
    for column in torch.arange(logits.shape[1])[(positives >= min_positives) & (negatives >= min_positives)]:
        known = (given[:, column] != UNKNOWN).nonzero().flatten()
        fitted[column] = minimise(lambda parameters, column=column, known=known: loss(parameters, column[None], known),
                                  shared, pull=1 / len(known))
    calibration = {"slopes": [round(value, 4) for value in fitted[:, 0].exp().tolist()],
                   "intercepts": [round(value, 4) for value in fitted[:, 1].tolist()]}
    losses = {"log_loss_before": float(loss(start, all_tags)), "log_loss_after": float(loss(fitted, all_tags))}
    return {**attribute, "calibration": calibration}, losses


def fit_thresholds(
    attribute: dict, references: np.ndarray, scores: np.ndarray, settings: ThresholdSettings
) -> tuple[dict, dict[str, Any]]:
    """The attribute with "thresholds", and what they reach on these products. Where no product has any of its tags, it
    stays as it is.

    For `f1`, see `expected_f1_threshold`. For a precision or a recall, each tag's best threshold is found by sweeping
    its own scores. With few positives that is biased by chance, so each is shrunk, on the scale of log-odds, towards
    the best one for all tags of the attribute together: with settings.shrinkage positives both weigh the same.

    Args:
        references: int [N, C], scores: float [N, T], probabilities, of products whose attribute is known. The common
            threshold is that of a sample of the products, evenly spaced, where there are more than `ENTRIES` scores.
    """
    width = len(attribute["tags"])
    references = references[:, :width]
    if (attribute["kind"] == "single" and settings.objective == "f1") or not (references == 1).any():
        return attribute, {}
    candidates = scores
    if attribute["kind"] == "single":
        # Only the best tag can be given.
        best = scores.argmax(1)[:, None] == np.arange(width)
        candidates = np.where(best, scores, -np.inf)
    known, positives = (references != UNKNOWN) & np.isfinite(candidates), (references == 1).sum(0)
    missed = ((references == 1) & ~known).sum(0)
    if settings.objective == "f1":
        thresholds, aim = [expected_f1_threshold(candidates[known[:, column], column]) for column in range(width)], {}
    else:
        some = few(*candidates.shape, ENTRIES)
        shared, reached = best_threshold(candidates[some][known[some]], references[some][known[some]] == 1,
                                         ((references == 1) & ~known)[some].sum(), settings)
        thresholds, aim = [], {"target": settings.target, "reached": bool(reached),
                               "attribute_threshold": round(float(shared), 4)}
        for column in range(width):
            rows, own = known[:, column], shared
            if positives[column]:
                own, _ = best_threshold(candidates[rows, column], references[rows, column] == 1, missed[column],
                                        settings)
            weight = positives[column] / (positives[column] + settings.shrinkage or 1)
            odds = (1 - weight) * log_odds(shared) + weight * log_odds(own)
            thresholds.append(1 / (1 + np.exp(-odds)))
    entry = {**attribute, "thresholds": [round(float(threshold), 4) for threshold in thresholds]}
    if attribute.get("lists") is not None:
        # What a precision or a recall asks of each tag, a list as a whole would not keep to.
        entry["lists"] = {**attribute["lists"], "used": settings.objective == "f1"}
    given = known & predicted_tags([entry], scores)
    right = (given & (references == 1)).sum()
    return entry, {
        "objective": settings.objective, **aim,
        "precision": float(right / max(given.sum(), 1)), "recall": float(right / max(positives.sum(), 1)),
        "coverage": float(given.any(1).mean()),
    }


def expected_f1_threshold(probabilities: np.ndarray) -> float:
    """The threshold of a tag with the highest F1 to be expected of products with these probabilities [M], which is half
    of that F1 (Lipton, Elkan & Naryanaswamy 2014, arXiv 1402.1892), and at least `LEAST_SURE`.

    What is expected does not hang on the few products that happen to carry a rare tag, as the best F1 of a sweep does.
    """
    ranked = np.sort(probabilities)[::-1]
    expected = 2 * ranked.cumsum() / (np.arange(1, len(ranked) + 1) + max(ranked.sum(), 1e-9))
    return max(expected.max(initial=0.0) / 2, LEAST_SURE)


def best_threshold(
    scores: np.ndarray, given: np.ndarray, missed: int, settings: ThresholdSettings
) -> tuple[float, bool]:
    """(threshold, whether the target was reached) for scores [M]; `given`, bool [M], says which of them are of given
    tags, and `missed` is the number of given tags without a score."""
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], given[order].cumsum()
    ends = np.flatnonzero(np.append(np.diff(ranked) != 0, True))
    ranked, hits, listed = ranked[ends], hits[ends], ends + 1
    if not len(ranked) or not hits[-1]:
        return 1.0, False
    precision, recall = hits / listed, hits / (hits[-1] + missed)
    reached = True
    if settings.objective == "f1":
        best = (2 * hits / (listed + hits[-1] + missed)).argmax()
    elif settings.objective == "precision":
        good = np.flatnonzero(precision >= settings.target)
        reached, best = len(good) > 0, good[-1] if len(good) else precision.argmax()
    else:
        good = np.flatnonzero(recall >= settings.target)
        reached, best = len(good) > 0, good[0] if len(good) else len(ranked) - 1
    # Halfway to the next score below: the threshold should not sit on a product of the validation split.
    below = ranked[best + 1] if best + 1 < len(ranked) else 0.0
    return (ranked[best] + below) / 2, reached


def stored_config(folder: str | Path) -> Path:
    """The config.json of a saved model; of an adapter, that of its base. Raises ConfigError where it is not a file
    here."""
    folder = Path(folder)
    adapter = folder / "adapter_config.json"
    if adapter.exists():
        folder = Path(json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"])
    path = folder / "config.json"
    if not path.exists():
        raise ConfigError(f"{path} is not there: only the config of a local folder can be changed; download the model.")
    return path


def store_attributes(folder: str | Path, attributes: Sequence[dict]) -> Path:
    """Writes the attributes into `stored_config`, and returns its path."""
    path = stored_config(folder)
    config = json.loads(path.read_text(encoding="utf-8")) | {"attributes": list(attributes)}
    path.write_text(json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
