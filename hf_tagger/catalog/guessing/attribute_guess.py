"""A column of tags: how its cells are split, which tags it has, which spellings are one tag."""

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from hf_tagger.catalog.attributes import AttributeSpec, TagReader
from hf_tagger.catalog.guessing.column_stats import ColumnStats, Survey
from hf_tagger.catalog.quarantine import RowError
from hf_tagger.catalog.spellings import Merge, propose_merges

UNKNOWN_WORDS = {"n/a", "na", "unknown", "null", "nan", "-", "--", "?", "tbd", "k.a.", "keine angabe", "unbekannt",
                  "inconnu", "desconocido", "not specified", "unspecified"}
_NONE_WORDS = {"none", "no", "keine", "ohne", "aucun", "ninguno", "nessuno", "geen", "not applicable", "なし"}
_FEW_TAGGED, _MOST_ALIASES, _FEW_PRODUCTS = 3, 200, 60
_TAG_WORDS = 5  # on average

_WORDS = re.compile(r"[^\W\d][^\s,]*(,[^\W\d][^\s,]*)+")  # "cotton,silk": no sentence, no number


@dataclass
class Guess:
    """
    Args:
        role: "id", "text", "photo", "group", "language", "attribute", "taxonomy" (an attribute that needs a file),
            "personal", or "" for what is left out.
        why: what was seen.
        name, spec, tags: of an attribute: its name, the keys of its `AttributeSpec`, and its tags with their rows.
        merges: spellings that are another tag.
        place, locale: of a text among the texts of a product; the locale that its column names.
    """

    column: str
    role: str
    why: str
    coverage: float = 0.0
    warnings: list[str] = field(default_factory=list)
    name: str | None = None
    spec: dict[str, Any] = field(default_factory=dict)
    tags: Counter[str] = field(default_factory=Counter)
    merges: list[Merge] = field(default_factory=list)
    place: int = 0
    locale: str | None = None


def attribute_guess(column: ColumnStats, spec: dict[str, Any], survey: Survey, name: str,
               nodes: Counter[str] | None = None) -> Guess:
    spec = dict(spec)
    folded = {value.casefold(): value for value in [*column.values, *column.pieces.get("list", ())]}
    unknown = [folded[word] for word in sorted(UNKNOWN_WORDS & folded.keys())]
    none = [folded[word] for word in sorted(_NONE_WORDS & folded.keys())]
    if unknown:
        spec["unknown_values"] = unknown
    if none:
        spec["none_values"] = none
    tags = _count_tags(column, spec) if nodes is None else nodes
    most = ", ".join(f"{tag} ({count:,})" for tag, count in tags.most_common(3))
    guess = Guess(column.name, "attribute", f"{len(tags):,} tags: {most}", name=name.strip().lower(), spec=spec,
                  tags=tags)
    if len(tags) < 2:
        guess.role, guess.why = "", f"always {next(iter(tags), '')}" if tags else "no tags"
        return guess
    if survey.looked_at >= _FEW_PRODUCTS and (tags.most_common(1)[0][1] < _FEW_TAGGED + 2 or sum(
            count >= _FEW_TAGGED for count in tags.values()) < 2):
        guess.role, guess.why = "", f"too few products have one of its tags: {most}"
        return guess
    words = sum(tag.count(" ") + 1 for tag in tags)
    if nodes is None and spec.get("format") != "path" and words > _TAG_WORDS * len(tags):
        guess.role, guess.why = "", f"texts, not tags (add it to text to have it read); {shown(column)}"
        return guess
    guess.merges = propose_merges(tags) if nodes is None else []
    if len(guess.merges) > _MOST_ALIASES:
        guess.warnings.append(f"{len(guess.merges):,} spellings are another tag; {_MOST_ALIASES} of them are aliases")
        guess.merges = guess.merges[:_MOST_ALIASES]
    elif guess.merges:
        first = guess.merges[0].tag
        spelt = [first, *(merge.spelling for merge in guess.merges if merge.tag == first)]
        several = len(guess.merges) > 1
        more = f"{len(guess.merges)} spellings are other tags" if several else "one spelling is another tag"
        guess.warnings.append(f"{more} ({', '.join(map(repr, spelt))})")
    if guess.merges:
        spec["aliases"] = {merge.spelling: merge.tag for merge in guess.merges}
    rare = sum(count < _FEW_TAGGED for count in tags.values())
    if rare and len(tags) - rare > 1:
        guess.warnings.append(f"{rare:,} of {len(tags):,} tags stand on fewer than {_FEW_TAGGED} products")
    return guess


def _count_tags(column: ColumnStats, spec: dict[str, Any]) -> Counter[str]:
    reader = TagReader(column.name, AttributeSpec(**spec | {"kind": "multi"} if "level" not in spec else spec))
    counts: Counter[str] = Counter()
    cells = column.pieces["list"] if column.lists > column.filled / 2 else column.values
    for cell, count in cells.items():
        try:
            tags = reader.read([cell] if cells is not column.values else cell)
        except RowError:
            continue
        for tag in tags or ():
            counts[tag] += count
    return counts


def spec_keys(spec: AttributeSpec) -> dict[str, Any]:
    """The keys of a profile's specification that differ from their defaults."""
    default = AttributeSpec()
    keys = {key: value for key, value in vars(spec).items() if value != getattr(default, key) and key != "column"}
    if keys.get("delimiter") == {"delimited": ",", "path": ">"}.get(spec.format, ""):
        del keys["delimiter"]
    return keys


def cell_format(column: ColumnStats) -> dict[str, Any]:
    """The keys of an `AttributeSpec` by which the cells are split."""
    if column.lists > column.filled / 2:
        items = column.pieces.get("list", Counter())
        delimiter = next((by for by in (">>", ">", "»") if sum(by in item for item in items) > len(items) / 2), None)
        if delimiter:
            return {"kind": "multi", "format": "path"} | ({"delimiter": delimiter} if delimiter != ">" else {})
        return {"kind": "multi", "format": "list"}
    for delimiter in (">>", ">", "»", "/", "|"):
        enough = 0.2 if delimiter in (">>", ">", "»") else 0.5
        if column.split_cells[delimiter] > enough * column.filled and _is_hierarchy(column, delimiter):
            several = next((by for by in (",", ";", "|") if by != delimiter and _tells_paths_apart(
                column, by, delimiter)), None)
            return {"kind": "multi", "format": "path"} | ({"delimiter": delimiter} if delimiter != ">" else {}) | (
                {"paths": several} if several else {})
    commas = [value for value in column.values if "," in value]
    if commas and all(map(_WORDS.fullmatch, commas)):
        return {"kind": "multi", "format": "delimited"}
    whole = len(column.values)
    for delimiter in (",", ";", "|", "/"):
        pieces = column.pieces.get(delimiter, Counter())
        plain = sum(1 for value in column.values if delimiter not in value)
        words = sum(piece.count(" ") + 1 for piece in pieces) / max(1, len(pieces))
        known = sum(1 for piece in pieces if pieces[piece] > 1 or piece in column.values)
        if delimiter == "/" and len(pieces) > whole:  # no piece comes back beside another one
            continue
        if column.split_cells[delimiter] > 0.02 * column.filled and words <= 3 and known > 0.5 * len(pieces) and (
                len(pieces.keys() | {value for value in column.values if delimiter not in value}) < 0.8 * whole
                or plain < 0.5 * whole):
            return {"kind": "multi", "format": "delimited"} | ({"delimiter": delimiter} if delimiter != "," else {})
    return {"kind": "single"}


def _is_hierarchy(column: ColumnStats, delimiter: str) -> bool:
    """Whether what stands first is rarely found second, and what stands second mostly below one first."""
    parents: dict[str, set[str]] = defaultdict(set)
    firsts, below = set(), set()
    for value in column.values:
        for path in re.split("[,;]", value) if delimiter != "|" else [value]:
            nodes = [node.strip() for node in path.split(delimiter)]
            firsts.add(nodes[0])
            below.update(nodes[1:])
            if len(nodes) > 1:
                parents[nodes[1]].add(nodes[0])
    if not parents:
        return False
    alone = sum(len(above) == 1 for above in parents.values()) / len(parents)
    if delimiter == "/" and len(below) <= len(firsts):  # "Spring/Summer", "Autumn/Winter": nothing branches
        return False
    return alone > 0.6 and len(firsts & parents.keys()) <= 0.2 * len(firsts)


def _tells_paths_apart(column: ColumnStats, by: str, delimiter: str) -> bool:
    """Whether most of what this character parts is a path, or the first node of one, by itself."""
    firsts = {value.split(by)[0].split(delimiter)[0].strip() for value in column.values}
    parts = [part for value in column.values if by in value for part in value.split(by)[1:]]
    whole = sum(delimiter in part or part.strip() in firsts for part in parts)
    return bool(parts) and whole > 0.6 * len(parts)


def sizes(column: ColumnStats) -> str:
    html = f", HTML in {column.share('html'):.0%}" if column.html else ""
    return f"{column.mean_words:.0f} words on average{html}"


def shown(column: ColumnStats) -> str:
    return f"such as {', '.join(text[:40] for text in column.examples())}"
