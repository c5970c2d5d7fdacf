"""What the cells of each column look like, counted in one pass with bounded memory."""

import re
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from hf_tagger.catalog.attributes import cell_text, is_missing
from hf_tagger.catalog.formats.cells import json_list
from hf_tagger.catalog.formats.nested import named_items, plain_objects

# Every row up to the first number, from there on every so many-th.
ALL_UP_TO, THEN_EVERY = 50_000, 20
DELIMITERS = (",", ";", "|", "/", ">>", ">", "»")
_DISTINCT, _LONGEST_TAG, _EXAMPLES, _TEXTS = 10_000, 120, 3, 400
_LONGEST_LIST, _LIST_CHARACTERS = 20 * _LONGEST_TAG, 1 << 20  # of one cell; of all that are longer than a tag
_PHOTO = {"bytes", "path"}  # keys of one in a table
_DEEPEST = 6
_MOST_COLUMNS = 2000  # JSON may have a key of its own in each product
_IMAGE = re.compile(r"\.(jpe?g|png|webp|gif|avif|bmp|tiff?)(\?|#|$)", re.IGNORECASE)
_KINDS = {
    "number": re.compile(r"[-+]?[\d.,\s]*\d(\s?[%€$£¥]|\s?[A-Z]{3})?"),
    "measure": re.compile(r"[\d.,\s/x×-]*\d\s?([mck]?m[²2]?|in(ch(es)?)?|ft|[\"″]|m?g|kg|lbs?|oz|[mcd]?l|gsm|g/m[²2])"
                          r"\.?", re.IGNORECASE),
    "hash": re.compile(r"([0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}[\s,;|]*)+"),
    "bool": re.compile(r"true|false|yes|no|y|n|0|1|ja|nein|oui|non|sí|si|on|off|use config( settings)?", re.IGNORECASE),
    "date": re.compile(r"\d{4}-\d\d-\d\d([T ].*)?|\d{1,2}[./]\d{1,2}[./]\d{2,4}( .*)?"),
    "url": re.compile(r"\w+://\S+|www\.\S+"),
    "email": re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+"),
    "phone": re.compile(r"\+\d[\d\s()./-]{6,18}\d|\(?0\d{1,5}[)\s/-][\d\s/-]{4,14}\d"),
    "code": re.compile(r"[\w.:/#-]*\d[\w.:/#-]*"),
    "language": re.compile(r"[a-z]{2}([-_][A-Za-z]{2,4})?"),
}


@dataclass
class ColumnStats:
    """Of the rows that were looked at."""

    name: str
    filled: int = 0
    lists: int = 0  # cells that are lists
    several: int = 0  # those of more than one item
    images: int = 0  # cells that are photos, or name one
    kinds: Counter[str] = field(default_factory=Counter)  # {kind of `_KINDS`: cells that are wholly so}
    characters: int = 0
    words: int = 0
    longest: int = 0
    html: int = 0
    values: Counter[str] = field(default_factory=Counter)  # {cell: rows} of tags and lists, the first distinct ones
    list_characters: int = 0  # of those longer than a tag
    pieces: dict[str, Counter[str]] = field(default_factory=dict)  # {delimiter, or "list": {piece: rows}}
    split_cells: Counter[str] = field(default_factory=Counter)  # {delimiter: cells that have it}
    texts: list[str] = field(default_factory=list)
    photos: list[str] = field(default_factory=list)
    hashes: array = field(default_factory=lambda: array("q"))

    def add(self, value: Any, row_number: int) -> None:
        if value is None or value == "" or is_missing(value) or value == [] or value == {}:
            return
        self.filled += 1
        if isinstance(value, bytes) or (isinstance(value, dict) and value.keys() <= _PHOTO):
            self.images += 1
            return
        items = value if isinstance(value, list | tuple) else json_list(value)
        if items is not None:
            self.lists += 1
            items = [text for item in items if not isinstance(item, dict | list | tuple | bytes)
                     and not is_missing(item) and (text := cell_text(item).strip())]
            if not items:
                self.filled, self.lists = self.filled - 1, self.lists - 1
                return
            self.several += len(items) > 1
            self._count_pieces("list", items)
            if _IMAGE.search(items[0]):
                self.images += 1
                self._keep(self.photos, items[0])
            text = ", ".join(items)
        elif isinstance(value, dict):
            return
        else:
            text = cell_text(value).strip()
            if (_IMAGE.search(text[-300:]) and " " not in text.split(",")[0].strip()) or (
                    "://" in text and len(text) <= _LONGEST_LIST and photos_joined_by(text)):
                self.images += 1
                self._keep(self.photos, re.split(r"[,|;\n]\s*|\s+(?=\w+://)", text)[0])
            if len(text) <= _LONGEST_LIST:
                for delimiter in DELIMITERS:
                    if delimiter in text:
                        self.split_cells[delimiter] += 1
                        self._count_pieces(delimiter, [piece for part in text.split(delimiter)
                                                       if (piece := part.strip())])
        self.hashes.append(hash(text))
        self.characters += len(text)
        self.words += text.count(" ") + 1
        self.longest = max(self.longest, len(text))
        self.html += "<" in text and ">" in text
        for kind, pattern in _KINDS.items():
            # What tells nothing from the first thousand cells on is not asked again.
            if (self.filled < 1000 or self.kinds[kind]) and len(text) < 300 and pattern.fullmatch(text):
                self.kinds[kind] += 1
        if text in self.values:
            self.values[text] += 1
        elif len(self.values) < _DISTINCT and (len(text) <= _LONGEST_TAG or self._holds_list(text)):
            self.values[text] = 1
        # Spread over the rows, as far as they are known: every row whose number is a multiple of a growing step.
        if len(self.texts) < _TEXTS or row_number % (self.filled // _TEXTS + 1) == 0:
            self._keep(self.texts, text[:500], row_number)

    def share(self, kind: str) -> float:
        """Of the filled cells, those of this kind (of `_KINDS`, "image", "list", "html")."""
        counts = {"image": self.images, "list": self.lists, "html": self.html}
        return counts.get(kind, self.kinds[kind]) / self.filled if self.filled else 0.0

    @property
    def distinct(self) -> int:
        """Different cells."""
        return len(set(self.hashes))

    @property
    def mean_words(self) -> float:
        return self.words / max(1, len(self.hashes))

    @property
    def mean_characters(self) -> float:
        return self.characters / max(1, len(self.hashes))

    def examples(self, most: int = _EXAMPLES) -> list[str]:
        return [value for value, _ in self.values.most_common(most)] or [text[:40] for text in self.texts[:most]]

    def _holds_list(self, text: str) -> bool:
        """Whether a long cell may be a list of tags, and there is room for it."""
        if len(text) > _LONGEST_LIST or self.list_characters > _LIST_CHARACTERS or not any(
                delimiter in text for delimiter in DELIMITERS):
            return False
        self.list_characters += len(text)
        return True

    def _count_pieces(self, delimiter: str, pieces: list[str]) -> None:
        counts = self.pieces.setdefault(delimiter, Counter())
        for piece in dict.fromkeys(pieces):
            if len(piece) <= _LONGEST_TAG and (len(counts) < _DISTINCT or piece in counts):
                counts[piece] += 1

    @staticmethod
    def _keep(kept: list[str], text: str, row_number: int = 0) -> None:
        if len(kept) < _TEXTS:
            kept.append(text)
        else:
            kept[row_number % _TEXTS] = text


@dataclass
class Survey:
    """The columns of a catalogue."""

    products: int = 0  # all of them
    looked_at: int = 0
    refused: int = 0
    refusal: str | None = None  # the first one
    left_out: list[str] = field(default_factory=list)  # names of several columns
    columns: dict[str, ColumnStats] = field(default_factory=dict)
    _spelt: dict[str, str] = field(default_factory=dict)  # of names in pairs, the first spelling

    @property
    def sampled(self) -> bool:
        return self.looked_at < self.products

    @property
    def full(self) -> bool:
        """Whether columns may have been passed over."""
        return len(self.columns) == _MOST_COLUMNS

    def add(self, values: dict[str, Any]) -> None:
        """Counts a product; of one after the first `ALL_UP_TO`, only that it is there, but for every
        `THEN_EVERY`-th."""
        self.products += 1
        if self.products > ALL_UP_TO and self.products % THEN_EVERY:
            return
        self.looked_at += 1
        for name, value in dict(flattened(values)).items():  # a profile may have named what lies in another column
            if ":" in name:
                name = self._spelt.setdefault(name.casefold(), name)
            if name not in self.columns and len(self.columns) < _MOST_COLUMNS:
                self.columns[name] = ColumnStats(name)
            if name in self.columns:
                self.columns[name].add(value, self.products)


def photos_joined_by(text: str) -> str | None:
    """What stands between several photos; None where this is not what a cell holds."""
    for by in ("\n", ";", "|", ",", " "):
        pieces = [piece.strip() for piece in text.split(by) if piece.strip()]
        photos = [_IMAGE.search(piece) is not None for piece in pieces]
        if len(pieces) > 1 and any(photos) and all(
                photo or "://" in piece for photo, piece in zip(photos, pieces, strict=True)):
            return by
    return None


def flattened(values: dict[str, Any], prefix: str = "", depth: int = 0) -> list[tuple[str, Any]]:
    """(column, cell), with what is nested under names as `formats.nested` reads them."""
    cells = []
    for name, value in values.items():
        if not isinstance(name, str) or not name.strip():
            continue
        value = plain_objects(value) if isinstance(value, str) else value
        first = value[0] if isinstance(value, list) and value else value
        pairs = named_items(value) if isinstance(first, dict | tuple) else None
        if pairs is not None:
            found: dict[str, list] = {}
            for one, cell in pairs:
                found.setdefault(one, []).extend(cell if isinstance(cell, list) else [cell])
            cells += [(f"{prefix}{name}:{one}", items[0] if len(items) == 1 else items) for one, items in found.items()]
        elif isinstance(first, dict) and not first.keys() <= _PHOTO and depth < _DEEPEST:
            inside = value
            if isinstance(value, list):
                inside = {}
                for item in value:
                    for key, cell in item.items() if isinstance(item, dict) else ():
                        inside.setdefault(key, []).extend(cell if isinstance(cell, list) else [cell])
            cells += flattened(inside, f"{prefix}{name}.", depth + 1)
        else:
            cells.append((prefix + name, value))
    return cells
