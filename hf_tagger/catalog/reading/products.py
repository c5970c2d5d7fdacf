"""Products from the rows of a shop system's export: variants, further photos and translations stand in rows of their
own. What joins them is in the system's profile."""

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from hf_tagger.catalog.attributes import AttributeSpec, cell_text, is_missing
from hf_tagger.catalog.formats.cells import CellSyntax, json_list, split, split_pairs
from hf_tagger.catalog.formats.columns import RawRow, check_columns
from hf_tagger.catalog.formats.nested import outer
from hf_tagger.catalog.profiles import Pattern, Profile, pattern_regex
from hf_tagger.catalog.strict import ConfigError

# Products that wait for variants which name them. A variant that comes later than that is a product of its own.
WAITING = 2000
# Of one product, and attributes' names of one catalogue: a column that is no id joins all rows to one.
_MAX_VALUES, _MAX_NAMES = 200, 1000
_NAMES = ("names",)  # where a product in the making keeps what its variants leave out; no column is called so
_ADDRESSES = ("src", "url", "contentUrl")  # of a photo that is an object
_FORMULA = ("'=", "'+", "'-", "'@")


class Layout:
    """How the rows of one file make products.

    Args:
        system: the file's profile.
        header: the file's columns.
        wanted: {column that is read: the key that names it}, among them "option:Color" and the like
            (`profiles.Pattern`).
        discover: give each product all that it has under the system's patterns, wanted or not.
        repeats: several values are several elements, and a comma is a comma (XML, JSON).

    Raises ConfigError if the header is not of this system, or lacks a column that is wanted.
    """

    def __init__(self, system: Profile, header: Iterable[str], wanted: dict[str, str], where: str = "the catalogue",
                 discover: bool = False, repeats: bool = False):
        header = list(header)
        names = system.columns(header)
        if names is None:
            lacks = ", ".join(system.generations[0].lacks(header))
            raise ConfigError(f"{where} is no {system.title}: it has no column {lacks} (source.profile).")
        self.system, self.names = system, names
        self.view = names.get(system.rows.store_view)
        self.texts = {names[name] for name in system.text if name in names}
        # {(pattern, name to look for): "option:Color"}, {(column, store view): "name:de"}
        self.named: dict[tuple[str, str], str] = {}
        self.translated: dict[tuple[str, str], str] = {}
        for column in wanted:
            key, colon, name = column.partition(":")
            if colon and column not in header and key in system.patterns:
                self.named[key, name.strip().casefold()] = column
            elif colon and column not in header and self.view and key in self.texts:
                self.translated[key, name.strip()] = column
        found_by_name = {*self.named.values(), *self.translated.values()}
        self.plain = [column for column in wanted if column not in found_by_name]
        self.discover, self.repeats = discover, repeats
        check_columns({column: wanted[column] for column in self.plain if outer(column, header) is None}, header, where)
        keys = system.patterns if discover else dict.fromkeys(key for key, _ in self.named)
        self.pairs = {key: pair_columns(system.patterns[key], header) for key in keys}
        rows = system.rows
        joined = [rows.continuation, rows.parent, rows.sku, rows.store_view, *rows.starts, system.id, *system.text[:1]]
        found = [names[name] for name in joined if name in names]
        found += [column for pairs in self.pairs.values() for pair in pairs for column in pair]
        found += [column for column, _ in self.translated]
        found += [names.get(system.patterns[key].pairs or system.patterns[key].items) for key in self.pairs]
        self.columns = dict.fromkeys(filter(None, found), "source.profile") | {
            column: wanted[column] for column in self.plain}
        self.parts = {names[name]: re.compile(part) for name, part in system.generation(header).parts.items()
                      if name in names}
        self.images = {names[name] for name in system.images if name in names}
        # Lists of tags are split as the system writes them, whatever the schema says of them.
        self.lists = {names[name]: spec for name, spec in system.attributes.items()
                      if name in names and spec.syntax.delimiter and "attributes." in wanted.get(names[name], "")}
        # Values of variants that are read by the column itself ("Option1 Value").
        values = [pattern_regex(template) for pattern in system.patterns.values() for template in pattern.value]
        self.collected = {column for column in wanted if any(value.fullmatch(column) for value in values)}
        self.skipped = {value for pattern in system.patterns.values() for value in pattern.skip}

    def products(self, rows: Iterator[RawRow]) -> Iterator[RawRow]:
        """The rows of the file -> its products, each with the number of its first row. Rows that cannot be read are
        passed on."""
        rules = self.system.rows
        if rules.parent in self.names:
            return self._with_variants(rows)
        (name, values), = rules.starts.items() or [("", [])]
        if name in self.names:
            firsts, column = {value.casefold() for value in values}, self.names[name]
            return self._runs(rows, lambda held, row: cell_text(row.get(column)).strip().casefold() not in firsts)
        if rules.continuation:
            column, text = self.names[rules.continuation], self.names.get(self.system.text[0])

            def goes_on(held: dict, row: dict) -> bool:
                if is_missing(row[column]):
                    return is_missing(row.get(text))
                return row[column] == held[column]

            return self._runs(rows, goes_on)
        return ((number, values and self._finished(self._product(values)), error) for number, values, error in rows)

    def _runs(self, rows: Iterator[RawRow], goes_on: Callable[[dict, dict], bool]) -> Iterator[RawRow]:
        """Products whose rows stand together."""
        held = None
        for number, row, error in rows:
            if row is None:
                yield number, None, error
            elif held is not None and goes_on(held[1], row):
                self._add(held[2], row)
                held = (*held[:3], held[3] or error)
            else:
                if held is not None:
                    yield held[0], self._finished(held[2]), held[3]
                held = number, row, self._product(row), error
        if held is not None:
            yield held[0], self._finished(held[2]), held[3]

    def _with_variants(self, rows: Iterator[RawRow]) -> Iterator[RawRow]:
        """Products whose variants name them, and need not stand beside them."""
        parent, id, sku = (self.names.get(name) for name in (self.system.rows.parent, self.system.id,
                                                             self.system.rows.sku))
        waiting: OrderedDict[int, tuple[dict, Any, list[str]]] = OrderedDict()
        known: dict[str, int] = {}

        def leave() -> RawRow:
            number, (product, error, keys) = waiting.popitem(last=False)
            for key in keys:
                if known.get(key) == number:
                    del known[key]
            return number, self._finished(product), error

        for number, row, error in rows:
            if row is None:
                yield number, None, error
                continue
            above = known.get(cell_text(row.get(parent)).strip()) if not is_missing(row.get(parent)) else None
            if above is not None:
                self._add(waiting[above][0], row)
                if sku is None and not is_missing(row[id]):  # what belongs to a variant belongs to its product
                    known.setdefault(cell_text(row[id]).strip(), above)
                    waiting[above][2].append(cell_text(row[id]).strip())
                continue
            keys = [f"id:{cell_text(row[id]).strip()}"] + [cell_text(row[column]).strip() for column in (sku, id)
                                                           if column and not is_missing(row[column])]
            waiting[number] = self._product(row), error, keys
            known.update({key: number for key in reversed(keys) if key not in known})
            if len(waiting) > WAITING:
                yield leave()
        while waiting:
            yield leave()

    def _product(self, row: dict) -> dict:
        product: dict[Any, Any] = dict.fromkeys([*self.plain, *self.named.values()]) | {_NAMES: {}}
        self._add(product, row)
        return product

    def _add(self, product: dict, row: dict) -> None:
        """The first cell that is filled, of photos and variants' values all of them."""
        view = self._add_texts(product, row) if self.view else ""
        for column in self.plain:
            value = row.get(column)
            if view and (column, view) in self.translated:
                continue
            joined = column in self.images or column in self.collected
            if value is None or value == "" or (not joined and product[column] is not None):
                continue  # most cells, for speed
            value = self._cell(value, column)
            if is_missing(value):
                continue
            if not joined:
                product[column] = value
                continue
            values = self._photos(value) if column in self.images else [value]
            # A variant's photo stands among the product's own, too.
            known = [item for other in self.plain if other in self.images for item in product[other] or ()] if (
                column in self.images) else product[column] or []
            if len(known) < _MAX_VALUES:
                product[column] = (product[column] or []) + [
                    item for place, item in enumerate(values)
                    if item not in known and item not in values[:place] and item not in self.skipped]
        for name, _ in (pair for pairs in self.pairs.values() for pair in pairs):
            # Variants leave the names of their options to the first row.
            if is_missing(row.get(name)):
                row[name] = product[_NAMES].get(name)
            product[_NAMES].setdefault(name, row[name])
        # Another store view has the same values in other words.
        told = {column for column in self.named.values() if product.get(column)} if view else ()
        for key, pairs in self.pairs.items():
            for name, value in named_values(self.system.patterns[key], pairs, row, self.names, self._cell):
                column = self.named.get((key, name.strip().casefold()))
                if column is None and self.discover and len(self.named) < _MAX_NAMES:
                    column = self.named[key, name.strip().casefold()] = f"{key}:{name.strip()}"
                if column is not None and column not in told:
                    held = product[column] = product.get(column) or []
                    held += [value] if value not in held and len(held) < _MAX_VALUES else []

    def _add_texts(self, product: dict, row: dict) -> str:
        """The texts of a store view, in columns of their own ("name:de"), which have the product's own where these are
        not read by themselves. Returns the row's view, "" for the product's own row."""
        view = "" if is_missing(row.get(self.view)) else cell_text(row[self.view]).strip()
        for column in self.texts if view or self.translated else ():
            value = self._cell(row.get(column), column)
            if is_missing(value):
                continue
            if view and self.discover and len(self.translated) < _MAX_NAMES:
                self.translated.setdefault((column, view), f"{column}:{view}")
            product |= {name: value for (of, spoken), name in self.translated.items() if of == column and (
                spoken == view if view else column not in self.plain)}
        return view

    def _cell(self, value: Any, column: str | None = None) -> Any:
        if isinstance(value, str):
            if self.system.formula_escape and value.startswith(_FORMULA):
                value = value[1:]
            if value == self.system.empty_value:
                return None
            if column in self.texts:
                for written, meant in self.system.escapes.items():
                    value = value.replace(written, meant)
            if column in self.parts:
                return [found[found.lastindex or 0].strip()
                        for found in self.parts[column].finditer(value)] or None
            if column in self.lists:
                return self._list(value, self.lists[column])
        return value

    def _list(self, cell: str, spec: AttributeSpec) -> list[str]:
        syntax = spec.syntax
        if self.repeats and syntax.delimiter == ",":
            return [cell]
        values = split(cell, syntax)
        # Paths with commas should stand in quotes (Google), and often do not.
        bare = spec.format == "path" and syntax.quote and syntax.quote not in cell
        return [cell] if bare and not all(spec.delimiter in value for value in values) else values

    def _photos(self, value: Any) -> list:
        if isinstance(value, str):
            delimiter = None if self.repeats else self.system.image_delimiter
            return json_list(value) or (value.split() if delimiter == " " else split(value, CellSyntax(delimiter)))
        values = value if isinstance(value, list) else [value]
        return [next((item[key] for key in _ADDRESSES if item.get(key)), item) if isinstance(item, dict) else item
                for item in values]

    def _finished(self, product: dict) -> dict:
        del product[_NAMES]
        return product


def named_values(pattern: Pattern, pairs: list[tuple[str, str]], row: dict, names: dict[str, str],
                 cell: Callable[[Any], Any] = lambda cell: cell) -> Iterator[tuple[str, str]]:
    """(attribute's name, one value) of each that a row names under a pattern. `pairs`: as `pair_columns` has them."""
    found = [(row.get(name), row.get(value)) for name, value in pairs]
    if pattern.pairs and not isinstance(row.get(names.get(pattern.pairs)), dict | list):
        text = cell_text(row.get(names.get(pattern.pairs)))
        found += [(match["name"], match["value"]) for match in re.finditer(pattern.regex, text)] if pattern.regex else (
            split_pairs(text, pattern.between, pattern.equals).items())
    if pattern.items:
        items = row.get(names.get(pattern.items))
        items = json_list(items) or items
        items = items if isinstance(items, list) else [items]
        for item in items:
            if isinstance(item, dict):
                name, value = item.get(pattern.name[0]), item.get(pattern.value[0])
                both = isinstance(name, list) and isinstance(value, list)
                found += zip(name, value, strict=False) if both else [(name, value)]
    for name, value in found:
        name, value = cell(name), cell(value)
        if is_missing(name) or is_missing(value):
            continue
        values = value if isinstance(value, list) else split(cell_text(value), pattern.attribute.syntax)
        if cell_text(name) not in pattern.skip:
            texts = (re.sub(pattern.drop, "", cell_text(item)) if pattern.drop else cell_text(item) for item in values)
            yield from ((cell_text(name), text) for text in texts if text not in pattern.skip)


def pair_columns(pattern: Pattern, header: Iterable[str]) -> list[tuple[str, str]]:
    """(column of a name, column of its value) for each pair that the header has, in the order of their numbers."""
    header = list(header)
    pairs: list[tuple[str, str]] = []
    if pattern.items:  # these are keys
        return pairs
    for name, value in zip(pattern.name, pattern.value, strict=True):
        found: list[dict[str, str]] = []
        for template in (name, value):
            regex = pattern_regex(template)
            found.append({match.groupdict().get("n", 0): column for column in header
                          if (match := regex.fullmatch(column))})
        pairs += [(found[0][n], found[1][n]) for n in sorted(found[0], key=int) if n in found[1]]
    return pairs
