"""From logits to tags: calibrated probabilities, thresholds, abstention, hierarchies, as the config's attributes say.

All of it is plain data in an entry of `TaggerConfig.attributes`, fitted on validation products
(`hf_tagger/evaluation/calibration.py`) and optional:

    "temperature": 1.3                                 single: logits, "none" included, are divided by it
    "calibration": {"slopes": [..], "intercepts": [..]}  multi, one per tag: logit -> slope * logit + intercept
    "thresholds": [..]                                 one per tag; lowest probability at which it is given
    "parents": {tag: parent}                           multi: a tag implies its parents
"""

from collections.abc import Sequence

import torch

from .decision_runtime import attribute_slices, upwards


def tag_scores(attributes: Sequence[dict], tag_logits: torch.Tensor, none_logits: torch.Tensor) -> torch.Tensor:
    """Probabilities float32 [B, T] from tag_logits [B, T] and none_logits [B, A].

    Of a `single` attribute: softmax over its tags and "none" (temperature scaling: arXiv 1706.04599). Of a `multi` one:
    a sigmoid per tag (after Platt scaling), a parent's at least as high as any child's.
    """
    scores = torch.empty_like(tag_logits, dtype=torch.float32)
    for index, (attribute, where) in enumerate(zip(attributes, attribute_slices(attributes), strict=True)):
        logits = tag_logits[:, where].float()
        if attribute["kind"] == "single":
            with_none = torch.cat([logits, none_logits[:, index:index + 1].float()], dim=1)
            scores[:, where] = (with_none / (attribute.get("temperature") or 1.0)).softmax(-1)[:, :-1]
            continue
        calibration = attribute.get("calibration")
        if calibration is not None:
            logits = logits * logits.new_tensor(calibration["slopes"]) + logits.new_tensor(calibration["intercepts"])
        part = logits.sigmoid()
        for child, parent in upwards(attribute):
            part[:, parent] = torch.maximum(part[:, parent], part[:, child])
        scores[:, where] = part
    return scores


def predicted_tags(attributes: Sequence[dict], scores: torch.Tensor) -> torch.BoolTensor:
    """The tags a product gets, bool [B, T], from `tag_scores`.

    Of a `single` attribute the best one, if it reaches its threshold; without thresholds, if it is likelier than
    "none". Of a `multi` attribute all that reach their thresholds (0.5 until these are fitted), and their parents.
    """
    chosen = torch.zeros_like(scores, dtype=torch.bool)
    for attribute, where in zip(attributes, attribute_slices(attributes), strict=True):
        part, thresholds = scores[:, where], attribute.get("thresholds")
        if thresholds is not None:
            thresholds = torch.tensor(thresholds, device=scores.device)
        if attribute["kind"] == "single":
            best = part.argmax(-1, keepdim=True)
            score = part.gather(1, best)
            wanted = score >= (1 - part.sum(-1, keepdim=True) if thresholds is None else thresholds[best])
            chosen[:, where] = torch.zeros_like(part, dtype=torch.bool).scatter(1, best, wanted)
        else:
            given = part >= (0.5 if thresholds is None else thresholds)
            for child, parent in upwards(attribute):
                given[:, parent] |= given[:, child]
            chosen[:, where] = given
    return chosen


def grown(attribute: dict, new: Sequence[str]) -> dict:
    """The entry with tags added at its end; what is fitted per tag is for them what it is on average."""
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


__all__ = ["attribute_slices", "grown", "predicted_tags", "tag_scores"]
