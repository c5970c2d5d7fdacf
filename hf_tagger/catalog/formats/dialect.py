"""How a text file is written: encoding, delimiter, quotes, line ends, and what stands above its header.

Nothing here is guessed twice: readers, `hf_tagger init` and what writes tags back all ask `detect`.
"""

import codecs
import csv
import io
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

import fsspec

from hf_tagger.catalog.formats.columns import with_imagefolder_names

MAX_LINE = 8 << 20  # characters; a compressed file may hold lines of any length
UNDECODABLE = "\udc80"
codecs.register_error("hf_tagger.mark", lambda error: (UNDECODABLE, error.end))
_HEAD_LINES, _PREAMBLE_LINES, _COMPARED = 1000, 20, 10
_CHUNK = 1 << 20
# Bytes that are looked through for what is not ASCII, and how many lines with such bytes are enough to tell.
_SEARCHED, _ENOUGH = 256 << 20, 256 << 10
# What Windows writes under these names.
_SUPERSETS = {"shift_jis": "cp932", "gb2312": "gb18030", "euc_kr": "cp949", "big5": "cp950"}
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
_FIELD_NAME = re.compile(r"[a-z][a-z0-9_#:.-]*")
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
          (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
# Eastern encodings, with the first bytes of their common characters: of a text in one of them nearly all are these.
_EASTERN = {"cp949": ((0xB0, 0xC8),), "cp932": ((0x81, 0x83), (0x88, 0x97)), "cp950": ((0xA4, 0xC6),),
            "gb18030": ((0xB0, 0xD7),)}  # fmt: skip
# Single-byte encodings, with the letters of each of their languages.
_WESTERN = {
    "cp1252": ("äöüß", "àâæçéèêëîïôœùûüÿ", "áéíñóúü", "àèéìíòóùú", "ãáàâçéêíóôõúü", "åäöé", "æøåéò", "ëïéèöüó",
               "àçéèíïòóúü"),
    "cp1250": ("ąćęłńóśźż", "áčďéěíňóřšťúůýž", "áäčďéíľĺňóôŕšťúýž", "áéíóöőúüű", "ăâîşţ", "čćđšž"),
    "cp1254": ("çğıiöşüâî",),
    "cp1251": ("абвгдежзийклмнопрстуфхцчшщъыьэюяёіїєґ",),
    "cp1253": ("αβγδεζηθικλμνξοπρσςτυφχψωάέήίόύώϊϋ",),
}  # fmt: skip
_VOWELS = set("аеиоуыэюяіїєёαεηιουωάέήίόύώ")
# In words, these are letters of another encoding (but for m² and nº).
_SIGN_IN_WORD = re.compile(r"(?<=[^\W\d_mnN])[¹²³ºª¿¡¼½¾±µ¶·\ufffd]|[¹²³ºª¿¡¼½¾±µ¶·](?=[^\W\d_]{2})")


@dataclass(frozen=True)
class Dialect:
    encoding: str  # codec that decodes the file from its first byte, a byte order mark included (`utf-8-sig`, `utf-16`)
    mark: bytes  # the byte order mark itself, empty without one
    delimiter: str  # between cells
    quotes: bool  # whether a cell of the first rows stands in quotes
    header: tuple[str, ...]  # the names of the columns, without spaces around them
    above: int  # number of lines that end with the header's last one: `sep=;`, titles and empty lines stand above it


def detect(file: str, columns: Iterable[str] = (), delimiter: str | None = None,
           encoding: str | None = None) -> Dialect:
    """The dialect of a csv or tsv file. `columns`: names that the header should have; `delimiter`, `encoding`: where
    they are known.

    Reads the first thousand lines, and of a local file as much as it takes to find bytes that are not ASCII.
    """
    with open_lines(file, encoding) as lines:
        return read_dialect(lines, columns, delimiter)[0]


def read_dialect(lines: "TextLines", columns: Iterable[str] = (), delimiter: str | None = None
                 ) -> tuple[Dialect, list[str]]:
    """As `detect`, of lines that are open, and the first lines themselves, which have been taken from `lines`."""
    head, left = [], MAX_LINE
    for line in islice(lines, _HEAD_LINES):
        head.append(line)
        left -= len(line)
        if left < 0:
            break
    delimiter, header, above = _header(head, list(columns), delimiter)
    quotes = uses_quotes("".join(head[above:]), delimiter)
    return Dialect(lines.encoding, lines.mark, delimiter, quotes, tuple(header), above), head


class TextLines(Iterator[str]):
    """The lines of an open text file; of one longer than `MAX_LINE` no more than its beginning."""

    def __init__(self, text: io.TextIOWrapper, encoding: str, mark: bytes):
        self.text, self.encoding, self.mark = text, encoding, mark

    def __next__(self) -> str:
        line = self.text.readline(MAX_LINE + 1)
        rest = line
        while len(rest) > MAX_LINE and not rest.endswith(("\n", "\r")):
            rest = self.text.readline(MAX_LINE + 1)
        if not line:
            raise StopIteration
        return line


@contextmanager
def open_lines(file: str, encoding: str | None) -> Iterator[TextLines]:
    """The lines of a text file, compressed or not. `encoding` None: found. What is not in the encoding becomes
    `UNDECODABLE`. A byte order mark, or the zero bytes of UTF-16, say the encoding themselves."""
    with fsspec.open(file, "rb", compression="infer") as handle:
        buffered = io.BufferedReader(handle)
        start = buffered.peek(4)[:4]
        mark = next((mark for mark, _ in _MARKS if start.startswith(mark)), b"")
        marked = _marked_encoding(start)
        if marked is None and encoding is None:
            marked = find_encoding(file)
        encoding = marked or _SUPERSETS.get(codecs.lookup(encoding).name, encoding)
        with io.TextIOWrapper(buffered, encoding, errors="hf_tagger.mark", newline="") as text:
            yield TextLines(text, encoding, mark)


def find_encoding(file: str) -> str:
    """As `_find_encoding`, once for each state of a local file, and once for another."""
    if "://" in file:
        return _find_encoding(file, 0, 0)
    stat = os.stat(file)
    return _find_encoding(file, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4096)
def _find_encoding(file: str, modified: int, size: int) -> str:
    """The encoding of a text file without a byte order mark: UTF-8 if what is not ASCII in it is, else the likeliest.

    Asks each line; looks through the first 256 MB of a local file, the first 8 MB of another."""
    found, votes = bytearray(), Counter()
    left = _SEARCHED if "://" not in file else 8 << 20
    with fsspec.open(file, "rb", compression="infer") as handle:
        rest = b""
        while left > 0 and len(found) < _ENOUGH and (chunk := handle.read(_CHUNK)):
            left -= len(chunk)
            # Whole lines, lest a character be cut in two.
            lines, newline, tail = (rest + chunk).rpartition(b"\n")
            lines, rest = (lines + newline, tail) if newline and len(tail) < MAX_LINE else (rest + chunk, b"")
            for line in [] if lines.isascii() else lines.split(b"\n"):
                if not line.isascii() and _votes(line, votes):
                    found += line + b"\n"
        if not rest.isascii() and _votes(rest, votes):
            found += rest
    # A few lines of another encoding in a file of UTF-8 are these lines' own fault.
    return "utf-8" if votes[True] >= votes[False] else likeliest_encoding(bytes(found[:_ENOUGH]))


def _votes(line: bytes, votes: Counter) -> bool:
    """Counts whether the line is UTF-8; True if it is not."""
    votes[_decoded(line, "utf-8") is not None] += 1
    return _decoded(line, "utf-8") is None


def likeliest_encoding(data: bytes) -> str:
    """Of text that is not UTF-8. Eastern encodings have to fit as a whole; among the others the letters decide that
    are common in their languages, and cp1252 where these do not."""
    if data.isascii():
        return "utf-8"
    eastern = {encoding: _eastern_share(data, encoding, common) for encoding, common in _EASTERN.items()}
    likely = [encoding for encoding, share in eastern.items() if share > max(0.85, max(eastern.values()) - 0.05)]
    # Accented Latin letters stand alone; of Eastern characters at least some stand side by side.
    if likely and re.search(rb"[\x80-\xff][\x40-\xff][\x80-\xff]", data):
        return likely[0]
    western = {encoding: _western_share(data.decode(encoding, "replace"), languages)
               for encoding, languages in _WESTERN.items()}
    return max(western, key=western.get)


def _eastern_share(data: bytes, encoding: str, common: tuple[tuple[int, int], ...]) -> float:
    """Of the characters that are not ASCII, those that are common in this encoding; 0 where it is not this one."""
    # Of the wider encodings, what they have beyond the older ones is rare, and hides much that is neither.
    text = _decoded(data, {"gb18030": "gb2312", "cp949": "euc_kr"}.get(encoding, encoding))
    codes = [char.encode(encoding) for char in text or "" if not char.isascii()]
    pairs = [code for code in codes if len(code) > 1]  # half-width katakana, of one byte, tell nothing
    usual = sum(len(pair) == 2 and any(first <= pair[0] <= last for first, last in common) for pair in pairs)
    return usual / len(pairs) if pairs and len(codes) > 2 else 0.0


def _western_share(text: str, languages: tuple[str, ...]) -> float:
    """Of the characters that are not ASCII, those that are letters of the language which has most of them."""
    letters = Counter(char.lower() for char in text if char.isalpha() and not char.isascii() and char not in "ªºµ")
    wrong = len(_SIGN_IN_WORD.findall(text))
    total = letters.total() + wrong
    best = max(sum(letters[letter] for letter in language) for language in languages)
    share = best / total if total else 1.0
    if languages[0][0] in "аα":  # Greek and Cyrillic letters stand in each other's places
        share *= min(1.0, 3 * sum(letters[vowel] for vowel in _VOWELS) / max(1, letters.total()))
    return share / 2 if "\ufffd" in text else share


def uses_quotes(text: str, delimiter: str) -> bool:
    """Whether a cell stands in quotes."""
    cell = rf'(?:^|{re.escape(delimiter)})"(?:[^"]|"")*+"(?={re.escape(delimiter)}|[\r\n]|\Z)'
    return re.search(cell, text, re.MULTILINE) is not None


def _decoded(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return None


def _marked_encoding(start: bytes) -> str | None:
    for mark, encoding in _MARKS:
        if start.startswith(mark):
            return encoding
    if len(start) > 1 and (start[0] == 0) != (start[1] == 0):
        return "utf-16-be" if start[0] == 0 else "utf-16-le"
    return None


def _header(head: list[str], columns: list[str], delimiter: str | None) -> tuple[str, list[str], int]:
    """Delimiter, column names, and number of lines up to the header: the first of the first lines that has all the
    columns; without any to look for the first that the most of the next lines are like, else the first that is not
    empty."""
    found = []
    for place, line in enumerate(head[:_PREAMBLE_LINES]):
        if separator := _SEPARATOR_LINE.fullmatch(line):
            delimiter = separator[1]
        elif line.strip():
            likeliest = max((_names(head, place, by) for by in delimiter or ",;\t|"), key=lambda found: (
                sum(column in found[1] for column in columns), _fits(head, place, found[0]), len(found[1])))
            if columns and set(columns) <= set(with_imagefolder_names(likeliest[1])):
                return likeliest
            found.append(likeliest)
    if not found:
        return delimiter or ",", [], 0
    if columns:
        return found[0]
    first = found[0][1]
    if "=" in first[0] and len(found) > 2 and all(_FIELD_NAME.fullmatch(name) for name in found[2][1] if name):
        return found[2]  # Amazon: what the template is, labels for people, names of fields
    # Titles above a header have fewer names than it, or empty or numeric ones.
    widest = max(sum(1 for name in names if name and not name.isnumeric()) for _, names, _ in found)
    return next(one for one in found if sum(1 for name in one[1] if name and not name.isnumeric()) > widest / 2)


def _fits(head: list[str], place: int, delimiter: str) -> bool:
    """Whether the delimiter gives the header several cells, and most of the next records as many: names of columns may
    hold commas."""
    lengths: list[int] = []
    with suppress(csv.Error):  # told where rows are read
        for record in islice(csv.reader(head[place:], delimiter=delimiter), _COMPARED + 1):
            lengths += [len(record)] if record else []
    return bool(lengths) and lengths[0] > 1 and lengths.count(lengths[0]) - 1 >= len(lengths[1:]) / 2


def _names(head: list[str], place: int, delimiter: str) -> tuple[str, list[str], int]:
    reader = csv.reader(head[place:], delimiter=delimiter)
    return delimiter, [name.strip() for name in next(reader, [])], place + reader.line_num
