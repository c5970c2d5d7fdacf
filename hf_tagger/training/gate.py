"""Fits `EvidenceGate` on validation products: how far to trust each source of evidence."""

from collections.abc import Iterable

import torch
from torch import Tensor

from hf_tagger.catalog.collate import UNKNOWN
from hf_tagger.model.tag_head import EvidenceGate
from hf_tagger.training.settings import GateSettings


def fit_gate(
    gate: EvidenceGate,
    attributes: list[dict],
    candidate_attribute: Tensor,
    rows: Iterable[tuple[Tensor, Tensor, Tensor]],
    settings: GateSettings,
) -> dict[str, float]:
    """Fits the gate in place.

    Args:
        rows: (evidence [B, S, C], gate_features [B, A, F], tag_labels [B, T]), of products as they are and, as far as
            wanted, with a modality or their labels' words hidden.

    Returns the mean loss before and after.
    """
    counts = [count for attribute in attributes
              for count in attribute.get("counts") or [torch.inf] * len(attribute["tags"])]
    gate.defer(torch.tensor(counts, device=gate.deference.device, dtype=torch.float32), settings.deference)
    sources, features, labels = [], [], []
    for evidence, gate_features, tag_labels in rows:
        sources.append(gate.told(evidence, gate_features, candidate_attribute).transpose(0, 1))
        features.append(gate_features)
        labels.append(tag_labels)
    if not sources:
        return {}
    sources, features, labels = torch.cat(sources, dim=1), torch.cat(features), torch.cat(labels)
    fits: dict[int, _AttributeFit] = {}
    start = 0
    for index, attribute in enumerate(attributes):
        where = slice(start, start + len(attribute["tags"]))
        start = where.stop
        columns = torch.tensor([*range(where.start, where.stop), labels.shape[1] + index])
        block = labels[:, where]
        known = (block != UNKNOWN).all(1)
        if known.any():
            fits[index] = _AttributeFit(attribute, sources[:, known][..., columns], features[known, index],
                                        block[known], settings)
    tables = gate.weights.weight.detach().clone().unflatten(1, (gate.sources, -1))
    before = after = 0.0
    if settings.shared and fits:
        together = _solve(list(fits.values()), tables[list(fits)].mean(0), settings.l2, settings.iterations)
        gate.weights.weight.data[:] = together.flatten()
    for index, fit in fits.items():
        towards, l2 = (together, settings.shared / len(fit)) if settings.shared else (tables[index], settings.l2)
        fitted = _solve([fit], towards, l2, settings.iterations)
        before, after = before + float(fit.loss(tables[index])), after + float(fit.loss(fitted))
        with torch.no_grad():
            gate.weights.weight[index] = fitted.flatten()
    return {"loss_before": before / len(attributes), "loss_after": after / len(attributes)}


def _solve(fits: list["_AttributeFit"], start: Tensor, l2: float, iterations: int) -> Tensor:
    """One table of weights for all `fits`, each counting by its products, pulled towards where it starts."""
    tables = start.clone().requires_grad_(True)
    products = sum(len(fit) for fit in fits)
    optimizer = torch.optim.LBFGS([tables], max_iter=iterations, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = sum(fit.loss(tables) * (len(fit) / products) for fit in fits)
        loss = loss + l2 * (tables - start).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return tables.detach()


class _AttributeFit:
    def __init__(self, attribute, sources, features, labels, settings: GateSettings):
        self.single = attribute["kind"] == "single"
        self.sources, self.features = sources, features
        if self.single:
            self.target = torch.where(labels.amax(1) > 0, labels.argmax(1), labels.shape[1])
            counts = torch.bincount(self.target, minlength=labels.shape[1] + 1).clamp(min=1).float()
            self.weight = counts[self.target] ** -settings.temper(attribute["name"])
        else:
            self.target, self.weight = labels, torch.ones(len(labels))
        self.weight = self.weight / self.weight.sum()

    def __len__(self) -> int:
        return len(self.features)

    def loss(self, tables: Tensor) -> Tensor:
        fused = 0.0
        for table, logits in zip(tables, self.sources, strict=True):
            fused = fused + (self.features @ table).clamp(min=0.0)[:, None] * logits
        if self.single:
            losses = torch.nn.functional.cross_entropy(fused, self.target, reduction="none")
        else:
            losses = torch.nn.functional.binary_cross_entropy_with_logits(fused[:, :-1], self.target, reduction="none")
            losses = losses.mean(1)
        return (losses * self.weight).sum()
