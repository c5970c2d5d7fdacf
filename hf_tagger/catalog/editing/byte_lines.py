"""Lines of a text file with the bytes that they are made of."""

import codecs
import re
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

from hf_tagger.catalog.editing.patches import Unwritable
from hf_tagger.catalog.formats import dialect
from hf_tagger.catalog.strict import ConfigError

_AT_ONCE = 1 << 20
WIDE = {"utf-16-le": 2, "utf-16-be": 2, "utf-32-le": 4, "utf-32-be": 4}


class Line(NamedTuple):
    start: int  # in the file
    size: int
    raw: bytes  # of a line beyond all bounds only the beginning
    text: str


def byte_lines(file: BinaryIO, encoding: str, mark: bytes) -> Iterator[Line]:
    """The lines of a file in this encoding, after the byte order mark. `text` is what `dialect.open_lines` gives."""
    start, longest = len(file.read(len(mark))), 4 * (dialect.MAX_LINE + 1)
    for size, raw in _raw_lines(file, encoding, longest):
        text = raw.decode(encoding, "hf_tagger.mark")
        yield Line(start, size, raw, text if size < dialect.MAX_LINE else text[:dialect.MAX_LINE + 1])
        start += size


def check_encoding(encoding: str, path: str) -> None:
    """Raises ConfigError for an encoding in which lines and cells cannot be told apart by their bytes."""
    if encoding not in WIDE and '\n,"'.encode(encoding) != b'\n,"':
        raise ConfigError(f"{path}: a file in {encoding} cannot be changed in place: save it as UTF-8 first.")


def without_mark(encoding: str, mark: bytes) -> str:
    """The encoding of what follows the byte order mark."""
    name = codecs.lookup(encoding).name
    if name in ("utf-16", "utf-32"):
        return name + ("-be" if mark in (codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE) else "-le")
    return "utf-8" if name == "utf-8-sig" else name


def _raw_lines(file: BinaryIO, encoding: str, longest: int) -> Iterator[tuple[int, bytes]]:
    """(size, bytes) of each line with its end; of one that is longer than `longest` the bytes are its beginning and its
    last characters."""
    unit = WIDE.get(encoding, 1)
    newline = re.compile(b"|".join(re.escape(end.encode(encoding)) for end in ("\r\n", "\r", "\n")))
    rest, dropped, last = b"", 0, False
    while not last:
        chunk = file.read(_AT_ONCE)
        rest, begun, last = rest + chunk, 0, not chunk
        for found in newline.finditer(rest):
            # Not in the middle of a character, and not where the second half of "\r\n" may be in the next chunk.
            if found.start() % unit == 0 and (last or found.end() + unit <= len(rest)):
                yield found.end() - begun + dropped, rest[begun:found.end()]
                begun, dropped = found.end(), 0
        rest = rest[begun:]
        if len(rest) > longest + _AT_ONCE and not last:
            # What is dropped ends before the last characters: they may be the line's end.
            kept = len(rest) - len(rest) % unit - 2 * unit
            rest, dropped = rest[:longest] + rest[kept:], dropped + kept - longest
    if rest:
        yield len(rest) + dropped, rest


def byte_places(text: str, lines: list[Line], encoding: str) -> Callable[[int], int]:
    """A function that gives the place in the file at which a character of a record begins."""
    start = lines[0].start
    if text.isascii():
        size = WIDE.get(encoding, 1)
        return lambda place: start + size * place
    raw = b"".join(line.raw for line in lines)
    if dialect.UNDECODABLE not in text and text.encode(encoding) == raw:
        return lambda place: start + len(text[:place].encode(encoding))
    # Bytes that are no text, or one of two spellings of a character: a character begins where the one before has ended.
    decoder = codecs.getincrementaldecoder(encoding)("hf_tagger.mark")
    places, begun = [], 0
    for index in range(len(raw)):
        if found := decoder.decode(raw[index:index + 1]):
            places += [begun] * (len(found) - 1) + [index if len(found) > 1 else begun]
            begun = index + 1
    places += [begun] * len(decoder.decode(b"", final=True))
    if len(places) != len(text):
        raise Unwritable("bytes that are no text")
    places.append(len(raw))
    return lambda place: start + places[place]
