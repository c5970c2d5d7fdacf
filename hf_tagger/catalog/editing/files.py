"""What opens a shop's file to be changed, by its format."""

from collections.abc import Iterable

from hf_tagger.catalog.editing.delimited import DelimitedFile
from hf_tagger.catalog.editing.json_lines import JsonDocument, JsonLinesFile
from hf_tagger.catalog.editing.patches import PatchedFile
from hf_tagger.catalog.editing.spreadsheet import Spreadsheet
from hf_tagger.catalog.editing.table import ParquetTable
from hf_tagger.catalog.editing.xml_feed import XmlFeed
from hf_tagger.catalog.formats.text_files import is_json_document
from hf_tagger.catalog.reading.source import SourceConfig, catalogue_files, is_database
from hf_tagger.catalog.strict import ConfigError


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


def open_file(path: str, format: str, columns: Iterable[str], source: SourceConfig) -> PatchedFile:
    """The file, to be changed. `columns`: those that the schema reads."""
    if format in ("csv", "tsv"):
        return DelimitedFile(path, columns, source.delimiter or ("\t" if format == "tsv" else None), source.encoding)
    if format == "jsonl" and not is_json_document(path):
        return JsonLinesFile(path, source.encoding)
    kinds = {"jsonl": JsonDocument, "parquet": ParquetTable, "xml": XmlFeed, "xlsx": Spreadsheet}
    if format not in kinds:
        raise ConfigError(f"{path}: tags are not written back into {format}; --output_dir writes them beside it")
    return kinds[format](path)
