"""Fits the kernel head: chooses its landmarks and solves the ridge regression, in closed form."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_tagger.catalog.batching.collate import UNKNOWN
from hf_tagger.catalog.batching.tag_labels import TagLabels
from hf_tagger.model.decisions import attribute_slices
from hf_tagger.model.heads import CandidateColumns, candidate_attributes
from hf_tagger.model.kernel_head import LOGIT_SCALE, MODES, KernelHead
from hf_tagger.training.heads.lexical_codes import NEVER, random_codes
from hf_tagger.training.settings import KernelSettings

# Labels that are looked through at a time.
LABELS_AT_ONCE = 2**25


@dataclass
class KernelRows:
    """Frozen features of the N training products that have all modalities which the model reads."""

    text: Tensor | None  # [N, F] of their whole texts; None for a model without text, as are the next two
    masked: Tensor | None  # [N, F] of their texts without the words of their own tags
    has_masked: Tensor | None  # bool [N]: whether any word is left
    image: Tensor | None  # [N, F'] of their photos; None for a model without photos
    labels: Tensor | TagLabels  # `tag_labels` [N, T]


@torch.no_grad()
def fit_kernel_head(head: KernelHead, attributes: Sequence[dict], rows: KernelRows,
                    settings: KernelSettings) -> dict[str, int]:
    """Fits `head` in place by kernel ridge regression of 0 and 1, unknown labels left out. Returns the number of
    landmarks."""
    head.reset()
    weights = weights_of(rows.labels, attributes, settings.class_weight_power)
    count = len(head.coefficients_image) if "image" in head.modes else len(head.coefficients_text) // head.VIEWS
    if not len(rows.labels) or not count:
        return {"landmarks": 0}
    chosen = weights.argsort(descending=True, stable=True)[:count].sort().values
    targets = targets_of(torch.as_tensor(rows.labels[chosen.numpy()]), attributes)
    ridge = settings.ridge / weights[chosen]
    set_keys(head, rows, chosen, count)
    known = targets >= 0
    mean = (targets.clamp(min=0) * known).sum(0) / known.sum(0).clamp(min=1)
    residual = torch.where(known, targets - mean, 0.0)
    residual, known = in_columns(head.columns, residual, known, attributes)
    for mode in head.modes:
        place, product = _rows_of(mode, rows, chosen, count)
        gram = gram_of(head, mode, place, product)
        coefficients = getattr(head, f"coefficients_{mode}")
        for columns, row in column_groups(known[product]):
            # (K + ridge / weight) a = targets - mean, on the rows where the targets of these columns are known.
            system = gram[row][:, row].clone()
            system.diagonal().add_(ridge[product][row])
            coefficients[place[row][:, None], columns] = torch.cholesky_solve(
                residual[product][row][:, columns], torch.linalg.cholesky(system))
    head.offset.copy_(_offset(mean, attributes, settings))
    return {"landmarks": len(chosen)}


def set_keys(head: KernelHead, rows: KernelRows, chosen: Tensor, count: int) -> None:
    """Scale and principal axes of each block of features, of all rows; the landmarks' queries as the head's keys: of
    text in both views, the second from place `count` on."""
    features = {"text": [rows.text, rows.masked], "image": [rows.image]}
    for name in head.weights:
        modality, columns = head.blocks[name]
        part = features[modality][0][:, columns].float()
        getattr(head, f"mean_{name}").copy_(part.mean(0))
        getattr(head, f"std_{name}").copy_(part.std(0, correction=0).clamp(min=1e-4))
        block, axes = head.standardised(name, features[modality][0]), getattr(head, f"axes_{name}")
        axes.copy_(torch.linalg.eigh(block.T @ block)[1][:, -axes.shape[1]:])
    for modality in head.squares:
        for view, of_view in enumerate(features[modality]):
            getattr(head, f"keys_{modality}")[view * count: view * count + len(chosen)] = head.query(
                modality, of_view[chosen])


def _rows_of(mode: str, rows: KernelRows, chosen: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Rows of the head's coefficients that are solved for, and the chosen product that each belongs to."""
    products = torch.arange(len(chosen))
    if not MODES[mode][0]:
        return products, products
    masked = rows.has_masked[chosen].nonzero()[:, 0]
    return torch.cat([products, count + masked]), torch.cat([products, masked])


def gram_of(head: KernelHead, mode: str, place: Tensor, product: Tensor) -> Tensor:
    """The kernel of landmarks [n] (see `_rows_of`) with each other [n, n]."""
    similarities = {}
    for modality in head.squares:
        keys = getattr(head, f"keys_{modality}")
        similarities[modality] = keys[product if modality == "image" else place] @ keys.T
    return head.kernel(similarities, mode)[:, place]


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


def in_columns(columns: CandidateColumns, residual: Tensor, known: Tensor, attributes: Sequence[dict]
               ) -> tuple[Tensor, Tensor]:
    """What the head's columns are to say [n, width] and whether that is known, from the same of every candidate [n, C]:
    of an attribute in codes the sum of its candidates' codes, weighted. Draws these codes."""
    if not columns.coded:
        return residual, known
    attribute = candidate_attributes(attributes)
    own = ~torch.isin(attribute, torch.tensor(columns.coded))
    said, told = [residual[:, own]], [known[:, own]]
    for index in columns.coded:
        mine = attribute == index
        codes = columns.of_attribute(index)[1]
        codes.weight.copy_(random_codes(index, *codes.weight.shape))
        all_known = known[:, mine].all(1, keepdim=True)
        said.append(torch.where(all_known, residual[:, mine], 0.0) @ codes.weight)
        told.append(all_known.expand(-1, codes.embedding_dim))
    return torch.cat(said, dim=1), torch.cat(told, dim=1)


def targets_of(labels: Tensor, attributes: Sequence[dict]) -> Tensor:
    """0 / 1 / -1 (unknown) for every candidate [N, T + A]."""
    blocks = [labels[:, where] for where in attribute_slices(attributes)]
    none = [torch.where((block != UNKNOWN).all(1), (block.amax(1) <= 0).float(), -1.0) for block in blocks]
    return torch.cat([torch.where(labels == UNKNOWN, -1.0, labels), torch.stack(none, dim=1)], dim=1)


def weights_of(labels: Tensor | TagLabels, attributes: Sequence[dict], power: float) -> Tensor:
    """Weights of products [N]: (the count of a product's rarest tag) ** -power, mean over the attributes known of it,
    scaled to a mean of 1 and clipped to 0.2 to 5."""
    if not len(labels):
        return torch.zeros(0)
    size = max(1, LABELS_AT_ONCE // max(1, labels.shape[1]))
    parts = [slice(start, start + size) for start in range(0, len(labels), size)]
    counts = sum(((torch.as_tensor(labels[part]) > 0).sum(0) for part in parts), torch.zeros(labels.shape[1]))
    counts, weights = counts.clamp(min=1).float(), []
    for where in attribute_slices(attributes):
        known, rarest = [], []
        for part in parts:
            block = torch.as_tensor(labels[part][:, where])
            known.append((block != UNKNOWN).all(1))
            rarest.append(torch.where(block > 0, counts[where], torch.inf).amin(1))
        known, rarest = torch.cat(known), torch.cat(rarest)
        rarest = torch.where(torch.isinf(rarest), known.sum().clamp(min=1).float(), rarest)
        weight = rarest ** -power * known
        weights.append(weight / weight.sum().clamp(min=1e-9) * known.sum())
    weights = torch.stack(weights, dim=1)
    return (weights.sum(1) / (weights > 0).sum(1).clamp(min=1)).clamp(0.2, 5.0)
