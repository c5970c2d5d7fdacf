"""XML feeds, of which single elements of a product are changed: everything else stays as it is, byte for byte."""

import json
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from xml.sax.saxutils import escape

import fsspec

from hf_tagger.catalog.editing.patches import Patch, PatchedFile, Unwritable
from hf_tagger.catalog.editing.xml_elements import TAG, Child, Element, ElementReader
from hf_tagger.catalog.formats.cells import json_list
from hf_tagger.catalog.formats.documents import xml_item
from hf_tagger.catalog.strict import ConfigError

GOOGLE = "base.google.com"
_SAMPLE_ITEMS = 100


class XmlFeed(PatchedFile):
    """A feed whose products are read as `documents.read_xml` reads them; several values are several elements.

    Raises ConfigError for an encoding in which bytes cannot be told from each other, and for a feed that declares
    entities of its own.
    """

    def holds_lists(self, column: str) -> bool:
        return True

    def __init__(self, path: str):
        super().__init__(path)
        self.reader = ElementReader(xml_item(path))
        found: dict[str, None] = {}
        for element in islice(self.rows(), _SAMPLE_ITEMS):
            found |= dict.fromkeys(child.name for child in element.children)
        self.header = list(found)
        if "<".encode(self.reader.encoding) != b"<":
            raise ConfigError(f"{path}: a feed in {self.reader.encoding} cannot be changed in place: save it as UTF-8 "
                              "first.")

    def add_columns(self, columns: Mapping[str, bool]) -> None:
        super().add_columns(columns)
        for name in self.new:
            if not re.fullmatch(r"[^\W\d][\w.-]*", name):
                raise ConfigError(f"{self.path}: {name!r} cannot be the name of an element (catalog.write)")

    def rows(self) -> Iterator[Element]:
        """The products, in the order and with the numbers of `documents.read_xml`."""
        self.reader = ElementReader(self.reader.name)
        with fsspec.open(self.path, "rb", compression="infer") as file:
            try:
                yield from self.reader.read(file)
            except ConfigError as error:
                raise ConfigError(f"{self.path}: {error}") from None

    def value(self, row: Element, column: str) -> str | None:
        """Several elements are a JSON list."""
        found = _called(row, column)
        texts = [child.text.strip() for child in found]
        return None if not found else texts[0] if len(texts) == 1 else json.dumps(texts, ensure_ascii=False)

    def takes(self, text: str) -> bool:
        return all(char in "\t\n\r" or (char >= " " and not "\ud800" <= char <= "\udfff" and char not in "\ufffe\uffff")
                   for char in text)

    def patches(self, row: Element, values: Mapping[str, str]) -> list[Patch]:
        found = [patch for column, value in values.items() for patch in self._patches(row, column, value)]
        # Several elements that are new stand at one place: they become one patch.
        merged: list[Patch] = []
        for patch in sorted(found, key=lambda patch: patch.start):
            if merged and patch.start == patch.stop == merged[-1].start == merged[-1].stop:
                merged[-1] = merged[-1]._replace(new=merged[-1].new + patch.new)
            else:
                merged.append(patch)
        return merged

    def _patches(self, row: Element, column: str, value: str) -> Iterator[Patch]:
        listed = json_list(value)
        wanted = [value] if listed is None else [str(item) for item in listed]
        there = _called(row, column)
        if any(child.nested for child in there):
            raise Unwritable("an element that holds others")
        if len(wanted) == 1 and not wanted[0]:
            wanted = [""] * min(1, len(there))
        for child, text in zip(there, wanted, strict=False):
            if child.text.strip() != text:
                yield self._replaced(row, child, text)
        for child in there[len(wanted):]:
            yield Patch(self._indented(row, child), child.stop, b"")
        more = wanted[len(there):]
        if more:
            if row.raw.endswith(b"/>"):
                raise Unwritable("an element without content")
            like = there[-1] if there else row.children[-1] if row.children else None
            place = like.stop if like else row.end_tag
            before = row.raw[self._indented(row, like) - row.start:like.start - row.start] if like else b""
            name = _name(row, there[-1]) if there else self._prefix(row) + column.encode(self.reader.encoding)
            yield Patch(place, place, b"".join(before + b"<" + name + b">" + self._text(text) + b"</" + name + b">"
                                               for text in more))

    def _replaced(self, row: Element, child: Child, text: str) -> Patch:
        opening = TAG.match(row.raw, child.start - row.start).group()
        if opening.endswith(b"/>"):
            name = _name(row, child)
            opening = opening[:-2].rstrip() + b">"
            return Patch(child.start, child.stop, opening + self._text(text) + b"</" + name + b">")
        start = child.start + len(opening)
        was = row.raw[start - row.start:child.end_tag - row.start]
        if was.strip().startswith(b"<![CDATA[") and "]]>" not in text:
            return Patch(start, child.end_tag, b"<![CDATA[" + text.encode(self.reader.encoding) + b"]]>")
        return Patch(start, child.end_tag, self._text(text))

    def _text(self, text: str) -> bytes:
        # A character that the encoding lacks becomes "&#…;".
        return escape(text).encode(self.reader.encoding, "xmlcharrefreplace")

    def _indented(self, row: Element, child: Child) -> int:
        """Where the white space before an element begins."""
        before = row.raw[:child.start - row.start]
        return row.start + len(before.rstrip(b" \t\r\n"))

    def _prefix(self, row: Element) -> bytes:
        """Of a new element: Google's, where the feed has it."""
        prefix = next((prefix for prefix, uri in self.reader.prefixes.items() if GOOGLE in uri), "")
        return f"{prefix}:".encode(self.reader.encoding) if prefix else b""


def _called(row: Element, name: str) -> list[Child]:
    """Those children that the catalogue reads under this name: Google's own go before others."""
    found = [child for child in row.children if child.name == name]
    return [child for child in found if GOOGLE in child.namespace] or found


def _name(row: Element, child: Child) -> bytes:
    """With its prefix, as the feed has it."""
    return re.match(rb"<([^\s/>]+)", row.raw[child.start - row.start:])[1]
