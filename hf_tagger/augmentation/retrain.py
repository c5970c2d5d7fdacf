"""Retrains a tag head on real and extra vectors; the rest of the model does not change."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from hf_tagger import UserError
from hf_tagger.augmentation.settings import AugmentationSettings
from hf_tagger.augmentation.vectors import TaggedVectors
from hf_tagger.evaluation.progress import progress_bar

Loss = Callable[[Tensor, Tensor], Tensor]
Log = Callable[[dict[str, float], int], None]


class AugmentationStopped(UserError):
    """A method has nothing to offer: the message says why, and what to change. The model stays as it was."""


class VectorSource(Protocol):
    """Anything that gives extra vectors [B, H] with tag labels [B, T] in {0, 1, -100}."""

    def draw(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]: ...


def retrain_head(head: nn.Module, data: TaggedVectors, loss: Loss, settings: AugmentationSettings,
                 generator: torch.Generator, source: VectorSource | None, source_loss: Loss | None,
                 extra_loss: Callable[[nn.Module, int], Tensor] | None) -> None:
    """Trains the parameters of `head` that require a gradient, in place, with AdamW and a cosine schedule.

    Args:
        loss: (logits [B, C], tag_labels [B, T]) -> scalar, for real vectors.
        source, source_loss: extra vectors and their loss, weighted by `settings.weight`: a logit-adjusted loss depends
            on the frequencies of the tags, which are others here.
        extra_loss: (head, step) -> a further loss term.
    """
    rows = torch.from_numpy(data.labelled())
    steps_per_epoch = -(-len(rows) // settings.batch_size)
    total = settings.epochs * steps_per_epoch
    parameters = [parameter for parameter in head.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    head.train()
    order = torch.empty(0, dtype=torch.long)
    for step in progress_bar(range(total), desc="tag head", unit="step", leave=False):
        if step % steps_per_epoch == 0:
            order = rows[torch.randperm(len(rows), generator=generator)]
        start = step % steps_per_epoch * settings.batch_size
        vectors, labels = data.batch(order[start:start + settings.batch_size])
        total_loss = loss(head(vectors), labels)
        if source is not None:
            vectors, labels = source.draw(settings.batch_size, generator)
            total_loss = total_loss + settings.weight * source_loss(head(vectors), labels)
        if extra_loss is not None:
            total_loss = total_loss + extra_loss(head, step)
        optimizer.zero_grad(set_to_none=True)
        total_loss.backward()
        optimizer.step()
        schedule.step()
    head.eval()
