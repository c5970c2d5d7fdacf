"""Raw rows of one catalogue file.

`datasets`' own csv, json and webdataset builders guess types from the first rows ("00123" becomes 123, the tag "None"
disappears), stop at the first bad line, and require every product to have every field. A shop's export needs cells as
they were typed, one refusal per bad line, and products without a photo. So these readers feed
`datasets.IterableDataset.from_generator` instead; columns that the schema does not use are not read.

Every reader yields (row number from 1, values | None, RowError | None): values alone for a good row, an error alone for
a lost one, both for a row of which a part is missing.
"""

import csv
import itertools
import json
import lzma
import posixpath
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from hf_tagger import UserError
from hf_tagger.catalog.quarantine import RowError
from hf_tagger.catalog.schema import CatalogSchema
from hf_tagger.catalog.source import CsvDialect
from hf_tagger.catalog.strict import ConfigError

RawRow = tuple[int, dict[str, Any] | None, RowError | None]

_UNREADABLE = (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, pa.ArrowException)
_SAMPLE_ROWS = 1000
_MAX_CELL_CHARS = 1 << 20
_PAGE_BUFFER_BYTES = 1 << 20
_MAX_MEMBER_BYTES = 64 << 20
_UNDECODABLE = re.compile("[\udc80-\udcff]")
# `datasets`' imagefolder calls the photo of the metadata column `file_name` `image`.
_IMAGEFOLDER_NAMES = {"image": "file_name", "images": "file_names"}


class CatalogError(UserError):
    """A catalogue file cannot be read: the message names the file and where in it."""


def read_rows(file: str, format: str, schema: CatalogSchema, dialect: CsvDialect) -> Iterator[RawRow]:
    """Rows of `file`, with the columns that `schema` reads.

    Raises CatalogError if the file cannot be read to its end, ConfigError if it lacks a column of the schema.
    """
    columns = list(schema.columns())
    try:
        if format == "parquet":
            yield from _read_parquet(file, schema)
        elif format in ("csv", "tsv"):
            yield from _read_csv(file, schema, dialect, tabs=format == "tsv")
        else:
            rows = _read_json_lines(file, dialect) if format == "jsonl" else _read_tar(file, columns)
            for number, values, error in rows:
                yield number, None if values is None else _pick(values, columns), error
    except _UNREADABLE as error:
        raise CatalogError(f"{file} cannot be read as {format}: {error}") from error


def check_first_file(file: str, format: str, schema: CatalogSchema, dialect: CsvDialect) -> None:
    """Raises ConfigError if the file lacks a column of the schema. In formats without a header, a column is lacking if
    none of the first thousand rows has it."""
    if format in ("parquet", "csv", "tsv"):
        next(read_rows(file, format, schema, dialect), None)
        return
    wanted, seen, number = set(schema.columns()), {}, 0
    rows = _read_json_lines(file, dialect) if format == "jsonl" else _read_tar(file, None)
    try:
        for number, values, _ in itertools.islice(rows, _SAMPLE_ROWS):  # noqa: B007
            seen |= dict.fromkeys(values or ())
            if wanted <= set(_with_imagefolder_names(seen)):
                return
    except _UNREADABLE as error:
        raise CatalogError(f"{file} cannot be read as {format}: {error}") from error
    if seen:
        schema.check_columns(_with_imagefolder_names(seen), f"{file} (rows 1 to {number})")


def _read_csv(file: str, schema: CatalogSchema, dialect: CsvDialect, tabs: bool) -> Iterator[RawRow]:
    csv.field_size_limit(_MAX_CELL_CHARS)
    with fsspec.open(
        file, "rt", compression="infer", encoding=dialect.encoding, errors="surrogateescape", newline=""
    ) as lines:
        first = next(lines, "")
        delimiter = dialect.delimiter or ("\t" if tabs else _find_delimiter(first, list(schema.columns())))
        reader = csv.reader(itertools.chain([first], lines), delimiter=delimiter, strict=True)
        header = [name.strip() for name in next(reader, [])]
        twice = sorted({name for name in header if name and header.count(name) > 1} & set(schema.columns()))
        if twice:
            raise ConfigError(f'{file}: the header has several columns "{twice[0]}".')
        schema.check_columns(_with_imagefolder_names(header), file)
        wanted = [(column, header.index(_stored_name(column, header))) for column in schema.columns()]
        for number in itertools.count(1):
            start = reader.line_num + 1
            try:
                cells = next(reader)
                while not cells:
                    cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                detail = f"lines {start} to {reader.line_num}: {error} (check the quotes)"
                yield number, None, RowError(None, "malformed", detail)
                continue
            if len(cells) != len(header):
                detail = f"line {reader.line_num}: {len(cells)} cells under {len(header)} columns"
                if any(cells[len(header) :]):
                    yield number, None, RowError(None, "malformed", f"{detail} (a {delimiter!r} without quotes?)")
                    continue
            values = {column: cells[index] if index < len(cells) else None for column, index in wanted}
            if any(cell and not cell.isascii() and _UNDECODABLE.search(cell) for cell in values.values()):
                detail = f"line {reader.line_num} is not {dialect.encoding}: set encoding in the source, such as cp1252"
                yield number, None, RowError(None, "encoding", detail)
            else:
                yield number, values, RowError(None, "short_row", detail) if len(cells) < len(header) else None


def _find_delimiter(header: str, wanted: list[str]) -> str:
    """The delimiter with which the header has most of the wanted columns, then most columns."""

    def score(delimiter: str) -> tuple[int, int]:
        names = [name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])]
        return sum(column in names for column in wanted), len(names)

    return max(",;\t|", key=score)


def _read_json_lines(file: str, dialect: CsvDialect) -> Iterator[RawRow]:
    encoding = "utf-8" if dialect.encoding == "utf-8-sig" else dialect.encoding
    with fsspec.open(file, "rb", compression="infer") as lines:
        number = 0
        for line in lines:
            if number == 0:
                line = line.removeprefix(b"\xef\xbb\xbf")
                if line.lstrip().startswith(b"["):
                    raise ConfigError(f"{file} is one JSON array: write one object per line (jq -c '.[]').")
            line = line.strip()
            if not line:
                continue
            number += 1
            try:
                values = json.loads(line.decode(encoding))
            except (ValueError, RecursionError) as error:
                yield number, None, RowError(None, "malformed", f"not a JSON object: {error}")
                continue
            if isinstance(values, dict):
                yield number, values, None
            else:
                yield number, None, RowError(None, "malformed", f"wanted a JSON object, got {type(values).__name__}")


def _read_parquet(file: str, schema: CatalogSchema) -> Iterator[RawRow]:
    remote = "://" in file
    with fsspec.open(file, "rb") if remote else pa.OSFile(file) as handle:
        # Local files are read page by page, because a row group of photos may fill the memory; over a network, the
        # columns of a row group are fetched in one request.
        parquet = pq.ParquetFile(handle, pre_buffer=remote, buffer_size=0 if remote else _PAGE_BUFFER_BYTES)
        stored = parquet.schema_arrow.names
        schema.check_columns(_with_imagefolder_names(stored), file)
        names = {_stored_name(column, stored): column for column in schema.columns()}
        class_names = class_labels(parquet.schema_arrow)
        rows_at_once = 32 if schema.images else 512
        number = 0
        for batch in parquet.iter_batches(rows_at_once, columns=list(names), use_threads=False):
            columns = {names[name]: batch.column(name).to_pylist() for name in names}
            for column in class_names.keys() & columns.keys():
                columns[column] = [class_name(value, class_names[column]) for value in columns[column]]
            for values in zip(*columns.values(), strict=True):
                number += 1
                yield number, dict(zip(columns, values, strict=True)), None


def class_labels(schema: pa.Schema) -> dict[str, list[str]]:
    """{column: names} of the columns that `datasets` stored as class numbers."""
    if b"huggingface" not in (schema.metadata or {}):
        return {}
    features = datasets.Features.from_arrow_schema(schema)
    return {name: feature.names for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)}


def class_name(value: int | None, names: list[str]) -> str | None:
    return names[value] if value is not None and value >= 0 else None


def _read_tar(file: str, columns: list[str] | None) -> Iterator[RawRow]:
    """webdataset: consecutive files that differ in their suffix only are one product. Columns are the suffixes (`jpg`,
    `txt` …) and the keys of its `json`."""
    wanted = None if columns is None else {*columns, "json"}
    with fsspec.open(file, "rb") as handle, tarfile.open(fileobj=handle, mode="r|*") as archive:
        files = ((*_key_and_suffix(member.name), member) for member in archive if member.isfile())
        visible = (item for item in files if item[0] and item[1])
        for number, (key, members) in enumerate(itertools.groupby(visible, key=lambda item: item[0]), start=1):
            values, error = {"__key__": key}, None
            for _, suffix, member in members:
                if wanted is not None and suffix not in wanted:
                    continue
                if member.size > _MAX_MEMBER_BYTES:
                    error = RowError(suffix, "too_large", f"{member.name} has {member.size} bytes")
                    continue
                data = archive.extractfile(member).read()
                try:
                    if suffix == "json":
                        values |= json.loads(data)
                    else:
                        values[suffix] = data.decode("utf-8-sig") if suffix in ("txt", "text", "cls") else data
                except (ValueError, TypeError, RecursionError) as wrong:
                    error = RowError(suffix, "malformed", f"{member.name}: {wrong}")
            lost = error is not None and error.column == "json"
            yield number, None if lost else values, error


def _key_and_suffix(name: str) -> tuple[str, str]:
    """"shop/17.front.jpg" -> ("shop/17", "front.jpg"); no key for a hidden file."""
    folder, base = posixpath.split(name)
    stem, _, suffix = base.partition(".")
    return posixpath.join(folder, stem) if stem else "", suffix.lower()


def _pick(values: dict, columns: list[str]) -> dict:
    return {column: values.get(column, values.get(_IMAGEFOLDER_NAMES.get(column))) for column in columns}


def _stored_name(column: str, stored: Iterable[str]) -> str:
    return column if column in stored else _IMAGEFOLDER_NAMES.get(column, column)


def _with_imagefolder_names(stored: Iterable[str]) -> list[str]:
    return [*stored, *(name for name, file_name in _IMAGEFOLDER_NAMES.items() if file_name in stored)]
