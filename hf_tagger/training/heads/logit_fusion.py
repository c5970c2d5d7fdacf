"""Fits the logit fusion, how far each source is trusted, on products that the sources were not fitted on."""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from hf_tagger.catalog.batching.collate import UNKNOWN
from hf_tagger.evaluation.convex import minimise
from hf_tagger.model.decisions import attribute_slices
from hf_tagger.model.heads import LogitFusion
from hf_tagger.training.settings import LogitFusionSettings

Hidden = Literal["", "words", "text", "image"]
# Standard errors by which the text alone must be better than text and photo to decide without the photo: the rule by
# which the simpler of two models is taken (Breiman et al. 1984, Classification and Regression Trees).
BETTER = 1.0


@dataclass
class SourceRows:
    """What the sources say of B products, all seen in one way."""

    sources: Tensor  # logits [B, S, C]
    features: Tensor  # of the fusion [B, A, F]
    labels: Tensor  # `tag_labels` [B, T]
    hidden: Hidden = ""  # what of them is not seen: nothing, the words of their own tags, or a modality
    ids: list[str] = field(default_factory=list)
    tags: list[dict[str, Any]] = field(default_factory=list)  # as in the records

    def one_in(self, step: int) -> "SourceRows":
        """Those of about 1 / step of all products, the same ones however they are seen."""
        mine = [zlib.crc32(product.encode(errors="replace")) % step == 0 for product in self.ids]
        ids, tags = ([item for item, kept in zip(items, mine, strict=True) if kept] for items in (self.ids, self.tags))
        rows = torch.tensor(mine, dtype=torch.bool, device=self.labels.device)
        return SourceRows(self.sources[rows], self.features[rows], self.labels[rows], self.hidden, ids, tags)


def thinned(rows: Iterable[SourceRows], most: int = 2**26) -> tuple[list[SourceRows], int]:
    """(rows of one in n products, n): of all, where their sources hold at most so many logits, else of a half, a
    quarter ... of them."""
    kept: list[SourceRows] = []
    step, held = 1, 0
    for part in rows:
        kept.append(part if step == 1 else part.one_in(step))
        held += kept[-1].sources.numel()
        while held > most:
            step *= 2
            kept = [part.one_in(step) for part in kept]
            held = sum(part.sources.numel() for part in kept)
    return [part for part in kept if len(part.labels)], step


def fit_logit_fusion(
    fusion: LogitFusion, attributes: list[dict], candidate_attribute: Tensor, rows: Iterable[SourceRows],
    settings: LogitFusionSettings,
) -> dict[str, float]:
    """Fits the weights in place; returns the mean loss before and after."""
    rows = list(rows)
    if not rows:
        return {}
    sources, features, labels = _stacked(fusion, candidate_attribute, rows)
    weights = [settings.masked_weight if part.hidden == "words" else 1.0 for part in rows]
    weight = torch.cat([part.labels.new_full(part.labels.shape[:1], each)
                        for part, each in zip(rows, weights, strict=True)])
    before = after = 0.0
    for index, (attribute, where) in enumerate(zip(attributes, attribute_slices(attributes), strict=True)):
        fit = _AttributeFit(attribute, index, where, (sources, features, labels), weight, settings)
        if not len(fit.weight):
            continue
        table = fusion.weights.weight[index].detach().unflatten(0, (fusion.sources, -1))
        fitted = minimise(fit.loss, table, pull=settings.l2, iterations=settings.iterations)
        before, after = before + float(fit.loss(table)), after + float(fit.loss(fitted))
        with torch.no_grad():
            fusion.weights.weight[index] = fitted.flatten()
    return {"loss_before": before / len(attributes), "loss_after": after / len(attributes)}


def _stacked(fusion: LogitFusion, candidate_attribute: Tensor, rows: Sequence[SourceRows]) -> tuple[Tensor, ...]:
    """Normalised sources [N, S, C], features [N, A, F] and labels [N, T] of all rows."""
    sources, features, labels = (torch.cat([getattr(part, name) for part in rows])
                                 for name in ("sources", "features", "labels"))
    normalised = fusion.normalise(sources.flatten(0, 1), candidate_attribute).unflatten(0, sources.shape[:2])
    return normalised, features, labels


class _AttributeFit:
    """The loss of one attribute, whose tags stand at `where`, on the `stacked` products of which it is known."""

    def __init__(self, attribute: dict, index: int, where: slice, stacked: tuple[Tensor, ...], weight: Tensor,
                 settings: LogitFusionSettings):
        sources, features, labels = stacked
        known = (labels[:, where] != UNKNOWN).all(1)
        columns = torch.tensor([*range(where.start, where.stop), labels.shape[1] + index])
        self.single = attribute["kind"] == "single"
        self.sources, self.features = sources[known][..., columns], features[known, index]
        labels, weight = labels[known, where], weight[known]
        self.target, self.weight = labels, weight
        if self.single:
            self.target = torch.where(labels.amax(1) > 0, labels.argmax(1), labels.shape[1])
            counts = torch.bincount(self.target, minlength=labels.shape[1] + 1).clamp(min=1).float()
            self.weight = weight * counts[self.target] ** -settings.class_weight_power
        self.weight = self.weight / self.weight.sum()

    def loss(self, table: Tensor) -> Tensor:
        return self.losses(table).sum()

    def losses(self, table: Tensor) -> Tensor:
        """Of each product, weighted; they add up to the mean."""
        fused = torch.einsum("ns,nsc->nc", (self.features @ table.T).clamp(min=0.0), self.sources)
        if self.single:
            losses = functional.cross_entropy(fused, self.target, reduction="none")
        else:
            losses = functional.binary_cross_entropy_with_logits(fused[:, :-1], self.target, reduction="none").mean(1)
        return losses * self.weight


@torch.no_grad()
def text_decides(
    fusion: LogitFusion, attributes: list[dict], candidate_attribute: Tensor, rows: Sequence[SourceRows],
    settings: LogitFusionSettings,
) -> dict[str, tuple[float, float]]:
    """{attribute: mean losses of products with text and photo, and of the same without the photo} where the latter is
    lower by more than chance: a photo then only confuses what the words say."""
    seen = [[part for part in rows if part.hidden == hidden and part.ids] for hidden in ("", "image")]
    place = {product: number for number, product in enumerate(_ids(seen[1]))}
    pairs = [(number, place[product]) for number, product in enumerate(_ids(seen[0])) if product in place]
    if not pairs:
        return {}
    device, found = fusion.weights.weight.device, {}
    sides = []
    for parts, chosen in zip(seen, zip(*pairs, strict=True), strict=True):
        numbers = torch.tensor(chosen, device=device)
        sides.append(tuple(tensor[numbers] for tensor in _stacked(fusion, candidate_attribute, parts)))
    for index, (attribute, where) in enumerate(zip(attributes, attribute_slices(attributes), strict=True)):
        table = fusion.weights.weight[index].unflatten(0, (fusion.sources, -1))
        both, alone = (_AttributeFit(attribute, index, where, side, torch.ones(len(pairs), device=device), settings)
                       .losses(table) for side in sides)
        gain = both - alone
        if len(gain) and gain.sum() > BETTER * gain.std(correction=0) * len(gain) ** 0.5:
            found[attribute["name"]] = float(both.sum()), float(alone.sum())
    return found


def _ids(rows: Sequence[SourceRows]) -> list[str]:
    return [product for part in rows for product in part.ids]
