"""Where the tags of each attribute go: as the command says, as the system's profile has it, or where they came from."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from hf_tagger.catalog.attributes import AttributeSpec
from hf_tagger.catalog.editing.policy import Target, values_of
from hf_tagger.catalog.formats.cells import CellSyntax
from hf_tagger.catalog.profiles import Pattern, Profile, Write, pattern_regex
from hf_tagger.catalog.reading.products import pair_columns
from hf_tagger.catalog.strict import ConfigError, did_you_mean
from hf_tagger.catalog.taxonomy import node_spellings, node_texts
from hf_tagger.model.decisions import fold

_DELIMITERS = (",", ";", "|")


def find_targets(attributes: Sequence[dict], header: Sequence[str], specs: Mapping[str, AttributeSpec],
                 profile: Profile | None = None, asked: Mapping[str, Write] | None = None,
                 lists: Callable[[str], bool] = lambda column: False,
                 only: Sequence[str] | None = None,
                 sample: Callable[[str], Iterable[str]] = lambda column: ()) -> tuple[list[Target], list[str]]:
    """One target for each attribute that can be written, and a line for a person about each that cannot.

    Args:
        attributes: of the model's config.
        header: the file's columns.
        specs: how the schema reads the attributes from the file, where it does.
        profile: of the system that wrote the file.
        asked: {attribute, or "*" for every other one: where it goes}, before all else.
        lists: whether a column holds lists of the file's own; what a text would part by commas is then one.
        only: attributes that are written (None: all).
        sample: cells of a column.

    Raises ConfigError for an attribute that the model does not have, or a column that is not there.
    """
    asked, names = dict(asked or {}), [entry["name"] for entry in attributes]
    for name in (*asked, *(only or ())):
        if name != "*" and name not in names:
            where = "catalog.write." if name in asked else "--attributes "
            raise ConfigError(f"{where}{name}: the model has no such attribute.{did_you_mean(name, names)}")
    columns = {} if profile is None else _columns(profile, header)
    targets, notes = [], []
    # Cells that hold one value.
    taken = {specs[name].column for name in names if name in specs} & set(columns.values())
    for entry in attributes:
        if only is not None and entry["name"] not in only:
            continue
        places = [asked[name] for name in (entry["name"], "*") if name in asked]
        own = _place_of_its_own(entry, specs.get(entry["name"]), header)
        if not places and profile is not None:
            places = [write for name, write in profile.write.items() if name.casefold() == entry["name"].casefold()
                      and write.column in columns]
            if not places and own.column in header:  # nodes, and what the system itself has a column for
                places = [own] if "taxonomy" in entry else _place_by_profile(own, profile, columns)
            places += [_free(profile.write["*"], taken, columns)] if "*" in profile.write else []
        # A cell of paths takes no bare names: the attribute's next place does.
        made = (_target(entry, write, header, specs, profile, columns, sample) for write in places or [own])
        found = next(filter(None, made), None)
        if found and lists(found.column) and found.syntax.delimiter == ",":
            found = replace(found, syntax=CellSyntax(json=True))
        if found is not None and found.how == "cell":
            taken.add(found.column)
        if found is None:
            notes.append(f"{entry['name']}: not written, for {places[0].column} holds paths and its tags have none "
                         f"(--catalog.write.{entry['name']}.column names another column)")
        else:
            targets.append(found)
    return targets, notes


def _place_by_profile(own: Write, profile: Profile, columns: Mapping[str, str]) -> list[Write]:
    """The attribute's own place where the system takes tags there: into one of its attributes, or a metafield."""
    name = next((name for name in profile.attributes if columns.get(name) == own.column), None)
    patterns = (pattern.column for pattern in profile.patterns.values())
    if name is None and not any(pattern and pattern_regex(pattern).fullmatch(own.column) for pattern in patterns):
        return []
    return [replace(own, column=name or own.column)]


def _free(write: Write, taken: set[str], columns: Mapping[str, str]) -> Write:
    """Of cells that are numbered (Google's custom_label_0 to 4) the first that no attribute has yet."""
    base = write.column.rstrip("0123456789")
    if write.how != "cell" or base == write.column:
        return write
    return next((replace(write, column=name) for name, column in columns.items()
                 if re.fullmatch(re.escape(base) + r"\d+", name) and column not in taken), write)


def _place_of_its_own(entry: dict, spec: AttributeSpec | None, header: Sequence[str]) -> Write:
    if spec is None or spec.column not in header:
        return Write(entry["name"], "column")
    return Write(spec.column, "cell" if spec.kind == "single" and spec.format != "path" else "append")


def _form(write: Write, column: str, syntax: CellSyntax, texts: dict[str, dict[str, str]],
          sample: Callable[[str], Iterable[str]]) -> str:
    """How the nodes of a taxonomy are written into a column: a key of `texts` (`taxonomy.node_texts`)."""
    known = [(form, set(map(fold, texts[form].values()))) for form in ("id", "short_id", "path", "name")]
    found = Counter(form for cell in sample(column) for text in map(fold, values_of(cell, syntax))
                    if (form := "path" if ">" in text else next((form for form, of in known if text in of), None)))
    if write.nodes is not None or found:
        return write.nodes or found.most_common(1)[0][0]
    return "id" if texts["id"] and write.how in ("cell", "column") else "name"


def _target(entry: dict, write: Write, header: Sequence[str], specs: Mapping[str, AttributeSpec],
            profile: Profile | None, columns: Mapping[str, str],
            sample: Callable[[str], Iterable[str]]) -> Target | None:
    name, column = entry["name"], write.column
    spec = None
    if column in columns:
        spec, limit, limit_name = profile.attributes.get(column), profile.limits, column
        column = columns[column]
    elif profile is not None and column not in header and (slot := slot_pattern(column, profile)):
        spec, limit, limit_name = slot.attribute, None, column
    elif column not in header and write.how != "column":
        known = [*header, *columns]
        raise ConfigError(f"catalog.write.{name}: the file has no column {column!r}; how: column adds one."
                          f"{did_you_mean(column, known)}")
    else:
        limit, limit_name = profile and profile.limits, column
    spec = spec or next((other for other in specs.values() if other.column == column), None)
    own = specs.get(name)
    nodes, parents, tree = None, entry.get("parents") or {}, entry.get("taxonomy") is not None
    if write.how == "pair":
        pattern = next((one for one in profile.patterns.values() if one.pairs) if profile else iter(()), None)
        syntax = pattern.attribute.syntax if pattern else CellSyntax("|", glue="|")
    elif spec is not None and spec.format == "path":
        if not parents and not tree:
            return None
        syntax, nodes = spec.syntax, None if tree else spec.node_syntax
    elif spec is not None and (spec.format != "column" or entry["kind"] == "single" or spec.taxonomy):
        syntax = spec.syntax
    elif write.how in ("append", "column") or entry["kind"] == "multi":
        syntax = CellSyntax(next((by for by in _DELIMITERS if not any(by in tag for tag in entry["tags"])), "|"))
    else:
        syntax = CellSyntax()
    if write.how in ("cell", "column") and entry["kind"] == "single" and nodes is None and spec is None:
        syntax = CellSyntax()
    aliases = {fold(spelling): tag for spelling, tag in (own.aliases if own else {}).items()}
    codes = {tag: code for code, tag in reversed(own.aliases.items())} if (
        own and profile and not {write.column, "*"}.isdisjoint(profile.codes)) else {}
    form = "name"
    if tree:
        texts = node_texts(entry)
        aliases |= {fold(spelling): tag for spelling, tag in node_spellings(entry).items()}
        form = _form(write, column, syntax, texts, sample)
        codes = codes if form == "name" else texts[form]
    # A list of names has room for each node of a line; a path or an id says all above it.
    implied = nodes is not None or (tree and (form != "name" or (syntax.delimiter is None and not syntax.json)))
    characters = limit.characters.get(limit_name) if limit else None
    made = Target(
        name, column, write.how, syntax, entry["kind"] == "single",
        aliases=aliases, codes=codes, nodes=nodes, parents=parents if implied else {},
        code=_code(name, own) if write.how == "pair" else None,
        tags=limit.tags if limit and limit_name == "tags" else None,
        tag_characters=characters if limit_name == "tags" else None,
        characters=None if limit_name == "tags" else characters)
    vocabulary = frozenset(made.key(made.written(tag)) for tag in entry["tags"])
    return replace(made, vocabulary=vocabulary)


def _columns(profile: Profile, header: Sequence[str]) -> dict[str, str]:
    """{name of the profile: its column}, also of those that the file does not have yet; without those whose values are
    buried in other words."""
    generation = profile.generation(header)
    names = {name: column if isinstance(column, str) else column[0] for name, column in generation.names.items()}
    names = {name: column for name, column in names.items() if "{" not in column} | (profile.columns(header) or {})
    return {name: column for name, column in names.items() if name not in generation.parts}


def slot_pattern(column: str, profile: Profile) -> Pattern | None:
    """Of "attribute:Colour": the pattern whose columns of names and values each row fills as it likes."""
    key, colon, _ = column.partition(":")
    pattern = profile.patterns.get(key) if colon else None
    return pattern if pattern is not None and pattern.name and not pattern.items else None


class Slots:
    """The columns in which each row names an attribute of its own and gives its values (WooCommerce's "Attribute 1
    name", "Attribute 1 value(s)"). `targets`: {target's column, as "attribute:Colour": the pairs of columns of its
    pattern}."""

    def __init__(self, targets: Mapping[str, list[tuple[str, str]]]):
        self.targets = targets

    def read(self, value: Callable[[str], str | None]) -> dict[str, str]:
        """{target's column: text} of a row whose cells are `value(column)`."""
        return {column: value(pair[1]) or "" if (pair := self._pair(column, value)) else ""
                for column in self.targets}

    def written(self, values: dict[str, str], value: Callable[[str], str | None]) -> tuple[dict[str, str], list[str]]:
        """`values` with the row's own columns in place of the targets', and those for which the row has no place."""
        found, without = {}, []
        for column, text in values.items():
            if column not in self.targets:
                found[column] = text
                continue
            free = (pair for pair in self.targets[column] if pair[0] not in found and not (value(pair[0]) or "").strip()
                    and not (value(pair[1]) or "").strip())
            pair = self._pair(column, value) or next(free, None)
            if pair is None:
                without.append(column)
            else:
                named = {} if (value(pair[0]) or "").strip() else {pair[0]: column.partition(":")[2].strip()}
                found |= named | {pair[1]: text}
        return found, without

    def _pair(self, column: str, value: Callable[[str], str | None]) -> tuple[str, str] | None:
        name = fold(column.partition(":")[2])
        return next((pair for pair in self.targets[column] if fold(value(pair[0]) or "") == name), None)


def find_slots(targets: Iterable[Target], header: Sequence[str], profile: Profile | None) -> Slots:
    found = {target.column: slot_pattern(target.column, profile) for target in targets
             if profile is not None and target.column not in header}
    return Slots({column: pair_columns(pattern, header) for column, pattern in found.items() if pattern})


def _code(name: str, spec: AttributeSpec | None) -> str:
    """Of a pair: as the attribute was read, else as the system writes codes."""
    prefix, colon, code = (spec.column or "").partition(":") if spec else ("", "", "")
    return code if colon else re.sub(r"\W+", "_", name.strip().lower())
