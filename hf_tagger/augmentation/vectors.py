"""Pooled vectors of a catalogue with their tag labels: the training data of every method in this room."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hf_tagger.catalog.batching.collate import UNKNOWN


@dataclass
class TaggedVectors:
    vectors: np.ndarray  # float [N, H], in memory or memory-mapped
    tag_labels: np.ndarray  # int8 [N, T] in {0, 1, -100}, as `catalog.batching.collate` gives them

    def __post_init__(self):
        if len(self.vectors) != len(self.tag_labels):
            raise ValueError(f"{len(self.vectors)} vectors with the labels of {len(self.tag_labels)} products")
        rows, tags = np.nonzero(self.tag_labels == 1)
        order = np.argsort(tags, kind="stable")
        self._rows = rows[order]
        self._ends = np.cumsum(np.bincount(tags, minlength=self.tag_labels.shape[1]))

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def width(self) -> int:
        return self.vectors.shape[1]

    def counts(self) -> np.ndarray:
        """Rows that carry each tag [T]."""
        return np.diff(self._ends, prepend=0)

    def rows_with(self, tag: int) -> np.ndarray:
        """Indices of the rows that carry a tag."""
        return self._rows[self._ends[tag] - self.counts()[tag]:self._ends[tag]]

    def two_rows_with(self, tags: np.ndarray, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each tag [B] a row that carries it and another one (the same, if there is no other), chosen by uniform
        numbers [2, B]."""
        counts = self.counts()[tags]
        starts = self._ends[tags] - counts
        place = np.minimum((draws[0] * counts).astype(np.int64), counts - 1)
        step = 1 + np.minimum((draws[1] * (counts - 1)).astype(np.int64), counts - 2)
        return self._rows[starts + place], self._rows[starts + (place + np.where(counts > 1, step, 0)) % counts]

    def labelled(self) -> np.ndarray:
        """Indices of the rows with at least one known label."""
        return np.flatnonzero((self.tag_labels != UNKNOWN).any(1))

    def batch(self, rows) -> tuple[Tensor, Tensor]:
        """Rows [B] -> float vectors [B, H] and float labels [B, T]."""
        rows = np.asarray(rows)
        return (torch.from_numpy(self.vectors[rows].astype(np.float32)),
                torch.from_numpy(self.tag_labels[rows].astype(np.float32)))

    def sample(self, rows: int = 4096) -> Tensor:
        """About so many vectors [B, H], evenly spaced over all rows."""
        return self.batch(range(0, len(self), max(1, len(self) // rows)))[0]


def write_vectors(folder: Path, parts: Iterable[tuple[Tensor, Tensor]]) -> TaggedVectors:
    """(vectors [B, H], tag_labels [B, T]) batch by batch -> all of them, memory-mapped from files in `folder`, so that
    memory does not grow with the catalogue."""
    folder.mkdir(parents=True, exist_ok=True)
    paths, rows, widths = (folder / "vectors.f16", folder / "tag_labels.i8"), 0, (0, 0)
    with open(paths[0], "wb") as vector_file, open(paths[1], "wb") as label_file:
        for vectors, labels in parts:
            vector_file.write(vectors.detach().to("cpu", torch.float16).numpy().tobytes())
            label_file.write(labels.to("cpu", torch.int8).numpy().tobytes())
            rows, widths = rows + len(vectors), (vectors.shape[1], labels.shape[1])
    if not rows:
        return TaggedVectors(np.zeros((0, 1), np.float16), np.zeros((0, 1), np.int8))
    return TaggedVectors(*(np.memmap(path, kind, "r", shape=(rows, width)) for path, kind, width in
                           zip(paths, (np.float16, np.int8), widths, strict=True)))
