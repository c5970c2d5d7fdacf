"""A tiny long-tailed world: products of each colour and category scatter around a point of their own."""

import numpy as np
import torch

from hf_tagger.augmentation.methods import Problem
from hf_tagger.augmentation.tag_sets import TagSetSampler
from hf_tagger.augmentation.vectors import TaggedVectors
from hf_tagger.catalog.batching.collate import UNKNOWN
from hf_tagger.training.rare_tags import balanced_losses
from hf_tagger.training.settings import LossSettings

WIDTH = 6
ATTRIBUTES = [
    {"name": "colour", "kind": "single", "tags": ["Black", "Red", "Sage"], "counts": [60, 36, 4], "none_count": 0},
    {"name": "features", "kind": "multi", "tags": ["Warm", "Soft"], "counts": [50, 10], "none_count": 45},
]
SLICES = [slice(0, 3), slice(3, 5)]
NAMES = torch.eye(5)


def world(unlabelled: int = 0, seed: int = 0) -> TaggedVectors:
    """100 products as ATTRIBUTES count them, and products of which nothing is known, a third of each colour."""
    draw = np.random.default_rng(seed)
    colours = np.repeat([0, 1, 2], [60, 36, 4])
    labels = np.zeros((100, 5), np.int8)
    labels[np.arange(100), colours] = 1
    labels[::2, 3] = 1
    labels[::10, 4] = 1
    hidden = draw.integers(0, 3, unlabelled)
    places = 2.0 * np.eye(WIDTH)[np.concatenate([colours, hidden])]
    vectors = places + 0.3 * draw.normal(size=places.shape)
    labels = np.concatenate([labels, np.full((unlabelled, 5), UNKNOWN, np.int8)])
    return TaggedVectors(vectors.astype(np.float32), labels)


def problem(data: TaggedVectors, tau: float = 1.0) -> Problem:
    """With a settled head that knows the colours' places, and nothing else."""

    def settled(vectors):
        logits = torch.zeros(len(vectors), 7)
        logits[:, :3] = 4 * vectors[:, :3]
        logits[:, 5] = -10
        return logits

    losses = balanced_losses(ATTRIBUTES, LossSettings(logit_adjustment_tau=tau))
    return Problem(data, ATTRIBUTES, NAMES, settled, losses)


def draw(source, size=300):
    return source.draw(size, torch.Generator().manual_seed(0))


def sampler(data, columns=(0, 1, 2)):
    return TagSetSampler(data, list(columns), SLICES)
