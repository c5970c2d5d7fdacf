"""Several values in one cell, as each system writes them: split and joined in one place, so that what is written back
reads as what was read."""

import csv
import json
import re
from dataclasses import dataclass
from typing import Any

# Magento's with "fields enclosure": code="value", of several options code="one"|"two".
_QUOTED = r'"(?:[^"]|"")*"'
_PAIR = re.compile(rf"(\w+)=({_QUOTED}(?:\|{_QUOTED})*)(?:,|\Z)")
_PRINTED = r"""'(?:[^'\\]|\\.)*+'|"(?:[^"\\]|\\.)*+\""""
_PRINTED_LIST = re.compile(rf"\s*\[\s*(?:{_PRINTED})(?:[\s,]++(?:{_PRINTED}))*+\s*,?\s*\]\s*", re.DOTALL)


class CellError(ValueError):
    """A list cannot be written so that the system reads it back as it is: the message names the value."""


@dataclass(frozen=True)
class CellSyntax:
    delimiter: str | None = None  # what stands between two values (None: the cell is one value)
    escape: str | None = None  # stands before a delimiter that is part of a value (WooCommerce: a backslash)
    quote: str | None = None  # stands around a value with a delimiter in it, doubled inside (Google's TSV)
    # What is written between two values (default: the delimiter, a space after a comma or semicolon).
    glue: str | None = None
    json: bool = False  # the cell is a JSON list

    def __post_init__(self):
        if self.delimiter == "":
            raise ValueError("an empty delimiter separates nothing")
        if self.glue is not None and self.glue.strip() != (self.delimiter or "").strip():
            raise ValueError(f"glue {self.glue!r} is not the delimiter {self.delimiter!r} with spaces around it")


def split(cell: str, syntax: CellSyntax) -> list[str]:
    """The values of a cell, without spaces around them; empty ones are left out. A JSON list is one in every syntax.

    Raises CellError where the syntax is `json` and the cell is not such a list.
    """
    listed = json_list(cell)
    if not cell.strip():
        return []
    if listed is not None:
        return [text for item in listed if (text := str(item).strip())]
    if syntax.json:
        raise CellError(f"wants a list, got {cell[:100]!r}")
    if syntax.delimiter is None:
        values = [cell]
    elif syntax.quote and syntax.quote in cell:
        values = _quoted(cell, syntax)
    elif syntax.escape and syntax.escape in cell:
        stands = re.escape(syntax.escape + syntax.delimiter)
        pieces = re.split(rf"({stands})|{re.escape(syntax.delimiter)}", cell)
        values = [""]
        for index, piece in enumerate(pieces):
            if index % 2 == 0:
                values[-1] += piece
            elif piece is None:
                values.append("")
            else:
                values[-1] += syntax.delimiter
    else:
        values = cell.split(syntax.delimiter)
    return [value for value in map(str.strip, values) if value]


def join(values: list[str], syntax: CellSyntax) -> str:
    """The inverse of `split`. Raises CellError, naming the value, where the syntax has no way to write it."""
    if syntax.json:
        cell = json.dumps(values, ensure_ascii=False) if values else ""
    else:
        delimiter = syntax.delimiter
        glue = syntax.glue or (f"{delimiter} " if delimiter in (",", ";") and not syntax.quote else delimiter or "")
        cell = glue.join(_written(value, syntax) for value in values)
    if split(cell, syntax) != values:
        wrong = next((value for value in values if split(_written(value, syntax), syntax) != [value]), None)
        said = f"{wrong!r} cannot be written" if wrong is not None else f"{values} cannot be written together"
        raise CellError(f"{said} with {syntax.delimiter!r} between values")
    return cell


def json_list(cell: Any) -> list | None:
    """The items of a cell that is a JSON list, or texts as Python and numpy print them (`['a', 'b']`); None of any
    other."""
    if not isinstance(cell, str) or not cell.lstrip().startswith("["):
        return None
    items = json_value(cell)
    if items is None and _PRINTED_LIST.fullmatch(cell):
        return [re.sub(r"\\(.)", r"\1", text[1:-1]) for text in re.findall(_PRINTED, cell, re.DOTALL)]
    return items


def json_value(text: str) -> Any:
    """What a text says in JSON; None where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def split_pairs(cell: str, between: str = ",", equals: str = "=") -> dict[str, str]:
    """Magento's `code=value,code2=value` -> {code: value}. As its importer has it, a piece without "=" belongs to the
    value before (a comma inside it), and values may all stand in quotes. Of PrestaShop's `name:value:position` (equals
    ":"), the position is left out."""
    if (between, equals) == (",", "=") and (quoted := _quoted_pairs(cell)) is not None:
        return {code: "|".join(option[1:-1].replace('""', '"') for option in re.findall(_QUOTED, text))
                for code, text in quoted.items()}
    pairs = _pairs(cell, between, equals)
    return {code: text.partition(":")[0].strip() for code, text in pairs.items()} if equals == ":" else pairs


def join_pairs(pairs: dict[str, str]) -> str:
    """The inverse of `split_pairs`. Raises CellError, naming the code, for a value that would read as another pair."""
    cell = ""
    for code, value in pairs.items():
        cell = set_pair(cell, code, value)
    return cell


def set_pair(cell: str, code: str, value: str) -> str:
    """Magento's pairs with this value in place of the code's own, or after the others. Every other pair stays as it is
    written, and where values stand in quotes, so does this one.

    Raises CellError where the value would read as another pair.
    """
    quoted = _quoted_pairs(cell)
    texts = quoted if quoted is not None else _pairs(cell)
    if quoted is not None:
        text = "|".join('"{}"'.format(option.replace('"', '""')) for option in value.split("|"))
    else:
        text = value
    made = ",".join(f"{name}={old}" for name, old in (texts | {code: text}).items())
    if split_pairs(made) != split_pairs(cell) | {code: value}:
        raise CellError(f"{code}: {value!r} cannot be written as code=value")
    return made


def _pairs(cell: str, between: str = ",", equals: str = "=") -> dict[str, str]:
    pairs: dict[str, str] = {}
    code = None
    for piece in cell.split(between):
        name, found, value = piece.partition(equals)
        if found:
            code = name.strip()
            pairs[code] = value
        elif code is not None:
            pairs[code] += between + piece
    return pairs


def _quoted_pairs(cell: str) -> dict[str, str] | None:
    """{code: its value with the quotes}; None of a cell that has not all its values in quotes."""
    pairs, place = {}, 0
    while place < len(cell) and (match := _PAIR.match(cell, place)):
        pairs[match[1]] = match[2]
        place = match.end()
    return pairs if pairs and place == len(cell) else None


def _written(value: str, syntax: CellSyntax) -> str:
    delimiter = syntax.delimiter
    if delimiter and syntax.quote and (delimiter in value or syntax.quote in value):
        return syntax.quote + value.replace(syntax.quote, syntax.quote * 2) + syntax.quote
    if delimiter and syntax.escape:
        return value.replace(delimiter, syntax.escape + delimiter)
    return value


def _quoted(cell: str, syntax: CellSyntax) -> list[str]:
    try:
        return next(csv.reader([cell], delimiter=syntax.delimiter, quotechar=syntax.quote, skipinitialspace=True,
                               strict=True), [])
    except csv.Error:
        return cell.split(syntax.delimiter)
