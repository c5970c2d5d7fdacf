"""What the tags of a catalogue's records are called: the nodes of a taxonomy, and one of several spellings."""

from collections import Counter
from collections.abc import Sequence

from hf_tagger.catalog.attributes import AttributeSpec
from hf_tagger.catalog.quarantine import RowError
from hf_tagger.catalog.schema import CatalogSchema, Record
from hf_tagger.catalog.spellings import strict_key
from hf_tagger.catalog.taxonomy import Taxonomy, read_taxonomy

_CACHED = 100_000


class TagNames:
    """All catalogues that are made from one share this object: what is learned of spellings holds for each of them.
    `taxonomy`: the files of `catalog.taxonomy`, which are read when the first tag is."""

    def __init__(self, schema: CatalogSchema, taxonomy: Sequence[str] = ()):
        self.schema, self.files = schema, list(taxonomy)
        self._tag_of: dict[str, dict[str, str]] = {}  # {attribute: {spelling: tag}}
        self._tag_of_key: dict[str, dict[str, str]] = {}
        self._lines: dict[tuple[str, str], list[str]] = {}

    def taxonomy(self, attribute: str) -> Taxonomy | None:
        """Raises ConfigError for a file that cannot be read."""
        spec = self._spec(attribute)
        return None if spec is None or spec.taxonomy is None else read_taxonomy(self.files, spec.taxonomy)

    def learn(self, attributes: Sequence[dict]) -> None:
        """From now on, tags are spelt as those of a vocabulary or of a model's config: by their aliases and, where an
        attribute merges spellings, whatever their case, white space and signs."""
        for entry in attributes:
            name, tags, spec = entry["name"], entry["tags"], self._spec(entry["name"])
            self._tag_of[name] = (entry.get("aliases") or {}) | {tag: tag for tag in tags}
            merges = spec is not None and spec.merge_spellings and spec.taxonomy is None
            keys = list(map(strict_key, tags)) if merges else []
            counts = Counter(keys)
            self._tag_of_key[name] = {key: tag for key, tag in zip(keys, tags, strict=False) if counts[key] == 1}

    def known(self, attribute: str) -> set[str]:
        """The tags that were learned."""
        return set(self._tag_of.get(attribute, {}).values())

    def apply(self, record: Record) -> list[RowError]:
        """Renames the tags of a record, in place. An attribute of which a cell is in no taxonomy is unknown, and the
        refusal of the cell is returned."""
        notes, tags = [], record["tags"]
        for name, given in tags.items():
            if given:
                try:
                    tags[name] = self.named(name, given)
                except RowError as error:
                    tags[name] = None
                    notes.append(error)
        if "free_form" in record:
            record["free_form"] |= {name: tags[name] for name in record["free_form"] if name in tags}
        return notes

    def named(self, attribute: str, tags: Sequence[str]) -> list[str] | None:
        """The tags that cells name, each once; None where the level that is wanted of a path is not there.

        Raises RowError ("not_in_taxonomy", "ambiguous").
        """
        spec = self._spec(attribute)
        if spec is not None and spec.taxonomy is not None:
            try:
                return list(dict.fromkeys(node for tag in tags for node in self._line(attribute, spec, tag))) or None
            except RowError as error:
                raise RowError(spec.column or attribute, error.reason, f"{attribute}: {error.detail}") from error
        if attribute not in self._tag_of:
            return list(tags)
        tag_of, of_key = self._tag_of[attribute], self._tag_of_key[attribute]
        return list(dict.fromkeys(tag_of.get(tag) or of_key.get(strict_key(tag), tag) for tag in tags))

    def _line(self, attribute: str, spec: AttributeSpec, tag: str) -> list[str]:
        if (attribute, tag) in self._lines:
            return self._lines[attribute, tag]
        taxonomy = self.taxonomy(attribute)
        line = taxonomy.line(taxonomy.find(tag))
        if not spec.is_tree:
            level = -1 if spec.level is None else spec.level
            line = line[level:][:1] if -len(line) <= level < len(line) else []
        if len(self._lines) < _CACHED:
            self._lines[attribute, tag] = line
        return line

    def _spec(self, attribute: str) -> AttributeSpec | None:
        return self.schema.attributes.get(attribute) or (self.schema.pairs and self.schema.pairs.discover)
