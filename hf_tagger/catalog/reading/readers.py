"""Raw rows of one catalogue file.

`datasets`' own csv, json and webdataset builders guess types from the first rows ("00123" becomes 123, the tag "None"
disappears), stop at the first bad line, and require every product to have every field. A shop's export needs cells as
they were typed, one refusal per bad line, and products without a photo. So these readers feed
`datasets.IterableDataset.from_generator` instead; columns that the schema does not use are not read.
"""

import itertools
import json
import lzma
import posixpath
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from hf_tagger import UserError
from hf_tagger.catalog.formats.columns import RawRow, check_columns, stored_name, with_imagefolder_names
from hf_tagger.catalog.formats.dialect import detect
from hf_tagger.catalog.formats.documents import read_json_document, read_sheet, read_xlsx, read_xml
from hf_tagger.catalog.formats.nested import outer, pick, without_edges
from hf_tagger.catalog.formats.text_files import is_json_document, read_csv, read_json_lines
from hf_tagger.catalog.photos import MAX_BYTES
from hf_tagger.catalog.profiles import profile as load_profile
from hf_tagger.catalog.profiles import recognise
from hf_tagger.catalog.quarantine import RowError
from hf_tagger.catalog.reading.photo_folder import PHOTOS, read_photo_folder
from hf_tagger.catalog.reading.products import Layout
from hf_tagger.catalog.reading.source import SourceConfig, catalogue_files

_UNREADABLE = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError, pa.ArrowException)
_SAMPLE_ROWS, _LAYOUT_ROWS = 1000, 50
# Few: a page of a few bytes may hold very long cells.
_ROWS_AT_ONCE = 64
_PAGE_BUFFER_BYTES = 1 << 20


class CatalogError(UserError):
    """A catalogue file cannot be read: the message names the file and where in it."""


def read_rows(file: str, format: str, columns: dict[str, str], delimiter: str | None = None,
              encoding: str | None = None, profile: str | None = "none") -> Iterator[RawRow]:
    """Rows of `file` with these columns {name: the key that names it}. `delimiter` of csv files (None: found in the
    header line), `encoding` of csv, tsv and jsonl files (None: found). `profile` of the shop system whose rows make
    products (None: found by the columns).

    Raises CatalogError if the file cannot be read to its end, ConfigError if it lacks a column.
    """
    with _named(file, format):
        layout = _layout(file, format, columns, delimiter, encoding, profile)
        if layout is not None:
            yield from layout.products(read_raw(file, format, layout.columns, delimiter, encoding))
        else:
            yield from read_raw(file, format, columns, delimiter, encoding)


def check_first_file(file: str, format: str, columns: dict[str, str], delimiter: str | None, encoding: str | None,
                     profile: str | None = "none") -> None:
    """Raises ConfigError if the file lacks a column. In formats without a header, a column is lacking if none of the
    first thousand rows has it."""
    if format in ("parquet", "csv", "tsv"):
        next(read_rows(file, format, columns, delimiter, encoding, profile), None)
        return
    with _named(file, format):
        if _layout(file, format, columns, delimiter, encoding, profile) is None:
            header = with_imagefolder_names(file_columns(file, format, delimiter, encoding, columns))
            if header:
                check_columns({column: key for column, key in columns.items() if outer(column, header) is None}, header,
                              f"{file} (its first {_SAMPLE_ROWS:,} rows)")


def found_in_file(source: SourceConfig, split: str) -> Iterator[tuple[str, str, str]]:
    """(key, value, reason) of what a source leaves open, and is found in its first file each time that it is read."""
    if source.hub_id(split) or source.database(split):
        return
    file, format = catalogue_files(source, split)[0]
    if format not in ("parquet", "webdataset", PHOTOS) and source.profile is None:
        if found := recognise(file_columns(file, format, source.delimiter, source.encoding)):
            yield "profile", found[0].name, f"{found[0].title}, by its columns"
    if format in ("csv", "tsv"):
        dialect = detect(file, (), source.delimiter or ("\t" if format == "tsv" else None), source.encoding)
        if source.delimiter is None:
            yield "delimiter", dialect.delimiter, "between the names of the header"
        if source.encoding is None:
            yield "encoding", dialect.encoding, "by its bytes"


def file_columns(file: str, format: str, delimiter: str | None, encoding: str | None,
                 wanted: Iterable[str] = (), sample_rows: int = _SAMPLE_ROWS) -> list[str]:
    """The columns of a file; of one without a header those of its first rows, of fewer if these have all of `wanted`.
    """
    if format in ("csv", "tsv"):
        return list(detect(file, wanted, delimiter or ("\t" if format == "tsv" else None), encoding).header)
    if format == "parquet":
        with fsspec.open(file, "rb") as handle:
            return pq.read_schema(handle).names
    if format == "xlsx":
        return [name for name in read_sheet(file).header if name]
    seen: dict[str, None] = {}
    wanted = set(wanted)
    for _, values, _ in itertools.islice(read_objects(file, format, encoding), sample_rows):
        seen |= dict.fromkeys(values or ())
        if wanted and wanted <= set(with_imagefolder_names(seen)):
            break
    return list(seen)


def read_objects(file: str, format: str, encoding: str | None) -> Iterator[RawRow]:
    """Rows of a file without a header, with all that they hold."""
    if format == "xml":
        return read_xml(file)
    if format == "xlsx":
        return read_xlsx(file)
    if format == "jsonl":
        rows = read_json_document(file) if is_json_document(file) else read_json_lines(file, encoding)
        return ((number, without_edges(values), error) for number, values, error in rows)
    if format == PHOTOS:
        return read_photo_folder(file)
    return _read_tar(file, None)


def _layout(file: str, format: str, columns: dict[str, str], delimiter: str | None, encoding: str | None,
            profile: str | None) -> Layout | None:
    if profile == "none" or (profile is None and format in ("parquet", "webdataset")):
        return None
    plain = [column for column in columns if ":" not in column]
    header = file_columns(file, format, delimiter, encoding, plain, _LAYOUT_ROWS)
    if profile is None and recognise(header) is None:
        return None
    if format not in ("csv", "tsv", "xlsx"):  # a key may be absent from the first rows
        header = file_columns(file, format, delimiter, encoding, plain)
    found = recognise(header) if profile is None else (load_profile(profile), {})
    return found and Layout(found[0], header, columns, file, repeats=format in ("xml", "jsonl"))


def read_raw(file: str, format: str, columns: dict[str, str], delimiter: str | None,
              encoding: str | None) -> Iterator[RawRow]:
    if format in ("parquet", "csv", "tsv"):
        stored = _stored(file, format, columns, delimiter, encoding)
        if format == "parquet":
            rows = _read_parquet(file, stored)
        else:
            rows = read_csv(file, stored, delimiter or ("\t" if format == "tsv" else None), encoding)
        if stored.keys() == columns.keys():
            yield from rows
            return
    else:
        rows = _read_tar(file, list(columns)) if format == "webdataset" else read_objects(file, format, encoding)
    for number, values, error in rows:
        yield number, None if values is None else pick(values, columns), error


def _stored(file: str, format: str, columns: dict[str, str], delimiter: str | None,
            encoding: str | None) -> dict[str, str]:
    """Those of the columns that the file has, and those that the others lead into."""
    plain = [column for column in columns if "." not in column and ":" not in column]
    if len(plain) == len(columns):
        return columns
    header = with_imagefolder_names(file_columns(file, format, delimiter, encoding, plain))
    return {outer(column, header) or column: key for column, key in columns.items()}


@contextmanager
def _named(file: str, format: str) -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as error:
        raise CatalogError(f"{file} cannot be read as {format}: {error}") from error


def _read_parquet(file: str, columns: dict[str, str]) -> Iterator[RawRow]:
    remote = "://" in file
    with fsspec.open(file, "rb") if remote else pa.OSFile(file) as handle:
        # Local files are read page by page, because a row group of photos may fill the memory; over a network, the
        # columns of a row group are fetched in one request.
        parquet = pq.ParquetFile(handle, pre_buffer=remote, buffer_size=0 if remote else _PAGE_BUFFER_BYTES)
        stored = parquet.schema_arrow.names
        check_columns(columns, with_imagefolder_names(stored), file)
        names = {stored_name(column, stored): column for column in columns}
        class_names = class_labels(parquet.schema_arrow)
        number = 0
        for batch in parquet.iter_batches(_ROWS_AT_ONCE, columns=list(names), use_threads=False):
            cells = [_cells(name, batch.column(name), class_names.get(name)) for name in names]
            for values in zip(*cells, strict=True):
                number += 1
                error = next((value for value in values if isinstance(value, RowError)), None)
                yield number, dict(zip(names.values(), values, strict=True)) if error is None else None, error


def _cells(name: str, column: pa.Array, class_names: list[str] | None) -> list:
    """Python values, or a RowError where there is none (text that is not UTF-8, a date beyond the year 9999)."""
    try:
        values = column.to_pylist()
    except (ValueError, OverflowError, pa.ArrowException):
        values = [_cell(name, scalar) for scalar in column]
    return values if class_names is None else [class_name(value, class_names) for value in values]


def _cell(name: str, scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError, pa.ArrowException) as error:
        return RowError(name, "encoding" if isinstance(error, UnicodeError) else "malformed", str(error))


def class_labels(schema: pa.Schema) -> dict[str, list[str]]:
    """{column: names} of the columns that `datasets` stored as class numbers, or as lists of these."""
    if b"huggingface" not in (schema.metadata or {}):
        return {}
    return names_of_classes(datasets.Features.from_arrow_schema(schema))


def names_of_classes(features: datasets.Features) -> dict[str, list[str]]:
    items = {name: getattr(feature, "feature", feature) for name, feature in features.items()}
    return {name: item.names for name, item in items.items() if isinstance(item, datasets.ClassLabel)}


def class_name(value: int | list | None, names: list[str]) -> str | list | None:
    """The name of a class number, or of each in a list; None where it has none (-1: not labelled)."""
    if isinstance(value, list):
        return [class_name(item, names) for item in value]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else value if value != -1 else None


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
                if member.size > MAX_BYTES:
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
