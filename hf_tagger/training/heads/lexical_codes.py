"""Fits the part of the lexical head that belongs to an attribute with very many tags.

A weight for every bucket and tag would be gigabytes, and L-BFGS keeps twenty such tables. In their place each candidate
gets a random code of unit length, which stays as it is, and each bucket a vector of the same width: its weight for a
candidate is their product. Random codes are nearly orthogonal (Johnson and Lindenstrauss 1984; for labels: Hsu et
al. 2009, arXiv 0902.1284), so that a bucket can still speak for any one tag, and as the codes are fixed the problem
stays convex. Buckets start as the mean text of each tag (Rocchio 1971); a few passes of AdaGrad over the texts (Duchi
et al. 2011) do the rest, and stopping there takes the place of an L2 term.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hf_tagger.model.heads import NAME_PRIOR, LexicalHead
from hf_tagger.model.lexical_features import NAME_FEATURES
from hf_tagger.training.settings import LexicalSettings

# Logit of a "none" that no training row of a `single` attribute has.
NEVER = -30.0
LEARNING_RATE = 0.1
# Steps of a pass, on texts that are few; texts of a step otherwise.
STEPS, SMALLEST, LARGEST = 48, 64, 512
# Logits that are computed at a time.
LOGITS_AT_ONCE = 2**23


def random_codes(attribute: int, candidates: int, width: int) -> Tensor:
    """Codes of unit length [candidates, width], always the same."""
    draw = torch.Generator().manual_seed(attribute)
    return functional.normalize(torch.randn(candidates, width, generator=draw), dim=1)


class CodedProblem:
    """The problem of one attribute, on the texts (`lexical.SparseRows`) whose tags of it are known; as
    `lexical._Problem`. Only candidates that some text has get a code: to others nothing but their names says
    anything."""

    def __init__(self, rows, attribute: dict, index: int, where: slice, settings: LexicalSettings,
                 codes: torch.nn.Embedding):
        self.rows, self.where, self.settings, self.single = rows, where, settings, attribute["kind"] == "single"
        self.texts = np.flatnonzero(rows.labels.known(index))
        place, column = rows.labels.given(index, self.texts)
        tags = where.stop - where.start
        if self.single:
            target = np.full(len(self.texts), tags)
            np.minimum.at(target, place, column)
            place, column = np.arange(len(target)), target
        self.seen, column = np.unique(column, return_inverse=True)
        self.has_none = self.single and tags in self.seen
        self.given, self.given_ends = torch.from_numpy(column), _ends(np.bincount(place, minlength=len(self.texts)))
        counts = np.bincount(column, minlength=len(self.seen))
        self.share = torch.from_numpy((1 / np.maximum(counts, 1)).astype(np.float32))
        self.weight = torch.ones(len(self.texts))
        if self.single:
            weight = counts[column].astype(np.float32) ** -settings.class_weight_power
            self.weight = torch.from_numpy(weight / max(weight.mean(), 1e-12)) if len(weight) else self.weight
        self.term_ends, self.match_ends = _ends(rows.terms.numpy()), _ends(rows.matches.numpy())
        self.seen_of = torch.full((tags,), -1).index_put(
            (torch.from_numpy(self.seen[self.seen < tags]),), torch.arange((self.seen < tags).sum()))
        self.codes = random_codes(index, tags + 1, codes.embedding_dim)[self.seen]
        self.table = torch.zeros(len(rows.idf), codes.embedding_dim)
        self.names = torch.tensor(NAME_PRIOR)
        self.bias = torch.zeros(len(self.seen))
        if not self.single:
            share = torch.from_numpy(counts / max(1, len(self.texts))).float()
            self.bias = share.clamp(1e-6, 1 - 1e-6).logit()
        size = max(SMALLEST, min(LARGEST, len(self.texts) // STEPS))
        self.size = max(1, min(size, LOGITS_AT_ONCE // max(1, len(self.seen))))

    def loss(self) -> float:
        """Of all texts together."""
        return sum(float(self._loss(part)) for part in self._batches())

    def solve(self) -> None:
        if not len(self.seen):
            return
        with torch.enable_grad():
            parameters = [tensor.requires_grad_(True) for tensor in (self.table, self.bias, self.names)]
            for part in self._batches():
                flat, starts = _ragged(self.given_ends, part)
                tags = self.given[flat]
                mean = functional.embedding_bag(tags, self.codes, starts, mode="sum",
                                                per_sample_weights=self.share[tags])
                self._found(part).backward(mean)
            with torch.no_grad():
                self.table += self.table.grad
            optimizer = torch.optim.Adagrad(parameters, lr=LEARNING_RATE, fused=True)
            for epoch in range(self.settings.epochs):
                order = np.random.default_rng(epoch).permutation(len(self.texts))
                batches = self._batches(order)
                for step, part in enumerate(batches):
                    done = epoch + step / len(batches)
                    optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 - done / self.settings.epochs)
                    optimizer.zero_grad()
                    (self._loss(part) / len(part)).backward()
                    optimizer.step()
            for parameter in parameters:
                parameter.requires_grad_(False).grad = None

    def _batches(self, order: np.ndarray | None = None) -> list[Tensor]:
        order = np.arange(len(self.texts)) if order is None else order
        return list(torch.from_numpy(order).split(self.size)) if len(order) else []

    def _found(self, part: Tensor) -> Tensor:
        """What the table says of these texts [n, width]."""
        flat, starts = _ragged(self.term_ends, torch.from_numpy(self.texts)[part])
        return functional.embedding_bag(self.rows.bucket[flat], self.table, starts.int(), mode="sum",
                                        per_sample_weights=self.rows.value[flat])

    def _loss(self, part: Tensor) -> Tensor:
        """Summed over these texts."""
        logits = self._found(part) @ self.codes.T + self.bias
        flat, starts = _ragged(self.match_ends, torch.from_numpy(self.texts)[part])
        found, row = self.rows.match_id[flat].long(), _rows(starts, len(flat))
        tag = found // NAME_FEATURES - self.where.start
        mine = (tag >= 0) & (tag < len(self.seen_of))
        mine[mine.clone()] = self.seen_of[tag[mine]] >= 0
        values = self.rows.match_value[flat][mine] * self.names[found[mine] % NAME_FEATURES]
        logits = logits.index_put((row[mine], self.seen_of[tag[mine]]), values, accumulate=True)
        flat, starts = _ragged(self.given_ends, part)
        if self.single:
            return (functional.cross_entropy(logits, self.given[flat], reduction="none") * self.weight[part]).sum()
        target = torch.zeros_like(logits)
        target[_rows(starts, len(flat)), self.given[flat]] = 1.0
        return functional.binary_cross_entropy_with_logits(logits, target, reduction="sum")

    def write(self, head: LexicalHead, attribute: int, none: int) -> None:
        """Writes the solution into `head`; `none` is the attribute's candidate for "none applies"."""
        columns, codes = head.columns.of_attribute(attribute)
        head.table.weight[:, columns] = self.table
        if not len(self.seen):
            return
        seen = torch.from_numpy(self.seen)
        codes.weight[seen] = self.codes
        candidates = torch.cat([torch.arange(self.where.start, self.where.stop), torch.tensor([none])])
        # A tag of a fixed list that no row has is as rare as the rarest.
        head.bias.weight[candidates[:-1], 0] = self.bias.min()
        head.bias.weight[candidates[seen], 0] = self.bias
        if self.single and not self.has_none:
            head.bias.weight[none] = NEVER
        head.name_weight.weight[attribute] = self.names


def _ends(counts: np.ndarray) -> Tensor:
    return torch.from_numpy(np.concatenate([[0], counts.cumsum()]))


def _ragged(ends: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Where the entries of these rows stand, one row's after the other's, and where in that list each row starts."""
    counts = ends[rows + 1] - ends[rows]
    starts = counts.cumsum(0) - counts
    return torch.arange(int(counts.sum())) + (ends[rows] - starts).repeat_interleave(counts), starts


def _rows(starts: Tensor, count: int) -> Tensor:
    """The row of each of `count` entries."""
    return torch.arange(len(starts)).repeat_interleave(torch.cat([starts[1:], torch.tensor([count])]) - starts)
