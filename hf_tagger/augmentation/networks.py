"""Networks on pooled vectors, conditioned on a tag set."""

import torch
from torch import Tensor, nn

SLOPE = 0.2


def condition(tag_labels: Tensor, tag_embeddings: Tensor) -> Tensor:
    """The mean embedding [B, E] of the tags given in tag_labels [B, T] (embeddings [T, E]); zeros where none is given.

    A tag with a handful of products thus borrows from tags with similar names, and a tag set that never occurred is
    the mixture of its tags.
    """
    given = (tag_labels == 1).to(tag_embeddings.dtype)
    return given @ tag_embeddings / given.sum(1, keepdim=True).clamp(min=1)


class OnScale(nn.Module):
    """Knows mean and standard deviation of the real vectors' features; the layers work on standardised ones."""

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    def fit_scale(self, sample: Tensor) -> None:
        """From real vectors [N, H]."""
        self.mean.copy_(sample.mean(0))
        self.std.copy_(sample.std(0).clamp(min=1e-4))


class Generator(OnScale):
    """Noise of width `latent` and condition -> synthetic vectors, on the scale of the real ones."""

    def __init__(self, width: int, conditions: int, latent: int, hidden: int):
        super().__init__(width)
        self.latent = latent
        self.condition = nn.Linear(conditions, latent)
        self.layers = nn.Sequential(
            nn.Linear(2 * latent, hidden), nn.LeakyReLU(SLOPE), nn.Linear(hidden, hidden), nn.LeakyReLU(SLOPE),
            nn.Linear(hidden, width),
        )

    def forward(self, conditions: Tensor, noise: Tensor) -> Tensor:
        """conditions [B, E], noise [B, Z] -> [B, H]."""
        return self.mean + self.std * self.layers(torch.cat([self.condition(conditions), noise], dim=1))

    def sample(self, conditions: Tensor, generator: torch.Generator) -> Tensor:
        """conditions [B, E] -> [B, H], with Gaussian noise."""
        return self(conditions, torch.randn(len(conditions), self.latent, generator=generator))
