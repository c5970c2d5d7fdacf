"""Csv and tsv files, edited cell by cell in their own encoding, quoting and line ends.

Records are told apart by what reads the catalogue (`formats.text_files`), so that a row has the same number here and
there; a line that cannot be read is passed over here, too, and stays as it is.
"""

import csv
import io
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

import fsspec

from hf_tagger.catalog.editing.byte_lines import Line, byte_lines, byte_places, check_encoding, without_mark
from hf_tagger.catalog.editing.patches import Patch, PatchedFile, Unwritable
from hf_tagger.catalog.formats import dialect
from hf_tagger.catalog.formats.dialect import open_lines, read_dialect
from hf_tagger.catalog.formats.text_files import Records

_STYLE_ROWS = 50


class Row(NamedTuple):
    number: int
    cells: list[str] | None  # None of one that cannot be read
    lines: list[Line]


class DelimitedFile(PatchedFile):
    """A csv or tsv file, compressed or not.

    Args:
        columns: those that are read: the header is the first line that has all.
        delimiter, encoding: None: found.

    Raises ConfigError for an encoding in which bytes cannot be told from each other.
    """

    def __init__(self, path: str, columns: Iterable[str], delimiter: str | None = None, encoding: str | None = None):
        super().__init__(path)
        with open_lines(path, encoding) as lines:
            self.dialect, texts = read_dialect(lines, columns, delimiter)
        self.header, self.delimiter, self.above = list(self.dialect.header), self.dialect.delimiter, self.dialect.above
        self.encoding = without_mark(self.dialect.encoding, self.dialect.mark)
        check_encoding(self.encoding, path)
        self._of_one_record = replace(self.dialect, above=0)
        delimiter = re.escape(self.delimiter)
        self._cell = re.compile(rf'"(?:[^"]|"")*+"|[^{delimiter}\r\n]*')
        self._special = re.compile(rf'[{delimiter}"\r\n]')
        # Whether every cell that is not empty stands in quotes, in the header and the rows that follow.
        shown = re.sub('"(?:[^"]|"")*+"', '"', "".join(texts[max(self.above - 1, 0):self.above + _STYLE_ROWS]))
        bare = re.compile(rf'(?:^|{delimiter})[^{delimiter}"\r\n]', re.MULTILINE)
        self.quotes_all = '"' in shown and bare.search(shown) is None

    def add_columns(self, columns: Mapping[str, bool]) -> None:
        """After the last one of the file."""
        super().add_columns(columns)
        self._of_one_record = replace(self.dialect, header=(*self.header, *self.new), above=0)

    def header_patches(self) -> list[Patch]:
        if not self.new:
            return []
        text = "".join(self.delimiter + self._quoted(name, self.quotes_all) for name in self.new)
        with fsspec.open(self.path, "rb", compression="infer") as file:
            header = next(islice(byte_lines(file, self.encoding, self.dialect.mark), self.above - 1, None))
        end = byte_places(header.text, [header], self.encoding)(len(header.text.rstrip("\r\n")))
        return [Patch(end, end, self.encoded(text))]

    def rows(self) -> Iterator[Row]:
        """All records, in the order and with the numbers of `text_files.read_csv`."""
        csv.field_size_limit(dialect.MAX_LINE)
        with fsspec.open(self.path, "rb", compression="infer") as file:
            lines, waiting, handed = byte_lines(file, self.encoding, self.dialect.mark), deque(), 0

            def texts() -> Iterator[str]:
                nonlocal handed
                for line in lines:
                    waiting.append(line)
                    handed += 1
                    yield line.text

            read = texts()
            for _ in islice(read, self.above):
                pass
            records = Records(deque(), read, self.dialect)
            first = 1  # number of the first line that waits
            for number, (line, cells, wrong) in enumerate(records, start=1):
                while first < line:
                    waiting.popleft()
                    first += 1
                taken = handed - len(records.ahead) - line + 1
                if cells is not None and (wrong is not None or any(cells[len(self.header):])):
                    cells = None
                yield Row(number, cells, [waiting[place] for place in range(taken)])

    def value(self, row: Row, column: str) -> str | None:
        place = self.header.index(column) if column in self.header else len(self.header)
        return row.cells[place] if row.cells is not None and place < len(row.cells) else None

    def patches(self, row: Row, values: Mapping[str, str]) -> list[Patch]:
        """What puts these values {column: value} into the row's cells, and into the new columns "" or their value.

        Raises Unwritable, and nothing of the row is to be changed, if the encoding lacks a character, or if the row
        would read otherwise than it does.
        """
        if row.cells is None or not (values or self.new):
            return []
        columns = [*self.header, *self.new]
        wanted = dict.fromkeys(range(len(self.header), len(columns)), "")
        wanted |= {columns.index(column): value for column, value in values.items()}
        text = "".join(line.text for line in row.lines)
        spans = self._spans(text, row)
        changes = []  # (start, stop, text) in characters
        for place in sorted(wanted):
            if place < len(spans) and wanted[place] != row.cells[place]:
                start, stop = spans[place]
                in_quotes = text[start] == '"' if stop > start else self.quotes_all
                changes.append((start, stop, self._quoted(wanted[place], in_quotes)))
        # A row with fewer cells than the header gets those up to the one that is set; otherwise it stays short.
        more = range(len(spans), max(wanted, default=-1) + 1)
        if len(spans) < len(self.header):
            more = range(len(spans), 1 + max((place for place in more if wanted.get(place)), default=-1))
        if more:
            end = len(text.rstrip("\r\n"))
            changes.append((end, end, "".join(self.delimiter + self._quoted(wanted.get(place, ""), self.quotes_all)
                                              for place in more)))
        cells = [wanted.get(place, cell) for place, cell in enumerate(row.cells)]
        self._check(text, changes, [*cells, *(wanted.get(place, "") for place in more)])
        at = byte_places(text, row.lines, self.encoding)
        return [Patch(at(start), at(stop), self.encoded(new)) for start, stop, new in changes]

    def _spans(self, text: str, row: Row) -> list[tuple[int, int]]:
        """(start, stop) of each cell with its quotes."""
        if '"' in text:
            spans, place = [], 0
            while True:
                stop = self._cell.match(text, place).end()
                spans.append((place, stop))
                if text[stop:stop + 1] != self.delimiter:
                    break
                place = stop + 1
            if len(spans) == len(row.cells) and text[stop:].strip("\r\n") == "":
                return spans
        # Where the file does not use quotes, or there are none.
        stops, place = [], 0
        for cell in text.rstrip("\r\n").split(self.delimiter):
            stops.append((place, place + len(cell)))
            place += len(cell) + 1
        if len(stops) != len(row.cells):
            raise Unwritable("quotes that are read in two ways")
        return stops

    def _check(self, text: str, changes: list[tuple[int, int, str]], cells: list[str]) -> None:
        """Raises Unwritable if the changed record would not read as these cells."""
        pieces, place = [], 0
        for start, stop, new in changes:
            pieces += [text[place:start], new]
            place = stop
        new_text = "".join([*pieces, text[place:]])
        if '"' not in new_text:
            return  # no cell holds a delimiter or line end that it did not hold
        lines = deque(io.StringIO(new_text, newline=""))
        records = Records(lines, iter(()), self._of_one_record)
        if [found for _, found, wrong in records if wrong is None] != [cells]:
            raise Unwritable("the row would read otherwise")

    def _quoted(self, value: str, in_quotes: bool) -> str:
        if in_quotes or self._special.search(value) or (not value and len(self.header) + len(self.new) == 1):
            return '"' + value.replace('"', '""') + '"'
        return value
