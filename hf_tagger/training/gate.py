"""Fits `EvidenceGate` on validation products: how far to trust each source of evidence."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_tagger.catalog.collate import UNKNOWN
from hf_tagger.heads_tagger import EvidenceGate


@dataclass
class GateSettings:
    """
    Args:
        l2: strength, per product, of the pull towards equal trust in all sources.
        balance: temper t of the class weights count ** -t of `single` attributes.
        iterations: of L-BFGS at most.
        folds: where validation is small, add what sources say of training products that they were not fitted on: all
            are fitted anew on the rest of so many folds (0: validation alone). Needs towers that stay frozen.
        max_rows: training products that are looked at for it.
    """

    l2: float = 1e-2
    balance: float = 0.25
    iterations: int = 60
    folds: int = 0
    max_rows: int = 5000

    def __post_init__(self):
        if self.folds == 1 or self.folds < 0:
            raise ValueError(f"gate.folds takes 0 or at least 2, got {self.folds}")


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
    sources, features, labels = [], [], []
    for evidence, gate_features, tag_labels in rows:
        sources.append(gate.told(evidence, candidate_attribute).transpose(0, 1))
        features.append(gate_features)
        labels.append(tag_labels)
    if not sources:
        return {}
    sources, features, labels = torch.cat(sources, dim=1), torch.cat(features), torch.cat(labels)
    before = after = 0.0
    start = 0
    for index, attribute in enumerate(attributes):
        where = slice(start, start + len(attribute["tags"]))
        start = where.stop
        columns = torch.tensor([*range(where.start, where.stop), labels.shape[1] + index])
        block = labels[:, where]
        known = (block != UNKNOWN).all(1)
        if not known.any():
            continue
        fit = _AttributeFit(attribute, sources[:, known][..., columns], features[known, index], block[known], settings)
        tables = gate.weights.weight[index].detach().view(gate.sources, -1).clone()
        fitted = fit.solve(tables)
        before, after = before + float(fit.loss(tables)), after + float(fit.loss(fitted))
        with torch.no_grad():
            gate.weights.weight[index] = fitted.flatten()
    return {"loss_before": before / len(attributes), "loss_after": after / len(attributes)}


class _AttributeFit:
    def __init__(self, attribute, sources, features, labels, settings: GateSettings):
        self.single = attribute["kind"] == "single"
        self.sources, self.features, self.settings = sources, features, settings
        if self.single:
            self.target = torch.where(labels.amax(1) > 0, labels.argmax(1), labels.shape[1])
            counts = torch.bincount(self.target, minlength=labels.shape[1] + 1).clamp(min=1).float()
            self.weight = counts[self.target] ** -settings.balance
        else:
            self.target, self.weight = labels, torch.ones(len(labels))
        self.weight = self.weight / self.weight.sum()

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

    def solve(self, start: Tensor) -> Tensor:
        tables = start.clone().requires_grad_(True)
        optimizer = torch.optim.LBFGS([tables], max_iter=self.settings.iterations, line_search_fn="strong_wolfe")

        def closure():
            optimizer.zero_grad()
            loss = self.loss(tables) + self.settings.l2 * (tables - start).square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        return tables.detach()
