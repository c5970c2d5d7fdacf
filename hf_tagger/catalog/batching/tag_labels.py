"""`tag_labels` of many products in the memory of the tags that they have: N x T numbers would be 8 GB for 200,000
products of 10,000 tags."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from hf_tagger.catalog.batching.collate import UNKNOWN
from hf_tagger.model.decisions import attribute_slices

# Rows that are looked through at a time, of any number of tags.
_ENTRIES_AT_ONCE = 4_000_000


class TagLabels:
    """Rows of `tag_labels` [N, T], read like an array's: an index gives float32 [T], several give [n, T].

    Of each row is kept which attributes are unknown in whole, and every label that differs from what that says.
    """

    def __init__(self, attributes: Sequence[dict], blocks: Iterable[np.ndarray] = ()):
        self.slices = attribute_slices(attributes)
        self.widths = [where.stop - where.start for where in self.slices]
        self.unknown = np.zeros((0, len(self.slices)), bool)  # [N, A]
        self.ends = np.zeros(1, np.int64)  # [N + 1], of each row's entries
        self.column, self.value = np.zeros(0, np.int32), np.zeros(0, np.float32)  # the entries [M]
        parts = [self._packed(block) for block in blocks]
        if parts:
            unknown, counts, column, value = (np.concatenate(part) for part in zip(*parts, strict=True))
            self.unknown, self.column, self.value = unknown, column, value
            self.ends = np.concatenate([self.ends, counts.cumsum()])

    def _packed(self, block: np.ndarray) -> tuple[np.ndarray, ...]:
        unknown = np.stack([(block[:, where] == UNKNOWN).all(1) for where in self.slices], axis=1)
        row, column = np.nonzero(block != self._implied(unknown))
        return unknown, np.bincount(row, minlength=len(block)), column.astype(np.int32), block[row, column]

    def _implied(self, unknown: np.ndarray) -> np.ndarray:
        return np.repeat(np.where(unknown, np.float32(UNKNOWN), np.float32(0)), self.widths, axis=1)

    @classmethod
    def joined(cls, attributes: Sequence[dict], parts: Sequence["TagLabels"]) -> "TagLabels":
        """The rows of all, one after the other."""
        whole = cls(attributes)
        whole.unknown, whole.column, whole.value = (
            np.concatenate([getattr(whole, name), *(getattr(part, name) for part in parts)])
            for name in ("unknown", "column", "value"))
        whole.ends = np.concatenate([[0], *(np.diff(part.ends) for part in parts)]).cumsum()
        return whole

    def of_rows(self, rows: np.ndarray) -> "TagLabels":
        """These rows (int [n])."""
        part = TagLabels.__new__(TagLabels)
        part.slices, part.widths, part.unknown = self.slices, self.widths, self.unknown[rows]
        part.ends = np.concatenate([[0], (self.ends[rows + 1] - self.ends[rows]).cumsum()])
        _, entry = self._entries(rows)
        part.column, part.value = self.column[entry], self.value[entry]
        return part

    @property
    def shape(self) -> tuple[int, int]:
        return len(self), sum(self.widths)

    def __len__(self) -> int:
        return len(self.unknown)

    def __getitem__(self, rows) -> np.ndarray:
        chosen = np.arange(len(self))[rows]
        if chosen.ndim == 0:
            return self[chosen[None]][0]
        labels = self._implied(self.unknown[chosen])
        place, entry = self._entries(chosen)
        labels[place, self.column[entry]] = self.value[entry]
        return labels

    def __iter__(self) -> Iterator[np.ndarray]:
        for block in self.blocks():
            yield from block

    def blocks(self) -> Iterator[np.ndarray]:
        """All rows, some [n, T] at a time."""
        size = max(1, _ENTRIES_AT_ONCE // max(1, sum(self.widths)))
        for start in range(0, len(self), size):
            yield self[start:start + size]

    def _entries(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of these rows' entries, the place of the row among `rows` and where the entry stands."""
        counts = self.ends[rows + 1] - self.ends[rows]
        place = np.repeat(np.arange(len(rows)), counts)
        return place, np.arange(len(place)) - np.repeat(counts.cumsum() - counts - self.ends[rows], counts)

    def known(self, attribute: int) -> np.ndarray:
        """bool [N]: rows of which every tag of the attribute is known."""
        where, known = self.slices[attribute], ~self.unknown[:, attribute]
        partly = (self.value == UNKNOWN) & (self.column >= where.start) & (self.column < where.stop)
        known[np.searchsorted(self.ends, np.flatnonzero(partly), side="right") - 1] = False
        return known

    def given(self, attribute: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The tags of an attribute that these rows (int [n]) have: places among `rows` [M], in order, and columns
        within the attribute [M]."""
        where = self.slices[attribute]
        place, entry = self._entries(rows)
        column = self.column[entry]
        mine = (self.value[entry] > 0) & (column >= where.start) & (column < where.stop)
        return place[mine], column[mine] - where.start


def in_blocks(rows: Iterable[np.ndarray], size: int = 512) -> Iterator[np.ndarray]:
    """Rows [T] -> blocks [at most `size`, T]."""
    block: list[np.ndarray] = []
    for row in rows:
        block.append(row)
        if len(block) == size:
            yield np.stack(block)
            block = []
    if block:
        yield np.stack(block)
