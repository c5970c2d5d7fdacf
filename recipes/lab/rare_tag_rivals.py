"""Simpler ways to draw extra vectors for rare tags, as the sources of `hf_tagger.augmentation.methods.augment`."""

import torch
from torch import Tensor

from hf_tagger.augmentation.tag_sets import TagSetSampler
from hf_tagger.augmentation.vectors import TaggedVectors
from hf_tagger.catalog.batching.collate import UNKNOWN

NOISE = 0.6  # standard deviations of each feature


class Resampling:
    """Real vectors, every tag as often as any other (class-balanced resampling)."""

    def __init__(self, data: TaggedVectors, sampler: TagSetSampler):
        self.data, self.sampler = data, sampler

    def draw(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return self.data.batch(self.sampler.draw(size, generator).rows)


class GaussianNoise(Resampling):
    """Resampled vectors plus Gaussian noise."""

    def draw(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        vectors, labels = super().draw(size, generator)
        deviation = NOISE * self.data.sample().std(0, correction=0)
        return vectors + deviation * torch.randn(vectors.shape, generator=generator), labels


class SameTagMixup(Resampling):
    """Between two products that share the drawn tag (mixup, arXiv 1710.09412); labels in which they differ are unknown.
    """

    def draw(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        drawn = self.sampler.draw(size, generator)
        (first, labels), (second, other_labels) = self.data.batch(drawn.rows), self.data.batch(drawn.others)
        share = torch.rand(size, 1, generator=generator)
        return share * first + (1 - share) * second, torch.where(labels == other_labels, labels, UNKNOWN)
