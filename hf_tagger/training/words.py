"""Fits the lexical path and the name match together: one convex problem, solved in seconds."""

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from hf_tagger.catalog.collate import UNKNOWN, TagEncoder
from hf_tagger.lexical_tagger import NameMatch, WordEvidence


@dataclass
class WordsSettings:
    """
    Args:
        buckets: size of the hashed feature table; 0 leaves the lexical path out.
        char_ngrams: lengths of the letter n-grams.
        names: whether tags gain by their names standing in the text.
        inverse_l2: C, the inverse strength of the L2 term on the table.
        name_l2: L2 term on the name weights, which all tags of an attribute share.
        balance: temper t of the class weights count ** -t of `single` attributes; one number, or {attribute: number}
            with 0.5 for those not named.
        masked_view: also fit a second set of weights, on every text as it is and without the words of its own tags.
        masked_balance: its temper; masked_weight: what a masked text counts beside a whole one.
        max_rows: products it is fitted on at most.
        iterations: of L-BFGS at most.
    """

    buckets: int = 2**15
    char_ngrams: list[int] = field(default_factory=lambda: [3, 4, 5])
    names: bool = True
    inverse_l2: float = 10.0
    name_l2: float = 3.0
    balance: float | dict[str, float] = 0.5
    masked_view: bool = False
    masked_balance: float | dict[str, float] = 0.4
    masked_weight: float = 0.5
    max_rows: int = 100_000
    iterations: int = 60

    def temper(self, attribute: str, view: int) -> float:
        balance, default = (self.balance, 0.5) if view == 0 else (self.masked_balance, 0.4)
        return balance.get(attribute, default) if isinstance(balance, dict) else balance


# Logit of a "none" that no training row of a `single` attribute has.
NEVER = -30.0


class _TextRows:
    """Sparse word features and name features of many texts."""

    def __init__(self, evidence: WordEvidence, candidate_attribute: Tensor):
        self.evidence, self.candidate_attribute = evidence, candidate_attribute
        self.buckets: list[Tensor] = []
        self.values: list[Tensor] = []
        self.rows: list[Tensor] = []
        self.matches: list[Tensor] = []
        self.count = 0

    def add(self, input_ids: Tensor, attention_mask: Tensor) -> None:
        view = self.evidence.reader(input_ids, attention_mask)
        if self.evidence.lexical is not None:
            # Values are kept without idf and length, which need all texts: 1 + log(count), shared by a bucket.
            buckets, real = self.evidence.lexical.ngrams(view)
            row = torch.arange(len(buckets)).unsqueeze(1).expand_as(buckets)
            flat, counts = torch.unique((row * self.evidence.lexical.buckets + buckets)[real], return_counts=True)
            self.rows.append(flat // self.evidence.lexical.buckets + self.count)
            self.buckets.append(flat % self.evidence.lexical.buckets)
            self.values.append(1 + counts.float().log())
        if self.evidence.names is not None:
            features = self.evidence.names.features(view, self.candidate_attribute)
            row, tag, kind = features.nonzero().unbind(1)
            self.matches.append(torch.stack([row + self.count, tag, kind, features[row, tag, kind]], dim=1).double())
        self.count += len(input_ids)


Texts = Iterable[tuple[Tensor, Tensor, Tensor]]


@torch.no_grad()
def fit_words(
    evidence: WordEvidence, attributes: list[dict], candidate_attribute: Tensor, views: list[list[tuple[float, Texts]]],
    settings: WordsSettings,
) -> list[dict[str, float]]:
    """Fits `evidence` in place and freezes it.

    Args:
        views: what each of its views learns from: some (weight of each text, texts), texts being batches of
            (input_ids [B, L], attention_mask [B, L], tag_labels [B, T]). The first view also fixes the inverse document
            frequencies.

    Minimises, over the weights W of the table and u of the names,
    sum of weighted losses + |W|^2 / (2 C) + name_l2 / 2 |u|^2, the loss being softmax cross-entropy over tags and none
    for `single` attributes and binary cross-entropy for `multi` ones; unknown labels weigh nothing. Returns for every
    view the number of texts and the mean loss before and after.
    """
    evidence.requires_grad_(False)
    report, idf = [], None
    for view, parts in enumerate(views):
        rows, labels, weights = _TextRows(evidence, candidate_attribute), [], []
        for weight, batches in parts:
            limit = rows.count + settings.max_rows
            for input_ids, attention_mask, tag_labels in batches:
                with_text = attention_mask.bool().any(1)
                rows.add(input_ids[with_text], attention_mask[with_text])
                labels.append(tag_labels[with_text])
                weights.append(torch.full((len(labels[-1]),), weight))
                if rows.count >= limit:
                    break
        if not rows.count:
            return report
        targets = _Targets(torch.cat(labels), torch.cat(weights), attributes, settings, view)
        problem = _Problem(rows, targets, attributes, candidate_attribute, settings, view, idf)
        start = problem.loss()
        problem.solve(settings.iterations)
        problem.write(evidence)
        idf = problem.idf
        report.append({"texts": rows.count, "loss_before": start, "loss_after": problem.loss()})
    return report


class _Problem:
    def __init__(self, rows: _TextRows, targets: "_Targets", attributes, candidate_attribute, settings: WordsSettings,
                 view: int, idf: Tensor | None):
        lexical = rows.evidence.lexical
        self.view, self.idf, self.settings = view, idf, settings
        self.attributes, self.candidate_attribute = attributes, candidate_attribute
        self.candidates, self.targets = len(candidate_attribute), targets
        self.x = self.x_t = None
        if lexical is not None:
            row, bucket, value = torch.cat(rows.rows), torch.cat(rows.buckets), torch.cat(rows.values)
            frequency = torch.bincount(bucket, minlength=lexical.buckets)
            if self.idf is None:
                self.idf = ((1 + rows.count) / (1 + frequency)).log() + 1
            value = value * self.idf[bucket]
            norm = torch.zeros(rows.count).index_add(0, row, value.square()).sqrt()
            value = value / norm[row].clamp(min=1e-6)
            # Only buckets that occur get a row in the problem; the others keep weight zero.
            self.used = frequency.nonzero().squeeze(1)
            column = torch.full((lexical.buckets,), -1).index_copy(0, self.used, torch.arange(len(self.used)))[bucket]
            self.x = _csr(row, column, value, (rows.count, len(self.used)))
            self.x_t = _csr(column, row, value, (len(self.used), rows.count))
        self.matches = torch.cat(rows.matches) if rows.matches else None
        table = 0 if self.x is None else len(self.used)
        self.shapes = [(table, self.candidates), (1, self.candidates), (len(attributes), NameMatch.FEATURES)]
        self.parameters = torch.zeros(sum(a * b for a, b in self.shapes), requires_grad=True)

    def _parts(self) -> list[Tensor]:
        sizes = [a * b for a, b in self.shapes]
        return [part.view(shape) for part, shape in
                zip(self.parameters.detach().split(sizes), self.shapes, strict=True)]

    def _evaluate(self) -> tuple[float, Tensor]:
        """Loss and its gradient, flat like `parameters`."""
        table, bias, names = self._parts()
        logits = bias.expand(self.targets.rows, -1).clone()
        if self.x is not None:
            logits += self.x @ table
        if self.matches is not None:
            row, tag, kind = self.matches[:, :3].long().unbind(1)
            value = self.matches[:, 3].float()
            attribute = self.candidate_attribute[tag]
            logits.view(-1).index_add_(0, row * self.candidates + tag, value * names[attribute, kind])
        loss, slope = self.targets.loss(logits)
        gradients = [torch.zeros_like(table), slope.sum(0, keepdim=True), self.settings.name_l2 * names]
        if self.x is not None:
            gradients[0] = self.x_t @ slope + table / self.settings.inverse_l2
            loss += float(table.square().sum()) / (2 * self.settings.inverse_l2)
        if self.matches is not None:
            flat = attribute * NameMatch.FEATURES + kind
            gradients[2].view(-1).index_add_(0, flat, value * slope[row, tag])
            loss += self.settings.name_l2 / 2 * float(names.square().sum())
        return loss, torch.cat([gradient.reshape(-1) for gradient in gradients])

    def loss(self) -> float:
        return self._evaluate()[0] / self.targets.rows

    def solve(self, iterations: int) -> None:
        optimizer = torch.optim.LBFGS([self.parameters], max_iter=iterations, history_size=8, tolerance_grad=1e-4,
                                      tolerance_change=1e-7 * self.targets.rows, line_search_fn="strong_wolfe")

        def closure():
            loss, self.parameters.grad = self._evaluate()
            return torch.tensor(loss)

        optimizer.step(closure)

    def write(self, evidence: WordEvidence) -> None:
        table, bias, names = self._parts()
        # A tag of a fixed list that no row has was pushed towards minus infinity; call it as rare as the rarest.
        for where, unseen in self.targets.unseen:
            table[:, where][:, unseen] = 0.0
            bias[0, where][unseen] = bias[0, where][~unseen].min()
        if evidence.lexical is not None:
            lexical, view = evidence.lexical, self.view
            lexical.idf.copy_(self.idf)
            columns = lexical.weight.weight.unflatten(1, (lexical.views, -1))[:, view]
            columns.zero_()
            columns[self.used] = table
            lexical.bias.weight[:, view] = bias[0]
            lexical.bias.weight[self.targets.never, view] = NEVER
        if evidence.names is not None:
            evidence.names.weight.weight.unflatten(1, (evidence.names.views, -1))[:, self.view] = names


class _Targets:
    """Labels with class weights, one block per attribute: softmax with none for `single`, sigmoids for `multi`."""

    def __init__(self, labels: Tensor, weights: Tensor, attributes: list[dict], settings: WordsSettings, view: int):
        self.rows, self.blocks, self.never, self.unseen, start = len(labels), [], [], [], 0
        for index, attribute in enumerate(attributes):
            where = slice(start, start + len(attribute["tags"]))
            none = labels.shape[1] + index
            start = where.stop
            block = labels[:, where]
            known = (block != UNKNOWN).all(1)
            unseen = ~(block > 0).any(0)
            if unseen.any() and not unseen.all():
                self.unseen.append((where, unseen))
            if attribute["kind"] == "single":
                target = torch.where(block.amax(1) > 0, block.argmax(1), block.shape[1])
                counts = torch.bincount(target[known], minlength=block.shape[1] + 1).clamp(min=1).float()
                weight = counts[target] ** -settings.temper(attribute["name"], view) * known
                weight = weight / (weight.sum() / known.sum().clamp(min=1)).clamp(min=1e-12) * weights
                # A "none" that never occurs is left out of the softmax rather than pushed to minus infinity.
                with_none = bool((target[known] == block.shape[1]).any())
                self.blocks.append(("single", where, none if with_none else None, target, weight))
                if not with_none:
                    self.never.append(none)
            else:
                self.blocks.append(("multi", where, None, block.clamp(min=0), known * weights))

    def loss(self, logits: Tensor) -> tuple[float, Tensor]:
        """Summed loss and its slope [N, C]."""
        slope, loss = torch.zeros_like(logits), 0.0
        for kind, where, none, target, weight in self.blocks:
            if kind == "multi":
                part = logits[:, where]
                losses = torch.nn.functional.binary_cross_entropy_with_logits(part, target, reduction="none")
                loss += float((losses * weight[:, None]).sum())
                slope[:, where] = (part.sigmoid() - target) * weight[:, None]
                continue
            part = logits[:, where] if none is None else torch.cat([logits[:, where], logits[:, none, None]], dim=1)
            log_probability = part.log_softmax(1)
            chosen = target.clamp(max=part.shape[1] - 1)[:, None]
            loss -= float((log_probability.gather(1, chosen)[:, 0] * weight).sum())
            gradient = log_probability.exp().scatter_add(1, chosen, -torch.ones_like(chosen, dtype=part.dtype))
            gradient *= weight[:, None]
            tags = where.stop - where.start
            slope[:, where] = gradient[:, :tags]
            if none is not None:
                slope[:, none] = gradient[:, tags]
        return loss, slope


def _csr(row: Tensor, column: Tensor, value: Tensor, shape: tuple[int, int]) -> Tensor:
    with warnings.catch_warnings():
        # torch announces that its CSR tensors are young, and that it does not check ours.
        warnings.simplefilter("ignore", UserWarning)
        return torch.sparse_coo_tensor(torch.stack([row, column]), value, shape).coalesce().to_sparse_csr()


def text_batches(records: Iterable[dict], processor, attributes: list[dict], augment=None,
                 batch_size: int = 256) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Records with text -> what `fit_words` reads."""
    encode, pending = TagEncoder(attributes), []

    def flush():
        tokens = processor.tokenize([text for text, _ in pending])
        return tokens["input_ids"], tokens["attention_mask"], torch.from_numpy(np.stack([row for _, row in pending]))

    for record in records:
        text = record["text"] if augment is None else augment(record)
        if text:
            pending.append((text, encode(record["tags"])))
        if len(pending) == batch_size:
            yield flush()
            pending = []
    if pending:
        yield flush()
