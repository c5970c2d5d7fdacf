"""Rows of csv, tsv and jsonl files, one physical line after the other: what is wrong with one spoils no other."""

import csv
import json
from collections import deque
from collections.abc import Iterator
from itertools import chain, islice

from hf_tagger.catalog.formats.columns import RawRow, check_columns, stored_name, with_imagefolder_names
from hf_tagger.catalog.formats.dialect import MAX_LINE, UNDECODABLE, Dialect, open_lines, read_dialect
from hf_tagger.catalog.quarantine import RowError
from hf_tagger.catalog.strict import ConfigError

# A cell may go on over several lines. What goes on over more is a quote that nobody closed.
_MAX_RECORD_LINES, _MAX_RECORD_CHARS = 500, 1 << 20


def read_csv(file: str, columns: dict[str, str], delimiter: str | None, encoding: str | None) -> Iterator[RawRow]:
    """As `readers.read_rows`. Lines above the header are passed over."""
    csv.field_size_limit(MAX_LINE)
    with open_lines(file, encoding) as lines:
        dialect, head = read_dialect(lines, columns, delimiter)
        header, encoding = list(dialect.header), lines.encoding
        if any(UNDECODABLE in name for name in header):
            raise ConfigError(f"{file} is not {encoding}: set encoding in the source, such as cp1252.")
        twice = sorted({name for name in header if name and header.count(name) > 1} & set(columns))
        if twice:
            raise ConfigError(f'{file}: the header has several columns "{twice[0]}".')
        check_columns(columns, with_imagefolder_names(header), file)
        wanted = [(column, header.index(stored_name(column, header))) for column in columns]
        rows = Records(deque(head[dialect.above:]), lines, dialect)
        for number, (line, cells, wrong) in enumerate(rows, start=1):
            if cells is not None and any(cells[len(header):]):
                wrong = f"{len(cells)} cells under {len(header)} columns (a {dialect.delimiter!r} without quotes?)"
            if wrong is not None:
                yield number, None, RowError(None, "malformed", f"line {line}: {wrong}")
                continue
            values = {column: cells[index] if index < len(cells) else None for column, index in wanted}
            error = None
            if any(cell and UNDECODABLE in cell for cell in values.values()):
                detail = f"line {line} is not {encoding}: set encoding in the source, such as cp1252"
                values, error = None, RowError(None, "encoding", detail)
            elif len(cells) < len(header):
                error = RowError(None, "short_row", f"line {line}: {len(cells)} cells under {len(header)} columns")
            yield number, values, error


def read_json_lines(file: str, encoding: str | None) -> Iterator[RawRow]:
    """All values of every line that is a JSON object, which is UTF-8 unless it is said otherwise."""
    with open_lines(file, encoding or "utf-8") as lines:
        number = 0
        for line in filter(None, map(str.strip, lines)):
            number += 1
            try:
                if len(line) >= MAX_LINE:
                    raise ValueError(f"more than {MAX_LINE} characters")
                if UNDECODABLE in line:
                    raise ValueError(f"not {lines.encoding}; set encoding in the source")
                values = json.loads(line)
                if not isinstance(values, dict):
                    raise ValueError(f"got {type(values).__name__}")
            except (ValueError, RecursionError) as error:
                yield number, None, RowError(None, "malformed", f"not a JSON object: {error}")
            else:
                yield number, values, None


def is_json_document(file: str) -> bool:
    """Whether a JSON file is one document, rather than an object in each line."""
    with open_lines(file, "utf-8") as lines:
        first, second = islice(chain(filter(None, map(str.strip, lines)), ("", "")), 2)
    if first[:1] == "[":
        return True
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        # The first lines of a pretty-printed object; or one bad line among others.
        return first[:1] == "{" and second[:1] != "{"
    return not second


class Records:
    """(number of its first line, cells, None) of every record, or (number, None, what is wrong with this line).

    A line that cannot be the beginning of a record is alone refused, or taken as it stands where the file does not use
    quotes; reading goes on in the next line.

    Args:
        ahead: lines already read, before those that are left in `lines`.
        dialect: of the file.
    """

    def __init__(self, ahead: deque[str], lines: Iterator[str], dialect: Dialect):
        self.ahead, self.lines, self.delimiter = ahead, lines, dialect.delimiter
        self.width, self.above, self.quotes = len(dialect.header), dialect.above, dialect.quotes

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
        if len(taken) > 1 and (cells is None or len(cells) < self.width
                               or self._look_like_records(taken, too_wide=any(cells[self.width:]))):
            self.ahead.extendleft(reversed(taken[1:]))
            return 1, None, "a quote that nothing closes (check the quotes)"
        return len(taken), cells, wrong

    def _look_like_records(self, taken: list[str], too_wide: bool) -> bool:
        """Whether the lines of one record would be records by themselves: a stray quote has swallowed them. Of a record
        with too many cells its first and last line need not be."""
        whole = [len(self._split(line)) == self.width for line in taken]
        most = sum(whole) > (len(taken) / 2 if self.width > 2 else max(3, len(taken) - 1))
        return most and (too_wide or (whole[0] and whole[-1]))
