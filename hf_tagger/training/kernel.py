"""Fits the kernel head: chooses its landmarks and solves the ridge regression, in closed form."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_tagger.catalog.collate import UNKNOWN
from hf_tagger.model.decisions import attribute_slices
from hf_tagger.model.kernel_head import LOGIT_SCALE, MODES, KernelHead
from hf_tagger.training.settings import KernelSettings

# Logit of a "none" that no training row of a `single` attribute has.
NEVER = -30.0
# Rows that the mixture of kernels of each attribute is chosen on: the choice is between few, and its cost cubic.
CHOICE_ROWS = 2000


@dataclass
class KernelRows:
    """Frozen features of the N training products that have all modalities which the model reads."""

    text: Tensor | None  # [N, F] of their whole texts; None for a model without text, as are the next two
    masked: Tensor | None  # [N, F] of their texts without the words of their own tags
    has_masked: Tensor | None  # bool [N]: whether any word is left
    image: Tensor | None  # [N, F'] of their photos; None for a model without photos
    labels: Tensor  # `tag_labels` [N, T]


@torch.no_grad()
def fit_kernel_head(head: KernelHead, attributes: Sequence[dict], rows: KernelRows,
                    settings: KernelSettings) -> dict[str, int | list[float]]:
    """Fits `head` in place by kernel ridge regression of 0 and 1, unknown labels left out. Returns the number of
    landmarks and the mixture of kernels of each attribute."""
    head.reset()
    targets, weights = targets_and_weights(rows.labels, attributes, settings.class_weight_power)
    count = len(head.coefficients_image) if "image" in head.modes else len(head.coefficients_text) // head.VIEWS
    if not len(rows.labels) or not count:
        return {"landmarks": 0}
    chosen = weights.argsort(descending=True, stable=True)[:count].sort().values
    targets, weights = targets[chosen], weights[chosen]
    queries = _set_blocks(head, rows, chosen, count)
    known = targets >= 0
    mean = (targets.clamp(min=0) * known).sum(0) / known.sum(0).clamp(min=1)
    report: dict[str, int | list[float]] = {"landmarks": len(chosen)}
    for mode in head.modes:
        system = _System(head, mode, queries, _rows_of(mode, rows, chosen, count), targets, weights, mean, settings)
        if mode == head.modes[0]:
            head.mixture.copy_(system.choose_mixtures(attributes))
            report |= {f"mixture of {entry['name']}": mixture for entry, mixture in
                       zip(attributes, head.mixture[:, -len(attributes):].T.tolist(), strict=True)}
        system.solve(getattr(head, f"coefficients_{mode}"))
    head.offset.copy_(_offset(mean, attributes, settings))
    return report


def _set_blocks(head: KernelHead, rows: KernelRows, chosen: Tensor, count: int) -> dict[str, Tensor]:
    """Sets the scale, principal axes and keys of each block of features, and returns the keys: the landmarks'
    coordinates along the axes. Text has keys of both views, those of the second from row `count` on."""
    queries = {}
    for name, (modality, columns) in head.blocks.items():
        views = [rows.image] if modality == "image" else [rows.text, rows.masked]
        part = views[0][:, columns].float()
        getattr(head, f"mean_{name}").copy_(part.mean(0))
        getattr(head, f"std_{name}").copy_(part.std(0, correction=0).clamp(min=1e-4))
        block, axes = head.standardised(name, views[0]), getattr(head, f"axes_{name}")
        _, vectors = torch.linalg.eigh(block.T @ block)
        axes.copy_(vectors[:, -axes.shape[1]:])
        keys = getattr(head, f"keys_{name}")
        for place, view in enumerate(views):
            keys[place * count: place * count + len(chosen)] = head.standardised(name, view[chosen]) @ axes
        queries[name] = keys
    return queries


def _rows_of(mode: str, rows: KernelRows, chosen: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Rows of the head's coefficients that are solved for, and the chosen product that each belongs to."""
    products = torch.arange(len(chosen))
    if not MODES[mode][0]:
        return products, products
    masked = rows.has_masked[chosen].nonzero()[:, 0]
    return torch.cat([products, count + masked]), torch.cat([products, masked])


class _System:
    """Kernel ridge regression in one mode: (K + ridge / weight) a = targets - mean, on rows where the target is
    known."""

    def __init__(self, head: KernelHead, mode: str, queries: dict[str, Tensor], rows: tuple[Tensor, Tensor],
                 targets: Tensor, weights: Tensor, mean: Tensor, settings: KernelSettings):
        self.head, self.mode, self.settings = head, mode, settings
        self.place, product = rows
        self.residual = torch.where(targets >= 0, targets - mean, 0.0)[product]
        self.known = (targets >= 0)[product]
        self.ridge = settings.ridge / weights[product]
        self.queries = {name: keys[product if head.blocks[name][0] == "image" else self.place]
                        for name, keys in queries.items()}

    def gram(self, mixture: Tensor, rows: Tensor) -> Tensor:
        """The mixture [kernels] of the kernels between some of the rows [n, n]."""
        queries = {name: query[rows] for name, query in self.queries.items()}
        head, total = self.head, 0.0
        for share, weights in zip(mixture.tolist(), head.kernels, strict=True):
            if share:
                kernel = head.kernel(weights, head.similarities(weights, queries), self.mode)
                total = total + share * kernel[:, self.place[rows]]
        return total

    def choose_mixtures(self, attributes: Sequence[dict]) -> Tensor:
        """For each candidate the mixture [kernels, C], one kernel alone or the mean of all, with the least squared
        leave-one-out error on its attribute. In closed form: the error of row i is a_i / (inverse)_ii (Allen 1974,
        PRESS)."""
        kernels, candidates = len(self.head.kernels), self.residual.shape[1]
        if kernels == 1:
            return torch.ones(1, candidates)
        choices = torch.cat([torch.eye(kernels), torch.full((1, kernels), 1 / kernels)])
        sample = torch.randperm(len(self.place), generator=torch.Generator().manual_seed(0))[:CHOICE_ROWS].sort().values
        errors = torch.zeros(len(choices), candidates)
        for index, mixture in enumerate(choices):
            gram = self.gram(mixture, sample)
            for columns, rows in column_groups(self.known[sample]):
                system = gram[rows][:, rows].clone()
                system.diagonal().add_(self.ridge[sample][rows])
                inverse = torch.cholesky_inverse(torch.linalg.cholesky(system))
                left_out = inverse @ self.residual[sample][rows][:, columns] / inverse.diagonal()[:, None]
                errors[index, columns] = left_out.square().sum(0)
        attribute_of = torch.tensor([index for index, entry in enumerate(attributes) for _ in entry["tags"]]
                                    + list(range(len(attributes))))
        per_attribute = torch.zeros(len(errors), len(attributes)).index_add(1, attribute_of, errors)
        return choices[per_attribute.argmin(0)[attribute_of]].T

    def solve(self, coefficients: Tensor) -> None:
        """Writes the coefficients [rows of the head, C] of all candidates."""
        everything = torch.arange(len(self.place))
        mixtures, mixture_of = self.head.mixture.T.unique(dim=0, return_inverse=True)
        for index, mixture in enumerate(mixtures):
            gram = self.gram(mixture, everything)
            for columns, rows in column_groups(self.known):
                columns = columns[mixture_of[columns] == index]
                if len(columns):
                    system = gram[rows][:, rows].clone()
                    system.diagonal().add_(self.ridge[rows])
                    solution = torch.cholesky_solve(self.residual[rows][:, columns], torch.linalg.cholesky(system))
                    coefficients[self.place[rows][:, None], columns] = solution


def column_groups(known: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Columns of known [N, C] that are known for the same rows, and those rows [n]: each group is one linear system."""
    groups: dict[bytes, list[int]] = {}
    for column in range(known.shape[1]):
        groups.setdefault(known[:, column].numpy().tobytes(), []).append(column)
    return [(torch.tensor(columns), known[:, columns[0]].nonzero()[:, 0]) for columns in groups.values()
            if known[:, columns[0]].any()]


def _offset(mean: Tensor, attributes: Sequence[dict], settings: KernelSettings) -> Tensor:
    offset, tags = mean.clone(), len(mean) - len(attributes)
    for index, (attribute, where) in enumerate(zip(attributes, attribute_slices(attributes), strict=True)):
        if attribute["kind"] == "multi":
            offset[where] -= 0.5
            continue
        prior = settings.logit_adjustment_tau * mean.clamp(min=1e-5).log() / LOGIT_SCALE
        offset[where] -= prior[where]
        none = tags + index
        offset[none] = offset[none] - prior[none] if mean[none] > 0 else NEVER / LOGIT_SCALE
    return offset


def targets_and_weights(labels: Tensor, attributes: Sequence[dict], power: float) -> tuple[Tensor, Tensor]:
    """0 / 1 / -1 (unknown) for every candidate [N, T + A], and weights of products [N]: (the count of a product's
    rarest tag) ** -power, mean over the attributes known of it, scaled to a mean of 1 and clipped to 0.2 to 5."""
    none, weights = [], []
    for where in attribute_slices(attributes):
        block = labels[:, where]
        known = (block != UNKNOWN).all(1)
        none.append(torch.where(known, (block.amax(1) <= 0).float(), -1.0))
        counts = (block > 0).sum(0).clamp(min=1).float()
        rarest = torch.where(block > 0, counts, torch.inf).amin(1)
        rarest = torch.where(torch.isinf(rarest), known.sum().clamp(min=1).float(), rarest)
        weight = rarest ** -power * known
        weights.append(weight / weight.sum().clamp(min=1e-9) * known.sum())
    candidates = torch.cat([torch.where(labels == UNKNOWN, -1.0, labels), torch.stack(none, dim=1)], dim=1)
    weights = torch.stack(weights, dim=1)
    return candidates, (weights.sum(1) / (weights > 0).sum(1).clamp(min=1)).clamp(0.2, 5.0)
