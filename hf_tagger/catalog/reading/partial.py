"""A catalogue with splits made of parts of others: folds of cross-validation, a language that is left out."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from hf_tagger.catalog.quarantine import Refusal
from hf_tagger.catalog.reading.stream import Catalog
from hf_tagger.catalog.schema import Record


class Part(NamedTuple):
    """The products of a stored split for which `keep` holds."""

    split: str
    keep: Callable[[Record], bool]


class PartialCatalog(Catalog):
    """`parts`: {split: its part}; other splits are the catalogue's own. Refused rows are in every part."""

    def __init__(self, catalog: Catalog, parts: dict[str, Part]):
        super().__init__(catalog.source, catalog.schema, catalog.labels, catalog.names)
        self.catalog, self.parts = catalog, parts

    @property
    def splits(self) -> list[str]:
        return list(dict.fromkeys([*self.catalog.splits, *self.parts]))

    def with_text(self, columns: list[str]) -> "PartialCatalog":
        return PartialCatalog(self.catalog.with_text(columns), self.parts)

    def records(self, split: str, **options) -> Iterator[Record | Refusal]:
        """As `Catalog.records`."""
        stored, keep = self.parts.get(split, (split, lambda record: True))
        for item in self.catalog.records(stored, **options):
            if isinstance(item, Refusal) or keep(item):
                yield item
