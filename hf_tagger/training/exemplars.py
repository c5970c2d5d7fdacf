"""Fits `ExemplarEvidence`: chooses the products to remember and solves the ridge regression, in closed form."""

from collections.abc import Iterable

import torch
from torch import Tensor

from hf_tagger.catalog.collate import UNKNOWN
from hf_tagger.model.kernel_head import LOGIT_SCALE, MODES, ExemplarEvidence
from hf_tagger.training.settings import ExemplarSettings

NEVER = -30.0


@torch.no_grad()
def fit_exemplars(
    evidence: ExemplarEvidence,
    attributes: list[dict],
    rows: Iterable[tuple[Tensor, Tensor, Tensor]],
    settings: ExemplarSettings,
) -> dict[str, float]:
    """Fits `evidence` in place.

    Args:
        rows: (text features [B, F], image features [B, F'], tag_labels [B, T]) of products with text and photo.
            A product should come without the words of its own tags, too, or they make its photo look superfluous.
    """
    parts = list(zip(*rows, strict=True))
    if not parts:
        return {"exemplars": 0}
    text, image, labels = (torch.cat(part) for part in parts)
    count = evidence.coefficients.shape[2]
    targets, weights = _targets(labels, attributes, settings)
    if len(labels) > count:
        chosen = weights.argsort(descending=True, stable=True)[:count]
        text, image, targets, weights = text[chosen], image[chosen], targets[chosen], weights[chosen]
    for name, (modality, columns) in evidence.blocks.items():
        features = (text if modality == "text" else image)[:, columns].float()
        getattr(evidence, f"mean_{name}").copy_(features.mean(0))
        getattr(evidence, f"std_{name}").copy_(features.std(0).clamp(min=1e-4))
        block = evidence.block(name, text if modality == "text" else image)
        axes = getattr(evidence, f"axes_{name}")
        _, vectors = torch.linalg.eigh(block.T @ block)
        axes.copy_(vectors[:, -axes.shape[1]:])
        keys = getattr(evidence, f"keys_{name}")
        keys.zero_()
        keys[: len(block)] = block @ axes
    known = targets >= 0
    mean = (targets.clamp(min=0) * known).sum(0) / known.sum(0).clamp(min=1)
    evidence.coefficients.zero_()
    for mode in range(MODES):
        similarities = evidence.similarities(text if mode == 0 else None, image)
        for index, kernel in enumerate(evidence.kernels):
            gram = evidence.kernel(kernel, similarities)[:, : len(image)]
            for columns, known_rows in _groups(known):
                residual = (targets[known_rows][:, columns] - mean[columns])
                system = gram[known_rows][:, known_rows].clone()
                system.diagonal().add_(settings.ridge / weights[known_rows].clamp(0.2, 5.0))
                solution = torch.cholesky_solve(residual, torch.linalg.cholesky(system))
                target = evidence.coefficients[index, mode]
                target[known_rows.nonzero(), columns] = solution
    offset, tags = mean.clone(), labels.shape[1]
    start = 0
    for index, attribute in enumerate(attributes):
        where = slice(start, start + len(attribute["tags"]))
        start = where.stop
        if attribute["kind"] == "multi":
            offset[where] -= 0.5
        else:
            prior = settings.adjustment(attribute["name"]) * mean.clamp(min=1e-5).log() / LOGIT_SCALE
            offset[where] -= prior[where]
            offset[tags + index] -= prior[tags + index]
        if attribute["kind"] == "multi":
            continue
        if not attribute.get("none_count"):
            offset[tags + index] = NEVER / LOGIT_SCALE
    evidence.offset.copy_(offset)
    return {"exemplars": len(image)}


def rarest_rows(labels: Tensor, attributes: list[dict], settings: ExemplarSettings, count: int) -> Tensor:
    """At most `count` of the rows of labels [N, T], those with the rarest tags, in order."""
    if len(labels) <= count:
        return torch.arange(len(labels))
    _, weights = _targets(labels, attributes, settings)
    return weights.argsort(descending=True, stable=True)[:count].sort().values


def _targets(labels: Tensor, attributes: list[dict], settings: ExemplarSettings) -> tuple[Tensor, Tensor]:
    """0 / 1 / -1 (unknown) for every candidate [N, T + A], and weights of products [N], 1 on average."""
    none, weights, start = [], [], 0
    for attribute in attributes:
        block = labels[:, start:start + len(attribute["tags"])]
        start += block.shape[1]
        known = (block != UNKNOWN).all(1)
        none.append(torch.where(known, (block.amax(1) <= 0).float(), -1.0))
        counts = (block > 0).sum(0).clamp(min=1).float()
        rarest = torch.where(block > 0, counts, torch.inf).amin(1)
        rarest = torch.where(torch.isinf(rarest), known.sum().float(), rarest)
        weight = rarest ** -settings.balance * known
        weights.append(weight / weight.sum().clamp(min=1e-9) * known.sum())
    candidates = torch.cat([torch.where(labels == UNKNOWN, -1.0, labels), torch.stack(none, dim=1)], dim=1)
    weights = torch.stack(weights, dim=1)
    return candidates, weights.sum(1) / (weights > 0).sum(1).clamp(min=1)


def _groups(known: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Columns that are known for the same rows, and those rows: each group is one linear system."""
    groups: dict[bytes, list[int]] = {}
    for column in range(known.shape[1]):
        groups.setdefault(known[:, column].numpy().tobytes(), []).append(column)
    return [(torch.tensor(columns), known[:, columns[0]]) for columns in groups.values() if known[:, columns[0]].any()]
