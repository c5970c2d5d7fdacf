"""Compares an exported tagger's logits, decisions and free-form tags with its model's, on the same batches."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from transformers import Pipeline

from hf_tagger.catalog.batching.collate import model_inputs
from hf_tagger.evaluation.predict import Predictions
from hf_tagger.evaluation.scoring import Scorer, draw
from hf_tagger.runtime import OnnxTagger

FLOAT_TOLERANCE, F1_TOLERANCE, WRITTEN_TOLERANCE = 1e-4, 0.005, 0.01
RESAMPLES = 500


@torch.no_grad()
def both_predictions(
    tagger: Pipeline, exported: Sequence[OnnxTagger], batches: Iterable[dict[str, Any]]
) -> tuple[list[Predictions], float]:
    """Predictions, with `logits`, of the model in float32 and then of each exported tagger for the same products; and
    the model's own rounding: how far its logits move when the products of the first batch come one by one."""
    model = tagger.model
    attributes = model.config.attributes
    found = [Predictions(attributes) for _ in range(1 + len(exported))]
    logits: list[list[np.ndarray]] = [[] for _ in found]
    noise = None
    for batch in batches:
        tensors = model_inputs(batch, "cpu")
        if not batch["ids"] or not tensors:
            continue
        logits[0].append(_logits(model, tensors))
        if noise is None:
            rows = range(len(batch["ids"]))
            alone = [_logits(model, {name: tensor[row:row + 1] for name, tensor in tensors.items()}) for row in rows]
            noise = float(np.abs(np.concatenate(alone) - logits[0][0]).max())
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        for number, each in enumerate(exported, 1):
            logits[number].append(each.logits(**arrays))
        for predictions in found:
            predictions.ids += batch["ids"]
            predictions.tags += batch["tags"]
    for predictions, parts in zip(found, logits, strict=True):
        predictions.logits = np.concatenate(parts)
    return [predictions.decided(attributes) for predictions in found], noise or 0.0


def _logits(model, tensors: dict[str, torch.Tensor]) -> np.ndarray:
    output = model(**tensors)
    return torch.cat([output.tag_logits, output.none_logits], dim=1).numpy()


def macro_f1(predictions: Predictions) -> dict[str, float]:
    """Macro-F1 of each attribute of which any product has tags, and their "mean"; nothing where none has."""
    metrics = predictions.metrics()
    values = {entry["name"]: metrics[f"{entry['name']}/macro_f1"] for entry in predictions.attributes}
    values = {name: value for name, value in values.items() if not np.isnan(value)}
    return values and {**values, "mean": float(np.mean(list(values.values())))}


def parity(reference: Predictions, exported: Predictions, noise: float = 0.0) -> dict[str, Any]:
    """How far an exported tagger is from its model: "max_logit_difference" beside the model's own rounding (`noise`),
    "changed_tags" (decisions that differ), and macro-F1 of both per attribute and on average; "macro_f1_drop", positive
    where it falls, and what it is "at_least" (see `least_drop`), None where no product has tags to compare with."""
    wanted, got = macro_f1(reference), macro_f1(exported)
    drop = wanted["mean"] - got["mean"] if wanted else None
    return {
        "products": len(reference.ids),
        "max_logit_difference": float(np.abs(reference.logits - exported.logits).max()),
        "model_rounding": noise,
        "changed_tags": int((reference.chosen != exported.chosen).sum()),
        "macro_f1": got, "macro_f1_of_the_model": wanted,
        "macro_f1_drop": drop and round(drop, 5),
        "macro_f1_drop_at_least": drop and round(least_drop(reference, exported), 5),
    }


def least_drop(reference: Predictions, exported: Predictions) -> float:
    """Lower end of the 95 % interval of the drop in mean macro-F1, by a paired bootstrap over products: where one
    product has the only example of a tag, it alone moves macro-F1 by points."""
    weights = np.concatenate([np.ones((1, len(reference.ids)), np.uint8), draw(len(reference.ids), RESAMPLES, 0)])
    means = []
    for each in (reference, exported):
        scores = Scorer(each).scores(weights, precisions=False)
        means.append(np.nanmean([scores[f"{entry['name']}/macro_f1"] for entry in each.attributes], axis=0))
    drop, *others = means[0] - means[1]
    low, middle = np.nanpercentile(others, [2.5, 50])
    return float(drop - middle + low)  # resamples are biased, see `Scorer.summary`


def written_parity(tagger: Pipeline, exported: dict[str, OnnxTagger], products: Sequence[dict],
                   batch_size: int = 32) -> dict[str, dict[str, Any]]:
    """Compares the free-form tags that each exported tagger writes with those that the model writes greedily.

    Returns {name: {"products", "same_sets" and "same_lists" (shares of products with the same tags, and in the same
    order), "max_score_difference" (of tags that both wrote)}}.
    """
    wanted: list[list[dict]] = []
    found: dict[str, list[list[dict]]] = {name: [] for name in exported}
    for start in range(0, len(products), batch_size):
        rows = [tagger.preprocess(product) for product in products[start : start + batch_size]]
        languages = [row["language"] for row in rows]
        wanted += tagger.forward(tagger.collate(rows), languages=languages, free_form=True)["written"]
        for name, each in exported.items():
            found[name] += each.tag_batch(each.collate(rows), languages, free_form=True)[2]
    return {name: _compare_written(wanted, tags) for name, tags in found.items()}


def _compare_written(wanted: list[list[dict]], found: list[list[dict]]) -> dict[str, Any]:
    scores = [[{(tag["label"], tag["attribute"]): tag["score"] for tag in tags} for tags in pair]
              for pair in zip(wanted, found, strict=True)]
    differences = [abs(first[tag] - second[tag]) for first, second in scores for tag in first.keys() & second.keys()]
    return {"products": len(wanted),
            "same_sets": round(float(np.mean([first.keys() == second.keys() for first, second in scores])), 4),
            "same_lists": round(float(np.mean([list(first) == list(second) for first, second in scores])), 4),
            "max_score_difference": max(differences, default=0.0)}


def failure(precision: str, report: dict[str, Any]) -> str | None:
    """Why an exported tagger must not be used, None if it may. The model's own rounding can exceed `FLOAT_TOLERANCE`,
    where it sums over thousands of landmarks: then that is the tolerance."""
    tolerance = max(FLOAT_TOLERANCE, report["model_rounding"])
    if precision == "float32" and not report["max_logit_difference"] <= tolerance:
        return f"float32 logits differ by {report['max_logit_difference']:.2g}, more than {tolerance:.2g}"
    if precision == "float32" and report.get("written", {}).get("same_sets", 1.0) < 1 - WRITTEN_TOLERANCE:
        return (f"float32 writes the model's free-form tags of {report['written']['same_sets']:.1%} of the products, "
                f"not of {1 - WRITTEN_TOLERANCE:.0%}")
    drop, least = report["macro_f1_drop"], report["macro_f1_drop_at_least"]
    if drop is not None and not least <= F1_TOLERANCE:
        return (f"{precision} loses {100 * drop:.2f} points of macro-F1, at least {100 * least:.2f} in 97.5 % of "
                f"resamples, over {100 * F1_TOLERANCE:g}")
    return None
