"""Jsonl files and JSON documents, of which single values are changed: everything else stays as it is, byte for byte."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import fsspec

from hf_tagger.catalog.editing.byte_lines import Line, byte_lines, byte_places, check_encoding, without_mark
from hf_tagger.catalog.editing.patches import Patch, PatchedFile, Unwritable
from hf_tagger.catalog.formats import dialect
from hf_tagger.catalog.formats.cells import json_list, json_value
from hf_tagger.catalog.formats.dialect import open_lines
from hf_tagger.catalog.formats.json_values import DECODER, Member, json_products, members

_SAMPLE_ROWS = 1000


class JsonRow(NamedTuple):
    number: int
    values: dict[str, Any] | None  # None of a line that is no object
    line: Line


class JsonFile(PatchedFile):
    """Objects one after the other, which a subclass gives as `rows`; lists are JSON's own."""

    def __init__(self, path: str, encoding: str):
        super().__init__(path)
        self.encoding = encoding
        found: dict[str, bool] = {}  # {key: whether it has had a text}
        for row in self.rows():
            if row.number > _SAMPLE_ROWS:
                break
            for key, value in (row.values or {}).items():
                found[key] = found.get(key, False) or isinstance(value, str)
        self.header, self.texts = list(found), {key for key, text in found.items() if text}

    def holds_lists(self, column: str) -> bool:
        return column not in self.texts

    def value(self, row: JsonRow, column: str) -> str | None:
        return None if row.values is None else json_text(row.values.get(column))

    def patches(self, row: JsonRow, values: Mapping[str, str]) -> list[Patch]:
        if row.values is None or not values:
            return []
        text = row.line.text
        opening = text.index("{")
        there = members(text, opening)
        last = {member.key: member for member in there}
        colon = ": " if '": ' in text else ":"
        tight = re.search(r'["\]}\w],["\[{]', text) or colon == ":"
        comma = ", " if re.search(r'["\]}\w], "', text) or not tight else ","
        written = partial(json.dumps, ensure_ascii=text.isascii() and "\\u" in text, separators=(comma, colon))
        changes, more = [], ""
        for column, value in values.items():
            was, listed = row.values.get(column), json_list(value)
            if isinstance(was, dict):
                raise Unwritable("an object")
            if isinstance(was, list) and was and listed is not None:
                start = last[column].start
                changes.append(_longer_list(text, start, was, listed, comma, written))
            elif column in last:
                changes.append((last[column].start, last[column].stop, written(value if listed is None else listed)))
            else:
                between = _between(text, opening, there, comma) if there else comma if more else ""
                more += between + written(column) + colon + written(value if listed is None else listed)
        if more:
            end = there[-1].stop if there else opening + 1
            changes.append((end, end, more))
        at = byte_places(text, [row.line], self.encoding)
        return [Patch(at(start), at(stop), self.encoded(new)) for start, stop, new in sorted(changes)]


class JsonLinesFile(JsonFile):
    """One object a line. `encoding`: None: found."""

    def __init__(self, path: str, encoding: str | None = None):
        with open_lines(path, encoding) as lines:
            self.mark = lines.mark
            encoding = without_mark(lines.encoding, lines.mark)
        check_encoding(encoding, path)
        super().__init__(path, encoding)

    def rows(self) -> Iterator[JsonRow]:
        """In the order and with the numbers of `text_files.read_json_lines`."""
        number = 0
        with fsspec.open(self.path, "rb", compression="infer") as file:
            for line in byte_lines(file, self.encoding, self.mark):
                text = line.text.strip()
                if not text:
                    continue
                number += 1
                whole = len(text) < dialect.MAX_LINE and dialect.UNDECODABLE not in text
                values = json_value(text) if whole else None
                yield JsonRow(number, values if isinstance(values, dict) else None, line)


class JsonDocument(JsonFile):
    """A document that `json_values.json_products` reads. Where it is not JSON any more, it stays as it is."""

    def __init__(self, path: str):
        super().__init__(path, "utf-8")

    def rows(self) -> Iterator[JsonRow]:
        """In the order and with the numbers of `documents.read_json_document`."""
        try:
            for number, (start, text, value) in enumerate(json_products(self.path), start=1):
                raw = text.encode()
                yield JsonRow(number, value if isinstance(value, dict) else None, Line(start, len(raw), raw, text))
        except (ValueError, RecursionError):
            return


def json_text(value: Any) -> str | None:
    """A text as it is, anything else as JSON."""
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _between(text: str, opening: int, there: list[Member], comma: str) -> str:
    """What stands between two members of an object or list that has some."""
    if len(there) > 1:
        return text[there[-2].stop:there[-1].begin]
    indent = text[opening + 1:there[0].begin]
    return "," + indent if "\n" in indent else comma


def _longer_list(text: str, start: int, was: list, wanted: list[str], comma: str,
                 written: Callable[[Any], str]) -> tuple[int, int, str]:
    """(start, stop, what comes there) of a list that is not empty. The items there stay as they are written, unless
    one of them goes."""
    there, kept = members(text, start), [said for item in was if (said := str(item).strip())]  # as `cells.split`
    if wanted[:len(kept)] == kept:
        between, end = _between(text, start, there, comma), there[-1].stop
        return end, end, "".join(between + written(item) for item in wanted[len(kept):])
    if any(isinstance(item, dict | list) for item in was):
        raise Unwritable("a list of objects")
    return start, DECODER.raw_decode(text, start)[1], written(wanted)
