"""Parquet files with single values changed. The format lets no byte stay where it was: every other value, the columns'
types, the metadata and the compression are kept."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from hf_tagger.catalog.editing.json_lines import json_text
from hf_tagger.catalog.editing.patches import Digest, Patch, PatchedFile, Unwritable
from hf_tagger.catalog.formats.cells import json_list

_ROWS_AT_ONCE = 1024
_GROUP_ROWS, _GROUP_BYTES = 1 << 16, 64 << 20


class TableRow(NamedTuple):
    number: int
    batch: pa.RecordBatch
    place: int


class ParquetTable(PatchedFile):
    """`dropped`: columns that are left out when it is written."""

    kept = "every other value as it was"

    def __init__(self, path: str, dropped: Iterable[str] = ()):
        super().__init__(path)
        with pq.ParquetFile(path) as file:
            self.schema = file.schema_arrow
            groups = file.metadata.num_row_groups and file.metadata.num_columns
            self.compression = file.metadata.row_group(0).column(0).compression.lower() if groups else "snappy"
        self.header, self.dropped = self.schema.names, set(dropped)
        self.new: dict[str, pa.DataType] = {}
        self.changes: dict[int, dict[str, Any]] = {}  # of rows that are not written yet
        self.writer: pq.ParquetWriter | None = None

    def add_columns(self, columns: Mapping[str, bool]) -> None:
        self.new |= {name: pa.list_(pa.string()) if lists else pa.string() for name, lists in columns.items()
                     if name not in self.header}

    def holds_lists(self, column: str) -> bool:
        return column not in self.header or _is_list(self.schema.field(column).type)

    def rows(self) -> Iterator[TableRow]:
        """Rows that were given out are written when the next ones are asked for."""
        number, waiting, size = 0, [], 0
        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(_ROWS_AT_ONCE, use_threads=False):
                first = number
                for place in range(batch.num_rows):
                    number += 1
                    yield TableRow(number, batch, place)
                waiting.append(self._changed(batch, first))
                size += batch.nbytes
                if size > _GROUP_BYTES or sum(map(len, waiting)) >= _GROUP_ROWS:
                    self._write(waiting)
                    waiting, size = [], 0
        self._write(waiting)

    def value(self, row: TableRow, column: str) -> str | None:
        if column not in self.header:
            return None
        return json_text(row.batch.column(column)[row.place].as_py())

    def patches(self, row: TableRow, values: Mapping[str, str]) -> list[Patch]:
        found = {}
        for column, value in values.items():
            listed = json_list(value)
            type = self.new.get(column) or self.schema.field(column).type
            if _is_list(type):
                type, listed = type.value_type, listed if listed is not None else [value] if value else []
            elif listed is not None:
                raise Unwritable("a list in a column of single values")
            type = type.value_type if pa.types.is_dictionary(type) else type
            if not (pa.types.is_string(type) or pa.types.is_large_string(type)):
                raise Unwritable(f"a column of {type}")
            found[column] = value if listed is None else listed
        self.put(row, found)
        return []

    def put(self, row: TableRow, values: dict[str, Any]) -> None:
        if values:
            self.changes[row.number] = values

    def write(self, patches: Iterable[Patch], original: Digest, changed: Digest) -> Iterator[dict[str, Any]]:
        """Undo lines hold the values that were there, {"row", "was": {column: value}}."""
        with open(self.path, "rb") as file:
            for data in iter(lambda: file.read(1 << 20), b""):
                original.write(data)
        fields = [field for field in self.schema if field.name not in self.dropped]
        schema = pa.schema([*fields, *(pa.field(*column) for column in self.new.items())], self.schema.metadata)
        with TemporaryFile("w+", encoding="utf-8") as self.undone:
            with pq.ParquetWriter(changed, schema, compression=self.compression) as self.writer:
                for _ in patches:  # pulls the rows
                    pass
            self.undone.seek(0)
            yield from map(json.loads, self.undone)

    def _changed(self, batch: pa.RecordBatch, first: int) -> pa.Table:
        table = pa.Table.from_batches([batch])
        for name, type in self.new.items():
            table = table.append_column(name, pa.nulls(len(table), type))
        table = table.drop_columns([name for name in self.dropped if name in table.column_names])
        by_column: dict[str, dict[int, Any]] = {}
        for place in range(batch.num_rows):
            values = self.changes.pop(first + place + 1, {})
            for column, value in values.items():
                by_column.setdefault(column, {})[place] = value
            was = {column: batch.column(column)[place].as_py() for column in values if column in self.header}
            if was:
                self.undone.write(json.dumps({"row": first + place + 1, "was": was}) + "\n")
        for column, values in by_column.items():
            cells, index = table[column].to_pylist(), table.column_names.index(column)
            cells = [values.get(place, cell) for place, cell in enumerate(cells)]
            field = table.schema.field(column)
            table = table.set_column(index, field, pa.array(cells, field.type))
        return table

    def _write(self, tables: list[pa.Table]) -> None:
        if self.writer is not None and tables:
            self.writer.write_table(pa.concat_tables(tables), row_group_size=_GROUP_ROWS)


def _is_list(type: pa.DataType) -> bool:
    return pa.types.is_list(type) or pa.types.is_large_list(type)


def restore_values(undo: Path, path: str, new: list[str], restored: Digest) -> None:
    """Writes the table with the values that an undo file holds, and without the `new` columns."""
    table = ParquetTable(path, dropped=new)
    with undo.open(encoding="utf-8") as lines:
        steps = (step for step in map(json.loads, lines) if "row" in step)

        def put_back() -> Iterator[Patch]:
            step = next(steps, None)
            for row in table.rows():
                if step is not None and step["row"] == row.number:
                    table.put(row, step["was"])
                    step = next(steps, None)
            yield from ()

        for _ in table.write(put_back(), Digest(None), restored):
            pass
