"""Which tag sets to make vectors for: with rare tags, and with other tags that occur beside them."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hf_tagger.augmentation.vectors import TaggedVectors
from hf_tagger.catalog.batching.collate import UNKNOWN


class Drawn(NamedTuple):
    columns: np.ndarray  # the drawn tags [B]
    rows: np.ndarray  # a product that has each [B]
    others: np.ndarray  # another one that has it [B], the same if there is only one
    tag_labels: Tensor  # the tag sets to make vectors for, float [B, T] in {0, 1, -100}


class TagSetSampler:
    """Draws a tag, then a product that has it: vectors are made for the tag set of that product.

    Args:
        columns: tags to draw from; tags that no product has are left out.
        power: a tag is drawn in proportion to (its products) ** -power: 0: all alike, 1: rare tags more often.
        recombine: probability that the tags of one other attribute come from a second product with the same tag, which
            makes sets that never occurred.

    Raises ValueError if no product has any of the tags.
    """

    def __init__(self, data: TaggedVectors, columns: list[int], slices: list[slice], power: float = 0.0,
                 recombine: float = 0.0):
        counts = data.counts()
        self.columns = [column for column in columns if counts[column]]
        if not self.columns:
            raise ValueError("no product carries any of the tags to make vectors for")
        self.data, self.slices, self.recombine = data, slices, recombine
        weights = torch.from_numpy(counts[self.columns]).double() ** -power
        self.weights = weights / weights.sum()

    def draw(self, size: int, generator: torch.Generator) -> Drawn:
        chosen = torch.multinomial(self.weights, size, replacement=True, generator=generator).numpy()
        columns = np.asarray(self.columns)[chosen]
        first, second = self.data.two_rows_with(columns, torch.rand(2, size, generator=generator).numpy())
        labels = self.data.tag_labels[first].astype(np.float32)
        if self.recombine:
            lottery = torch.rand(2, size, generator=generator).numpy()
            lender = (lottery[1] * len(self.slices)).astype(int)
            for index, where in enumerate(self.slices):
                given = (lottery[0] < self.recombine) & (lender == index)
                given &= (columns < where.start) | (columns >= where.stop)
                lent = self.data.tag_labels[second, where].astype(np.float32)
                given &= (lent != UNKNOWN).all(1)
                labels[given, where] = lent[given]
        return Drawn(columns, first, second, torch.from_numpy(labels))
