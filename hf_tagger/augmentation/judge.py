"""Trains the critic of tag sets (`reranking.TagSetCritic`) to separate a product's tags from plausible wrong ones."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_tagger.augmentation.vectors import TaggedVectors
from hf_tagger.catalog.batching.collate import UNKNOWN
from hf_tagger.evaluation.progress import progress_bar
from hf_tagger.model.reranking import TagSetCritic


def train_judge(data: TaggedVectors, slices: list[slice], tag_embeddings: Tensor, scores: Callable[[Tensor], Tensor],
                seed: int, epochs: int = 20, batch_size: int = 128, learning_rate: float = 1e-3,
                corrupt: float = 0.3, progress: bool = True) -> TagSetCritic:
    """Trained on tag sets that are partly wrong: a tag's gain in score is the logit of the tag being right.

    Args:
        tag_embeddings: [T, E], of the tags' names.
        scores: vectors [B, H] -> the tagger's own probabilities [B, T]; wrong tags are drawn from these, so that they
            are plausible ones.
        corrupt: probability that an attribute's tags are replaced by a wrong one.
    """
    generator = torch.Generator().manual_seed(seed)
    steps = max(1, epochs * len(data) // batch_size)
    rows = torch.from_numpy(data.labelled())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        critic = TagSetCritic(data.width, *tag_embeddings.shape)
    sample = data.batch(rows[torch.randint(len(rows), (4096,), generator=generator)])[0]
    critic.names.copy_(tag_embeddings)
    critic.mean.copy_(sample.mean(0))
    critic.std.copy_(sample.std(0).clamp(min=1e-4))
    optimizer = torch.optim.AdamW(critic.parameters(), learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in progress_bar(range(steps), desc="critic", unit="step", disable=not progress, leave=False):
        vectors, labels = data.batch(rows[torch.randint(len(rows), (batch_size,), generator=generator)])
        held = corrupted(labels, scores(vectors), slices, corrupt, generator)
        known = held & (labels != UNKNOWN)
        losses = F.binary_cross_entropy_with_logits(critic(vectors, held), labels.clamp(min=0), reduction="none")
        loss = losses[known].mean() if known.any() else losses.sum() * 0
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return critic.eval()


def corrupted(labels: Tensor, scores: Tensor, slices: list[slice], rate: float, generator: torch.Generator) -> Tensor:
    """Tag sets bool [B, T] from labels and probabilities [B, T]: in a random share `rate` of the attributes, the tags
    are replaced by a wrong one, drawn in proportion to its probability."""
    held = labels == 1
    for where in slices:
        wrong = (labels[:, where] == 0) * scores[:, where].clamp(min=1e-6)
        possible = wrong.sum(1) > 0
        chosen = possible & (torch.rand(len(labels), generator=generator) < rate)
        if chosen.any():
            drawn = torch.multinomial(wrong[chosen], 1, generator=generator)
            held[chosen, where] = torch.zeros_like(held[chosen, where]).scatter(1, drawn, True)
    return held
