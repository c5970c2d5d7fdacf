"""Standard taxonomies: Shopify's `categories.txt` and `attributes.json` of any locale, Google's with or without ids.

    # Shopify Product Taxonomy - Categories: 2026-05             # Google_Product_Taxonomy_Version: 2021-09-21
    gid://shopify/TaxonomyCategory/zz-1 : Garden > Chairs        17 - Garden > Chairs
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from hf_tagger.catalog.formats.text_files import open_lines
from hf_tagger.catalog.quarantine import RowError
from hf_tagger.catalog.spellings import strict_key
from hf_tagger.catalog.strict import ConfigError, did_you_mean
from hf_tagger.model.text import clean_tag

CATEGORIES = "categories"  # what an attribute names to have the tree of categories; else a list of attributes.json
_VERSION = re.compile(r"# ?(?:Shopify Product Taxonomy - Categories|Google_Product_Taxonomy_Version): *(\S+)")
_SHOPIFY = re.compile(r"(gid://shopify/TaxonomyCategory/\S+)\s+:\s+(\S.*)")
_GOOGLE = re.compile(r"(\d+) +- +(\S.*)")


@dataclass(slots=True)
class Node:
    """A category, or a value of an attribute."""

    id: str | None  # GID (Shopify) or number (Google)
    names: tuple[str, ...]  # from the root to the node itself
    tag: str = ""  # the last of its names, with as many of those before as tell it from other nodes

    @property
    def path(self) -> str:
        return " > ".join(self.names)


class Taxonomy:
    """The nodes of a tree, or of a list.

    Args:
        name: "Shopify" or "Google". of: what the nodes are, `CATEGORIES` or the name of an attribute. version: as the
            file says it.
    """

    def __init__(self, name: str, of: str, version: str | None, nodes: Sequence[Node]):
        self.name, self.of, self.version = name, of, version
        # Two siblings may bear one name in a translation, and are told apart by their ids.
        nodes = list({(node.names, node.id): node for node in nodes}.values())
        self.nodes, self._of_names = list(nodes), {node.names: node for node in nodes}
        for node in nodes:
            for length in range(1, len(node.names)):
                if node.names[:length] not in self._of_names:  # a file may leave out an ancestor
                    above = self._of_names[node.names[:length]] = Node(None, node.names[:length])
                    self.nodes.append(above)
        self._of_leaf: dict[str, list[Node]] = defaultdict(list)
        for node in self.nodes:
            self._of_leaf[strict_key(node.names[-1])].append(node)
        for group in self._of_leaf.values():
            _name(group)
        self._of_id = {key: node for node in self.nodes if node.id for key in (node.id, node.id.rpartition("/")[2])}
        self._of_tag = {strict_key(node.tag): node for node in self.nodes}

    def find(self, cell: str) -> Node:
        """The node that a cell names: by its path or the end of it (names without regard to case), GID or number.

        Raises RowError ("not_in_taxonomy", "ambiguous").
        """
        node = self._of_tag.get(strict_key(cell)) or self._of_id.get(cell.strip())
        if node is not None:
            return node
        names = [strict_key(name) for name in cell.split(">")]
        found = [node for node in self._of_leaf.get(names[-1], ())
                 if list(map(strict_key, node.names[-len(names):])) == names]
        whole = [node for node in found if len(node.names) == len(names)] or found
        if len(whole) == 1:
            return whole[0]
        if whole:
            raise RowError(None, "ambiguous", f"{cell!r} may be {'; '.join(node.path for node in whole[:3])}"
                                              f"{' …' * (len(whole) > 3)}: write the path, or its id")
        raise RowError(None, "not_in_taxonomy", f"{cell!r} is not in {self.title}")

    def line(self, node: Node) -> list[str]:
        """The tags from the root to the node."""
        return [*(self._of_names[node.names[:length]].tag for length in range(1, len(node.names))), node.tag]

    @property
    def title(self) -> str:
        return " ".join(filter(None, (self.name, self.of, self.version)))

    def describe(self, tags: Iterable[str]) -> dict[str, Any]:
        """What a model's config keeps of these tags, as plain data; `node_of` reads it."""
        nodes = {tag: self._of_tag[strict_key(tag)] for tag in tags}
        return {"name": self.name, "of": self.of, "version": self.version,
                "ids": {tag: node.id for tag, node in nodes.items() if node.id},
                "paths": {tag: node.path for tag, node in nodes.items() if node.path != tag}}

    def parents(self, tags: Iterable[str]) -> dict[str, str]:
        """{tag: the tag above it}"""
        lines = {tag: self.line(self._of_tag[strict_key(tag)]) for tag in tags}
        return {tag: line[-2] for tag, line in lines.items() if len(line) > 1}


def node_of(attribute: dict, tag: str) -> tuple[str | None, str] | None:
    """(GID or number, full path) of a tag by an entry of the model's config; None where it is no node of a taxonomy."""
    kept = attribute.get("taxonomy")
    if kept is None or tag not in attribute["tags"]:
        return None
    return kept["ids"].get(tag), kept["paths"].get(tag, tag)


def node_texts(attribute: dict) -> dict[str, dict[str, str]]:
    """How a cell may say each tag that is a node, by an entry of the model's config: {"id": {tag: GID or number},
    "short_id": {tag: its end}, "path": {tag: names from the root}, "name": {tag: itself}}."""
    ids, paths = attribute["taxonomy"]["ids"], attribute["taxonomy"]["paths"]
    names = {tag: tag for tag in attribute["tags"]}
    return {"id": ids, "short_id": {tag: id.rpartition("/")[2] for tag, id in ids.items()},
            "path": names | paths, "name": names}


def node_spellings(attribute: dict) -> dict[str, str]:
    """{what a cell may say: the tag}, of ids, of paths and of the ends of paths that only one of them has."""
    texts = node_texts(attribute)
    ends: dict[str, set[str]] = defaultdict(set)
    for tag, path in texts["path"].items():
        names = path.split(" > ")
        for length in range(1, len(names)):
            ends[" > ".join(names[-length:])].add(tag)
    found = {end: tags.pop() for end, tags in ends.items() if len(tags) == 1}
    return found | {text: tag for form in ("path", "short_id", "id") for tag, text in texts[form].items()}


def read_taxonomy(files: Sequence[str], of: str) -> Taxonomy:
    """The nodes that an attribute names by `of` (`CATEGORIES`, or the name, handle or GID of a Shopify attribute).

    Raises ConfigError, naming file and line, for a file that is none of these, and for what is in none of them.
    """
    return _read(tuple(files), of)


@lru_cache(maxsize=64)
def _read(files: tuple[str, ...], of: str) -> Taxonomy:
    if not files:
        raise ConfigError(f"taxonomy: {of}: name its file in catalog.taxonomy")
    known = []
    for file in files:
        found = _file(file)
        if isinstance(found, Taxonomy):
            known.append(CATEGORIES)
            if of == CATEGORIES:
                return found
            continue
        for attribute in found["attributes"]:
            known.append(attribute["name"])
            if of in (attribute["id"], attribute["handle"]) or strict_key(of) == strict_key(attribute["name"]):
                nodes = [Node(value["id"], (clean_tag(value["name"]),)) for value in attribute["values"]]
                return Taxonomy("Shopify", attribute["name"], found.get("version"), nodes)
    shown = did_you_mean(of, known) if len(known) < 20 or _near(of, known) else f" It has {len(known)} attributes."
    raise ConfigError(f'taxonomy: there is no "{of}" in {", ".join(files)}.{shown}')


def _near(of: str, known: list[str]) -> bool:
    return "Did you mean" in did_you_mean(of, known)


@lru_cache(maxsize=4)
def _file(file: str) -> Taxonomy | dict:
    """The tree of a text file, or the content of attributes.json."""
    try:
        with open_lines(file, "utf-8-sig") as found:
            lines = list(found)
    except OSError as error:
        raise ConfigError(f"taxonomy: {file} cannot be read: {error}") from error
    if next(filter(None, map(str.strip, lines)), "").startswith("{"):
        return _attributes(file, "".join(lines))
    version = next((match[1] for line in lines if (match := _VERSION.match(line))), None)
    content = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip() and line[0] != "#"]
    shopify = any(line.startswith("gid://shopify/TaxonomyCategory/") for _, line in content)
    numbered = any(_GOOGLE.match(line) for _, line in content[:1])
    if not content or not (shopify or numbered or version):
        raise ConfigError(f"taxonomy: {file} is neither Shopify's categories.txt or attributes.json, nor Google's "
                          "taxonomy (which begins with # Google_Product_Taxonomy_Version)")
    nodes = []
    for number, line in content:
        match = (_SHOPIFY if shopify else _GOOGLE).fullmatch(line)
        if (shopify or numbered) and match is None:
            wanted = "gid://… : A > B" if shopify else "17 - A > B"
            raise ConfigError(f"taxonomy: {file}, line {number}: wanted {wanted!r}, got {line[:100]!r}")
        names = tuple(clean_tag(name) for name in (match[2] if match else line).split(" > "))
        if None in names:
            raise ConfigError(f"taxonomy: {file}, line {number}: an empty name in {line[:100]!r}")
        nodes.append(Node(match[1] if match else None, names))
    return Taxonomy("Shopify" if shopify else "Google", CATEGORIES, version, nodes)


def _attributes(file: str, text: str) -> dict:
    try:
        content = json.loads(text)
        for attribute in content["attributes"]:
            attribute["id"], attribute["handle"] = str(attribute["id"]), str(attribute["handle"])
            for value in attribute["values"]:
                if not str(value["id"]) or clean_tag(value["name"]) is None:
                    raise ValueError(f"{attribute['name']}: a value without id or name")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ConfigError(f"taxonomy: {file} is not Shopify's attributes.json: {type(error).__name__}: {error}"
                          ) from error
    return content


def _name(alike: list[Node]) -> None:
    """Gives nodes with the same last name their tags."""
    length, left = 1, alike
    while left:
        tags = [" > ".join(node.names[-length:]) for node in left]
        counts, longer = Counter(map(strict_key, tags)), []
        whole = Counter(strict_key(tag) for node, tag in zip(left, tags, strict=True) if len(node.names) == length)
        for node, tag in zip(left, tags, strict=True):
            node.tag = tag
            if counts[strict_key(tag)] > 1 and length < len(node.names):
                longer.append(node)
            elif whole[strict_key(tag)] > 1:
                node.tag += f" ({node.id.rpartition('/')[2]})"
        length, left = length + 1, longer
