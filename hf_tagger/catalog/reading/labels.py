"""Corrected tags: a file of the right tags, by product id and attribute.

The catalogue itself is never written to. A file of corrections is parquet, csv or jsonl with three columns:

    id         the product's id, as the schema reads it
    attribute  one of the schema's attributes
    tags       the right tags, a list (in a csv: a JSON list such as ["Red"]); [] says that none applies, an empty cell
               that nobody knows

`recipes/find_label_issues.py` writes pages that make such a file.
"""

from collections import Counter
from pathlib import Path
from typing import Any

from hf_tagger.catalog.attributes import cell_text, is_missing
from hf_tagger.catalog.formats.cells import json_value
from hf_tagger.catalog.quarantine import RowError
from hf_tagger.catalog.reading.readers import read_rows
from hf_tagger.catalog.reading.source import format_of
from hf_tagger.catalog.schema import CatalogSchema, Record
from hf_tagger.catalog.strict import ConfigError, did_you_mean
from hf_tagger.catalog.tag_names import TagNames
from hf_tagger.catalog.vocabulary import Vocabulary
from hf_tagger.model.text import clean_tag

COLUMNS = ("id", "attribute", "tags")


class Labels:
    """The corrections of one file, to be applied to records as they stream by.

    Args:
        path: the file.
        schema: the catalogue's: attributes must be its own, and a `single` one takes at most one tag.

    Raises ConfigError, naming the file and the row, for a file, column, attribute or cell that does not fit, and for
    two rows that contradict each other.
    """

    def __init__(self, path: str | Path, schema: CatalogSchema):
        self.path = str(path)
        self.tags: dict[str, dict[str, list[str] | None]] = {}
        # (product, attribute): the catalogue's own tags and the corrected ones, for records that were read.
        self._moves: dict[tuple[str, str], tuple] = {}
        self._row: dict[str, tuple[str, int]] = {}
        self.repeated: set[str] = set()  # corrected ids that were met on several rows
        format = format_of(self.path)
        if format not in ("parquet", "csv", "jsonl"):
            raise ConfigError(f"{path}: labels come as .parquet, .csv or .jsonl.")
        if "://" not in self.path and not Path(path).exists():
            raise ConfigError(f"there is no file {path}")
        for number, row, refused in read_rows(self.path, format, dict.fromkeys(COLUMNS, "labels")):
            where = f"{path}, row {number}"
            if row is None:
                raise ConfigError(f"{where}: {refused}")
            if is_missing(row["id"]) or is_missing(row["attribute"]):
                raise ConfigError(f"{where}: id and attribute must be given, got {row['id']!r}, {row['attribute']!r}.")
            product, attribute = cell_text(row["id"]).strip(), cell_text(row["attribute"]).strip()
            try:
                kind = schema.attribute(attribute).kind
                tags = _tags(row["tags"])
            except ValueError as error:
                raise ConfigError(f"{where}: {error}") from error
            if kind == "single" and len(tags or ()) > 1:
                raise ConfigError(f"{where}: {attribute} is single and takes one tag, got {', '.join(tags)}.")
            known = self.tags.setdefault(product, {})
            if attribute in known and known[attribute] != tags:
                raise ConfigError(f"{where}: {attribute} of {product} is {tags}, but an earlier row says "
                                  f"{known[attribute]}.")
            known[attribute] = tags

    def __len__(self) -> int:
        """Number of (product, attribute) pairs that are corrected."""
        return sum(map(len, self.tags.values()))

    def apply(self, record: Record) -> None:
        """Puts corrected tags in place of the record's own."""
        if record["id"] in self.tags:
            row = record["file"], record["number"]
            if self._row.setdefault(record["id"], row) != row:
                self.repeated.add(record["id"])
        for name, tags in self.tags.get(record["id"], {}).items():
            self._moves[record["id"], name] = (record["tags"].get(name) or (), tags or ())
            record["tags"][name] = None if tags is None else list(tags)

    def check(self, vocabulary: Vocabulary, schema: CatalogSchema, names: TagNames | None = None) -> str:
        """A line for a person: how many corrected products were read when `vocabulary` was counted, with `names` if
        these are the catalogue's.

        Raises ConfigError for a corrected tag that neither the catalogue's own tags nor the schema's lists hold: a
        misspelt tag would become a new one.
        """
        known: dict[str, Counter] = {entry["name"]: Counter(dict(zip(entry["tags"], entry["counts"], strict=True)))
                                     for entry in vocabulary.attributes}
        for left_out in (vocabulary.below_min_count, vocabulary.not_listed):
            for name, counts in left_out.items():
                known.setdefault(name, Counter()).update(counts)
        for name, merged in vocabulary.merged.items():
            known[name].update(merged)
        for (_, name), (before, after) in self._moves.items():
            known.setdefault(name, Counter()).update(before)
            known[name].subtract(after)
        for product, corrected in self.tags.items():
            for name, tags in corrected.items():
                spelt = [tag for tag, count in known.get(name, Counter()).items() if count > 0]
                spelt += schema.attribute(name).tags or []
                if names is not None and names.taxonomy(name) is not None:
                    try:
                        names.named(name, tags or ())
                    except RowError as error:
                        raise ConfigError(f"{self.path}: {name} of {product}: {error.detail}") from error
                    continue
                for tag in tags or ():
                    if tag not in spelt:
                        raise ConfigError(f"{self.path}: {name} of {product} is {tag!r}, which no product of the "
                                          f"training split has.{did_you_mean(tag, spelt)} A new tag is declared in "
                                          f"attributes.{name}.tags.")
        met = {product for product, _ in self._moves}
        strangers = [product for product in self.tags if product not in met]
        line = f"labels: {len(self)} corrections of {len(self.tags)} products, {len(met)} of them in the training split"
        for ids, what in ((strangers, "not there"), (sorted(self.repeated), "on several rows, all of them corrected")):
            if ids:
                line += f" ({what}: {', '.join(ids[:3])}{', …' * (len(ids) > 3)})"
        return line


def _tags(cell: Any) -> list[str] | None:
    if is_missing(cell):
        return None
    cell = json_value(cell) if isinstance(cell, str) else cell
    if not isinstance(cell, list):
        raise ValueError('tags must be a list such as ["Red"], or empty where they are not known')
    tags = [clean_tag(cell_text(tag)) for tag in cell]
    if None in tags:
        raise ValueError(f"an empty tag in {cell}")
    return list(dict.fromkeys(tags))
