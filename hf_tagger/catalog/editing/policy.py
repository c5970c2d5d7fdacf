"""Which tags a product's cells get, from the tags predicted for it and those that are there."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import NamedTuple

from hf_tagger.catalog.formats.cells import (
    CellError,
    CellSyntax,
    join,
    join_pairs,
    json_list,
    set_pair,
    split,
    split_pairs,
)
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.model.decisions import fold

FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Target:
    """Where the tags of one attribute go."""

    attribute: str
    column: str  # of the file, or a new one
    # "append" to the list that the cell is; "cell": they are the whole cell; "pair": the value of `code` in a cell of
    # code=value pairs; "column": as "cell", in a column that the run adds where it is not there.
    how: str
    syntax: CellSyntax  # how several tags stand in the cell, or in the pair's value
    single: bool  # the attribute has one tag at most
    # The attribute's tags, `fold`ed: other values of a list are none of the model's business.
    vocabulary: frozenset[str] = frozenset()
    aliases: Mapping[str, str] = field(default_factory=dict)  # {other spelling, `fold`ed: tag}
    codes: Mapping[str, str] = field(default_factory=dict)  # {tag: what stands for it in the cell}
    nodes: CellSyntax | None = None  # how the nodes of a path stand in the cell, where it holds paths
    # {tag: its parent}, where a tag in the cell says its parents as well.
    parents: Mapping[str, str] = field(default_factory=dict)
    code: str | None = None
    # Most tags of the cell, most characters of a tag and of the cell (None: any number).
    tags: int | None = None
    tag_characters: int | None = None
    characters: int | None = None

    def written(self, label: str) -> str:
        """The tag as it stands in the cell, before the cell's own escapes: for a node of a tree its path."""
        if self.nodes is None:
            return self.codes.get(label, label)
        return join(self.line(label)[::-1], self.nodes)

    def line(self, label: str) -> list[str]:
        """The tag and those above it, from the lowest up."""
        line = [label]
        while line[-1] in self.parents and self.parents[line[-1]] not in line:
            line.append(self.parents[line[-1]])
        return line

    def says(self, there: str, key: str) -> bool:
        """Whether a tag in the cell is this one, or below it."""
        if self.nodes is not None:
            return there.startswith(key)
        return key == there or key in self._above.get(there, ())

    @cached_property
    def _above(self) -> dict[str, set[str]]:
        return {fold(tag): set(map(fold, self.line(tag)[1:])) for tag in self.parents}

    def last(self, text: str) -> str:
        """The tag that a text of the cell says, `fold`ed."""
        return self.key(text) if self.nodes is None else self.key(text).split("\0")[-2]

    def key(self, text: str) -> str:
        """The same for all spellings of a tag as it stands in the cell."""
        if self.nodes is not None:
            return "\0".join(map(fold, split(text, self.nodes))) + "\0"
        key = fold(text)
        return fold(self.aliases[key]) if key in self.aliases else key


@dataclass(frozen=True)
class Rules:
    """What `hf_tagger tag` was asked for."""

    # Tags of the model's own vocabulary that it does not predict go; an attribute that it says nothing of stays as it
    # is. Default: tags are added.
    replace: bool = False
    only_empty: bool = False  # only cells that hold nothing get tags
    min_score: float = 0.0  # lowest score of a tag to be written, besides the model's own thresholds
    at_most: int | None = None  # so many tags of a product and attribute are written, the best ones

    def __post_init__(self):
        if self.at_most is not None and self.at_most < 1:
            raise ConfigError(f"at_most is a number of tags from 1, got {self.at_most}")
        if not 0 <= self.min_score <= 1:
            raise ConfigError(f"min_score is a probability between 0 and 1, got {self.min_score}")


class Tag(NamedTuple):
    attribute: str
    label: str
    score: float


class Change(NamedTuple):
    """What becomes of a tag: "added", "dropped", "unchanged", or why it was not written ("refused")."""

    attribute: str
    label: str
    score: float | None
    column: str
    what: str
    why: str = ""


class Policy:
    """
    Args:
        targets: one for each attribute that is written.
        formula_escape: what the system sets before a cell that a spreadsheet would compute; `empty_value`: what it
            writes into a cell that is cleared.
        verdicts: {(product, attribute, tag): whether a person says that the product has it}.
        takes: whether the file's encoding has all characters of a text.
    """

    def __init__(self, targets: Iterable[Target], rules: Rules, formula_escape: str | None = None,
                 empty_value: str | None = None, verdicts: Mapping[tuple[str, str, str], bool] | None = None,
                 takes: Callable[[str], bool] = lambda text: True):
        self.rules, self.formula_escape, self.empty_value = rules, formula_escape, empty_value
        self.takes = takes
        self.verdicts = {(product, name, fold(tag)): holds for (product, name, tag), holds in (verdicts or {}).items()}
        self.columns: dict[str, list[Target]] = {}
        for target in targets:
            self.columns.setdefault(target.column, []).append(target)

    def merge(self, product: str, cells: Mapping[str, str], tags: Sequence[Tag]
              ) -> tuple[dict[str, str], list[Change]]:
        """The cells that change, {column: new text}, and what becomes of each tag; attributes that the model says
        nothing of have no change.

        Args:
            cells: {column: text} of the columns of the targets.
            tags: the predicted ones.
        """
        values: dict[str, str] = {}
        changes: list[Change] = []
        best: dict[str, list[Tag]] = {}
        for tag in sorted(tags, key=lambda tag: -tag.score):
            if tag.score >= self.rules.min_score:
                best.setdefault(tag.attribute, []).append(tag)
        for column, targets in self.columns.items():
            before = cells.get(column) or ""
            after = before
            if not (self.rules.only_empty and self._bare(before).strip()):
                for target in targets:
                    predicted = best.get(target.attribute, [])
                    if predicted:
                        after, became = self._merge(product, target, after, predicted)
                        changes += became
            if after != before:
                values[column] = after
        return values, changes

    def _bare(self, cell: str) -> str:
        """A cell without what only the system means by it."""
        cell = "" if self.empty_value is not None and cell.strip() == self.empty_value else cell
        escape = self.formula_escape
        return cell[len(escape):] if escape and cell.startswith(escape) and cell[len(escape):].startswith(FORMULA) \
            else cell

    def _merge(self, product: str, target: Target, cell: str, predicted: list[Tag]) -> tuple[str, list[Change]]:
        bare = self._bare(cell)
        value = split_pairs(bare).get(target.code, "") if target.how == "pair" else bare
        value = "" if value == self.empty_value else value
        there = values_of(value, target.syntax)
        known = {target.key(text): text for text in reversed(there)}
        changes: list[Change] = []

        def say(what: str, tag: Tag | None = None, why: str = "", label: str = "") -> None:
            changes.append(Change(target.attribute, tag.label if tag else label, tag.score if tag else None,
                                  target.column, what, why))

        wanted: dict[str, Tag] = {}
        above = {node for tag in predicted for node in target.line(tag.label)[1:]}
        for tag in predicted:
            if self.verdicts.get((product, target.attribute, fold(tag.label))) is False:
                say("refused", tag, "a person removed it")
            elif tag.label not in above and len(wanted) < (self.rules.at_most or len(predicted)):
                wanted[target.key(target.written(tag.label))] = tag
        own = {key for key in known if target.how != "append" or key in target.vocabulary}
        dropped = {key for key in own - wanted.keys() if self.rules.replace and wanted and self.verdicts.get(
            (product, target.attribute, target.last(known[key]))) is not True}
        kept = [text for text in there if target.key(text) not in dropped]
        room = 1 if target.syntax.delimiter is None and not target.syntax.json else target.tags
        taken = own - dropped and (target.single or target.how == "cell")
        new: list[Tag] = []
        for key, tag in wanted.items():
            if any(target.says(there, key) for there in known):
                say("unchanged", tag)
            elif taken:
                say("refused", tag, "the cell has another")
            elif room is not None and len(kept) + len(new) >= room:
                say("refused", tag, "the cell has another" if room == 1 else f"more than {room} tags")
            elif why := self._unwritable(target, tag.label):
                say("refused", tag, why)
            else:
                new.append(tag)
        written = partial(_written, kept, value="" if dropped else value, target=target, cell=bare)
        after = written(new)
        while new and (after is None or (target.characters is not None and len(after) > target.characters)):
            why = "the list cannot hold it" if after is None else f"more than {target.characters} characters"
            say("refused", new.pop(), why)
            after = written(new)
        if not new and not (dropped and kept and after is not None):
            return cell, changes
        for tag in new:
            say("added", tag)
        for key in dropped:
            say("dropped", label=known[key])
        return (self.formula_escape or "") + after if after.startswith(FORMULA) else after, changes

    def _unwritable(self, target: Target, label: str) -> str:
        """Why this tag cannot stand in the cell; "" where it can."""
        try:
            text = join([target.written(label)], target.syntax)
            if target.how == "pair":
                join_pairs({target.code: text, "next": "x"})
        except CellError:
            return "the list cannot hold it"
        if target.tag_characters is not None and len(text) > target.tag_characters:
            return f"more than {target.tag_characters} characters"
        return "" if self.takes(text) else "not in the file's encoding"


def values_of(cell: str, syntax: CellSyntax) -> list[str]:
    try:
        return split(cell, syntax) if cell.strip() else []
    except CellError:
        return [cell]  # a list expected, one value found


def _written(kept: list[str], new: list[Tag], value: str, target: Target, cell: str) -> str | None:
    """The cell with the new tags after `value`, as that separates its own; written anew where it cannot be kept, and
    None where the list cannot hold them."""
    texts = [target.written(tag.label) for tag in new]
    try:
        text = _extended(kept, texts, value, target.syntax)
        return set_pair(cell, target.code, text) if target.how == "pair" else text
    except CellError:
        return None


def _extended(kept: list[str], texts: list[str], value: str, syntax: CellSyntax) -> str:
    if json_list(value) is not None:  # it stays a list, whatever others in the column are
        syntax = CellSyntax(json=True)
    if value.strip() and texts and syntax.delimiter and not syntax.json:
        delimiter = re.escape(syntax.delimiter)
        own = re.search(rf"[^\s{delimiter}](\s*{delimiter}\s*)[^\s{delimiter}]", value)
        glue = own[1] if own else join(["a", "b"], syntax)[1:-1]
        text = value.rstrip() + "".join(glue + join([text], syntax) for text in texts)
        if split(text, syntax) == kept + texts:
            return text
    return join(kept + texts, syntax)
