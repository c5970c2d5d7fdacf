"""Fits the lexical head, hashed words and the name match together: a convex problem per attribute, in seconds.

All is kept within `LexicalSettings.memory`: an attribute with too many tags is written in codes
(`lexical_codes.py`), and no more texts are read than their features have room for.
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hf_tagger.catalog.batching.tag_labels import TagLabels, in_blocks
from hf_tagger.evaluation.convex import minimise
from hf_tagger.model.decisions import attribute_slices
from hf_tagger.model.heads import LexicalHead
from hf_tagger.model.lexical_features import NAME_FEATURES, LexicalFeatures, inverse_document_frequency, words_of
from hf_tagger.training.heads.lexical_codes import NEVER, CodedProblem
from hf_tagger.training.settings import LexicalSettings

# Tensors of an attribute's size that L-BFGS keeps, its parameters and their gradients among them.
HISTORY, VECTORS = 8, 24
# Logits that are computed at a time.
LOGITS_AT_ONCE = 2**25
# Texts whose features are joined at a time.
TEXTS_AT_ONCE = 4096


def coded_attributes(attributes: Sequence[dict], settings: LexicalSettings) -> dict[str, int]:
    """{name: width of its codes} of those attributes whose exact fit would not keep within `settings.memory`: the
    largest ones. The whole table and what L-BFGS needs for the largest attribute are kept at the same time."""
    columns = {entry["name"]: len(entry["tags"]) + 1 for entry in attributes}
    bucket_bytes, coded = 4 * max(1, settings.buckets), {}
    while columns and bucket_bytes * (sum(columns.values()) + VECTORS * max(columns.values())) > settings.bytes:
        largest = max(columns, key=columns.get)
        del columns[largest]
        coded[largest] = settings.code_width
    return coded if settings.buckets else {}


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
    rows = SparseRows.of_texts(features, attributes, islice(texts, settings.max_rows), settings.bytes // 2)
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
        problem = (CodedProblem(rows, attribute, index, where, settings, head.columns.of_attribute(index)[1])
                   if index in head.columns.coded else _Problem(rows, attribute, index, where, settings))
        before += problem.loss()
        problem.solve()
        problem.write(head, index, rows.labels.shape[1] + index)
        after += problem.loss()
    found = {"texts": count, "loss_before": before / count, "loss_after": after / count}
    return found | ({"memory_full": True} if rows.full else {})


def kept_within(attributes: Sequence[dict], settings: LexicalSettings, found: dict[str, float]) -> str:
    """How a fit kept within its memory, where it had to do anything for that."""
    said = [f"{entry['name']} in codes of {width}, as {len(entry['tags']):,} tags x {settings.buckets:,} words exceed "
            f"lexical.memory" for entry in attributes
            if (width := coded_attributes(attributes, settings).get(entry["name"]))]
    if found.get("memory_full"):
        said.append(f"no more texts than half of lexical.memory, {settings.memory:g} GB, holds")
    return "; ".join(said)


@dataclass
class SparseRows:
    """Features of N texts, as entries of two sparse matrices, text after text."""

    terms: Tensor  # int [N]: how many terms each text has,
    bucket: Tensor  # int32 [M] the hashed term,
    value: Tensor  # and its TF-IDF value [M]
    matches: Tensor  # int [N]: how many name matches each text has,
    match_id: Tensor  # the name match [M'] (see `LexicalFeatures`),
    match_value: Tensor  # and its value [M']
    labels: TagLabels  # `tag_labels` [N, T]
    idf: np.ndarray  # float [buckets], by which values have been multiplied
    dense: Tensor | None = None  # further features [N, D]; their weights follow the buckets' in the table
    full: bool = False  # whether there was no room for further texts

    @property
    def row(self) -> Tensor:
        """The text of each term [M]."""
        return torch.arange(len(self.terms)).repeat_interleave(self.terms)

    @classmethod
    def of_texts(cls, features: LexicalFeatures, attributes: Sequence[dict], texts: Iterable[tuple[str, np.ndarray]],
                 most_bytes: float = np.inf) -> "SparseRows":
        """TF-IDF values of unit length, of so many texts as fit into `most_bytes`."""
        parts, pending, entries = [], [], 0

        def labels() -> Iterator[np.ndarray]:
            nonlocal entries
            for text, row in texts:
                words = words_of(text)
                pending.append((*features.terms(words), features.name_matches(words)))
                entries += len(pending[-1][0]) + len(pending[-1][2])
                yield row
                if len(pending) == TEXTS_AT_ONCE:
                    parts.append(_joined(pending))
                    pending.clear()
                if 8 * entries > most_bytes:
                    return

        labels = TagLabels(attributes, in_blocks(labels()))
        full = 8 * entries > most_bytes
        parts.append(_joined(pending))
        terms, bucket, value, matches, match_id, match_value = (torch.cat(part) for part in zip(*parts, strict=True))
        documents = np.bincount(bucket.numpy(), minlength=max(1, features.buckets))
        idf = inverse_document_frequency(documents, len(terms))
        value *= torch.from_numpy(idf)[bucket]
        row = torch.arange(len(terms)).repeat_interleave(terms)
        norm = torch.zeros(len(terms)).index_add(0, row, value.square()).sqrt()
        return cls(terms, bucket, value.div_(norm[row].clamp(min=1e-6)), matches, match_id, match_value, labels, idf,
                   full=full)


def _joined(texts: list[tuple[np.ndarray, np.ndarray, dict[int, float]]]) -> tuple[Tensor, ...]:
    """Terms, their damped frequencies and name matches of each text -> the first six fields of `SparseRows`."""
    ids = np.concatenate([np.zeros(0, np.int32), *(ids for ids, _, _ in texts)], dtype=np.int32)
    values = np.concatenate([np.zeros(0, np.float32), *(counts for _, counts, _ in texts)])
    matches = [match for _, _, found in texts for match in found.items()]
    return (torch.tensor([len(ids) for ids, _, _ in texts], dtype=torch.long),
            torch.from_numpy(ids), torch.from_numpy(values),
            torch.tensor([len(found) for _, _, found in texts], dtype=torch.long),
            torch.tensor([place for place, _ in matches], dtype=torch.int32),
            torch.tensor([value for _, value in matches], dtype=torch.float32))


class _Problem:
    """The problem of one attribute, on the texts whose tags of it are known. Attributes share no weights, so that each
    is a problem of its own."""

    def __init__(self, rows: SparseRows, attribute: dict, index: int, where: slice, settings: LexicalSettings):
        self.settings, self.where, self.single = settings, where, attribute["kind"] == "single"
        known = torch.from_numpy(rows.labels.known(index))
        self._set_targets(*rows.labels.given(index, known.nonzero()[:, 0].numpy()), int(known.sum()))
        place = known.long().cumsum(0) - 1
        mine = known.repeat_interleave(rows.terms)
        # Only buckets that occur get a row in the problem; the others keep weight zero.
        self.used, column = rows.bucket[mine].unique(return_inverse=True)
        row, value = place[rows.row[mine]], rows.value[mine]
        self.dense = torch.zeros(len(self.target), 0) if rows.dense is None else rows.dense[known]
        tag = rows.match_id // NAME_FEATURES
        mine = known.repeat_interleave(rows.matches) & (tag >= where.start) & (tag < where.stop)
        matched = place[torch.arange(len(known)).repeat_interleave(rows.matches)[mine]]
        matches = matched, tag[mine].long() - where.start, rows.match_id[mine] % NAME_FEATURES, rows.match_value[mine]
        self.named = len(matched) > 0
        # Logits are computed for so many texts at a time.
        size = max(1, LOGITS_AT_ONCE // max(1, self.columns))
        self.blocks = [_Block(slice(start, start + size), row, column, value, len(self.used), matches, len(self.target))
                       for start in range(0, len(self.target), size)]
        self.shapes = [(len(self.used) + self.dense.shape[1], self.columns), (1, self.columns), (1, NAME_FEATURES)]
        self.parameters = torch.zeros(sum(a * b for a, b in self.shapes))

    def _set_targets(self, place: np.ndarray, column: np.ndarray, count: int) -> None:
        """Softmax with "none" as the last column if any text has it for `single`, sigmoids for `multi`."""
        tags = self.where.stop - self.where.start
        place, column = torch.from_numpy(place), torch.from_numpy(column).long()
        self.unseen = torch.ones(tags, dtype=torch.bool).index_fill(0, column, False)
        self.weight, self.columns = torch.ones(count), tags
        if not self.single:
            self.target = torch.zeros(count, tags)
            self.target[place, column] = 1.0
            return
        self.target = torch.full((count,), tags).scatter_reduce(0, place, column, "amin")
        counts = torch.bincount(self.target, minlength=tags + 1).clamp(min=1).float()
        weight = counts[self.target] ** -self.settings.class_weight_power
        self.weight = weight / (weight.sum() / max(count, 1)).clamp(min=1e-12)
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
        words, loss = len(self.used), 0.0
        gradients = [table / self.settings.inverse_l2, torch.zeros_like(bias), self.settings.name_l2 * names]
        for block in self.blocks:
            dense, (row, tag, kind, value) = self.dense[block.where], block.matches
            logits = bias + block.x @ table[:words] + dense @ table[words:]
            logits.view(-1).index_add_(0, row * self.columns + tag, value * names[0, kind])
            of_block, slope = self._losses(logits, block.where)
            loss += of_block
            gradients[0] += torch.cat([block.x_t @ slope, dense.T @ slope])
            gradients[1] += slope.sum(0, keepdim=True)
            gradients[2][0].index_add_(0, kind, value * slope[row, tag])
        loss += float(table.square().sum()) / (2 * self.settings.inverse_l2)
        loss += self.settings.name_l2 / 2 * float(names.square().sum())
        return loss, torch.cat([gradient.reshape(-1) for gradient in gradients])

    def _losses(self, logits: Tensor, where: slice) -> tuple[float, Tensor]:
        """Summed loss of these texts and its slope [n, columns]."""
        weight, target = self.weight[where, None], self.target[where]
        if not self.single:
            losses = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
            return float((losses * weight).sum()), (logits.sigmoid() - target) * weight
        log_probability, chosen = logits.log_softmax(1), target[:, None]
        loss = -float((log_probability.gather(1, chosen) * weight).sum())
        slope = log_probability.exp_().scatter_add_(1, chosen, -torch.ones_like(chosen, dtype=logits.dtype))
        return loss, slope.mul_(weight)

    def loss(self) -> float:
        """Of all texts together."""
        return self._evaluate(self.parameters)[0] if len(self.target) else 0.0

    def solve(self) -> None:
        if not len(self.target):
            return
        self.parameters = minimise(self._evaluate, self.parameters, iterations=self.settings.iterations,
                                   history_size=HISTORY, tolerance_grad=1e-4, tolerance_change=1e-7 * len(self.target))

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
        head.table.weight[torch.cat([self.used, further])[:, None], head.columns.of_candidates(candidates)] = table
        head.bias.weight[candidates, 0] = bias[0]
        if self.single and self.columns == self.where.stop - self.where.start:
            head.bias.weight[none] = NEVER
        if self.named:
            head.name_weight.weight[attribute] = names[0]


class _Block:
    """The features of some texts of a problem, in both orders; `row`, `column`, `value` are the entries of all its
    texts, text after text, and `matches` those of names."""

    def __init__(self, where: slice, row: Tensor, column: Tensor, value: Tensor, columns: int,
                 matches: tuple[Tensor, ...], count: int):
        self.where = slice(where.start, min(where.stop, count))
        size, ends = self.where.stop - self.where.start, torch.tensor([where.start, where.stop])
        start, stop = torch.searchsorted(row, ends)
        row, column, value = row[start:stop] - where.start, column[start:stop], value[start:stop]
        self.x, self.x_t = _csr(row, column, value, (size, columns)), _csr(column, row, value, (columns, size))
        start, stop = torch.searchsorted(matches[0].contiguous(), ends)
        row, *others = (part[start:stop] for part in matches)
        self.matches = row - where.start, *others


def _csr(row: Tensor, column: Tensor, value: Tensor, shape: tuple[int, int]) -> Tensor:
    with warnings.catch_warnings():
        # torch warns that CSR tensors are in beta, and that it does not check this one.
        warnings.simplefilter("ignore", UserWarning)
        return torch.sparse_coo_tensor(torch.stack([row, column]), value, shape).coalesce().to_sparse_csr()
