"""What opens a shop's file to be changed, by its format."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from hf_tagger.catalog.editing.patches import Digest, Patch
from hf_tagger.catalog.formats.text_files import is_json_document
from hf_tagger.catalog.reading.source import SourceConfig, catalogue_files, is_database
from hf_tagger.catalog.strict import ConfigError


class EditedFile(Protocol):
    """A file whose rows are read in order, with the numbers that they have as rows of the catalogue.

    `header`: its columns. `kept`, `holds_lists`, `write`: see `PatchedFile`.
    """

    header: list[str]
    kept: str

    def add_columns(self, columns: Mapping[str, bool]) -> None:
        """{column: whether its values are lists}; those that the file does not have yet are added."""

    def header_patches(self) -> list[Patch]:
        """What adds them; comes before the rows."""

    def rows(self) -> Iterator[Any]:
        """Objects with a `number`."""

    def value(self, row: Any, column: str) -> str | None: ...

    def patches(self, row: Any, values: Mapping[str, str]) -> list[Patch]:
        """What puts {column: value} into a row. Raises Unwritable where the row cannot take it, and then nothing of it
        is to be changed."""

    def holds_lists(self, column: str) -> bool: ...

    def takes(self, text: str) -> bool:
        """Whether the file's encoding has all characters of a text."""

    def write(self, patches: Iterable[Patch], original: Digest, changed: Digest) -> Iterator[dict[str, Any]]: ...


def one_file(source: SourceConfig, split: str) -> tuple[str, str]:
    """The file of the split and its format. Raises ConfigError for several, or one that is not changed in place."""
    if source.hub_id(split):
        raise ConfigError(f"{source.hub_id(split)} is a dataset of the Hub: tags are written back into a file")
    if any(map(is_database, source.patterns(split))):
        raise ConfigError("tags are not written into a database: --output_dir writes them into files")
    remote = next((path for path in source.patterns(split) if "://" in path), None)
    if remote is not None:
        raise ConfigError(f"{remote}: tags are written back into a file of this machine: copy it here first")
    files = catalogue_files(source, split)
    if len(files) > 1:
        raise ConfigError(f"tags are written back into one file at a time, and there are {len(files)}, such as "
                          f"{files[0][0]} and {files[1][0]}")
    return files[0]


def open_file(path: str, format: str, columns: Iterable[str], source: SourceConfig) -> EditedFile:
    """
    Args:
        columns: those that the schema reads.
    """
    if format in ("csv", "tsv"):
        from hf_tagger.catalog.editing.delimited import DelimitedFile

        return DelimitedFile(path, columns, source.delimiter or ("\t" if format == "tsv" else None), source.encoding)
    if format == "parquet":
        from hf_tagger.catalog.editing.table import ParquetTable

        return ParquetTable(path)
    if format == "xml":
        from hf_tagger.catalog.editing.xml_feed import XmlFeed

        return XmlFeed(path)
    if format == "xlsx":
        from hf_tagger.catalog.editing.spreadsheet import Spreadsheet

        return Spreadsheet(path)
    if format == "jsonl" and is_json_document(path):
        from hf_tagger.catalog.editing.json_lines import JsonDocument

        return JsonDocument(path)
    if format == "jsonl":
        from hf_tagger.catalog.editing.json_lines import JsonLinesFile

        return JsonLinesFile(path, source.encoding)
    raise ConfigError(f"{path}: tags are not written back into {format}; --output_dir writes them beside it")
