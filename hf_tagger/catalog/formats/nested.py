"""Columns inside others: "brand.name" of an object or of each in a list, "attributes:Colour" of a list of names with
their values; also where a cell has these as JSON text."""

from collections.abc import Iterable
from typing import Any

from hf_tagger.catalog.formats.cells import json_value
from hf_tagger.catalog.formats.columns import stored_name

# Keys, in any case; the first of these that all items have.
_NAMES = ("name", "label", "key", "attribute_name", "attribute", "property", "param_name", "attribute_code", "code")
_VALUES = ("value", "values", "attribute_value", "options", "val")
_CONNECTION = {"edges", "nodes", "pageInfo", "totalCount", "__typename"}


def pick(values: dict, columns: Iterable[str]) -> dict:
    return {column: values[column] if column in values else nested(values, stored_name(column, values))
            for column in columns}


def nested(values: Any, path: str) -> Any:
    """"brand.name" of {"brand": {"name": …}}; of a list, what each of its items has; "attributes:Colour" of
    {"attributes": [{"name": "Colour", "value": …}]}."""
    if isinstance(values, list):
        return _flat(nested(item, path) for item in values)
    if not isinstance(values, dict):
        return None
    if path in values:
        return values[path]
    base, colon, name = path.partition(":")
    if colon:
        key = name.strip().casefold()
        return _flat(value for found, value in named_items(nested(values, base)) or () if found.casefold() == key)
    first, dot, rest = path.partition(".")
    return nested(plain_objects(values[first]), rest) if dot and first in values else None


def outer(column: str, header: Iterable[str]) -> str | None:
    """The column of the header that this one is, or leads into; None where there is no such."""
    header = set(header)
    if column in header:
        return column
    return next((first for by in ".:" if by in column and (first := column.partition(by)[0]) in header), None)


def named_items(value: Any) -> list[tuple[str, Any]] | None:
    """(name, value) of each item of a list of names with values: objects with keys for both, or pairs (a map of
    parquet's). None of anything else."""
    value = plain_objects(value)
    items = value if isinstance(value, list) else [value]
    if not items or not isinstance(items[0], dict | tuple):
        return None
    if all(isinstance(item, tuple) and len(item) == 2 for item in items):
        pairs = items
    elif all(isinstance(item, dict) for item in items):
        items = [{str(key).lower(): held for key, held in item.items()} for item in items]
        name = next((key for key in _NAMES if all(isinstance(item.get(key), str) for item in items)), None)
        of = next((key for key in _VALUES if any(key in item for item in items)), None)
        if name is None or of is None:
            return None
        pairs = [(item[name], item.get(of)) for item in items]
    else:
        return None
    return [(name.strip(), found) for name, found in pairs if isinstance(name, str) and name.strip()
            and found is not None]


def plain_objects(value: Any) -> Any:
    """JSON text of objects as the objects; anything else as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        found = json_value(value)
        if isinstance(found, dict) or (isinstance(found, list) and found and all(isinstance(o, dict) for o in found)):
            return found
    return value


def without_edges(value: Any) -> Any:
    """GraphQL's connections within a value, {"edges": [{"node": …}]} or {"nodes": […]}, as the lists that they are."""
    if isinstance(value, list):
        return [without_edges(item) for item in value] if value and isinstance(value[0], dict) else value
    if not isinstance(value, dict):
        return value
    if value.keys() <= _CONNECTION:
        nodes = value.get("nodes") or [edge.get("node") for edge in value.get("edges") or () if isinstance(edge, dict)]
        return without_edges(nodes) if isinstance(nodes, list) else value
    return {key: without_edges(held) if isinstance(held, dict | list) else held for key, held in value.items()}


def _flat(found: Iterable[Any]) -> list | None:
    flat = [one for item in found for one in (item if isinstance(item, list) else [item])]
    return [item for item in flat if item is not None] or None
