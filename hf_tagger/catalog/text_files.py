"""Rows of csv, tsv and jsonl files, one physical line after the other: what is wrong with one spoils no other."""

import codecs
import csv
import io
import json
import re
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import fsspec

from hf_tagger.catalog.columns import RawRow, check_columns, stored_name, with_imagefolder_names
from hf_tagger.catalog.quarantine import RowError
from hf_tagger.catalog.strict import ConfigError

MAX_LINE = 8 << 20  # characters; a compressed file may hold lines of any length
# A cell may go on over several lines. What goes on over more is a quote that nobody closed.
_MAX_RECORD_LINES, _MAX_RECORD_CHARS = 500, 1 << 20
_HEAD_LINES, _PREAMBLE_LINES = 1000, 20
_UNDECODABLE = "\udc80"
codecs.register_error("hf_tagger.mark", lambda error: (_UNDECODABLE, error.end))
# What Windows writes under these names.
_SUPERSETS = {"shift_jis": "cp932", "gb2312": "gb18030", "euc_kr": "cp949", "big5": "cp950"}
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)


@contextmanager
def open_lines(file: str, encoding: str) -> Iterator[Iterator[str]]:
    """The lines of a text file, compressed or not; of one longer than `MAX_LINE` no more than its beginning. What is
    not in the encoding becomes "\\udc80". A byte order mark, or the zero bytes of UTF-16, say the encoding themselves.
    """
    with fsspec.open(file, "rb", compression="infer") as handle:
        buffered = io.BufferedReader(handle)
        encoding = _marked_encoding(buffered.peek(4)[:4]) or _SUPERSETS.get(codecs.lookup(encoding).name, encoding)
        with io.TextIOWrapper(buffered, encoding, errors="hf_tagger.mark", newline="") as text:
            yield _lines(text)


def read_csv(file: str, columns: dict[str, str], delimiter: str | None, encoding: str) -> Iterator[RawRow]:
    """As `readers.read_rows`. Lines above the header are passed over."""
    csv.field_size_limit(MAX_LINE)
    with open_lines(file, encoding) as lines:
        head, left = [], MAX_LINE
        for line in islice(lines, _HEAD_LINES):
            head.append(line)
            left -= len(line)
            if left < 0:
                break
        delimiter, header, above = _header(head, columns, delimiter)
        if any(_UNDECODABLE in name for name in header):
            raise ConfigError(f"{file} is not {encoding}: set encoding in the source, such as cp1252.")
        twice = sorted({name for name in header if name and header.count(name) > 1} & set(columns))
        if twice:
            raise ConfigError(f'{file}: the header has several columns "{twice[0]}".')
        check_columns(columns, with_imagefolder_names(header), file)
        wanted = [(column, header.index(stored_name(column, header))) for column in columns]
        rows = _Records(deque(head[above:]), lines, delimiter, len(header), above)
        for number, (line, cells, wrong) in enumerate(rows, start=1):
            if cells is not None and any(cells[len(header):]):
                wrong = f"{len(cells)} cells under {len(header)} columns (a {delimiter!r} without quotes?)"
            if wrong is not None:
                yield number, None, RowError(None, "malformed", f"line {line}: {wrong}")
                continue
            values = {column: cells[index] if index < len(cells) else None for column, index in wanted}
            error = None
            if any(cell and _UNDECODABLE in cell for cell in values.values()):
                detail = f"line {line} is not {encoding}: set encoding in the source, such as cp1252"
                values, error = None, RowError(None, "encoding", detail)
            elif len(cells) < len(header):
                error = RowError(None, "short_row", f"line {line}: {len(cells)} cells under {len(header)} columns")
            yield number, values, error


def read_json_lines(file: str, encoding: str) -> Iterator[RawRow]:
    """All values of every line that is a JSON object."""
    with open_lines(file, encoding) as lines:
        number = 0
        for line in filter(None, map(str.strip, lines)):
            number += 1
            if number == 1 and (line[0] == "[" or line == "{"):
                path = ".[]" if line[0] == "[" else ".products[]"
                raise ConfigError(f"{file} is one JSON {'array' if path == '.[]' else 'object'}: write one object per "
                                  f"line (jq -c '{path}').")
            try:
                if len(line) >= MAX_LINE:
                    raise ValueError(f"more than {MAX_LINE} characters")
                if _UNDECODABLE in line:
                    raise ValueError(f"not {encoding}; set encoding in the source")
                values = json.loads(line)
                if not isinstance(values, dict):
                    raise ValueError(f"got {type(values).__name__}")
            except (ValueError, RecursionError) as error:
                yield number, None, RowError(None, "malformed", f"not a JSON object: {error}")
            else:
                yield number, values, None


class _Records:
    """(number of its first line, cells, None) of every record, or (number, None, what is wrong with this line).

    A line that cannot be the beginning of a record is alone refused, or taken as it stands where the file does not use
    quotes; reading goes on in the next line.

    Args:
        ahead: lines already read, before those that are left in `lines`.
        width: number of columns; above: number of lines above the first.
    """

    def __init__(self, ahead: deque[str], lines: Iterator[str], delimiter: str, width: int, above: int):
        self.ahead, self.lines, self.delimiter, self.width, self.above = ahead, lines, delimiter, width, above
        quoted_cell = rf'(?:^|{re.escape(delimiter)})"(?:[^"]|"")*+"(?={re.escape(delimiter)}|[\r\n]|\Z)'
        self.quotes = re.search(quoted_cell, "".join(ahead), re.MULTILINE) is not None

    def __iter__(self) -> Iterator[tuple[int, list[str] | None, str | None]]:
        number = self.above
        while (line := self._next()) is not None:
            number += 1
            if not line.strip("\r\n"):
                continue
            if len(line) > MAX_LINE:
                yield number, None, f"more than {MAX_LINE} characters"
            elif '"' not in line:
                yield number, self._split(line), None
            else:
                taken, cells, wrong = self._record(line)
                if wrong is not None and not self.quotes and len(self._split(line)) == self.width:
                    cells, wrong = self._split(line), None
                yield number, cells, wrong
                number += taken - 1

    def _next(self) -> str | None:
        return self.ahead.popleft() if self.ahead else next(self.lines, None)

    def _split(self, line: str) -> list[str]:
        return line.rstrip("\r\n").split(self.delimiter)

    def _record(self, line: str) -> tuple[int, list[str] | None, str | None]:
        """How many lines the record that begins with this one takes, its cells, or what is wrong with it."""
        taken = []

        def follow() -> Iterator[str]:
            following, left = line, _MAX_RECORD_CHARS
            while following is not None:
                taken.append(following)
                yield following
                left -= len(following)
                following = self._next() if left > 0 and len(taken) < _MAX_RECORD_LINES else None

        try:
            cells, wrong = next(csv.reader(follow(), delimiter=self.delimiter, strict=True)), None
        except csv.Error as error:
            cells, wrong = None, f"{error} (check the quotes)"
        if len(taken) > 1 and (cells is None or len(cells) < self.width or self._looks_like_records(taken)):
            self.ahead.extendleft(reversed(taken[1:]))
            return 1, None, "a quote that nothing closes (check the quotes)"
        return len(taken), cells, wrong

    def _looks_like_records(self, taken: list[str]) -> bool:
        """Whether the lines of one record would be records by themselves: a stray quote has swallowed them."""
        whole = [len(self._split(line)) == self.width for line in taken]
        return whole[0] and whole[-1] and sum(whole) > (len(taken) / 2 if self.width > 2 else max(3, len(taken) - 1))


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    while line := text.readline(MAX_LINE + 1):
        rest = line
        while len(rest) > MAX_LINE and not rest.endswith(("\n", "\r")):
            rest = text.readline(MAX_LINE + 1)
        yield line


def _marked_encoding(start: bytes) -> str | None:
    for mark, encoding in ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"),
                           (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF16_LE, "utf-16"),
                           (codecs.BOM_UTF16_BE, "utf-16")):
        if start.startswith(mark):
            return encoding
    if len(start) > 1 and (start[0] == 0) != (start[1] == 0):
        return "utf-16-be" if start[0] == 0 else "utf-16-le"
    return None


def _header(head: list[str], columns: dict[str, str], delimiter: str | None) -> tuple[str, list[str], int]:
    """Delimiter, column names, and number of lines up to the header: the first of the first lines that has all the
    columns, else the first that is not empty."""
    first = None
    for place, line in enumerate(head[:_PREAMBLE_LINES]):
        if separator := _SEPARATOR_LINE.fullmatch(line):
            delimiter = separator[1]
        elif line.strip():
            found = max((_names(head, place, by) for by in delimiter or ",;\t|"), key=lambda found: (
                sum(column in found[1] for column in columns), len(found[1])))
            if set(columns) <= set(with_imagefolder_names(found[1])):
                return found
            first = first or found
    return first or (delimiter or ",", [], 0)


def _names(head: list[str], place: int, delimiter: str) -> tuple[str, list[str], int]:
    reader = csv.reader(head[place:], delimiter=delimiter)
    return delimiter, [name.strip() for name in next(reader, [])], place + reader.line_num
