"""Xlsx files, of which single cells are changed: of the archive, only the sheet's own file is written anew, and in it
only these cells."""

import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from tempfile import TemporaryFile
from typing import Any, NamedTuple
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from hf_tagger.catalog.attributes import cell_text
from hf_tagger.catalog.editing.patches import Digest, Patch, PatchedFile, Unwritable, apply
from hf_tagger.catalog.editing.xml_elements import Element, ElementReader
from hf_tagger.catalog.formats.documents import read_sheet
from hf_tagger.catalog.strict import ConfigError

_RELATION = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_PLACE = re.compile(rb'\sr="([A-Z]+)(\d+)"')
_STYLE = re.compile(rb'\ss="\d+"')
_NAME = re.compile(rb"<(\w+:)?(\w+)")
_MAX_COLUMNS = 16_384


class SheetRow(NamedTuple):
    number: int
    cells: list
    element: Element


class Spreadsheet(PatchedFile):
    """The sheet that `documents.read_xlsx` reads. Texts are written into their cells themselves ("inlineStr"); a cell
    keeps its style. The sheet is held in memory, as the format has it."""

    kept = "every other cell, and every other file in the workbook, as it was"

    def __init__(self, path: str):
        super().__init__(path)
        if not path.lower().endswith((".xlsx", ".xlsm")):
            raise ConfigError(f"{path}: tags are written back into .xlsx; save it as that first")
        sheet = read_sheet(path)
        self.header, self.above, self._cells = sheet.header, sheet.above, list(sheet.rows)
        with zipfile.ZipFile(path) as archive:
            self.member = _member(archive, sheet.name)

    def add_columns(self, columns: Mapping[str, bool]) -> None:
        super().add_columns(columns)
        if len(self.header) + len(self.new) > _MAX_COLUMNS:
            raise ConfigError(f"{self.path}: a sheet has at most {_MAX_COLUMNS} columns")

    def header_patches(self) -> list[Patch]:
        if not self.new:
            return []
        element = next(element for number, element in self._elements() if number == self.above + 1)
        return _patches(element, self.above + 1, dict(enumerate(self.new, start=len(self.header))))

    def rows(self) -> Iterator[SheetRow]:
        for number, element in self._elements():
            place = number - self.above - 2
            if 0 <= place < len(self._cells):
                yield SheetRow(place + 1, self._cells[place], element)

    def value(self, row: SheetRow, column: str) -> str | None:
        place = self.header.index(column) if column in self.header else len(row.cells)
        return cell_text(row.cells[place]) if place < len(row.cells) else None

    def takes(self, text: str) -> bool:
        return len(text) <= 32_767 and all((char >= " " or char in "\t\n") and not "\ud800" <= char <= "\udfff"
                                           for char in text)

    def patches(self, row: SheetRow, values: Mapping[str, str]) -> list[Patch]:
        columns = [*self.header, *self.new]
        return _patches(row.element, row.number + self.above + 1,
                        {columns.index(column): value for column, value in values.items()})

    def write(self, patches: Iterable[Patch], original: Digest, changed: Digest) -> Iterator[dict[str, Any]]:
        return super().write(self._archive_patches(patches), original, changed)

    def _elements(self) -> Iterator[tuple[int, Element]]:
        """(number in the sheet, row)"""
        number = 0
        with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as file:
            for element in ElementReader("row").read(file):
                found = re.match(rb'<[^>]*?\sr="(\d+)"', element.raw)
                number = int(found[1]) if found else number + 1
                yield number, element

    def _archive_patches(self, patches: Iterable[Patch]) -> Iterator[Patch]:
        """Of the sheet's file -> of the archive: its entry, and what the directory at the archive's end says of it."""
        with zipfile.ZipFile(self.path) as archive, TemporaryFile() as packed:
            entry, directory = archive.getinfo(self.member), archive.start_dir
            entries = archive.infolist()
            stop = min([other.header_offset for other in entries if other.header_offset > entry.header_offset]
                       + [directory])
            content = _Deflated(packed)
            with archive.open(self.member) as source:
                for _ in apply(patches, source, Digest(None), Digest(content)):
                    pass
            content.close()
            packed.seek(0)
            data = packed.read()
        with open(self.path, "rb") as file:
            file.seek(entry.header_offset)
            header = bytearray(file.read(30))
            name_size, extra_size = struct.unpack("<HH", header[26:30])
            name = file.read(name_size)
            file.seek(directory)
            tail = bytearray(file.read())
        if content.size >= 1 << 32 or len(data) + stop >= 1 << 32:
            raise ConfigError(f"{self.path}: a sheet of more than 4 GB is not written")
        # Sizes stand in the header itself (no bit 3), and the data are deflated.
        flags = struct.unpack("<H", header[6:8])[0] & ~8
        known = struct.pack("<III", content.crc, len(data), content.size)
        header[6:10], header[14:26], header[28:30] = struct.pack("<HH", flags, 8), known, b"\0\0"
        new = bytes(header) + name + data
        yield Patch(entry.header_offset, stop, new)
        grown = len(new) - (stop - entry.header_offset)
        place = 0
        for other in entries:
            fields = struct.unpack("<HHH", tail[place + 28:place + 34])
            if other.header_offset == entry.header_offset:
                tail[place + 8:place + 12], tail[place + 16:place + 28] = struct.pack("<HH", flags, 8), known
            elif other.header_offset > entry.header_offset:
                tail[place + 42:place + 46] = struct.pack("<I", other.header_offset + grown)
            place += 46 + sum(fields)
        end = tail.rindex(b"PK\x05\x06")
        tail[end + 16:end + 20] = struct.pack("<I", directory + grown)
        yield Patch(directory, directory + len(tail), bytes(tail))


class _Deflated:
    """Compresses what is written to it, and knows its size and checksum."""

    def __init__(self, file):
        self.file, self.crc, self.size = file, 0, 0
        self.compressor = zlib.compressobj(6, zlib.DEFLATED, -15)

    def write(self, data: bytes) -> None:
        self.crc, self.size = zlib.crc32(data, self.crc), self.size + len(data)
        self.file.write(self.compressor.compress(data))

    def close(self) -> None:
        self.file.write(self.compressor.flush())


def _member(archive: zipfile.ZipFile, sheet: str) -> str:
    """The file of a sheet inside the archive."""
    workbook = ElementTree.fromstring(archive.read("xl/workbook.xml"))
    relation = next(element.get(_RELATION) for element in workbook.iter()
                    if element.tag.endswith("}sheet") and element.get("name") == sheet)
    relations = ElementTree.fromstring(archive.read("xl/_rels/workbook.xml.rels"))
    target = next(element.get("Target") for element in relations if element.get("Id") == relation)
    return target.lstrip("/") if target.startswith("/") else f"xl/{target}"


def _patches(row: Element, number: int, values: Mapping[int, str]) -> list[Patch]:
    """Puts {column from 0: text} into a row of the sheet."""
    prefix = _NAME.match(row.raw)[1] or b""
    there, column = {}, -1
    for child in row.children:
        if child.name == "c":
            tag = row.raw[child.start - row.start:row.raw.index(b">", child.start - row.start) + 1]
            found = _PLACE.search(tag)
            column = _column(found[1]) if found else column + 1
            there[column] = child, tag
    patches = []
    for place, text in sorted(values.items()):
        child, tag = there.get(place, (None, b""))
        style = _STYLE.search(tag)
        cell = b"<%bc r=\"%b%d\"%b" % (prefix, _letters(place), number, style.group() if style else b"")
        cell += b' t="inlineStr"><%bis><%bt xml:space="preserve">%b</%bt></%bis></%bc>' % (
            prefix, prefix, escape(text).encode(), prefix, prefix, prefix) if text else b"/>"
        if child is not None:
            if re.search(rb"<(\w+:)?f[\s>/]", row.raw[child.start - row.start:child.stop - row.start]):
                raise Unwritable("a formula")
            patches.append(Patch(child.start, child.stop, cell))
        elif text:
            after = next((other.start for column, (other, _) in sorted(there.items()) if column > place), row.end_tag)
            if row.raw.endswith(b"/>") and not row.children:
                raise Unwritable("an empty row")
            if patches and patches[-1].start == patches[-1].stop == after:
                patches[-1] = patches[-1]._replace(new=patches[-1].new + cell)
            else:
                patches.append(Patch(after, after, cell))
    return patches


def _column(letters: bytes) -> int:
    """"AB" -> 27"""
    place = 0
    for letter in letters:
        place = place * 26 + letter - 64
    return place - 1


def _letters(place: int) -> bytes:
    letters = b""
    while place >= 0:
        letters, place = bytes([65 + place % 26]) + letters, place // 26 - 1
    return letters
