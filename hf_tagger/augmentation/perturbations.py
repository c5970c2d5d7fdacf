"""Vectors for rare tags without a generative model: transferred residuals, pseudo-labels.

Each class has `draw(size, generator) -> (vectors [B, H], tag_labels [B, T])`, as every source of extra vectors has.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from hf_tagger.augmentation.retrain import AugmentationStopped
from hf_tagger.augmentation.tag_sets import TagSetSampler
from hf_tagger.augmentation.vectors import TaggedVectors
from hf_tagger.catalog.batching.collate import UNKNOWN


class ResidualTransfer:
    """A product of the drawn tag plus the residual of a product of a frequent tag (its difference from the tag's mean):
    rare tags borrow the spread of frequent ones (after distribution calibration, arXiv 2101.06395).

    Only the labels of the drawn tag's attribute stay known: the residual may change the others. `frequent` tags lend
    residuals; in an attribute without any, its most frequent tag does.
    """

    def __init__(self, data: TaggedVectors, sampler: TagSetSampler, slices: list[slice], frequent: list[int]):
        self.data, self.sampler = data, sampler
        counts, self.lenders, self.means = data.counts(), [], {}
        for where in slices:
            lending = [column for column in frequent if where.start <= column < where.stop]
            self.lenders.append(lending or [where.start + int(counts[where].argmax())])
            for column in self.lenders[-1]:
                rows = data.rows_with(column)
                self.means[column] = data.batch(rows[:: max(1, len(rows) // 1000)])[0].mean(0)
        self.attribute = np.repeat(np.arange(len(slices)), [where.stop - where.start for where in slices])

    def draw(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        drawn = self.sampler.draw(size, generator)
        vectors, labels = self.data.batch(drawn.rows)
        attribute = self.attribute[drawn.columns]
        draws = torch.rand(3, size, generator=generator).numpy()
        lender = np.array([self.lenders[index][int(draw * len(self.lenders[index]))]
                           for index, draw in zip(attribute, draws[0], strict=True)])
        rows, _ = self.data.two_rows_with(lender, draws[1:])
        means = torch.stack([self.means[column] for column in lender])
        own = torch.from_numpy(self.attribute[None] == attribute[:, None])
        return vectors + self.data.batch(rows)[0] - means, torch.where(own, labels, UNKNOWN)


class PseudoLabels:
    """Products with unknown attributes, tagged by the model itself where it is sure (pseudo-labelling, Lee 2013).

    Args:
        score: vectors [B, H] -> probabilities [B, T].
        threshold: lowest probability at which the best tag of a `single` attribute is given. A tag of a `multi` one is
            given from this probability on, and ruled out up to one minus it.

    Raises AugmentationStopped where no product has an unknown attribute that the model is sure of.
    """

    def __init__(self, data: TaggedVectors, attributes: list[dict], slices: list[slice],
                 score: Callable[[Tensor], Tensor], threshold: float):
        rows = np.flatnonzero((data.tag_labels == UNKNOWN).any(1))
        kept, labels = [], []
        for start in range(0, len(rows), 4096):
            vectors, known = data.batch(rows[start:start + 4096])
            guessed = _guess(score(vectors), attributes, slices, threshold)
            filled = torch.where(known == UNKNOWN, guessed, known)
            sure = ((known == UNKNOWN) & (filled == 1)).any(1)
            kept.append(rows[start:start + 4096][sure.numpy()])
            labels.append(filled[sure].numpy().astype(np.int8))
        if not sum(map(len, kept)):
            raise AugmentationStopped("no product has an unknown attribute that the model is sure of: pseudo_labels "
                                      "has nothing to learn from. Choose another method, or lower confidence")
        self.data, self.rows, self.tag_labels = data, np.concatenate(kept), np.concatenate(labels)

    def draw(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(self.rows), (size,), generator=generator).numpy()
        return self.data.batch(self.rows[chosen])[0], torch.from_numpy(self.tag_labels[chosen].astype(np.float32))


def _guess(scores: Tensor, attributes: list[dict], slices: list[slice], threshold: float) -> Tensor:
    """Probabilities [B, T] -> labels [B, T], unknown where they are not sure."""
    labels = torch.full_like(scores, UNKNOWN)
    for attribute, where in zip(attributes, slices, strict=True):
        part = scores[:, where]
        if attribute["kind"] == "single":
            best, tag = part.max(1)
            chosen = torch.zeros_like(part).scatter(1, tag[:, None], 1.0)
            labels[:, where] = torch.where((best >= threshold)[:, None], chosen, UNKNOWN)
        else:
            labels[:, where] = torch.where(part >= threshold, 1.0, torch.where(part <= 1 - threshold, 0.0,
                                                                                float(UNKNOWN)))
    return labels
