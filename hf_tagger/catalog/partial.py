"""A catalogue of which some products are set aside: folds of cross-validation, a language that is left out."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hf_tagger.catalog.quarantine import Refusal
from hf_tagger.catalog.schema import Record
from hf_tagger.catalog.stream import Catalog


@dataclass(frozen=True)
class Part:
    """The products of a stored split for which `keep` holds."""

    split: str
    keep: Callable[[Record], bool]


class PartialCatalog(Catalog):
    """
    Args:
        parts: {split: what it is made of}; other splits are the catalogue's own. Refused rows come with every part.
    """

    def __init__(self, catalog: Catalog, parts: dict[str, Part]):
        super().__init__(catalog.source, catalog.schema, catalog.labels)
        self.catalog, self.parts = catalog, parts

    @property
    def splits(self) -> list[str]:
        return list(dict.fromkeys([*self.catalog.splits, *self.parts]))

    def with_text(self, columns: list[str]) -> "PartialCatalog":
        return PartialCatalog(self.catalog.with_text(columns), self.parts)

    def records(self, split: str, **options) -> Iterator[Record | Refusal]:
        """As `Catalog.records`."""
        part = self.parts.get(split)
        if part is None:
            yield from self.catalog.records(split, **options)
            return
        for item in self.catalog.records(part.split, **options):
            if isinstance(item, Refusal) or part.keep(item):
                yield item
