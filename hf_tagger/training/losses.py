"""Losses over three-valued tag labels: given (1), not given (0), unknown (-100).

An unknown label contributes neither loss nor gradient. Every loss is computed in float32, also under autocast.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_tagger.catalog.batching.collate import UNKNOWN
from hf_tagger.model.decisions import attribute_slices
from hf_tagger.training.settings import LossSettings


class LossSum(NamedTuple):
    """A loss as a sum and a number, both scalar tensors. Those of micro-batches and processes add up to those of one
    large batch: divide once, at the end."""

    total: Tensor  # summed over all known (product, attribute) pairs, or over tokens or products
    count: Tensor  # their number

    def mean(self) -> Tensor:
        """Loss per known pair; 0, with a graph, where everything is unknown."""
        return self.total / self.count.clamp(min=1)


class TaggingLoss(nn.Module):
    """The loss of every attribute of a model, as in `TaggerConfig`: name, kind, tags; for logit adjustment of `single`
    ones `counts` (training rows per tag) and `none_count` (rows to which no tag applies). Raises ValueError where
    needed counts are missing."""

    def __init__(self, attributes: list[dict], settings: LossSettings | None = None):
        super().__init__()
        self.attributes, self.settings = attributes, settings or LossSettings()
        self.slices = attribute_slices(attributes)
        for index, attribute in enumerate(attributes):
            self.register_buffer(f"counts_{index}", self._counts(attribute), persistent=False)

    def _counts(self, attribute: dict) -> Tensor:
        """Training rows of each tag and, last, of none, at least 1; empty where the loss does not look at them."""
        if attribute["kind"] == "multi" or not self.settings.logit_adjustment_tau:
            return torch.empty(0)
        if not attribute.get("counts"):
            raise ValueError(
                f"attribute {attribute['name']!r} has no training counts in the model's config: scan the catalogue's "
                "vocabulary first, or set logit_adjustment_tau to 0"
            )
        none = attribute.get("none_count") or 0
        return torch.tensor([*attribute["counts"], none], dtype=torch.float32)

    def forward(self, tag_logits: Tensor, none_logits: Tensor, tag_labels: Tensor) -> LossSum:
        """tag_logits [B, T], none_logits [B, A] (read for `single` attributes), tag_labels [B, T] in {0, 1, -100}."""
        with torch.autocast(tag_logits.device.type, enabled=False):
            total = tag_logits.new_zeros((), dtype=torch.float32)
            for index, (attribute, columns) in enumerate(zip(self.attributes, self.slices, strict=True)):
                labels = tag_labels[:, columns].float()
                known = labels != UNKNOWN
                if attribute["kind"] == "single":
                    known = known.all(1, keepdim=True)
                    logits = torch.cat([tag_logits[:, columns], none_logits[:, index, None]], dim=1).float()
                else:
                    logits = tag_logits[:, columns].float()
                # Zeroed before the loss, not after: even an infinite logit of an unknown label has no gradient.
                logits, labels = torch.where(known, logits, 0.0), torch.where(known, labels, 0.0)
                total = total + self._attribute_loss(index, logits, labels).where(known, 0.0).sum()
            return LossSum(total, self.count(tag_labels))

    def _attribute_loss(self, index: int, logits: Tensor, labels: Tensor) -> Tensor:
        settings = self.settings
        if self.attributes[index]["kind"] == "single":
            counts = self.get_buffer(f"counts_{index}")
            return cross_entropy(logits, labels, counts, settings.logit_adjustment_tau, settings.label_smoothing)
        return asymmetric(logits, labels, settings)

    def count(self, tag_labels: Tensor) -> Tensor:
        """Known (product, attribute) pairs in tag_labels [B, T], as `forward` counts them: a scalar tensor.

        A `single` attribute is known where all of its labels are, a `multi` one where any is.
        """
        count = 0
        for attribute, columns in zip(self.attributes, self.slices, strict=True):
            known = tag_labels[:, columns] != UNKNOWN
            count = count + (known.all(1) if attribute["kind"] == "single" else known.any(1)).sum()
        return count


class SequenceLoss(nn.Module):
    """Cross-entropy of the decoder's tokens, smoothed; prompts (ids from `first_control_id` on), padding and products
    without targets count nothing."""

    def __init__(self, first_control_id: int, label_smoothing: float = 0.0):
        super().__init__()
        self.first_control_id, self.label_smoothing = first_control_id, label_smoothing

    def forward(self, logits: Tensor, labels: Tensor) -> LossSum:
        """logits [B, S, V], labels int64 [B, S], -100 padded."""
        counted = self._counted(labels)
        total = F.cross_entropy(logits[counted].float(), labels[counted], label_smoothing=self.label_smoothing,
                                reduction="sum")
        # The sum over no token at all has no graph: a distributed step still wants its gradients.
        return LossSum(total + 0.0 * logits.float().sum(), counted.sum())

    def count(self, labels: Tensor) -> Tensor:
        """Tokens that `forward` counts: a scalar tensor."""
        return self._counted(labels).sum()

    def _counted(self, labels: Tensor) -> Tensor:
        return (labels >= 0) & (labels < self.first_control_id)


def cross_entropy(logits: Tensor, labels: Tensor, counts: Tensor, tau: float, label_smoothing: float) -> Tensor:
    """Softmax cross-entropy over tags and none: logits [B, C + 1] (none last), labels [B, C] -> [B, 1].

    With tau > 0 logit adjustment: tau x log(training rows) is added to the logits while training, so that the model
    need not learn the frequencies and rare tags are not drowned by them.
    """
    given = labels.any(1)
    target = torch.where(given, labels.argmax(1), labels.shape[1])
    if tau:
        logits = logits + tau * _rows_of_tag(counts).log()
    return F.cross_entropy(logits, target, label_smoothing=label_smoothing, reduction="none")[:, None]


def _rows_of_tag(counts: Tensor) -> Tensor:
    # A none that never occurs is held down as hard as the commonest tag: log(1) would leave its logit untrained and
    # free to win at inference, where the frequencies are no longer added.
    tags, none = counts[:-1], counts[-1:]
    return torch.cat([tags.clamp(min=1), torch.where(none > 0, none, tags.max().clamp(min=1))])


def asymmetric(logits: Tensor, labels: Tensor, settings: LossSettings) -> Tensor:
    """Asymmetric loss (arXiv 2009.14119): easy negatives, the mass of a long tag list, count little: [B, C] -> [B, C].

    Negatives whose probability is below the margin count nothing; the rest are focused by gamma_negative. Without
    margin and focusing it is the binary cross-entropy of each tag.
    """
    probability = logits.sigmoid()
    shifted = (probability - settings.margin).clamp(min=0)
    # log(1 - p) straight from the logit where the margin does not keep its argument away from 0
    log_negative = torch.log1p(-shifted) if settings.margin else F.logsigmoid(-logits)
    positive = labels * (1 - probability) ** settings.gamma_positive * F.logsigmoid(logits)
    negative = (1 - labels) * shifted**settings.gamma_negative * log_negative
    return -(positive + negative)
