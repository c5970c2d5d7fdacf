"""Maps a shop's columns onto product records."""

import copy
from dataclasses import dataclass, field
from typing import Any

from hf_tagger.catalog.attributes import AttributeSpec, TagReader, cell_text, is_missing
from hf_tagger.catalog.formats.cells import CellSyntax, json_list, split
from hf_tagger.catalog.free_form import FreeFormSpec
from hf_tagger.catalog.photos import open_photo
from hf_tagger.catalog.quarantine import RowError
from hf_tagger.catalog.strict import ConfigError, did_you_mean
from hf_tagger.model.text import clean_tag, clean_text

Record = dict[str, Any]
MAX_CELL = 1 << 17  # characters of a cell that is no text, and items of a list


@dataclass
class PairsSpec:
    """Tags as pairs: each row names its known attributes; all others are unknown."""

    names: str  # list column of the attributes' names
    values: str  # and of their values, of the same length
    discover: AttributeSpec | None = None  # of attributes that are not declared; default: such an attribute is an error


@dataclass
class CatalogSchema:
    id: str | None = None  # column of the product's id; default: the file's name and the row's number
    text: str | list[str] = field(default_factory=list)  # columns of text, joined in this order
    language_column: str | None = None  # with each product's language
    language: str | None = None  # of all products
    images: str | list[str] = field(default_factory=list)  # of paths, bytes, `datasets` images, or lists of these
    image_root: str | None = None  # folder that paths start from; default: the folder of the catalogue file
    image_delimiter: str | None = None  # between several paths in one cell
    allow_urls: bool = False  # photos may be http(s) URLs
    group: str | None = None  # column whose rows stay in one split; default: the id
    attributes: dict[str, AttributeSpec] = field(default_factory=dict)  # {name: how its tags are written}
    pairs: PairsSpec | None = None  # attributes without a `column` are then read from these
    free_form: FreeFormSpec | None = None  # where the tags that a decoder learns to write are read from
    keep: list[str] = field(default_factory=list)  # columns kept unchanged in the records, for reports and slices
    max_chars: int = 2000  # each text column is cut to so many characters
    max_images: int = 8  # so many photos of a product are read, its first ones

    def __post_init__(self):
        self.text = [self.text] if isinstance(self.text, str) else list(self.text)
        self.images = [self.images] if isinstance(self.images, str) else list(self.images)
        if not self.text and not self.images:
            raise ConfigError("a schema needs at least one text or images column.")
        if self.language and self.language_column:
            raise ConfigError("give language (one for all products) or language_column, not both.")
        if not self.attributes and not (self.pairs and self.pairs.discover):
            raise ConfigError("a schema needs attributes: {name: {kind: single}, …}, or pairs with discover.")
        if not all(map(str.strip, self.attributes)):
            raise ConfigError("attributes: an attribute has no name.")
        self._paired = {name for name, spec in self.attributes.items() if self.pairs and spec.column is None}
        for name, spec in self.attributes.items():
            if spec.column is None and name not in self._paired:
                spec.column = name
        self._readers = {name: TagReader(name, spec) for name, spec in self.attributes.items()}
        self._free_form_readers: dict[str, TagReader] = {}
        if self.free_form is not None:
            for name in () if self.free_form.attributes == "all" else self.free_form.attributes:
                self.attribute(name)
            for name, spec in self.free_form.columns.items():
                if name in self.attributes:
                    raise ConfigError(f'free_form.columns: "{name}" is an attribute; list it under '
                                      "free_form.attributes.")
                spec.column = spec.column or name
                self._free_form_readers[name] = TagReader(name, spec)

    def without_tags(self) -> "CatalogSchema":
        """For products that nobody has tagged yet: reads id, text, language and photos alone."""
        schema = copy.copy(self)
        schema.attributes, schema.pairs, schema.free_form, schema.keep = {}, None, None, []
        schema._readers, schema._free_form_readers = {}, {}
        return schema

    def columns(self) -> dict[str, str]:
        """{column that the schema reads: the key that names it}."""
        named = [(self.id, "id"), (self.language_column, "language_column"), (self.group, "group")]
        named += [(column, "text") for column in self.text]
        named += [(column, "images") for column in self.images]
        named += [(column, "keep") for column in self.keep]
        named += [(spec.column, f"attributes.{name}") for name, spec in self.attributes.items()]
        named += [(reader.spec.column, f"free_form.columns.{name}") for name, reader in self._free_form_readers.items()]
        if self.pairs:
            named += [(self.pairs.names, "pairs.names"), (self.pairs.values, "pairs.values")]
        columns: dict[str, str] = {}
        for column, key in named:
            if column is not None:
                columns.setdefault(column, f"schema: {key}")
        return columns

    def attribute(self, name: str) -> AttributeSpec:
        """The specification of an attribute, declared or discovered."""
        if name in self.attributes:
            return self.attributes[name]
        if self.pairs and self.pairs.discover:
            return self.pairs.discover
        raise ConfigError(f'The attribute "{name}" is not declared.{did_you_mean(name, self.attributes)}')

    def record(self, row: dict, number: int, *, file: str = "", image_root: str = "",
               notes: list[RowError] | None = None) -> Record:
        """A row of the catalogue -> product record: {"id", "group", "number", "file", "text", "texts", "language",
        "images", "tags", "kept"}, with several paths in a cell "paths": {attribute: its paths}, and with `free_form` in
        the schema "free_form": the tags of each of its sources (None unknown).

        `tags` has every declared attribute (its tags, [] none applies, None unknown) and, with `pairs.discover`, those
        that the row names. `image_root` is used if the schema has none. Refused parts of a usable row are appended to
        `notes`.

        Raises RowError if the row cannot be used ("no_content", "several_values", "wrong_type"), ConfigError for an
        attribute in `pairs` that is not declared.
        """
        notes = [] if notes is None else notes
        texts = [text for column in self.text if (text := self._text(row.get(column), column, notes))]
        images = self._images(row, self.image_root or image_root, notes) if self.images else []
        if not texts and not images:
            columns = ", ".join([*self.text, *self.images])
            why = "".join(f"; {note}" for note in notes[:1])
            raise RowError(None, "no_content", f"neither text nor photo (looked in {columns}){why}")
        tags = self._tags(row)
        language = row.get(self.language_column) if self.language_column else self.language
        free_form = {} if self.free_form is None else {"free_form": self._free_form_tags(row, tags)}
        trees = [name for name, spec in self.attributes.items() if spec.format == "path" and spec.is_tree
                 and tags[name]]
        paths = {name: found for name in trees
                 if len(found := self._readers[name].paths(row.get(self.attributes[name].column))) > 1}
        return {
            "id": self.row_id(row, number, file),
            "group": self.group_key(row, number, file),
            "number": number,
            "file": file,
            "text": ". ".join(texts) if texts else None,
            "texts": texts,
            "language": None if is_missing(language) else str(language).strip().lower().replace("_", "-"),
            "images": images,
            "tags": tags,
            "kept": {column: row.get(column) for column in self.keep},
            **({"paths": paths} if paths else {}),
            **free_form,
        }

    def fit(self, row: dict) -> RowError | None:
        """Cuts a row to what is read of it, in place, so that many can wait in memory: the beginning of a text, and no
        cell beyond `MAX_CELL`, whose refusal is returned.

        Raises RowError ("encoding") for text that cannot be written anywhere.
        """
        refused = None
        for column, value in row.items():
            if value is None or (type(value) is str and len(value) < 1000 and value.isascii()):
                continue  # nearly all cells, for speed
            try:
                if isinstance(value, str) and column in self.text:
                    row[column] = value = value[:20 * self.max_chars]
                if _weight(value) > max(MAX_CELL, 20 * self.max_chars):
                    row[column], refused = None, RowError(column, "too_large", f"more than {MAX_CELL} characters")
            except UnicodeError as error:
                raise RowError(column, "encoding", f"holds half a character ({error})") from error
            except RecursionError as error:
                raise RowError(column, "wrong_type", "lists within lists without end") from error
        return refused

    def row_id(self, row: dict, number: int, file: str = "") -> str:
        """The row's id; without one, its file and number."""
        value = row.get(self.id) if self.id else None
        return f"{file}:{number}" if is_missing(value) else cell_text(value).strip()

    def group_key(self, row: dict, number: int, file: str = "") -> str:
        """What the row's split and fold depend on: its group; without one, its id."""
        value = row.get(self.group) if self.group else None
        return self.row_id(row, number, file) if is_missing(value) else cell_text(value).strip()

    def _text(self, value: Any, column: str, notes: list[RowError]) -> str | None:
        items = [item for item in (value if isinstance(value, list | tuple) else [value]) if not is_missing(item)]
        nested = next((item for item in items if isinstance(item, dict | list | tuple | bytes)), None)
        if nested is not None:
            notes.append(RowError(column, "wrong_type", f"wanted text, got {type(nested).__name__}"))
            return None
        return clean_text(". ".join(map(cell_text, items)), self.max_chars)

    def _images(self, row: dict, root: str, notes: list[RowError]) -> list:
        images = []
        for column in self.images:
            values = row.get(column)
            if isinstance(values, str):
                listed = json_list(values)
                values = listed if listed is not None else split(values, CellSyntax(self.image_delimiter))
            values = values if isinstance(values, list) else [values]
            # `datasets` stores a photo that is not there as {"bytes": None, "path": None}.
            values = [value for value in values if not is_missing(value) and not (
                isinstance(value, dict) and not (value.get("bytes") or value.get("path")))]
            for value in values:
                if len(images) == self.max_images:
                    notes.append(RowError(column, "many_photos", f"{len(values)} photos; the product's first "
                                                                 f"{self.max_images} are read (schema.max_images)"))
                    break
                try:
                    images.append(open_photo(value, column, root, self.allow_urls))
                except RowError as refused:
                    notes.append(refused)
        return images

    def _tags(self, row: dict) -> dict[str, list[str] | None]:
        tags = {name: None if name in self._paired else self._readers[name].read(row.get(spec.column))
                for name, spec in self.attributes.items()}
        for name, values in self._pairs(row).items() if self.pairs else ():
            if name not in self._readers:
                self._readers[name] = TagReader(name, self.attribute(name))
            tags[name] = self._readers[name].read(values)
        return tags

    def _free_form_tags(self, row: dict, tags: dict[str, list[str] | None]) -> dict[str, list[str] | None]:
        written = {name: reader.read(row.get(reader.spec.column)) for name, reader in self._free_form_readers.items()}
        return written | {name: given for name, given in tags.items() if self.free_form.takes(name)}

    def _pairs(self, row: dict) -> dict[str, list]:
        names, values = row.get(self.pairs.names), row.get(self.pairs.values)
        names = names if isinstance(names, list) else [] if is_missing(names) else [names]
        values = values if isinstance(values, list) else [] if is_missing(values) else [values]
        if len(names) != len(values):
            raise RowError(self.pairs.names, "wrong_type", f"{len(names)} names for {len(values)} values")
        pairs: dict[str, list] = {}
        for name, value in zip(names, values, strict=True):
            if name := clean_tag(cell_text(name)):
                pairs.setdefault(name, []).extend(value if isinstance(value, list) else [value])
        return pairs


def _weight(value: Any) -> int:
    """Characters and items of a cell. Raises UnicodeError for a lone surrogate."""
    if isinstance(value, str):
        if not value.isascii():
            value.encode()
        return len(value)
    if isinstance(value, dict):
        value = [*value, *value.values()]
    return len(value) + sum(map(_weight, value)) if isinstance(value, list | tuple) else 0
