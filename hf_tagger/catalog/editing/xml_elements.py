"""The elements of an XML file with the bytes that they are made of."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO
from xml.parsers import expat

from hf_tagger.catalog.strict import ConfigError

_AT_ONCE = 1 << 16
TAG = re.compile(rb"<(?:[^>\"']|\"[^\"]*\"|'[^']*')*>")


@dataclass
class Child:
    """Places are those of bytes in the file: `start` of the element, `end_tag` of its end tag, `stop` after that. (Of
    "<a/>" the last two are the same.)"""

    name: str  # without prefix
    namespace: str
    start: int
    end_tag: int = 0
    stop: int = 0
    text: str = ""
    nested: bool = False  # it has elements in it


@dataclass
class Element:
    number: int  # from 1
    start: int
    end_tag: int = 0
    raw: bytes = b""
    children: list[Child] = field(default_factory=list)


class ElementReader:
    """Reads the elements of one name, the outermost ones.

    After the first element, `encoding` is the file's, and `prefixes` has its namespaces {prefix: address}.
    """

    def __init__(self, name: str):
        self.name, self.encoding, self.prefixes = name, "utf-8", {}
        self.depth, self.number = 0, 0
        self.element: Element | None = None
        self.inside = 0  # depth of the element
        self.child: Child | None = None
        self.finished: list[Element] = []
        self.kept, self.kept_from = b"", 0  # bytes from the beginning of the element that is read

    def read(self, file: BinaryIO) -> Iterator[Element]:
        """Ends where the file is not XML any more.

        Raises ConfigError for a file that declares entities of its own.
        """
        self.parser = parser = expat.ParserCreate()
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
        parser.CharacterDataHandler = self._characters
        parser.XmlDeclHandler, parser.EntityDeclHandler = self._declaration, self._entity
        while chunk := file.read(_AT_ONCE):
            self.kept += chunk
            try:
                parser.Parse(chunk, False)
            except expat.ExpatError:
                break
            # What may be a tag that is not at its end yet is kept.
            keep = min(self.element.start if self.element else self.kept_from + len(self.kept),
                       parser.CurrentByteIndex)
            self.kept, self.kept_from = self.kept[keep - self.kept_from:], keep
            yield from self.finished
            self.finished.clear()
        yield from self.finished

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self.depth += 1
        for key, address in attributes.items():
            if key == "xmlns" or key.startswith("xmlns:"):
                self.prefixes[key[6:]] = address
        prefix, _, local = name.rpartition(":")
        place = self.parser.CurrentByteIndex
        if self.element is None:
            if local == self.name:
                self.number += 1
                self.element, self.inside = Element(self.number, place), self.depth
        elif self.depth == self.inside + 1:
            self.child = Child(local, self.prefixes.get(prefix, ""), place)
            self.other_text = attributes.get("href", "")  # of an Atom link
        elif self.child is not None:
            self.child.nested = True

    def _end(self, name: str) -> None:
        place = self.parser.CurrentByteIndex
        if self.element is not None and self.depth == self.inside + 1:
            self.child.end_tag, self.child.stop = place, self._after(self.child.start, place)
            if not self.child.text.strip():
                self.child.text = self.other_text
            self.element.children.append(self.child)
            self.child = None
        elif self.element is not None and self.depth == self.inside:
            self.element.end_tag, stop = place, self._after(self.element.start, place)
            self.element.raw = self.kept[self.element.start - self.kept_from:stop - self.kept_from]
            self.finished.append(self.element)
            self.element = None
        self.depth -= 1

    def _after(self, start: int, place: int) -> int:
        """The place after an element: expat tells where the end tag begins, and of "<a/>" where it ends."""
        if TAG.match(self.kept, start - self.kept_from).group().endswith(b"/>"):
            return place
        return self.kept_from + TAG.match(self.kept, place - self.kept_from).end()

    def _characters(self, data: str) -> None:
        if self.child is not None and self.depth == self.inside + 1:
            self.child.text += data

    def _declaration(self, version: str, encoding: str | None, standalone: int) -> None:
        self.encoding = encoding or "utf-8"

    def _entity(self, name: str, *_) -> None:
        raise ConfigError(f"it declares an entity of its own ({name}), and is not written to")
