"""Fits the lexical path and the name match together: a convex problem per attribute, solved in seconds."""

import warnings
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from hf_tagger.catalog.collate import UNKNOWN, TagEncoder
from hf_tagger.model.lexical_head import NameMatch, WordEvidence
from hf_tagger.training.settings import WordsSettings

# Logit of a "none" that no training row of a `single` attribute has.
NEVER = -30.0


class _TextRows:
    """Sparse word features and name features of many texts.

    After `finish`: TF-IDF `value` of `bucket` in `row` (None without a lexical path), and `matches` [M, 4] of (row,
    tag, kind, value) (None without names).
    """

    def __init__(self, evidence: WordEvidence, candidate_attribute: Tensor):
        self.evidence, self.candidate_attribute = evidence, candidate_attribute
        self._lexical: list[tuple[Tensor, Tensor, Tensor]] = []
        self._matches: list[Tensor] = []
        self.count, self.row, self.bucket, self.value, self.matches = 0, None, None, None, None

    def add(self, input_ids: Tensor, attention_mask: Tensor) -> None:
        view, lexical = self.evidence.reader(input_ids, attention_mask), self.evidence.lexical
        if lexical is not None:
            # Values are kept without idf and length, which need all texts: 1 + log(count), shared by a bucket.
            buckets, real = lexical.ngrams(view)
            row = torch.arange(len(buckets)).unsqueeze(1).expand_as(buckets)
            flat, counts = torch.unique((row * lexical.buckets + buckets)[real], return_counts=True)
            self._lexical.append((flat // lexical.buckets + self.count, flat % lexical.buckets,
                                  1 + counts.float().log()))
        if self.evidence.names is not None:
            features = self.evidence.names.features(view, self.candidate_attribute)
            row, tag, kind = features.nonzero().unbind(1)
            self._matches.append(torch.stack([row + self.count, tag, kind, features[row, tag, kind]], dim=1).double())
        self.count += len(input_ids)

    def finish(self, idf: Tensor | None) -> Tensor | None:
        """Returns the inverse document frequencies: those given, or these texts' own."""
        if self._lexical:
            self.row, self.bucket, value = (torch.cat(part) for part in zip(*self._lexical, strict=True))
            if idf is None:
                frequency = torch.bincount(self.bucket, minlength=self.evidence.lexical.buckets)
                idf = ((1 + self.count) / (1 + frequency)).log() + 1
            value = value * idf[self.bucket]
            norm = torch.zeros(self.count).index_add(0, self.row, value.square()).sqrt()
            self.value = value / norm[self.row].clamp(min=1e-6)
        if self._matches:
            self.matches = torch.cat(self._matches)
        return idf


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

    Minimises, for every attribute over its weights W of the table and u of the names,
    sum of weighted losses + |W|^2 / (2 C) + name_l2 / 2 |u|^2, the loss being softmax cross-entropy over tags and none
    for `single` attributes and binary cross-entropy for `multi` ones; unknown labels weigh nothing. Returns for every
    view the number of texts and the loss per text before and after, all attributes together.
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
        idf = rows.finish(idf)
        labels, weights = torch.cat(labels), torch.cat(weights)
        _silence(evidence, view, idf)
        before, after, start = 0.0, 0.0, 0
        for index, attribute in enumerate(attributes):
            where = slice(start, start + len(attribute["tags"]))
            start = where.stop
            known = (labels[:, where] != UNKNOWN).all(1)
            targets = _Targets(labels[known, where], weights[known], attribute["kind"] == "single",
                               settings.temper(attribute["name"], view))
            problem = _Problem(rows, known, where, targets, settings)
            before += problem.loss()
            problem.solve(settings.iterations)
            problem.write(evidence, view, index, labels.shape[1] + index)
            after += problem.loss()
        report.append({"texts": rows.count, "loss_before": before / rows.count, "loss_after": after / rows.count})
    return report


def _silence(evidence: WordEvidence, view: int, idf: Tensor | None) -> None:
    if evidence.lexical is not None:
        evidence.lexical.idf.copy_(idf)
        evidence.lexical.weight.weight.unflatten(1, (evidence.lexical.views, -1))[:, view] = 0.0
        evidence.lexical.bias.weight[:, view] = 0.0


class _Problem:
    """What the texts whose tags of one attribute are known say of it. Attributes share no weights, so that each is a
    problem of its own, as small as what is known of it."""

    def __init__(self, rows: _TextRows, known: Tensor, where: slice, targets: "_Targets", settings: WordsSettings):
        self.settings, self.targets, self.where = settings, targets, where
        place = known.long().cumsum(0) - 1
        self.x = self.x_t = None
        self.used = torch.zeros(0, dtype=torch.long)
        if rows.evidence.lexical is not None:
            mine = known[rows.row]
            row, bucket, value = place[rows.row[mine]], rows.bucket[mine], rows.value[mine]
            # Only buckets that occur get a row in the problem; the others keep weight zero.
            self.used, column = bucket.unique(return_inverse=True)
            self.x = _csr(row, column, value, (len(targets), len(self.used)))
            self.x_t = _csr(column, row, value, (len(self.used), len(targets)))
        self.matches = None
        if rows.matches is not None:
            row, tag = rows.matches[:, :2].long().unbind(1)
            mine = known[row] & (tag >= where.start) & (tag < where.stop)
            kind, value = rows.matches[mine, 2].long(), rows.matches[mine, 3].float()
            self.matches = place[row[mine]], tag[mine] - where.start, kind, value
        self.shapes = [(len(self.used), targets.columns), (1, targets.columns), (1, NameMatch.FEATURES)]
        self.parameters = torch.zeros(sum(a * b for a, b in self.shapes), requires_grad=True)

    def _parts(self) -> list[Tensor]:
        sizes = [a * b for a, b in self.shapes]
        return [part.view(shape) for part, shape in
                zip(self.parameters.detach().split(sizes), self.shapes, strict=True)]

    def _evaluate(self) -> tuple[float, Tensor]:
        """Loss and its gradient, flat like `parameters`."""
        table, bias, names = self._parts()
        logits = bias.expand(len(self.targets), -1).clone()
        if self.x is not None:
            logits += self.x @ table
        if self.matches is not None:
            row, tag, kind, value = self.matches
            logits.view(-1).index_add_(0, row * self.targets.columns + tag, value * names[0, kind])
        loss, slope = self.targets.loss(logits)
        gradients = [torch.zeros_like(table), slope.sum(0, keepdim=True), self.settings.name_l2 * names]
        if self.x is not None:
            gradients[0] = self.x_t @ slope + table / self.settings.inverse_l2
            loss += float(table.square().sum()) / (2 * self.settings.inverse_l2)
        if self.matches is not None:
            gradients[2][0].index_add_(0, kind, value * slope[row, tag])
            loss += self.settings.name_l2 / 2 * float(names.square().sum())
        return loss, torch.cat([gradient.reshape(-1) for gradient in gradients])

    def loss(self) -> float:
        """Of all texts together."""
        return self._evaluate()[0] if len(self.targets) else 0.0

    def solve(self, iterations: int) -> None:
        if not len(self.targets):
            return
        optimizer = torch.optim.LBFGS([self.parameters], max_iter=iterations, history_size=8, tolerance_grad=1e-4,
                                      tolerance_change=1e-7 * len(self.targets), line_search_fn="strong_wolfe")

        def closure():
            loss, self.parameters.grad = self._evaluate()
            return torch.tensor(loss)

        optimizer.step(closure)

    def write(self, evidence: WordEvidence, view: int, attribute: int, none: int) -> None:
        """Into a view of `evidence`; `none` is the attribute's candidate for "none applies"."""
        table, bias, names = self._parts()
        # A tag of a fixed list that no row has was pushed towards minus infinity; call it as rare as the rarest.
        unseen = self.targets.unseen
        if unseen.any() and not unseen.all():
            table[:, unseen] = 0.0
            bias[0, unseen] = bias[0, ~unseen].min()
        if evidence.lexical is not None:
            lexical = evidence.lexical
            candidates = torch.arange(self.where.start, self.where.stop)
            if self.targets.with_none:
                candidates = torch.cat([candidates, torch.tensor([none])])
            columns = lexical.weight.weight.unflatten(1, (lexical.views, -1))[:, view]
            columns[self.used[:, None], candidates] = table
            lexical.bias.weight[candidates, view] = bias[0]
            if self.targets.single and not self.targets.with_none:
                lexical.bias.weight[none, view] = NEVER
        if evidence.names is not None:
            evidence.names.weight.weight.unflatten(1, (evidence.names.views, -1))[attribute, view] = names[0]


class _Targets:
    """Labels of one attribute with class weights: softmax for `single`, with "none" as the last column if any text has
    it, sigmoids for `multi`.

    Args:
        labels: [N, tags], all known; weights: of the texts [N].
    """

    def __init__(self, labels: Tensor, weights: Tensor, single: bool, temper: float):
        self.single, self.with_none, tags = single, False, labels.shape[1]
        self.unseen = ~(labels > 0).any(0)
        self.target, self.weight = labels.clamp(min=0), weights
        if single:
            self.target = torch.where(labels.amax(1) > 0, labels.argmax(1), tags)
            counts = torch.bincount(self.target, minlength=tags + 1).clamp(min=1).float()
            weight = counts[self.target] ** -temper
            self.weight = weight / (weight.sum() / max(len(labels), 1)).clamp(min=1e-12) * weights
            # A "none" that never occurs is left out of the softmax rather than pushed to minus infinity.
            self.with_none = bool((self.target == tags).any())
            self.unseen = torch.cat([self.unseen, torch.zeros(int(self.with_none), dtype=torch.bool)])
        self.columns = tags + self.with_none

    def __len__(self) -> int:
        return len(self.target)

    def loss(self, logits: Tensor) -> tuple[float, Tensor]:
        """Summed loss and its slope [N, columns]."""
        if not self.single:
            losses = torch.nn.functional.binary_cross_entropy_with_logits(logits, self.target, reduction="none")
            return float((losses * self.weight[:, None]).sum()), (logits.sigmoid() - self.target) * self.weight[:, None]
        log_probability = logits.log_softmax(1)
        chosen = self.target[:, None]
        loss = -float((log_probability.gather(1, chosen)[:, 0] * self.weight).sum())
        slope = log_probability.exp().scatter_add(1, chosen, -torch.ones_like(chosen, dtype=logits.dtype))
        return loss, slope * self.weight[:, None]


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
