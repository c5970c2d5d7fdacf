"""What a product's own rows say of it already, where tags go elsewhere: the options of variants, features in pairs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from hf_tagger.catalog.editing.policy import Tag, Target, values_of
from hf_tagger.catalog.profiles import Profile
from hf_tagger.catalog.reading.source import SourceConfig
from hf_tagger.catalog.reading.stream import Catalog
from hf_tagger.catalog.schema import CatalogSchema, Record
from hf_tagger.model.decisions import fold


class KnownTags:
    """`records`: of the file, in its order, with the tags of these attributes. `targets`: where those of each go."""

    def __init__(self, records: Iterable[Record], targets: dict[str, Target]):
        self._records = (record for record in records if isinstance(record, dict))
        self._record: Record | None = next(self._records, None)
        self._targets = targets

    def among(self, tags: Iterable[Tag], row: int, cells: Mapping[str, str]) -> list[Tag]:
        """Those of the tags that the product whose first row this is has already, and not in the cell that they would
        go into. Asked for with rising rows."""
        while self._record is not None and self._record["number"] < row:
            self._record = next(self._records, None)
        if self._record is None or self._record["number"] != row:
            return []
        known = {name: set(map(fold, held)) - self._written(name, cells) for name, held in self._record["tags"].items()
                 if held}
        return [tag for tag in tags if fold(tag.label) in known.get(tag.attribute, ())]

    def _written(self, attribute: str, cells: Mapping[str, str]) -> set[str]:
        target = self._targets[attribute]
        return set(map(fold, values_of(cells.get(target.column, ""), target.syntax)))


def known_tags(source: SourceConfig, schema: CatalogSchema, split: str, targets: Sequence[Target],
               header: Sequence[str], system: Profile | None) -> KnownTags | None:
    """None where all attributes go where they are read."""
    elsewhere = {target.attribute: target for target in targets if system is not None and target.how != "pair"
                 and (spec := schema.attributes.get(target.attribute)) and spec.column
                 and spec.column not in (*header, target.column)
                 and spec.column.partition(":")[0] in system.patterns}
    if not elsewhere:
        return None
    read = replace(schema, attributes={name: schema.attributes[name] for name in elsewhere}, images=[], pairs=None,
                   text=[schema.id] if schema.id else schema.text, free_form=None, keep=[])
    return KnownTags(Catalog(source, read).records(split), elsewhere)
