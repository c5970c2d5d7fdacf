"""What shop systems write: one data file per system. The next system is a file like those beside this one."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

from hf_tagger.catalog.attributes import AttributeSpec
from hf_tagger.catalog.strict import ConfigError, build, did_you_mean, read_yaml

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Generation:
    """Column names of one version, or language, of a system's export."""

    required: list[str | list[str]]  # by these columns it is recognised; of a list, by one of them
    # {the profile's name of a column: the column, or the first of these there is}; "category.name" lies in another one.
    names: dict[str, str | list[str]]
    # {name: expression whose group is a value}, of columns that bury their values in other words (`Path: A|Path: B`);
    # tags are not written into these.
    parts: dict[str, str] = field(default_factory=dict)

    def lacks(self, header: Iterable[str], exact: bool = True) -> list[str]:
        """The required columns that are not there, in the same case if `exact`."""
        fold = str if exact else str.casefold
        there = {fold(column.strip()) for column in header}
        required = ([column] if isinstance(column, str) else column for column in self.required)
        return [columns[0] for columns in required if there.isdisjoint(map(fold, columns))]


@dataclass(frozen=True)
class Rows:
    """How a product spans rows; values are names of the profile. Nothing: each row is a product."""

    continuation: str | None = None  # rows that follow with the same value here belong to the product of the first
    starts: dict[str, list[str]] = field(default_factory=dict)  # {name: values of a product's first row}
    parent: str | None = None  # a row that names another one here (its id, "id:<id>" or sku) is a variant of that
    sku: str | None = None  # what `parent` may name in place of the id
    store_view: str | None = None  # names the store view of a row that translates another one
    group: str | None = None  # rows with the same value here are variants: each a product, all in one split


@dataclass(frozen=True)
class Pattern:
    """Attributes that name themselves: "{n}" in a column is a number (or there is one pair of columns, without it),
    "{name}" the attribute's name.

    `name` and `value` are pairs of columns (in each language of the system); `items` is a column of {name, value}
    objects, with `name` and `value` their keys; `pairs` is a column of `code=value` texts, with `between` two of them
    and `equals` inside one, or found by `regex` and its groups `name` and `value`; `column` is one column each.

    A product's values under the name Color are read from the column "KEY:Color", KEY being the pattern's own key in the
    profile; a `column` is read as it stands."""

    name: list[str] = field(default_factory=list)
    value: list[str] = field(default_factory=list)
    items: str | None = None
    pairs: str | None = None
    between: str = ","
    equals: str = "="
    regex: str | None = None
    column: str | None = None
    drop: str | None = None  # expression of what is taken out of values (Wix's "#b81616:" before a colour)
    skip: list[str] = field(default_factory=list)  # names and values that say nothing (Shopify's "Default Title")
    attribute: AttributeSpec = field(default_factory=AttributeSpec)


@dataclass(frozen=True)
class Write:
    """Where the tags of an attribute go. `column`: a name of the profile, or with `how: column` a new column. `nodes`:
    how the nodes of a taxonomy are written; by default as the column has them."""

    column: str
    how: Literal["append", "cell", "pair", "column"] = "append"
    nodes: Literal["id", "short_id", "path", "name"] | None = None


@dataclass(frozen=True)
class Limits:
    tags: int | None = None  # in one cell
    characters: dict[str, int] = field(default_factory=dict)  # {name: of the whole cell, or of one tag for `tags`}


@dataclass(frozen=True)
class Profile:
    """A system's export. `text`, `images`, `id`, `language` and `group` are names of the columns in `names`."""

    name: str
    title: str
    generations: list[Generation]
    id: str
    text: list[str]
    images: list[str] = field(default_factory=list)
    image_delimiter: str | None = None  # a space: any white space
    image_root: str | None = None  # where photos lie that are names alone
    language: str | None = None
    group: str | None = None
    rows: Rows = field(default_factory=Rows)
    attributes: dict[str, AttributeSpec] = field(default_factory=dict)  # {name of the column: how its tags are written}
    patterns: dict[str, Pattern] = field(default_factory=dict)
    own: list[str] = field(default_factory=list)  # columns, names under patterns, that say nothing of a product
    escapes: dict[str, str] = field(default_factory=dict)  # in texts: {what is written: what it means}
    # Columns, or "*" for all, whose cells hold codes, for which `aliases` have the names: tags go back as codes.
    codes: list[str] = field(default_factory=list)
    write: dict[str, Write] = field(default_factory=dict)  # {attribute, or "*" for every other one: where it goes}
    limits: Limits = field(default_factory=Limits)
    formula_escape: str | None = None  # what the system itself sets before a cell that begins with = + - @
    empty_value: str | None = None  # what clears a cell
    notes: str = ""

    def templates(self, name: str) -> list[str]:
        """All columns that `names` have for it in some generation."""
        found = (generation.names.get(name, []) for generation in self.generations)
        return [template for one in found for template in ([one] if isinstance(one, str) else one)]

    def generation(self, header: Iterable[str], exact: bool = False) -> Generation | None:
        """The first one whose required columns are there, in the same case if `exact`."""
        header = list(header)
        return next((one for one in self.generations if not one.lacks(header, exact)), None)

    def columns(self, header: Iterable[str], exact: bool = False) -> dict[str, str] | None:
        """{name: its column, as this header spells it} of the generation that fits; None where none does.

        Args:
            exact: the required columns in the same case, too.
        """
        header = list(header)
        generation = self.generation(header, exact)
        if generation is None:
            return None
        spelt = {column.strip().casefold(): column for column in reversed(header)}
        found = {name: _first_of(column, spelt) for name, column in generation.names.items()}
        return {name: column for name, column in found.items() if column is not None}


    def texts(self, header: Iterable[str]) -> list[str]:
        """The columns of text: of each name of `text` that of each locale, the first of its channels."""
        header = list(header)
        names, found = self.columns(header) or {}, {}
        for name in filter(names.get, self.text):
            templates = [pattern_regex(template) for template in self.templates(name) if "{locale}" in template]
            for column in header:
                if match := next(filter(None, (template.fullmatch(column) for template in templates)), None):
                    found.setdefault((name, match["locale"]), column)
            if not any(of == name for of, _ in found):
                found[name, None] = names[name]
        return list(found.values())


@cache
def profile(name: str) -> Profile:
    """The profile of that name, or in the YAML file of that path. Raises ConfigError, naming the nearest."""
    known = {path.stem: path for path in FOLDER.glob("*.yaml")}
    if name not in known and not Path(name).is_file():
        raise ConfigError(f"there is no profile {name!r} of a shop system.{did_you_mean(name, sorted(known))}")
    return build(Profile, read_yaml(known.get(name, name)), f"profile {name}")


def recognise(header: Iterable[str]) -> tuple[Profile, dict[str, str]] | None:
    """The system whose export has these columns, of several the one that knows most of them, and its `columns`."""
    header = list(header)
    found = [(one, columns) for one in map(profile, sorted(path.stem for path in FOLDER.glob("*.yaml")))
             if (columns := one.columns(header, exact=True)) is not None]
    return max(found, key=lambda item: len(item[1]), default=None)


def _first_of(templates: str | list[str], spelt: dict[str, str]) -> str | None:
    for template in [templates] if isinstance(templates, str) else templates:
        if "{" not in template:
            first, dot, rest = template.partition(".")
            if template.casefold() in spelt:
                return spelt[template.casefold()]
            if dot and rest and first.casefold() in spelt:
                return f"{spelt[first.casefold()]}.{rest}"
        elif fits := [column for column in reversed(spelt.values()) if pattern_regex(template).fullmatch(column)]:
            return fits[0]
    return None


def pattern_regex(template: str) -> re.Pattern:
    """"Option{n} Name" -> an expression with the groups `n` and `name`, without regard to case."""
    escaped = re.escape(template).replace(r"\{n\}", r"(?P<n>\d+)").replace(r"\{name\}", r"(?P<name>.+?)")
    return re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^()]+?)", escaped), re.IGNORECASE)
