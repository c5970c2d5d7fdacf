"""Fits the lexical head, hashed words and the name match together: a convex problem per attribute, in seconds."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hf_tagger.catalog.collate import UNKNOWN
from hf_tagger.evaluation.convex import minimise
from hf_tagger.model.decisions import attribute_slices
from hf_tagger.model.heads import LexicalHead
from hf_tagger.model.lexical_features import NAME_FEATURES, LexicalFeatures, inverse_document_frequency, words_of
from hf_tagger.training.settings import LexicalSettings

# Logit of a "none" that no training row of a `single` attribute has.
NEVER = -30.0


@torch.no_grad()
def fit_lexical_head(
    head: LexicalHead, features: LexicalFeatures, attributes: Sequence[dict],
    texts: Iterable[tuple[str, np.ndarray]], settings: LexicalSettings,
) -> dict[str, float]:
    """Fits `head` in place, and freezes it.

    Args:
        features: of the model's processor.
        texts: (text, `tag_labels` [T]) of training products.

    Minimises, for every attribute over its weights W of the table and u of the names,
    sum of losses + |W|^2 / (2 C) + name_l2 / 2 |u|^2, the loss being softmax cross-entropy over tags and none
    for `single` attributes and binary cross-entropy for `multi` ones; unknown labels weigh nothing. Returns the number
    of texts and the loss per text before and after, all attributes together.
    """
    rows = SparseRows.of_texts(features, islice(texts, settings.max_rows))
    head.requires_grad_(False).reset()
    head.idf.copy_(torch.from_numpy(rows.idf))
    return fit_table(head, attributes, rows, settings)


@torch.no_grad()
def fit_table(head: LexicalHead, attributes: Sequence[dict], rows: "SparseRows",
              settings: LexicalSettings) -> dict[str, float]:
    """As `fit_lexical_head`, on features that are computed already."""
    count = len(rows.labels)
    if not count:
        return {"texts": 0}
    before = after = 0.0
    for index, (attribute, where) in enumerate(zip(attributes, attribute_slices(attributes), strict=True)):
        problem = _Problem(rows, attribute, where, settings)
        before += problem.loss()
        problem.solve(settings.iterations)
        problem.write(head, index, rows.labels.shape[1] + index)
        after += problem.loss()
    return {"texts": count, "loss_before": before / count, "loss_after": after / count}


@dataclass
class SparseRows:
    """Features of N texts, as entries of two sparse matrices."""

    row: Tensor  # [M]: the text,
    bucket: Tensor  # the hashed term,
    value: Tensor  # and its TF-IDF value
    match_row: Tensor  # [M']: the text,
    match_id: Tensor  # the name match (see `LexicalFeatures`),
    match_value: Tensor  # and its value
    labels: Tensor  # `tag_labels` [N, T]
    idf: np.ndarray  # float [buckets], by which values have been multiplied
    dense: Tensor | None = None  # further features [N, D]; their weights follow the buckets' in the table

    @classmethod
    def of_texts(cls, features: LexicalFeatures, texts: Iterable[tuple[str, np.ndarray]]) -> "SparseRows":
        """TF-IDF values of unit length."""
        terms, matches, labels = [], [], []
        for text, row in texts:
            words = words_of(text)
            terms.append(features.terms(words))
            matches.append(features.name_matches(words))
            labels.append(row)
        row = _repeated([len(ids) for ids, _ in terms])
        bucket = torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *(ids for ids, _ in terms)]))
        value = torch.from_numpy(np.concatenate([np.zeros(0, np.float32), *(counts for _, counts in terms)]))
        documents = np.bincount(bucket.numpy(), minlength=max(1, features.buckets))
        idf = inverse_document_frequency(documents, len(terms))
        value = value * torch.from_numpy(idf)[bucket]
        norm = torch.zeros(len(terms)).index_add(0, row, value.square()).sqrt()
        return cls(
            row, bucket, value / norm[row].clamp(min=1e-6),
            match_row=_repeated([len(found) for found in matches]),
            match_id=torch.tensor([place for found in matches for place in found], dtype=torch.long),
            match_value=torch.tensor([value for found in matches for value in found.values()]),
            labels=torch.from_numpy(np.stack(labels)) if labels else torch.zeros(0, 0), idf=idf)


def _repeated(counts: list[int]) -> Tensor:
    return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts, dtype=torch.long))


class _Problem:
    """The problem of one attribute, on the texts whose tags of it are known. Attributes share no weights, so that each
    is a problem of its own."""

    def __init__(self, rows: SparseRows, attribute: dict, where: slice, settings: LexicalSettings):
        self.settings, self.where, self.single = settings, where, attribute["kind"] == "single"
        known = (rows.labels[:, where] != UNKNOWN).all(1)
        self._set_targets(rows.labels[known, where])
        place = known.long().cumsum(0) - 1
        mine = known[rows.row]
        # Only buckets that occur get a row in the problem; the others keep weight zero.
        self.used, column = rows.bucket[mine].unique(return_inverse=True)
        row, value = place[rows.row[mine]], rows.value[mine]
        self.x = _csr(row, column, value, (len(self.target), len(self.used)))
        self.x_t = _csr(column, row, value, (len(self.used), len(self.target)))
        self.dense = torch.zeros(len(self.target), 0) if rows.dense is None else rows.dense[known]
        tag = rows.match_id // NAME_FEATURES
        mine = known[rows.match_row] & (tag >= where.start) & (tag < where.stop)
        self.matches = (place[rows.match_row[mine]], tag[mine] - where.start, rows.match_id[mine] % NAME_FEATURES,
                        rows.match_value[mine])
        self.shapes = [(len(self.used) + self.dense.shape[1], self.columns), (1, self.columns), (1, NAME_FEATURES)]
        self.parameters = torch.zeros(sum(a * b for a, b in self.shapes))

    def _set_targets(self, labels: Tensor) -> None:
        """Softmax with "none" as the last column if any text has it for `single`, sigmoids for `multi`."""
        tags = labels.shape[1]
        self.unseen = ~(labels > 0).any(0)
        self.target, self.weight, self.columns = labels, torch.ones(len(labels)), tags
        if self.single:
            self.target = torch.where(labels.amax(1) > 0, labels.argmax(1), tags)
            counts = torch.bincount(self.target, minlength=tags + 1).clamp(min=1).float()
            weight = counts[self.target] ** -self.settings.class_weight_power
            self.weight = weight / (weight.sum() / max(len(labels), 1)).clamp(min=1e-12)
            # A "none" that never occurs is left out of the softmax rather than pushed to minus infinity.
            none = bool((self.target == tags).any())
            self.unseen = torch.cat([self.unseen, torch.zeros(int(none), dtype=torch.bool)])
            self.columns = tags + none

    def _parts(self, parameters: Tensor) -> list[Tensor]:
        sizes = [a * b for a, b in self.shapes]
        return [part.view(shape) for part, shape in zip(parameters.split(sizes), self.shapes, strict=True)]

    @torch.no_grad()
    def _evaluate(self, parameters: Tensor) -> tuple[float, Tensor]:
        """Loss and its gradient, flat like the parameters."""
        table, bias, names = self._parts(parameters)
        row, tag, kind, value = self.matches
        words = len(self.used)
        logits = bias + self.x @ table[:words] + self.dense @ table[words:]
        logits.view(-1).index_add_(0, row * self.columns + tag, value * names[0, kind])
        loss, slope = self._losses(logits)
        of_table = torch.cat([self.x_t @ slope, self.dense.T @ slope])
        gradients = [of_table + table / self.settings.inverse_l2, slope.sum(0, keepdim=True),
                     self.settings.name_l2 * names]
        gradients[2][0].index_add_(0, kind, value * slope[row, tag])
        loss += float(table.square().sum()) / (2 * self.settings.inverse_l2)
        loss += self.settings.name_l2 / 2 * float(names.square().sum())
        return loss, torch.cat([gradient.reshape(-1) for gradient in gradients])

    def _losses(self, logits: Tensor) -> tuple[float, Tensor]:
        """Summed loss and its slope [N, columns]."""
        weight = self.weight[:, None]
        if not self.single:
            losses = functional.binary_cross_entropy_with_logits(logits, self.target, reduction="none")
            return float((losses * weight).sum()), (logits.sigmoid() - self.target) * weight
        log_probability, chosen = logits.log_softmax(1), self.target[:, None]
        loss = -float((log_probability.gather(1, chosen) * weight).sum())
        slope = log_probability.exp().scatter_add(1, chosen, -torch.ones_like(chosen, dtype=logits.dtype))
        return loss, slope * weight

    def loss(self) -> float:
        """Of all texts together."""
        return self._evaluate(self.parameters)[0] if len(self.target) else 0.0

    def solve(self, iterations: int) -> None:
        if not len(self.target):
            return
        self.parameters = minimise(self._evaluate, self.parameters, iterations=iterations, history_size=8,
                                   tolerance_grad=1e-4, tolerance_change=1e-7 * len(self.target))

    def write(self, head: LexicalHead, attribute: int, none: int) -> None:
        """Writes the solution into `head`; `none` is the attribute's candidate for "none applies"."""
        table, bias, names = self._parts(self.parameters)
        # The fit pushes a tag of a fixed list that no row has towards minus infinity; it gets the rarest tag's bias.
        if self.unseen.any() and not self.unseen.all():
            table[:, self.unseen] = 0.0
            bias[0, self.unseen] = bias[0, ~self.unseen].min()
        candidates = torch.arange(self.where.start, self.where.stop)
        if self.columns > len(candidates):
            candidates = torch.cat([candidates, torch.tensor([none])])
        further = torch.arange(self.dense.shape[1]) + len(head.table.weight) - self.dense.shape[1]
        head.table.weight[torch.cat([self.used, further])[:, None], candidates] = table
        head.bias.weight[candidates, 0] = bias[0]
        if self.single and self.columns == self.where.stop - self.where.start:
            head.bias.weight[none] = NEVER
        if len(self.matches[0]):
            head.name_weight.weight[attribute] = names[0]


def _csr(row: Tensor, column: Tensor, value: Tensor, shape: tuple[int, int]) -> Tensor:
    with warnings.catch_warnings():
        # torch warns that CSR tensors are in beta, and that it does not check this one.
        warnings.simplefilter("ignore", UserWarning)
        return torch.sparse_coo_tensor(torch.stack([row, column]), value, shape).coalesce().to_sparse_csr()
