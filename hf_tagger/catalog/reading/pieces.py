"""A split cut into pieces of so many rows, by its files alone: whoever reads them, today or tomorrow, gets the same."""

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import fsspec
import pyarrow.parquet as pq

from hf_tagger.catalog.quarantine import Refusal
from hf_tagger.catalog.reading.photo_folder import PHOTOS, photos_in
from hf_tagger.catalog.reading.stream import Catalog, fitted_rows, stored_rows
from hf_tagger.catalog.schema import Record
from hf_tagger.catalog.strict import ConfigError

# Of a file's start and of its end, so many bytes tell it from others.
_LOOKED_AT = 1 << 16


@dataclass(frozen=True)
class Piece:
    """Rows of one file."""

    id: str  # "000012", in the catalogue's order
    file: str  # its label in refusals
    first: int  # how many rows stand before
    rows: int  # how many there are, those of other splits and damaged ones included
    # Of the file's size, its first and its last bytes, and of these rows' place in it; wherever it lies.
    fingerprint: str


def plan(catalog: Catalog, split: str, rows: int) -> list[Piece]:
    """The whole split in pieces of at most `rows` rows. Files other than parquet are read once, to count them."""
    pieces: list[Piece] = []
    for shard in catalog.shards_of(split):
        known, count = _known_by(catalog, shard), _count(catalog, split, shard)
        for first in range(0, count, rows):
            size = min(rows, count - first)
            told = hashlib.blake2b(f"{known} {shard.label} {first} {size}".encode(), digest_size=8).hexdigest()
            pieces.append(Piece(f"{len(pieces):06}", shard.label, first, size, told))
    return pieces


class PieceReader:
    """Reads pieces of a split. A file is read on where the last piece ended, as long as pieces come in order."""

    def __init__(self, catalog: Catalog, split: str):
        self.catalog, self.split = catalog, split
        self._shards = {shard.label: shard for shard in catalog.shards_of(split)}
        self._file, self._place, self._rows = None, 0, iter(())

    def __call__(self, piece: Piece) -> Iterator[Record | Refusal]:
        """Records and refusals of a piece, as `Catalog.records` gives them."""
        catalog, shard = self.catalog, self._shards.get(piece.file)
        if shard is None:
            raise ConfigError(f"{piece.file} is no longer among the files of the split {self.split!r}")
        where = catalog.source, catalog.schema, self.split, shard
        if piece.file != self._file or piece.first < self._place:
            self._file, self._place, self._rows = piece.file, 0, stored_rows(*where)
        mine = itertools.islice(self._rows, piece.first - self._place, piece.first - self._place + piece.rows)
        self._place = piece.first + piece.rows
        for row in fitted_rows(*where, mine):
            yield from catalog.as_record(**row)


def _known_by(catalog: Catalog, shard) -> str:
    if shard.format in ("hub", "sql"):  # no file to look at
        return f"{catalog.source.name} {catalog.source.revision}"
    if shard.format == PHOTOS:
        return " ".join(photos_in(shard.file))
    with fsspec.open(shard.file, "rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        start = file.read(_LOOKED_AT)
        file.seek(max(0, size - _LOOKED_AT))
        return f"{size} {hashlib.blake2b(start + file.read(_LOOKED_AT)).hexdigest()}"


def _count(catalog: Catalog, split: str, shard) -> int:
    if shard.format != "parquet" or catalog.source.profile not in (None, "none"):
        return sum(1 for _ in stored_rows(catalog.source, catalog.schema, split, shard))
    with fsspec.open(shard.file, "rb") as file:
        return pq.ParquetFile(file).metadata.num_rows
