"""A catalogue as a stream of product records, of any split or share of one, always in the same order."""

import copy
import hashlib
import itertools
import os
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import datasets
from datasets.distributed import split_dataset_by_node

from hf_tagger.catalog.duplicates import find_duplicates
from hf_tagger.catalog.formats.columns import RawRow, check_columns
from hf_tagger.catalog.formats.nested import outer, pick
from hf_tagger.catalog.quarantine import Quarantine, Refusal, RowError
from hf_tagger.catalog.reading.labels import Labels
from hf_tagger.catalog.reading.photo_folder import PHOTOS
from hf_tagger.catalog.reading.readers import CatalogError, check_first_file, class_name, names_of_classes, read_rows
from hf_tagger.catalog.reading.source import SourceConfig, catalogue_files, sqlite_file
from hf_tagger.catalog.reading.sql import check_table, read_sql
from hf_tagger.catalog.schema import CatalogSchema, Record
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.catalog.tag_names import TagNames

_ROWS_AT_ONCE = 64
_FILES_AT_ONCE = 4


@dataclass(frozen=True)
class _Shard:
    """One file, a database, or one shard (`index`) of a Hub dataset. `label`: its name in refusals and ids. `size`: in
    bytes, or 1 where it is not known."""

    file: str
    format: str
    label: str
    image_root: str = ""
    index: int = 0
    size: int = 1


class Catalog:
    """A source read through a schema, with corrected tags (`labels`) in place of its own, called by their `names`.

    `records` may be iterated in any process any number of times: its result depends on its arguments alone. `rows`
    counts what this process has read, {split: used and set aside}.
    """

    def __init__(self, source: SourceConfig, schema: CatalogSchema, labels: Labels | None = None,
                 names: TagNames | None = None):
        self.source, self.schema, self.labels = source, schema, labels
        self.names = names or TagNames(schema)
        self._shards: dict[str, list[_Shard]] = {}
        self._duplicates: dict[str, frozenset[tuple[str, int]]] = {}
        self.rows: dict[str, Quarantine] = {}

    @property
    def splits(self) -> list[str]:
        return self.source.splits

    def with_text(self, columns: list[str]) -> "Catalog":
        """The same catalogue with these columns as its text."""
        return Catalog(self.source, replace(self.schema, text=columns), self.labels, self.names)

    def without_tags(self) -> "Catalog":
        """The same products, of which nobody may know the tags yet: the columns of tags need not be there."""
        schema = self.schema.without_tags()
        schema.group = self.schema.group if self.source.fractions else None
        return Catalog(self.source, schema)

    def with_tags_if_any(self, split: str) -> "Catalog":
        """This catalogue, or `without_tags` where a split has none of the columns of tags.

        Raises ConfigError for one that lacks another column, or some of these only.
        """
        try:
            self.shards_of(split)
            return self
        except ConfigError:
            untagged = self.without_tags()
            untagged.shards_of(split)
            for column in self.schema.columns().keys() - untagged.schema.columns().keys():
                if untagged._has(split, column):
                    raise
            return untagged

    def _has(self, split: str, column: str) -> bool:
        schema = copy.copy(self.schema)
        schema.keep = [column]
        try:
            return bool(Catalog(self.source, schema).shards_of(split))
        except ConfigError:
            return False

    def totals(self) -> str:
        """A line for each split that this process has read: every row is used or set aside."""
        return "\n".join(f"{split}: {rows.totals()}" for split, rows in self.rows.items())

    def records(self, split: str, *, epoch: int = 0, seed: int = 0, shuffle_buffer: int = 0, rank: int = 0,
                world_size: int = 1, drop_duplicates: bool = False) -> Iterator[Record | Refusal]:
        """Product records of a split, with refusals in between (those of a row's parts before its record).

        Every row goes to exactly one of the `world_size` ranks: whole files if these divide evenly, else every
        `world_size`-th row. Ranks may differ in their number of rows. Every DataLoader worker gets the whole stream:
        the caller divides it among them.

        Args:
            epoch: with a shuffle buffer, another order each epoch.
            shuffle_buffer: rows to draw from, photos undecoded (0: catalogue order). They are read from several files
                at a time, in another order each epoch.
            drop_duplicates: leave out rows whose text and photos equal those of an earlier row of the split. Takes one
                or two passes before the first record, once.
        """
        duplicates = self.duplicates(split) if drop_duplicates else frozenset()
        see = self.one_pass(split)
        for item in self._read(split, duplicates, epoch, seed, shuffle_buffer, rank, world_size):
            see(item)
            yield item

    def one_pass(self, split: str) -> Callable[[Any], None]:
        """What counts, in `rows`, the items of one pass over a split; a row that is read again does not count again."""
        counted, rows = self.rows.setdefault(split, Quarantine(None)), 0

        def see(item: Any) -> None:
            nonlocal rows
            if isinstance(item, Refusal):
                counted.add(item)
            rows += not isinstance(item, Refusal) or item.fatal
            counted.seen["rows"] = max(counted.seen["rows"], rows)

        return see

    def _read(self, split: str, duplicates: frozenset, epoch: int = 0, seed: int = 0, shuffle_buffer: int = 0,
              rank: int = 0, world_size: int = 1) -> Iterator[Record | Refusal]:
        shards = list(self.shards_of(split))
        if shuffle_buffer > 0:
            random.Random(f"files {seed} {epoch}").shuffle(shards)
        whole_files = _divide_evenly(shards, world_size)
        if whole_files:
            shards = shards[rank::world_size]
        # A tuple of shards, because datasets divides lists among workers.
        rows = datasets.IterableDataset.from_generator(_generate, gen_kwargs={
            "source": self.source, "schema": self.schema, "split": split, "shards": tuple(shards),
            "files_at_once": _FILES_AT_ONCE if shuffle_buffer > 0 else 1})
        if shuffle_buffer > 0:
            # _generate interleaves the files: datasets would start a thread task per row, 50 microseconds each.
            rows = rows.shuffle(seed=seed, buffer_size=shuffle_buffer, max_buffer_input_shards=1)
            rows.set_epoch(epoch)
        if not whole_files:
            rows = split_dataset_by_node(rows, rank=rank, world_size=world_size)
        # `iter(batch_size)`, because `iter()` divides the rows among DataLoader workers.
        for batch in rows.iter(batch_size=_ROWS_AT_ONCE):
            columns = (batch[name] for name in ("file", "number", "image_root", "values", "error"))
            for file, number, image_root, values, error in zip(*columns, strict=True):
                if not duplicates or (file, number) not in duplicates:
                    yield from self.as_record(file, number, image_root, values, error)

    def duplicates(self, split: str) -> frozenset[tuple[str, int]]:
        """(file, number) of every row of the split that repeats the text and photos of an earlier one."""
        if split not in self._duplicates:
            self._duplicates[split] = find_duplicates(lambda: self._read(split, frozenset()))
        return self._duplicates[split]

    def shards_of(self, split: str) -> list[_Shard]:
        if split not in self._shards:
            self._shards[split] = _shards(self.source, self.schema, split)
        return self._shards[split]

    def as_record(self, file: str, number: int, image_root: str, values: dict | None, error: RowError | None):
        """The record of a row, or its refusal; refusals of its parts stand before it."""

        def refusal(error: RowError, fatal: bool, photos_lost: bool = False) -> Refusal:
            row_id = None if values is None else self.schema.row_id(values, number, file)
            return Refusal(number, row_id, error.column, error.reason, error.detail, fatal, file, photos_lost)

        if values is None:
            yield refusal(error, fatal=True)
            return
        notes = [] if error is None else [error]
        try:
            record = self.schema.record(values, number, file=file, image_root=image_root, notes=notes)
            if self.labels is not None:
                self.labels.apply(record)
            notes += self.names.apply(record)
        except RowError as refused:
            record = refusal(refused, fatal=True)
        photos = not isinstance(record, Refusal) and record["images"]
        for note in notes:
            yield refusal(note, fatal=False, photos_lost=not photos and note.column in self.schema.images)
        yield record


def _shards(source: SourceConfig, schema: CatalogSchema, split: str) -> list[_Shard]:
    """The split's files, the first of them checked against the schema."""
    if path := source.hub_id(split):
        stored = source.stored_split(split)
        rows, columns, _ = open_hub(path, source.name, source.revision, stored)
        wanted = {column: key for column, key in schema.columns().items() if outer(column, columns) is None}
        check_columns(wanted, columns, f'The split "{stored}" of {path}')
        return [_Shard(path, "hub", f"{path}/{stored}/{index}", index=index) for index in range(rows.num_shards)]
    if url := source.database(split):
        if schema.id is None:
            raise ConfigError("rows of a database are known by their id: set schema.id.")
        check_table(url, source, schema.columns())
        return [_Shard(url, "sql", source.table or "query", image_root=os.path.dirname(sqlite_file(url) or ""))]
    files = catalogue_files(source, split)
    check_first_file(*files[0], schema.columns(), source.delimiter, source.encoding, source.profile)
    common = os.path.commonpath([os.path.dirname(file) for file, _ in files])
    shards = []
    for file, format in files:
        label = os.path.relpath(file, common).replace(os.sep, "/")
        size = 1 if "://" in file else os.path.getsize(file)
        root = file if format == PHOTOS else os.path.dirname(file)
        shards.append(_Shard(file, format, label, image_root=root, size=size))
    return shards


def _divide_evenly(shards: Sequence[_Shard], world_size: int) -> bool:
    """Whether ranks that take every `world_size`-th shard get about the same number of bytes: a larger share would slow
    down all ranks, a smaller one end the epoch early."""
    sizes = [sum(shard.size for shard in shards[rank::world_size]) for rank in range(world_size)]
    return len(shards) % world_size == 0 and max(sizes) <= 1.1 * min(sizes)


def _generate(source: SourceConfig, schema: CatalogSchema, split: str, shards: tuple[_Shard], files_at_once: int):
    """Rows of several files in turn; the next file takes the place of one that is through."""
    waiting = (fitted_rows(source, schema, split, shard, stored_rows(source, schema, split, shard)) for shard in shards)
    lanes = list(itertools.islice(waiting, files_at_once))
    while lanes:
        for lane in list(lanes):
            row = next(lane, None)
            if row is None:
                lanes.remove(lane)
                lanes.extend(itertools.islice(waiting, 1))
            else:
                yield row


def stored_rows(source: SourceConfig, schema: CatalogSchema, split: str, shard: _Shard) -> Iterator[RawRow]:
    """Rows of a file as they are stored, those of other splits among them."""
    if shard.format == "hub":
        return read_hub(source, split, schema.columns(), shard.index)
    if shard.format == "sql":
        return read_sql(shard.file, source, schema.columns(), source.key or schema.id)
    return read_rows(shard.file, shard.format, schema.columns(), source.delimiter, source.encoding, source.profile)


def fitted_rows(source: SourceConfig, schema: CatalogSchema, split: str, shard: _Shard,
                rows: Iterable[RawRow]) -> Iterator[dict]:
    """Those of a file's stored rows that belong to the split, as `Catalog.as_record` takes them."""
    file, image_root, is_cut = shard.label, shard.image_root, source.is_cut(split)
    for number, values, error in rows:
        if values is not None:
            try:
                error = schema.fit(values) or error
            except RowError as refused:
                values, error = None, refused
        if not is_cut or _belongs(source, schema, split, values, number, file):
            yield {"file": file, "number": number, "image_root": image_root, "values": values, "error": error}


def _belongs(source: SourceConfig, schema: CatalogSchema, split: str, values: dict | None, number: int,
             file: str) -> bool:
    """Whether a row belongs to a split that is cut by hash. Unreadable rows belong to train, to be refused once."""
    if values is None:
        return split == "train"
    key = f"{source.split_seed} {schema.group_key(values, number, file)}".encode(errors="surrogatepass")
    draw = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") / 2**64
    for name, share in (source.fractions or {}).items():
        if draw < share:
            return name == split
        draw -= share
    return split == "train"


@lru_cache(maxsize=8)
def open_hub(path: str, name: str | None, revision: str | None, split: str):
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
    columns = list(features) or list(next(rows.iter(batch_size=1), {}))
    return rows, columns, names_of_classes(features)


def read_hub(source: SourceConfig, split: str, columns: Iterable[str], index: int | None = None) -> Iterator[RawRow]:
    """Rows of a split of a Hub dataset with these columns. `index`: of one shard alone."""
    path, stored = source.hub_id(split), source.stored_split(split)
    rows, _, class_names = open_hub(path, source.name, source.revision, stored)
    columns = list(columns)
    inside = dict.fromkeys(outer(column, rows.column_names or columns) or column for column in columns)
    rows = rows.select_columns(list(inside))
    if index is not None:
        rows = rows.shard(rows.num_shards, index)
    number = 0
    try:
        for batch in rows.iter(batch_size=_ROWS_AT_ONCE):
            for column in class_names.keys() & batch.keys():
                batch[column] = [class_name(value, class_names[column]) for value in batch[column]]
            for values in zip(*batch.values(), strict=True):
                number += 1
                row = dict(zip(batch, values, strict=True))
                yield number, row if list(inside) == columns else pick(row, columns), None
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise CatalogError(f"{path}/{stored} cannot be read after row {number}: {error}") from error
