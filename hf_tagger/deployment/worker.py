"""A worker of a bulk run: it opens the model once, and tags the pieces of a catalogue that it can have."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from hf_tagger.catalog.reading.pieces import Piece, PieceReader
from hf_tagger.catalog.reading.stream import Catalog
from hf_tagger.catalog.settings import CatalogSettings, open_catalog
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.deployment import shards
from hf_tagger.deployment.bulk import opened_fingerprint, tag_shards
from hf_tagger.deployment.engines import open_engine
from hf_tagger.deployment.storage import fetched
from hf_tagger.model.saving import FormatError
from hf_tagger.runtime import TAGGER, file_fingerprint


@dataclass(frozen=True)
class Work:
    """What every worker is told, wherever it runs: what it reads, it reads itself."""

    model: str  # exported folder, model folder, adapter folder (of any file system of fsspec) or Hub id
    catalog: CatalogSettings  # no made-up one, but what `made_up` returns for it
    split: str
    batch_size: int = 32  # products
    num_workers: int = 1  # threads that decode photos

    def open_catalog(self) -> Catalog:
        """Raises ConfigError where it has no such split."""
        catalog = open_catalog(self.catalog, Path(".")).without_tags()
        if self.split not in catalog.splits:
            raise ConfigError(f"there is no split {self.split!r}; the catalogue has {', '.join(catalog.splits)}")
        return catalog


class Worker:
    """Attributes: `attributes` of the model's config; `fingerprint`, which tells the model from others."""

    def __init__(self, work: Work, device: torch.device):
        self.work, model = work, fetched(work.model)
        try:
            self.tagger = open_engine(model, torch.get_num_threads(), device).tagger
        except FormatError as error:
            raise ConfigError(str(error)) from error
        if Path(model, TAGGER).exists():
            self.attributes, self.fingerprint = self.tagger.attributes, file_fingerprint(Path(model, TAGGER))
        else:
            self.attributes = self.tagger.model.config.attributes
            self.fingerprint = opened_fingerprint(model, self.tagger.model)

    @cached_property
    def reader(self) -> PieceReader:
        return PieceReader(self.work.open_catalog(), self.work.split)

    def products(self, products: list[dict]) -> list:
        """Products, as `pipeline` takes them -> their tags, or {"error": ...} each."""
        return self.tagger(products, batch_size=self.work.batch_size, num_workers=self.work.num_workers,
                           on_error="skip", allow_urls=self.work.catalog.schema.allow_urls) if products else []

    def tag(self, folder: Path, pieces: Sequence[Piece], wait: bool = True) -> Iterator[int]:
        """Tags those that no other worker has, see `shards.claimed`. Yields the number of products of each."""
        taken = ((shards.shard_path(folder, piece), self.reader(piece))
                 for piece in shards.claimed(folder, pieces, wait))
        yield from tag_shards(taken, self.products, self.attributes)
