"""The tags of a catalogue, counted in one pass over its training rows."""

import hashlib
import json
import os
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from hf_tagger.catalog.attributes import AttributeSpec
from hf_tagger.catalog.completeness import MOST_ROWS, Repeats
from hf_tagger.catalog.duplicates import content_digest, count_repeats
from hf_tagger.catalog.quarantine import Refusal
from hf_tagger.catalog.schema import CatalogSchema, Record
from hf_tagger.catalog.spellings import Merge, lookalikes, one_spelling_each, propose_merges
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.catalog.tag_names import TagNames

# Of lists of tags: products whose tag is common, lists that are kept, and the share of empty ones that is an oversight.
COMMON, MOST_LISTS, EMPTY = 5, 1000, 0.01
FEW = 3  # tags of fewer training products are named when a catalogue is counted


@dataclass
class Vocabulary:
    """Tags and counts of the training rows, as plain data that `save` writes as JSON."""

    # As in the model's config: [{"name", "kind", "tags", "counts" (products per tag), "none_count" (products to which
    # no tag applies), "unknown_count", "parents" ({tag: parent}, of paths and taxonomies), and where there are any
    # "aliases" ({other spelling: tag}) and "taxonomy" (`taxonomy.node_of`)}]. Tags by falling count, then by name; a
    # fixed list in its own order.
    attributes: list[dict] = field(default_factory=list)
    below_min_count: dict[str, dict[str, int]] = field(default_factory=dict)  # {attribute: {tag left out: count}}
    not_listed: dict[str, dict[str, int]] = field(default_factory=dict)  # the same, not in the schema's fixed list
    merged: dict[str, dict[str, int]] = field(default_factory=dict)  # {attribute: {spelling of another tag: count}}
    # Counts of rows: "total" (refused ones included), "refused", "text_only", "image_only", "text_and_image",
    # "duplicates" (of these: same text and photos as an earlier row).
    rows: dict[str, int] = field(default_factory=dict)
    rows_per_language: dict[str, int] = field(default_factory=dict)  # "": of unknown language
    fingerprint: str = ""  # of the ids, texts, numbers of photos and tags of all rows, in any order
    repeated_ids: int = 0  # rows with the id of an earlier one
    # Of `multi` attributes, how far the lists of products with the same words agree (`completeness.Repeats.found`).
    agreement: dict[str, dict[str, int]] = field(default_factory=dict)
    # Of `multi` attributes but trees, the lists that products have: {attribute: {"never_empty", "common": [[tag, ...],
    # ...]}}, see `_Counts.lists_of`.
    lists: dict[str, dict] = field(default_factory=dict)

    @classmethod
    def scan(cls, records: Iterable[Record | Refusal], schema: CatalogSchema,
             names: TagNames | None = None) -> "Vocabulary":
        """Counts the records of `Catalog.records`. Memory: the different tags, 16 bytes per row, and the lists of the
        first `completeness.MOST_ROWS` products. With the catalogue's `names`, the spellings of one tag are merged
        (`spellings.propose_merges`), and records read later have the merged ones.

        Raises ConfigError for a declared attribute without any tag on `min_count` products.
        """
        counts = _Counts(schema, names)
        for item in records:
            counts.add(item)
        found = counts.vocabulary()
        if names is not None:
            names.learn(found.attributes)
        return found

    def save(self, path: str | Path) -> None:
        """Writes the file whole, or not at all."""
        waiting = Path(f"{path}.incomplete")
        waiting.write_text(json.dumps(asdict(self), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        os.replace(waiting, path)

    @classmethod
    def load(cls, path: str | Path) -> "Vocabulary":
        kept, known = json.loads(Path(path).read_text(encoding="utf-8")), {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in kept.items() if name in known})

    def changes(self, before: "Vocabulary") -> str | None:
        """What has changed in a catalogue since it was counted as `before`; None if nothing has."""
        was, now = ({entry["name"]: set(entry["tags"]) for entry in found.attributes} for found in (before, self))
        found = [f"{name}: {verb} {', '.join(sorted(tags)[:3])}{', …' * (len(tags) > 3)}" for name in was | now
                 for verb, tags in (("new", now.get(name, set()) - was.get(name, set())),
                                    ("gone", was.get(name, set()) - now.get(name, set()))) if tags]
        if before.rows["total"] != self.rows["total"]:
            found.insert(0, f"{before.rows['total']} rows are now {self.rows['total']}")
        elif before.fingerprint != self.fingerprint and not found:
            found.append("ids, texts, photos or tags of some rows differ")
        return "; ".join(found) or None

    def summary(self) -> str:
        """A line per attribute for a person: how many tags, how many rows, what was left out."""
        rows = self.rows
        lines = [
            f"{rows['total']} rows: {rows['text_and_image']} with text and photo, {rows['text_only']} text only,"
            f" {rows['image_only']} photo only, {rows['refused']} refused, {rows['duplicates']} exact duplicates"
        ]
        if self.repeated_ids:
            lines[0] += f"; {self.repeated_ids} rows repeat the id of an earlier one"
        for attribute in self.attributes:
            name, tags = attribute["name"], attribute["tags"]
            line = f"{name} ({attribute['kind']}): {len(tags)} tags"
            if tags:
                line += f", {attribute['counts'][0]} × {tags[0]} … {attribute['counts'][-1]} × {tags[-1]}"
                rare = [tag for tag, count in zip(tags, attribute["counts"], strict=True) if count < FEW]
                if rare:
                    shown = ", ".join(rare[-5:]) + ", …" * (len(rare) > 5)
                    line += f"; {len(rare)} on fewer than {FEW} products: {shown}"
            line += f"; none {attribute['none_count']}, unknown {attribute['unknown_count']}"
            for left_out, why in ((self.below_min_count, "below min_count"), (self.not_listed, "not in the list")):
                if left_out.get(name):
                    line += f"; left out: {len(left_out[name])} {why}"
            if merged := self.merged.get(name):
                line += "; merged spellings (merge_spellings): " + ", ".join(
                    f"{spelling} ({count}) → {attribute['aliases'][spelling]}" for spelling, count in merged.items())
            lines.append(line)
        return "\n".join(lines)


class _Counts:
    """Running totals of a scan."""

    def __init__(self, schema: CatalogSchema, names: TagNames | None):
        self.schema, self.names = schema, names
        self.together: dict[str, set[frozenset[str]]] = defaultdict(set)  # {attribute: tags that a product has both}
        # Declared attributes first, in the schema's order, even without any tag.
        self.tags: dict[str, Counter] = {name: Counter() for name in schema.attributes}
        self.none: Counter[str] = Counter()
        self.given: Counter[str] = Counter()
        self.parents: dict[str, dict[str, str | None]] = defaultdict(dict)
        self.rows = dict.fromkeys(["total", "refused", "text_only", "image_only", "text_and_image", "duplicates"], 0)
        self.rows_per_language: Counter[str] = Counter()
        self.contents, self.ids = array("Q"), array("Q")
        self.row_digests = 0
        self.aliases: dict[str, dict[str, str]] = {}
        self.repeats = Repeats()
        self.lists: dict[str, Counter[frozenset[str]]] = defaultdict(Counter)

    def add(self, item: Record | Refusal) -> None:
        if isinstance(item, Refusal):
            self.rows["total"] += item.fatal
            self.rows["refused"] += item.fatal
            return
        self.rows["total"] += 1
        self.rows[_modalities(item)] += 1
        self.rows_per_language[item["language"] or ""] += 1
        self.contents.append(content_digest(item))
        self.ids.append(_digest(item["id"]))
        # A sum, because it does not depend on the order of the rows.
        self.row_digests += _digest([item["id"], item["text"], len(item["images"]), item["tags"]])
        if not item["images"]:  # photos may show why products with the same words have different tags
            self.repeats.add(item["text"], {name: tags for name, tags in item["tags"].items()
                                            if tags and self.schema.attribute(name).kind == "multi"})
        for name, tags in item["tags"].items():
            if tags is None:
                continue
            if self.rows["total"] <= MOST_ROWS and (spec := self.schema.attribute(name)).kind == "multi":
                if not spec.is_tree:
                    self.lists[name][frozenset(tags)] += 1
            if tags:
                self.given[name] += 1
                self.tags.setdefault(name, Counter()).update(self._spelt_once(name, tags))
                if len(tags) > 1 and self.schema.attribute(name).is_tree:
                    paths = item.get("paths", {}).get(name, ())
                    # Corrected tags are one path: the record's own paths are no longer theirs.
                    for path in paths if set().union(*paths) == set(tags) else [tags]:
                        self._add_path(name, path)
            else:
                self.none[name] += 1

    def _add_path(self, name: str, path: list[str]) -> None:
        parents = self.parents[name]
        for parent, child in zip(path, path[1:], strict=False):
            # A tag below several others ("Accessories" in two departments) has no parent.
            parents[child] = parent if parents.get(child, parent) == parent else None

    def vocabulary(self) -> Vocabulary:
        found = Vocabulary(
            rows=self.rows | {"duplicates": count_repeats(self.contents)}, repeated_ids=count_repeats(self.ids),
            rows_per_language=dict(self.rows_per_language.most_common()),
            fingerprint=f"{self.rows['total'] - self.rows['refused']}:{self.row_digests % 2**64:016x}",
            agreement=self.repeats.found,
        )
        for name, counts in self.tags.items():
            spec = self.schema.attribute(name)
            if self._merges(spec):
                known = [*(spec.tags or []), *spec.aliases.values(), *self.names.known(name)]
                if merges := propose_merges(counts, known, self.together[name]):
                    self._merge(found, name, merges)
        discovered = sorted(self.tags.keys() - self.schema.attributes, key=lambda name: (-self.given[name], name))
        for name in [*self.schema.attributes, *discovered]:
            self._add_attribute(found, name, self.tags[name])
        return found

    def lists_of(self, attribute: dict) -> dict:
        """{"never_empty": whether at most `EMPTY` of the lists are, "common": the `MOST_LISTS` most frequent lists of
        the tags on `COMMON` products and more; empty for products with none of these}."""
        aliases, common = attribute.get("aliases", {}), Counter()
        counted = {tag for tag, count in zip(attribute["tags"], attribute["counts"], strict=True) if count >= COMMON}
        for tags, count in self.lists[attribute["name"]].items():
            common[tuple(sorted({aliases.get(tag, tag) for tag in tags} & counted))] += count
        ranked = sorted(common, key=lambda tags: (-common[tags], tags))
        empty = self.lists[attribute["name"]][frozenset()]
        return {"never_empty": empty <= EMPTY * common.total(), "common": [list(each) for each in ranked[:MOST_LISTS]]}

    def _spelt_once(self, name: str, tags: list[str]) -> list[str]:
        """The tags of a product, of which those that are the same for certain count once."""
        if len(tags) > 1 and self._merges(self.schema.attribute(name)):
            tags = one_spelling_each(tags)
            self.together[name].update(lookalikes(tags))
        return tags

    def _merges(self, spec: AttributeSpec) -> bool:
        return self.names is not None and spec.merge_spellings and spec.taxonomy is None

    def _merge(self, found: Vocabulary, name: str, merges: list[Merge]) -> None:
        tag_of = {merge.spelling: merge.tag for merge in merges}
        found.merged[name] = {merge.spelling: merge.count for merge in merges}
        self.aliases[name], counts = tag_of, self.tags[name]
        for spelling, tag in tag_of.items():
            if spelling in counts:
                counts[tag] += counts.pop(spelling)
        parents, self.parents[name] = self.parents[name], {}
        for child, parent in parents.items():
            child, parent = tag_of.get(child, child), tag_of.get(parent, parent)
            if self.parents[name].get(child, parent) != parent:
                parent = None
            self.parents[name][child] = parent

    def _add_attribute(self, found: Vocabulary, name: str, totals: Counter) -> None:
        spec = self.schema.attribute(name)
        ranked = sorted(totals.items(), key=lambda item: (-item[1], item[0]))
        if spec.tags is not None:
            kept = {tag: totals[tag] for tag in spec.tags}
            found.not_listed[name] = {tag: count for tag, count in ranked if tag not in kept}
        else:
            kept = {tag: count for tag, count in ranked if count >= spec.min_count}
            found.below_min_count[name] = {tag: count for tag, count in ranked if tag not in kept}
        if not kept:
            if name not in self.schema.attributes:
                return
            seen = "no row has any in the training split"
            if ranked:
                seen = f"its commonest, {ranked[0][0]!r}, has {ranked[0][1]}"
            remedy = "lower min_count" if ranked else "name the column that has them, or leave the attribute out"
            raise ConfigError(f"attributes.{name}: no tag is on min_count={spec.min_count} products ({seen}): "
                              f"{remedy}.")
        unknown = self.rows["total"] - self.rows["refused"] - self.given[name] - self.none[name]
        attribute = {"name": name, "kind": spec.kind, "tags": list(kept), "counts": list(kept.values()),
                     "none_count": self.none[name], "unknown_count": unknown}
        if aliases := spec.aliases | self.aliases.get(name, {}):
            attribute["aliases"] = aliases
        if spec.taxonomy is not None and self.names is not None:
            taxonomy = self.names.taxonomy(name)
            attribute["taxonomy"] = taxonomy.describe(kept)
            if spec.is_tree:
                parents = taxonomy.parents(kept)
                attribute["parents"] = {tag: parents[tag] for tag in kept if parents.get(tag) in kept}
        elif spec.is_tree:
            parents = self.parents[name]
            attribute["parents"] = {tag: parents[tag] for tag in kept if parents.get(tag) in kept}
        found.attributes.append(attribute)
        if name in self.lists:
            found.lists[name] = self.lists_of(attribute)


def _modalities(record: Record) -> str:
    if record["text"] and record["images"]:
        return "text_and_image"
    return "text_only" if record["text"] else "image_only"


def _digest(content) -> int:
    data = json.dumps(content, sort_keys=True).encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")
