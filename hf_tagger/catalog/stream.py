"""A catalogue as a stream of product records: any size, any split, any share of it, always in the same order."""

import codecs
import glob
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import datasets
import fsspec
from datasets.distributed import split_dataset_by_node

from hf_tagger.catalog.duplicates import find_duplicates
from hf_tagger.catalog.quarantine import Refusal, RowError
from hf_tagger.catalog.readers import (
    FORMATS,
    CatalogError,
    CsvDialect,
    RawRow,
    check_first_file,
    class_name,
    format_of,
    read_rows,
)
from hf_tagger.catalog.schema import CatalogSchema, Record
from hf_tagger.catalog.strict import ConfigError, did_you_mean

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_METADATA_FILES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_ROWS_AT_ONCE = 64


@dataclass
class SourceConfig:
    """Where the rows are.

    Args:
        path: files of the split "train": a path, a glob, a folder, an hf:// or s3:// address, or a list of these; or
            the id of a dataset on the Hub, which then brings its own splits.
        files: {split: the same} where splits are given as files of their own.
        fractions: {split: share} cut from "train" by a hash of the group (or id) column: rows of one group stay
            together, and stay where they are when the catalogue grows.
        split_seed: another seed draws other splits.
        format: default: what the files' names tell.
        delimiter: of csv files (default: found in the header line).
        encoding: of csv, tsv and jsonl files.
        name, revision: configuration and revision of a Hub dataset.
    """

    path: str | list[str] | None = None
    files: dict[str, str | list[str]] = field(default_factory=dict)
    fractions: dict[str, float] = field(default_factory=dict)
    split_seed: int = 0
    format: Literal["parquet", "csv", "tsv", "jsonl", "imagefolder", "webdataset", "hub"] | None = None
    delimiter: str | None = None
    encoding: str = "utf-8-sig"
    name: str | None = None
    revision: str | None = None

    def __post_init__(self):
        if self.path is None and not self.files:
            raise ConfigError("a source needs path (one catalogue) or files ({train: …, validation: …}).")
        if self.path is not None and "train" in self.files:
            raise ConfigError("give the training rows once: path or files.train.")
        both = sorted(set(self.fractions) & {*self.files, "train"})
        if both:
            raise ConfigError(f'fractions.{both[0]}: this split is given by its files; fractions are cut from "train".')
        if any(share <= 0 for share in self.fractions.values()) or sum(self.fractions.values()) >= 1:
            raise ConfigError(f"fractions must be above 0 and leave some rows for train, got {self.fractions}.")
        try:
            codecs.lookup(self.encoding)
        except LookupError:
            raise ConfigError(f"encoding: {self.encoding!r} is not known; try utf-8 or cp1252.") from None
        if self.delimiter is not None and len(self.delimiter) != 1:
            raise ConfigError(f"delimiter must be one character, got {self.delimiter!r}.")

    @property
    def splits(self) -> list[str]:
        """Names of the splits this source declares (a Hub dataset may have more)."""
        train = ["train"] if self.path is not None or "train" in self.files else []
        return train + [split for split in [*self.files, *self.fractions] if split != "train"]


@dataclass(frozen=True)
class _Shard:
    """One file, or one shard of a Hub dataset. `label`: how refusals and ids call it."""

    file: str
    format: str
    label: str
    image_root: str = ""
    index: int = 0


def open_rows(source: SourceConfig, schema: CatalogSchema, split: str) -> datasets.IterableDataset:
    """Raw rows of a split, in catalogue order: {"file", "number", "image_root", "values", "error"} as
    `readers.read_rows` gives them; photos undecoded. The dataset has one shard per file.

    Raises ConfigError for a split, file or column that is not there.
    """
    shards = _shards(source, split)
    dialect = CsvDialect("\t" if shards[0].format == "tsv" else source.delimiter, source.encoding)
    if shards[0].format == "hub":
        schema.check_columns(_open_hub(shards[0].file, source.name, source.revision, _stored_split(source, split))[1])
    else:
        check_first_file(shards[0].file, shards[0].format, schema, dialect)
    cut = (split, tuple(source.fractions.items()), source.split_seed) if _is_cut(source, split) else None
    return datasets.IterableDataset.from_generator(
        _generate,
        gen_kwargs={
            "shards": shards,
            "schema": schema,
            "dialect": dialect,
            "hub": (source.name, source.revision, _stored_split(source, split)),
            "cut": cut,
        },
    )


class Catalog:
    """A source seen through a schema.

    `records` may be iterated in any process any number of times: the order depends on its arguments alone.
    """

    def __init__(self, source: SourceConfig, schema: CatalogSchema):
        self.source, self.schema = source, schema
        self._datasets: dict[str, datasets.IterableDataset] = {}
        self._duplicates: dict[str, frozenset[tuple[str, int]]] = {}

    @property
    def splits(self) -> list[str]:
        return self.source.splits

    def records(
        self,
        split: str,
        *,
        epoch: int = 0,
        seed: int = 0,
        shuffle_buffer: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_duplicates: bool = False,
    ) -> Iterator[Record | Refusal]:
        """Product records of a split, and the refusals met on the way (those of a row's parts before its record).

        Every row goes to exactly one of the `world_size` ranks: whole files where their number divides evenly, else
        every `world_size`-th row; ranks may differ in their number of rows. Inside a DataLoader worker the stream is
        the same as outside: workers are for the caller to share out.

        Args:
            epoch: with a shuffle buffer, another order each epoch.
            shuffle_buffer: rows held to draw from, photos undecoded (0: catalogue order).
            drop_duplicates: leave out rows whose text and photos equal an earlier row's of the split. Costs one pass
                before the first record, remembered afterwards.
        """
        duplicates = self.duplicates(split) if drop_duplicates else frozenset()
        rows = self._rows(split)
        if shuffle_buffer > 0:
            rows = rows.shuffle(seed=seed, buffer_size=shuffle_buffer)
            rows.set_epoch(epoch)
        if world_size > 1:
            rows = split_dataset_by_node(rows, rank=rank, world_size=world_size)
        for file, number, image_root, values, error in _rows_of(rows):
            if (file, number) in duplicates:
                continue
            yield from self._record(file, number, image_root, values, error)

    def duplicates(self, split: str) -> frozenset[tuple[str, int]]:
        """(file, number) of every row of the split that repeats the text and photos of an earlier one."""
        if split not in self._duplicates:
            self._duplicates[split] = find_duplicates(lambda: self.records(split))
        return self._duplicates[split]

    def _rows(self, split: str) -> datasets.IterableDataset:
        if split not in self._datasets:
            self._datasets[split] = open_rows(self.source, self.schema, split)
        return self._datasets[split]

    def _record(self, file: str, number: int, image_root: str, values: dict | None, error: RowError | None):
        if values is None:
            yield _refusal(file, number, None, error, fatal=True)
            return
        notes = [] if error is None else [error]
        try:
            record = self.schema.record(values, number, file=file, image_root=image_root, notes=notes)
        except RowError as refused:
            record = _refusal(file, number, self.schema.row_id(values, number, file), refused, fatal=True)
        for note in notes:
            yield _refusal(file, number, self.schema.row_id(values, number, file), note, fatal=False)
        yield record


def _refusal(file: str, number: int, row_id: str | None, error: RowError, fatal: bool) -> Refusal:
    return Refusal(number, row_id, error.column, error.reason, error.detail, fatal, file)


def _rows_of(rows: datasets.IterableDataset) -> Iterator[tuple]:
    # `iter(batch_size)` and not `iter()`: the latter gives each DataLoader worker a part of the shards.
    for batch in rows.iter(batch_size=_ROWS_AT_ONCE):
        columns = (batch[name] for name in ("file", "number", "image_root", "values", "error"))
        yield from zip(*columns, strict=True)


def _generate(shards: list[_Shard], schema: CatalogSchema, dialect: CsvDialect, hub: tuple, cut: tuple | None):
    for shard in shards:
        if shard.format == "hub":
            rows = _read_hub(shard, schema, hub)
        else:
            rows = read_rows(shard.file, shard.format, schema, dialect)
        for number, values, error in rows:
            if cut is not None and not _in_cut(schema, values, number, shard.label, *cut):
                continue
            yield {
                "file": shard.label,
                "number": number,
                "image_root": shard.image_root,
                "values": values,
                "error": error,
            }


def _in_cut(schema: CatalogSchema, values: dict | None, number: int, file: str, split: str, fractions, seed) -> bool:
    """Whether a row belongs to `split`. Rows that could not be read are refused once, in train."""
    if values is None:
        return split == "train"
    key = f"{seed} {schema.group_key(values, number, file)}".encode(errors="surrogatepass")
    draw = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") / 2**64
    for name, share in fractions:
        if draw < share:
            return name == split
        draw -= share
    return split == "train"


def _is_cut(source: SourceConfig, split: str) -> bool:
    return bool(source.fractions) and (split == "train" or split in source.fractions)


def _stored_split(source: SourceConfig, split: str) -> str:
    return "train" if split in source.fractions else split


def _shards(source: SourceConfig, split: str) -> list[_Shard]:
    stored = _stored_split(source, split)
    patterns = source.files.get(stored, source.path if stored == "train" else None)
    if patterns is None and isinstance(source.path, str) and _is_hub_id(source.path, source.format):
        patterns = source.path
    if patterns is None:
        raise ConfigError(f'The source has no split "{split}".{did_you_mean(split, source.splits)}')
    patterns = [patterns] if isinstance(patterns, str) else patterns
    if len(patterns) == 1 and _is_hub_id(patterns[0], source.format):
        count = _open_hub(patterns[0], source.name, source.revision, stored)[0].num_shards
        return [_Shard(patterns[0], "hub", f"{patterns[0]}/{stored}/{index}", index=index) for index in range(count)]
    files = sorted({file for pattern in patterns for file in _resolve(pattern)})
    common = os.path.commonpath([os.path.dirname(file) for file in files])
    formats = {}
    for file in files:
        format = source.format if source.format not in (None, "imagefolder") else format_of(file)
        if format is None:
            known = ", ".join(f"{name} ({' '.join(suffixes)})" for name, suffixes in FORMATS.items())
            raise ConfigError(f"{file}: the name does not tell the format. Set format to one of: {known}, imagefolder.")
        formats[format] = file
    if len(formats) > 1:
        raise ConfigError(f'The split "{split}" mixes formats: {", ".join(formats.values())}.')
    return [_Shard(file, format, os.path.relpath(file, common), os.path.dirname(file)) for file in files]


def _is_hub_id(path: str, format: str | None) -> bool:
    if format is not None:
        return format == "hub"
    return bool(_HUB_ID.fullmatch(path)) and not os.path.exists(path) and format_of(path) is None


def _resolve(pattern: str) -> list[str]:
    """Files that a path, glob or folder stands for. Of a folder: its metadata files (imagefolder), else its catalogue
    files, sub-folders included."""
    fs, path = fsspec.core.url_to_fs(pattern)
    remote = "://" in pattern

    def files_in(folder: str) -> list[str]:
        found = fs.find(folder)
        return [f for f in found if f.endswith(_METADATA_FILES)] or [f for f in found if format_of(f)]

    if fs.exists(path) and not glob.has_magic(path):
        found = files_in(path) if fs.isdir(path) else [path]
    else:
        found = [file for entry in fs.glob(path) for file in (files_in(entry) if fs.isdir(entry) else [entry])]
    if not found:
        raise ConfigError(f"No catalogue file at {pattern} (looked from {os.getcwd()}).")
    return [fs.unstrip_protocol(file) if remote else file for file in found]


@lru_cache(maxsize=8)
def _open_hub(path: str, name: str | None, revision: str | None, split: str):
    """The streamed dataset with its photos undecoded, its column names, and the names of its class numbers."""
    try:
        rows = datasets.load_dataset(path, name, split=split, revision=revision, streaming=True)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    features = rows.features or {}
    for column, feature in features.items():
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(column, datasets.Image(decode=False))
        elif isinstance(feature, datasets.List) and isinstance(feature.feature, datasets.Image):
            rows = rows.cast_column(column, datasets.List(datasets.Image(decode=False)))
    columns = list(features) or list(next(iter(rows), {}))
    names = {column: f.names for column, f in features.items() if isinstance(f, datasets.ClassLabel)}
    return rows, columns, names


def _read_hub(shard: _Shard, schema: CatalogSchema, hub: tuple) -> Iterator[RawRow]:
    rows, _, class_names = _open_hub(shard.file, *hub)
    rows = rows.select_columns(list(schema.columns())).shard(rows.num_shards, shard.index)
    number = 0
    try:
        for batch in rows.iter(batch_size=32):
            for values in zip(*batch.values(), strict=True):
                number += 1
                row: dict[str, Any] = dict(zip(batch, values, strict=True))
                for column in class_names.keys() & row.keys():
                    row[column] = class_name(row[column], class_names[column])
                yield number, row, None
    except Exception as error:  # whatever the dataset's own format raises
        raise CatalogError(f"{shard.label} cannot be read after row {number}: {error}") from error
