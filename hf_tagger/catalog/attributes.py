"""Reads the tags of a product from the cells of a catalogue, attribute by attribute."""

import math
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from hf_tagger.catalog.formats.cells import CellError, CellSyntax, json_list, split
from hf_tagger.catalog.quarantine import RowError
from hf_tagger.catalog.spellings import one_spelling_each
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.catalog.taxonomy import CATEGORIES
from hf_tagger.model.text import clean_tag

_CACHED_CELLS, _LONGEST_CACHED = 100_000, 200


@dataclass
class AttributeSpec:
    """How the schema declares one attribute (colour, material, season …)."""

    column: str | None = None  # the catalogue's column; default: the attribute's own name
    kind: Literal["single", "multi"] = "single"  # single: a product has one of the tags or none
    # column: the cell is the tag. list: a list (in a CSV: a JSON list). delimited: tags with `delimiter` between them.
    # path: "Apparel > Topwear > Tshirts", of which `level` picks one node (0: the first, -1: the last); without `level`
    # every node is a tag, with its parent known. A JSON list is read as the list that it is, whatever the format.
    format: Literal["column", "list", "delimited", "path"] = "column"
    delimiter: str | None = None  # between tags, or the nodes of a path; default: "," for delimited, ">" for path
    paths: str | None = None  # between several paths in one cell ("A > B, A > C")
    escape: str | None = None  # before a delimiter that is part of a tag (WooCommerce: a backslash)
    quote: str | None = None  # around a tag with the delimiter in it (Google)
    glue: str | None = None  # what is written between tags; default: the delimiter, and a space after a comma
    level: int | None = None
    min_count: int = 1  # tags of fewer products in the training split are reported and left out
    when_missing: Literal["unknown", "none"] = "unknown"  # an empty cell: nobody looked, or no tag applies
    # multi: what a list lacks does not apply, or nobody may have looked; auto: by products that have the same words
    # (`catalog.completeness`).
    absent: Literal["auto", "no", "unknown"] = "auto"
    none_values: list[str] = field(default_factory=list)  # cells that mean the same in words ("No pattern")
    unknown_values: list[str] = field(default_factory=list)  # ("n/a")
    aliases: dict[str, str] = field(default_factory=dict)  # {other spelling: tag}
    # Spellings that differ by case only are one tag, spelt as in `tags` or `aliases`, else in lower case.
    fold_case: bool = False
    # Spellings that differ by case, white space, ®, accents or plural are one tag, the most frequent one
    # (`catalog.spellings`).
    merge_spellings: bool = True
    # Tags are nodes of `catalog.taxonomy`: `categories`, its tree, whose nodes imply those above them; or the name of a
    # Shopify attribute, its values. Cells hold a node's path, name, GID or number.
    taxonomy: str | None = None
    tags: list[str] | None = None  # a fixed list of tags, in this order; default: the tags found

    def __post_init__(self):
        # As cells are: a spelling with a curly quote is met with a straight one.
        self.aliases = {_cleaned(spelling): _cleaned(tag) for spelling, tag in self.aliases.items()}
        if self.tags is not None:
            self.tags = list(map(_cleaned, self.tags))
            if len(set(self.tags)) < len(self.tags):
                raise ConfigError(f"tags lists {max(self.tags, key=self.tags.count)!r} twice.")
        if self.delimiter is None and self.format in ("delimited", "path"):
            self.delimiter = "," if self.format == "delimited" else ">"
        if self.delimiter is not None and (not self.delimiter or self.format in ("column", "list")):
            raise ConfigError(f"delimiter {self.delimiter!r} needs format: delimited or path.")
        if self.paths is not None and (not self.paths or self.format != "path"):
            raise ConfigError(f"paths {self.paths!r} needs format: path.")
        if self.taxonomy is not None and self.format == "path":
            raise ConfigError("a taxonomy reads paths by itself: leave format: path out.")
        if self.level is not None and self.format != "path" and self.taxonomy != CATEGORIES:
            raise ConfigError("level needs format: path, or taxonomy: categories.")
        if self.is_tree and self.kind == "single":
            raise ConfigError("a path without level gives a product several tags: write kind: multi, or level: -1.")
        if self.absent == "unknown" and self.kind == "single":
            raise ConfigError("absent: unknown is for lists: write kind: multi. An empty cell is when_missing.")
        if self.min_count < 1:
            raise ConfigError(f"min_count must be at least 1, got {self.min_count}.")

    @property
    def syntax(self) -> CellSyntax:
        """How the cell is a list: of tags, or of paths, whose nodes stand as `node_syntax` has it."""
        if self.format == "list":
            return CellSyntax(json=True)
        return CellSyntax(self.paths if self.format == "path" else self.delimiter, self.escape, self.quote, self.glue)

    @property
    def node_syntax(self) -> CellSyntax:
        return CellSyntax(self.delimiter, self.escape, glue=f" {self.delimiter} " if self.delimiter == ">" else None)

    @property
    def is_tree(self) -> bool:
        """Every node of a path is a tag: tags have parents."""
        return self.level is None and (self.format == "path" or self.taxonomy == CATEGORIES)


class TagReader:
    """Reads the cells of one attribute."""

    def __init__(self, name: str, spec: AttributeSpec):
        self.name, self.spec = name, spec
        self._none = {_fold(value) for value in spec.none_values}
        self._unknown = {_fold(value) for value in spec.unknown_values}
        self._aliases = {self._key(spelling): tag for spelling, tag in spec.aliases.items()}
        if spec.fold_case:
            spelt = [*spec.aliases.values(), *(spec.tags or [])]
            self._aliases = {tag.casefold(): tag for tag in spelt} | self._aliases
        self._cache: dict[str, list[str] | None] = {}

    def read(self, value: Any) -> list[str] | None:
        """The tags, [] (none applies) or None (unknown) of a cell.

        Raises RowError ("several_values", "wrong_type") for a cell that this attribute cannot have.
        """
        if type(value) is not str or len(value) > _LONGEST_CACHED:
            return self._read(value)
        if value not in self._cache and len(self._cache) < _CACHED_CELLS:
            self._cache[value] = self._read(value)
        tags = self._cache[value] if value in self._cache else self._read(value)
        return None if tags is None else list(tags)

    def _read(self, value: Any) -> list[str] | None:
        cells = self._split(value)
        if cells == []:
            return []
        tags, said_none, said_unknown = {}, False, False
        for cell in cells or ():
            if isinstance(cell, dict | list | tuple | bytes):
                raise self._refusal("wrong_type", f"wants plain values, got {type(cell).__name__} inside a list: write "
                                                  "the values themselves")
            tag = self._tag(cell)
            if tag is not None:
                tags[tag] = None
                continue
            folded = _fold(cell_text(cell))
            said_none |= folded in self._none
            said_unknown |= folded in self._unknown
        if not tags:
            return [] if said_none or (not said_unknown and self.spec.when_missing == "none") else None
        if self.spec.kind == "single" and len(tags) > 1 and self.spec.merge_spellings:
            tags = one_spelling_each(tags)
        if self.spec.kind == "single" and len(tags) > 1:
            raise self._refusal("several_values", f"is single, but the row says {', '.join(tags)} (declare it kind: "
                                                  "multi, or add aliases)")
        return list(tags)

    def paths(self, value: Any) -> list[list[str]]:
        """The paths of a cell, root first, spelt as `read` spells their nodes."""
        paths = ([self._tag(cell) for cell in path] for path in self._paths(value))
        return [kept for path in paths if (kept := [tag for tag in path if tag is not None])]

    def _tag(self, cell: Any) -> str | None:
        tag = clean_tag(cell_text(cell))
        if tag is None or tag.casefold() in self._none or tag.casefold() in self._unknown:
            return None
        return self._aliases.get(self._key(tag)) or (tag.lower() if self.spec.fold_case else tag)

    def _split(self, value: Any) -> list | None:
        """The cell's items; None where the cell is empty, [] where it states an empty list."""
        if is_missing(value):
            return None
        if self.spec.format == "path":
            paths = self._paths(value)
            level = self.spec.level
            if level is not None:
                paths = [[path[level]] for path in paths if -len(path) <= level < len(path)]
            return [node for path in paths for node in path] or ([] if value == [] else None)
        return self._items(value) or ([] if isinstance(value, list | tuple) or json_list(value) == [] else None)

    def _paths(self, value: Any) -> list[list[str]]:
        items = [item for item in self._items(value) if not is_missing(item)]
        if any(isinstance(item, dict | list | tuple | bytes) for item in items):
            raise self._refusal("wrong_type", "wants paths, got lists inside a list: write each path as text")
        return [path for item in items if (path := split(str(item), self.spec.node_syntax))]

    def _items(self, value: Any) -> list:
        if isinstance(value, dict | bytes):
            raise self._refusal("wrong_type", f"wants text, got {type(value).__name__}: write the value itself")
        if isinstance(value, str):
            listed = json_list(value)
            if listed is not None:
                return listed
            if self.spec.format == "path" and self.spec.paths is None:
                return self._same_root(value)
            try:
                return split(value, self.spec.syntax)
            except CellError as error:
                raise self._refusal("wrong_type", f"{error} (tags in one string: format: delimited)") from error
        return list(value) if isinstance(value, list | tuple) else [] if is_missing(value) else [value]

    def _same_root(self, cell: str) -> list[str]:
        """Of a cell whose paths nobody said how to tell apart: "A > B, A > C" is two, for both begin with A."""
        root, delimiter, _ = cell.partition(self.spec.delimiter)
        root = re.escape(root.strip())
        return re.split(rf"[,;|]\s*(?={root}\s*(?:{re.escape(self.spec.delimiter)}|[,;|]|\Z))",
                        cell) if delimiter and root else [cell]

    def _refusal(self, reason: str, detail: str) -> RowError:
        return RowError(self.spec.column or self.name, reason, f"{self.name} {detail}")

    def _key(self, tag: str) -> str:
        return tag.casefold() if self.spec.fold_case else tag


def is_missing(value: Any) -> bool:
    """An empty cell: None, blank text, or NaN."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def cell_text(value: Any) -> str:
    """A cell as text: whole floats without ".0", because columns of integers with gaps are often stored as floats."""
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _cleaned(tag: str) -> str:
    name = clean_tag(tag)
    if name is None:
        raise ConfigError(f"{tag!r} is not a tag.")
    return name


def _fold(tag: str) -> str:
    return (clean_tag(tag) or "").casefold()
