"""Rows of files that are one document: JSON (schema.org's JSON-LD, too), XML feeds, spreadsheets."""

import datetime
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

import fsspec

from hf_tagger.catalog.formats.columns import RawRow
from hf_tagger.catalog.formats.json_values import json_products
from hf_tagger.catalog.quarantine import RowError
from hf_tagger.catalog.strict import ConfigError

_XML_ITEMS = ("item", "entry", "product", "SHOPITEM", "offer")
_CALLED = ("name", "key", "code")  # attributes that say what an element's text is of
_SEARCHED_EVENTS = 20_000


def read_json_document(file: str) -> Iterator[RawRow]:
    """The products of `json_values.json_products`."""
    number = 0
    try:
        for number, (_, _, item) in enumerate(json_products(file), start=1):
            if isinstance(item, dict):
                yield number, item, None
            else:
                yield number, None, RowError(None, "malformed", f"not a JSON object: got {type(item).__name__}")
    except (ValueError, RecursionError) as error:
        yield number + 1, None, RowError(None, "malformed", f"not JSON from here on: {error}")


def read_xml(file: str) -> Iterator[RawRow]:
    """Products of an XML feed (RSS, Atom or any list of like elements). A child is a column by its name without prefix,
    repeated ones a list, an element with children of its own a dict, `<param name="Fit">Slim</param>` a name with its
    value (`formats.nested`); `g:title` goes before `title`.

    Entities are not resolved, and nothing is fetched."""
    from lxml import etree

    item = xml_item(file)
    number = 0
    with fsspec.open(file, "rb", compression="infer") as handle:
        events = etree.iterparse(handle, events=("end",), tag=f"{{*}}{item}", resolve_entities=False, no_network=True,
                                 load_dtd=False, huge_tree=False, remove_comments=True, remove_pis=True)
        while True:
            try:
                _, element = next(events, (None, None))
            except etree.XMLSyntaxError as error:
                yield number + 1, None, RowError(None, "malformed", f"not XML from here on: {error}")
                return
            if element is None:
                return
            if any(etree.QName(above).localname == item for above in element.iterancestors()):
                continue
            number += 1
            values = _xml_values(element)
            yield number, values, None
            element.clear()
            while element.getprevious() is not None:
                del element.getparent()[0]


def xml_item(file: str) -> str:
    """The name of the elements that are products: of those with children that repeat, the outermost; of none that
    repeats, the first."""
    from lxml import etree

    found: dict[str, list[int]] = {}
    try:
        with fsspec.open(file, "rb", compression="infer") as handle:
            events = etree.iterparse(handle, events=("end",), resolve_entities=False, no_network=True, load_dtd=False)
            for _, element in islice(events, _SEARCHED_EVENTS):
                if len(element) and isinstance(element.tag, str):
                    depth = sum(1 for _ in element.iterancestors())
                    seen = found.setdefault(etree.QName(element).localname, [0, depth])
                    seen[0] += 1
    except etree.XMLSyntaxError as error:
        if not found:
            raise ConfigError(f"{file} is not XML: {error}") from error
    known = [name for name in _XML_ITEMS if name in found]
    repeated = [name for name, (count, _) in found.items() if count > 1]
    if not repeated and not known:
        raise ConfigError(f"{file}: no element that repeats has others in it.")
    return min(repeated, key=lambda name: found[name][1]) if repeated else known[0]


def _xml_values(element) -> dict[str, Any]:
    from lxml import etree

    values: dict[str, Any] = dict(element.attrib)
    prefixed: dict[str, bool] = {}
    for child in element:
        if not isinstance(child.tag, str):
            continue
        name = etree.QName(child)
        nested = any(isinstance(inner.tag, str) for inner in child)
        value = _xml_values(child) if nested else (child.text or "").strip() or child.get("href", "")
        called = next(filter(None, map(child.get, _CALLED)), None)
        if called and value and isinstance(value, str) and "://" not in value:
            value = {"name": called, "value": value}
        name, special = name.localname, name.namespace is not None and "base.google.com" in name.namespace
        if name in prefixed and prefixed[name] != special:
            if special:
                values[name], prefixed[name] = value, True
            continue
        prefixed[name] = special
        if name in values:
            held = values[name]
            values[name] = [*held, value] if isinstance(held, list) else [held, value]
        else:
            values[name] = value
    return values


def read_xlsx(file: str) -> Iterator[RawRow]:
    """Rows under the header of a spreadsheet: of its first sheet that has any. The whole sheet is in memory, as
    the format has it."""
    sheet = read_sheet(file)
    for number, cells in enumerate(sheet.rows, start=1):
        values = {name: _cell(cell) for name, cell in zip(sheet.header, cells, strict=False) if name}
        if any(value is not None for value in values.values()):
            yield number, values, None


class Sheet(NamedTuple):
    name: str
    above: int  # rows above the header
    header: list[str]
    rows: Iterator[list]  # those under it


def read_sheet(file: str) -> Sheet:
    """The first sheet of a spreadsheet that has any cells."""
    from python_calamine import CalamineWorkbook

    with fsspec.open(file, "rb") as handle:
        try:
            workbook = CalamineWorkbook.from_filelike(handle)
            name, rows = "", []
            for name in workbook.sheet_names:
                rows = workbook.get_sheet_by_name(name).to_python(skip_empty_area=False)
                if any(any(cell != "" for cell in row) for row in rows):
                    break
        except Exception as error:  # calamine's own errors have no common class
            raise ConfigError(f"{file} cannot be read as xlsx: {error}") from error
    # Titles above a header have fewer cells than it.
    widths = [sum(isinstance(cell, str) and cell.strip() != "" for cell in row) for row in rows[:20]]
    above = next((place for place, width in enumerate(widths) if width > max(widths) / 2), 0)
    header = [str(cell).strip() for cell in rows[above]] if rows else []
    return Sheet(name, above, header, iter(rows[above + 1:]))


def _cell(cell: Any) -> Any:
    if isinstance(cell, datetime.date | datetime.time | datetime.timedelta):
        return cell.isoformat() if hasattr(cell, "isoformat") else str(cell)
    return None if cell == "" else cell
