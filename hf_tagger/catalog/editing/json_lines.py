"""Jsonl files, of which single values are changed: everything else stays as it is, byte for byte."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import fsspec

from hf_tagger.catalog.editing.byte_lines import Line, byte_lines, byte_places, check_encoding, without_mark
from hf_tagger.catalog.editing.patches import Patch, PatchedFile, Unwritable
from hf_tagger.catalog.formats import dialect
from hf_tagger.catalog.formats.cells import json_list
from hf_tagger.catalog.formats.dialect import open_lines

_SAMPLE_ROWS = 1000
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


class JsonRow(NamedTuple):
    number: int
    values: dict[str, Any] | None  # None of a line that is no object
    line: Line


class JsonLinesFile(PatchedFile):
    """One object a line; lists are JSON's own. `encoding`: None: found."""

    def __init__(self, path: str, encoding: str | None = None):
        super().__init__(path)
        with open_lines(path, encoding) as lines:
            self.encoding, self.mark = without_mark(lines.encoding, lines.mark), lines.mark
        check_encoding(self.encoding, path)
        found: dict[str, bool] = {}  # {key: whether it has had a text}
        for row in self.rows():
            if row.number > _SAMPLE_ROWS:
                break
            for key, value in (row.values or {}).items():
                found[key] = found.get(key, False) or isinstance(value, str)
        self.header, self.texts = list(found), {key for key, text in found.items() if text}

    def add_columns(self, columns: Mapping[str, bool]) -> None:
        """A key is written where it has a value: nothing has to be declared."""

    def holds_lists(self, column: str) -> bool:
        return column not in self.texts

    def header_patches(self) -> list[Patch]:
        return []

    def rows(self) -> Iterator[JsonRow]:
        """In the order and with the numbers of `text_files.read_json_lines`."""
        number = 0
        with fsspec.open(self.path, "rb", compression="infer") as file:
            for line in byte_lines(file, self.encoding, self.mark):
                text = line.text.strip()
                if not text:
                    continue
                number += 1
                values = None
                if len(text) < dialect.MAX_LINE and dialect.UNDECODABLE not in text:
                    try:
                        values = json.loads(text)
                    except (ValueError, RecursionError):
                        pass
                yield JsonRow(number, values if isinstance(values, dict) else None, line)

    def value(self, row: JsonRow, column: str) -> str | None:
        return None if row.values is None else json_text(row.values.get(column))

    def takes(self, text: str) -> bool:
        try:
            text.encode(self.encoding)
        except UnicodeEncodeError:
            return False
        return True

    def patches(self, row: JsonRow, values: Mapping[str, str]) -> list[Patch]:
        if row.values is None or not values:
            return []
        text = row.line.text
        spans, end = _spans(text)
        ascii_only = text.isascii() and "\\u" in text
        comma, colon = (", " if re.search(r'["\]}\w], "', text) else ","), ": " if '": ' in text else ":"
        changes, more = [], ""
        for column, value in values.items():
            if isinstance(row.values.get(column), dict):
                raise Unwritable("an object")
            listed = json_list(value)
            written = json.dumps(value if listed is None else listed, ensure_ascii=ascii_only,
                                 separators=(comma, colon))
            if column in spans:
                changes.append((*spans[column], written))
            else:
                name = json.dumps(column, ensure_ascii=ascii_only)
                more += (comma if spans or more else "") + name + colon + written
        if more:
            changes.append((end, end, more))
        at = byte_places(text, [row.line], self.encoding)
        try:
            return [Patch(at(start), at(stop), new.encode(self.encoding)) for start, stop, new in sorted(changes)]
        except UnicodeEncodeError as error:
            raise Unwritable(f"{error.object[error.start]!r} is not in {self.encoding}") from None


def json_text(value: Any) -> str | None:
    """A text as it is, anything else as JSON."""
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _spans(text: str) -> tuple[dict[str, tuple[int, int]], int]:
    """{key: (start, stop) of its value} of an object, and the place after its last value."""
    spans: dict[str, tuple[int, int]] = {}
    place = end = text.index("{") + 1
    while text[place := _SPACE.match(text, place).end()] != "}":
        if text[place] == ",":
            place = _SPACE.match(text, place + 1).end()
        key, place = _DECODER.raw_decode(text, place)
        place = _SPACE.match(text, _SPACE.match(text, place).end() + 1).end()
        _, end = _DECODER.raw_decode(text, place)
        spans[key] = place, end
        place = end
    return spans, end
