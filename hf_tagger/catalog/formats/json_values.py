"""The values of a JSON document with the bytes that they are made of, one at a time: memory does not grow with it."""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import fsspec

from hf_tagger.catalog.strict import ConfigError

DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\r\n]*")
_LISTS = ("products", "items", "data", "results", "@graph", "itemListElement", "rows", "records")
_WRAPPINGS = {"data", "_embedded", "response", "result"}
_PRODUCT_TYPES = ("Product", "ProductGroup", "ProductModel", "IndividualProduct", "Vehicle")
_AT_ONCE = 1 << 20
_LONGEST = 1 << 28  # characters of one value
_CUT = 16  # so near to the end of what is read, a fault may be a value that goes on


class Value(NamedTuple):
    start: int  # its first byte in the file
    text: str
    value: Any


class Member(NamedTuple):
    """Of an object or list: places in its text."""

    key: str | None  # None in a list
    begin: int  # of the key, or in a list of the value
    start: int  # of the value
    stop: int


def json_products(file: str) -> Iterator[Value]:
    """The items of a document that is a list, or those of its first list of objects, or the document itself where it is
    a product; of an answer that wraps them (GraphQL's `data`, HAL's `_embedded`), those of its first list. Of JSON-LD,
    products alone (no organisation, no breadcrumbs).

    Raises ConfigError for what is no JSON, ValueError or RecursionError where it is none from there on.
    """
    with fsspec.open(file, "rb", compression="infer") as handle:
        try:
            reader = ValueReader(handle)
            is_list, key = reader.next() == "[", _list_key(reader) if reader.next() == "{" else None
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{file} is not valid JSON: {error}") from error
    with fsspec.open(file, "rb", compression="infer") as handle:
        reader = ValueReader(handle)
        if is_list:
            found = reader.items()
        elif key is None:
            value = reader.value()
            wrapped = isinstance(value.value, dict) and not _WRAPPINGS.isdisjoint(value.value)
            found = iter(list(_nodes(value)) or [value]) if wrapped else iter([value])
        else:
            found = (value for name, value in reader.members() if name == key)
        for value in found:
            value = _list_item(value) if _types(value) == ["ListItem"] else value
            if _types(value) == [None] or any(type in _PRODUCT_TYPES for type in _types(value)):
                yield value


def _list_key(reader: "ValueReader") -> str | None:
    """The key of the list whose items are the products; None of an object that is a product itself."""
    is_product, lists = False, []
    try:
        for key, (_, _, value) in reader.members():
            is_product |= key in ("@type", "name", "title", "sku")
            if isinstance(value, dict) and reader.in_list and key not in lists:
                lists.append(key)
                if key in _LISTS:
                    return key
    except (ValueError, RecursionError):
        if not lists:
            raise
    return None if is_product or not lists else lists[0]


def _types(value: Value) -> list:
    types = value.value.get("@type") if isinstance(value.value, dict) else None
    return types if isinstance(types, list) else [types]


def _nodes(value: Value, within: str = "") -> Iterator[Value]:
    """What stands under "node" in a list "edges", or in a list "nodes", "items" or the like, however deep."""
    at, place = value.start, 0
    for member in members(value.text, 0):
        at, place = at + len(value.text[place:member.start].encode()), member.start
        text = value.text[member.start:member.stop]
        if not text.startswith(("{", "[")):
            continue
        inside = Value(at, text, json.loads(text))
        if member.key == "node" or (within not in ("", "edges") and member.key is None):
            yield inside
        elif member.key in ("edges", "nodes", *_LISTS) and text.startswith("["):
            yield from _nodes(inside, member.key)
            return
        else:
            yield from _nodes(inside)


def _list_item(value: Value) -> Value:
    """What stands in JSON-LD's wrapping under the key `item`."""
    found = next((member for member in reversed(members(value.text, 0)) if member.key == "item"), None)
    if found is None:
        return value._replace(value=None)
    start = value.start + len(value.text[:found.start].encode())
    return Value(start, value.text[found.start:found.stop], value.value["item"])


def members(text: str, opening: int) -> list[Member]:
    """Those of the object or list that begins at `opening`."""
    found: list[Member] = []
    closing = "}" if text[opening] == "{" else "]"
    place = _after_space(text, opening + 1)
    while text[place] != closing:
        if text[place] == ",":
            place = _after_space(text, place + 1)
        begin, key = place, None
        if closing == "}":
            key, place = DECODER.raw_decode(text, place)
            place = _after_space(text, _after_space(text, place) + 1)
        _, stop = DECODER.raw_decode(text, place)
        found.append(Member(key, begin, place, stop))
        place = _after_space(text, stop)
    return found


def _after_space(text: str, place: int) -> int:
    return _SPACE.match(text, place).end()


class ValueReader:
    """Reads a document from its beginning, value by value. Raises ValueError or RecursionError where it is not JSON, or
    not UTF-8."""

    def __init__(self, file: BinaryIO):
        self.file, self.text, self.place = file, "", 0
        self.counted, self.at = 0, 0  # a character of the text, and the byte of the file at which it begins
        self.decoder = codecs.getincrementaldecoder("utf-8")()
        self.in_list = False  # whether the last of `members` is an item of a list
        if file.read(3) == codecs.BOM_UTF8:
            self.at = 3
        else:
            file.seek(0)

    def members(self) -> Iterator[tuple[str, Value]]:
        """(key, value) of an object; of a value that is a list, each of its items."""
        self._take("{")
        while self.next() != "}":
            key = self.value().value
            self._take(":")
            self.in_list = self.next() == "["
            for value in self.items() if self.in_list else iter([self.value()]):
                yield key, value
            if self.next() == ",":
                self._take(",")

    def items(self) -> Iterator[Value]:
        self._take("[")
        while self.next() != "]":
            yield self.value()
            if self.next() == ",":
                self._take(",")
        self._take("]")

    def value(self) -> Value:
        self.next()
        while True:
            try:
                value, stop = DECODER.raw_decode(self.text, self.place)
                if stop < len(self.text) or not self._more():  # a number may go on
                    break
            except json.JSONDecodeError as error:
                cut = error.pos + _CUT >= len(self.text) or error.msg.startswith("Unterminated")
                if not cut or len(self.text) > _LONGEST or not self._more():
                    raise
        self._count()
        found = Value(self.at, self.text[self.place:stop], value)
        self.place = stop
        return found

    def next(self) -> str:
        """The next character that is no space."""
        while (place := _after_space(self.text, self.place)) == len(self.text):
            if not self._more():
                raise ValueError("it ends too early")
        self.place = place
        return self.text[place]

    def _take(self, char: str) -> None:
        if self.next() != char:
            raise ValueError(f"{self.text[self.place:self.place + 20]!r} where a {char} should be")
        self.place += 1

    def _more(self) -> bool:
        """Reads on, and forgets what stands before this place. As much again as is held: a long value takes few steps.
        """
        self._count()
        held = self.text[self.place:]
        data = self.file.read(max(_AT_ONCE, len(held)))
        self.text, self.place, self.counted = held + self.decoder.decode(data, final=not data), 0, 0
        return bool(data)

    def _count(self) -> None:
        self.at += len(self.text[self.counted:self.place].encode())
        self.counted = self.place
