"""Tags go back into the file that the shop's system wrote, with a file that undoes it and one that says where each tag
comes from."""

import heapq
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import fsspec
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hf_tagger import UserError
from hf_tagger.catalog.editing.files import one_file, open_file
from hf_tagger.catalog.editing.known_tags import KnownTags, known_tags
from hf_tagger.catalog.editing.patches import (
    Digest,
    Patch,
    PatchedFile,
    UndoError,
    Unwritable,
    read_undo,
    undo_patches,
    write_patched,
    write_undo,
)
from hf_tagger.catalog.editing.policy import Change, Policy, Rules, Tag
from hf_tagger.catalog.editing.table import ParquetTable, restore_values
from hf_tagger.catalog.editing.targets import Slots, find_slots, find_targets
from hf_tagger.catalog.profiles import profile, recognise
from hf_tagger.catalog.settings import CatalogSettings
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.catalog.taxonomy import node_of
from hf_tagger.deployment.bulk import read_shard, reasons
from hf_tagger.deployment.storage import unfinished
from hf_tagger.model.text import WORD, stem

_ENCODER = json.JSONEncoder(ensure_ascii=False)
_ADDRESS = re.compile(r"[a-z][a-z0-9+]+:/")  # a path of s3://… has lost its second slash
_SAMPLE_ROWS = 1000
_SHARD_COLUMNS = ["id", "row", "tags", "scores", "attribute", "photos", "error"]


@dataclass
class Written:
    """What a run has changed, or would change."""

    kept: str = ""  # what stays as it was
    rows: int = 0  # of the file
    products: int = 0
    changed_products: int = 0
    changed_cells: int = 0
    abstained: Counter = field(default_factory=Counter)  # {attribute: products of which the model says nothing}
    into: dict[str, str] = field(default_factory=dict)  # {attribute: the column that its tags go into}
    counts: dict[str, Counter] = field(default_factory=dict)  # {attribute: {"added", "dropped", ...: tags}}
    refused: Counter = field(default_factory=Counter)  # {why a tag was not written: tags}
    errors: Counter = field(default_factory=Counter)  # {reason: products}
    examples: dict[str, str] = field(default_factory=dict)  # {reason: the first such error}

    def table(self) -> dict[str, dict[str, int | str]]:
        """{attribute: what became of its tags, and where they go}"""
        return {name: {kind: counts[kind] for kind in ("added", "dropped", "unchanged", "refused")}
                | {"abstained": self.abstained[name], "into": self.into.get(name, "–")}
                for name, counts in self.counts.items()}

    def lines(self, done: str = "changed") -> list[str]:
        """For a person: the sums, and what was not done."""
        found = [f"{self.rows:,} rows, {self.products:,} products: {self.changed_cells:,} cells of "
                 f"{self.changed_products:,} products {done}, {self.kept}"]
        found += [f"  {count:,} tags not written: {why}" for why, count in self.refused.most_common()]
        for reason, count in self.errors.most_common():
            found.append(f"  {count:,} products: {reason}, such as {self.examples[reason]}")
        return found

    def add(self, changes: Iterable[Change]) -> None:
        for change in changes:
            self.counts[change.attribute][change.what] += 1
            if change.what == "refused":
                self.refused[change.why] += 1


class WriteBack:
    """Puts the tags of shards into a file's rows.

    Args:
        file: opened, with the new columns added.
        attributes: of the model's config, those that are written.
        text: columns of text, in which the words are looked for that name a tag.
        slots: of targets that are no columns of the file.
        known: what products have in columns that are not written into; it is not written elsewhere again.
    """

    def __init__(self, file: PatchedFile, policy: Policy, attributes: Sequence[dict], text: Sequence[str],
                 slots: Slots, known: KnownTags | None = None):
        self.file, self.policy, self.attributes, self.text, self.slots = file, policy, attributes, text, slots
        self.known = known
        into = {target.attribute: column for column, targets in policy.columns.items() for target in targets}
        self.done = Written(file.kept, into=into, counts={entry["name"]: Counter() for entry in attributes})
        self._thresholds = {(entry["name"], tag): threshold for entry in attributes if entry.get("thresholds")
                            for tag, threshold in zip(entry["tags"], entry["thresholds"], strict=True)}
        self._parents = {entry["name"]: entry.get("parents") or {} for entry in attributes}

    def patches(self, products: Iterator[dict], seen: Callable[[dict, Any, list[Change]], None]) -> Iterator[Patch]:
        """`products`: those of `tagged`, by the number of their row. `seen`: called of each product, with the file's
        row and what became of its tags."""
        yield from self.file.header_patches()
        product = next(products, None)
        for row in self.file.rows():
            self.done.rows += 1
            values, changes = {}, []
            tagged = product is not None and product["row"] == row.number
            if tagged:
                values, changes = self._merge(product, row)
            try:
                patches = self.file.patches(row, values)
            except Unwritable as error:
                changes = [change._replace(what="refused", why=error.reason) if change.what in ("added", "dropped")
                           else change for change in changes]
                patches, values = [], {}
            if tagged:
                self.done.changed_products += bool(values)
                self.done.changed_cells += len(values)
                self.done.add(changes)
                seen(product, row, changes)
                product = next(products, None)
            yield from patches
        if product is not None:
            raise UserError(f"row {product['row']} ({product['id']}) is not in the file any more: it has changed while "
                            "it was tagged. Begin again.")

    def tagged(self, products: Iterable[dict], log: Callable[[dict], None] = lambda line: None) -> Iterator[dict]:
        """Those with a tag; counts all. (Rows that cannot be read may stand before their place.) `log`: called with a
        line about each that could not be read as a whole."""
        names = [entry["name"] for entry in self.attributes]
        for product in products:
            self.done.products += 1
            said = set(product["attribute"])
            self.done.abstained.update(name for name in names if name not in said)
            found = reasons(product["error"])
            self.done.errors.update(found)
            for reason in found:
                self.done.examples.setdefault(reason, f"row {product['row']}: {product['error'][:200]}")
            if any("url_refused" not in reason for reason in found):  # those are told once, in the sums
                log({"row": product["row"], "id": product["id"], "error": product["error"]})
            if said - {None}:
                yield product

    def origins(self, product: dict, row: Any, changes: Iterable[Change]) -> Iterator[dict]:
        """A line about each tag that is added, dropped or refused: where it comes from."""
        text = ""
        for change in changes:
            if change.what == "unchanged":
                continue
            line = {"row": product["row"], "id": product["id"], "attribute": change.attribute, "tag": change.label,
                    "column": change.column, "what": change.what}
            if change.what == "added":
                text = text or " ".join(str(self.file.value(row, column) or "") for column in self.text)
                line |= {"score": round(change.score, 4), **self._node(change),
                         "threshold": self._thresholds.get((change.attribute, change.label)),
                         **self._below_threshold(change, product), "words": naming_words(change.label, text),
                         "photos": product["photos"]}
            elif change.what == "refused":
                line |= {"score": round(change.score, 4), "why": change.why}
            yield line

    def _below_threshold(self, change: Change, product: dict) -> dict[str, str]:
        """Why a tag whose score is below its threshold was given all the same (`decisions.predicted_tags`)."""
        threshold = self._thresholds.get((change.attribute, change.label))
        if threshold is None or np.float32(change.score) >= np.float32(threshold):
            return {}
        parents = self._parents[change.attribute]
        child = any(name == change.attribute and parents.get(tag) == change.label
                    for name, tag in zip(product["attribute"], product["tags"], strict=True))
        return {"why": "a tag below it was given" if child else "decided together with the tags of its list"}

    def _node(self, change: Change) -> dict[str, str]:
        """The id of a tag that is a node of a taxonomy."""
        entry = next(entry for entry in self.attributes if entry["name"] == change.attribute)
        id, _ = node_of(entry, change.label) or (None, "")
        return {} if id is None else {"node": id}

    def _merge(self, product: dict, row: Any) -> tuple[dict[str, str], list[Change]]:
        tags = [Tag(attribute, label, score) for attribute, label, score in zip(
            product["attribute"], product["tags"], product["scores"], strict=True) if attribute is not None]

        def value(column: str) -> str | None:
            return self.file.value(row, column)

        cells = {column: value(column) or "" for column in self.policy.columns if column not in self.slots.targets}
        there = self.known.among(tags, product["row"], cells) if self.known else []
        tags = [tag for tag in tags if tag not in there]
        values, changes = self.policy.merge(product["id"], cells | self.slots.read(value), tags)
        changes += [Change(*tag, "its own columns", "unchanged") for tag in there]
        values, without = self.slots.written(values, value)
        return values, [change._replace(what="refused", why="no column is free for it") if change.column in without
                        and change.what == "added" else change for change in changes]


def shard_rows(folder: Path, tagged: Callable[[Iterable[dict]], Iterator[dict]]) -> Iterator[dict]:
    """The products of all shards that have a tag (`WriteBack.tagged`), by the number of their row, whichever process
    tagged them."""
    spans = []
    for path in folder.glob("part-*.parquet"):
        shard = read_shard(path, ["row", "attribute"])
        rows = shard["row"].filter(pc.greater(pc.list_value_length(shard["attribute"]), 0))
        spans.append((rows[0].as_py(), rows[-1].as_py(), path) if len(rows) else (0, 0, path))
    chains: list[list[tuple[int, int, Path]]] = []  # shards that follow each other are read one at a time
    for span in sorted(spans):
        chain = next((chain for chain in chains if chain[-1][1] <= span[0]), None)
        if chain is None:
            chains.append(chain := [])
        chain.append(span)
    return heapq.merge(*(tagged(_read(path for _, _, path in chain)) for chain in chains), key=lambda row: row["row"])


def _read(paths: Iterable[Path]) -> Iterator[dict]:
    for path in paths:
        with path.open("rb") as file:
            for batch in pq.ParquetFile(file).iter_batches(1024, columns=_SHARD_COLUMNS):
                yield from batch.to_pylist()


def naming_words(label: str, text: str, most: int = 20_000) -> list[str]:
    """The words of a text that are those of the tag's name, in any form; [] where it does not name it."""
    stems = {stem(word) for word in WORD.findall(label)}
    starts = {word[:2] for word in stems}
    found = (word for word in dict.fromkeys(WORD.findall(text[:most])) if word[:2].casefold() in starts)
    return [word for word in found if stem(word) in stems]


def whole_file(settings: CatalogSettings, split: str, output: Path | None, feedback: str | None,
               page: Path | None = None) -> tuple[CatalogSettings, tuple[str, str]]:
    """The settings by which all of one file is the split, and the file with its format.

    Raises ConfigError where there is no such file, or something stands in the way, before what takes seconds to import.
    """
    source = settings.source
    if source is None:
        raise ConfigError("a made-up catalogue has no file to write back into: --output_dir takes its tags")
    files = source.files if split in source.files or not source.path else {split: source.path}
    settings = replace(settings, source=replace(source, path=None, files=files, fractions={}))
    path, format = one_file(settings.source, split)
    if output is not None:
        for there in (output, undo_path(output), provenance_path(output)):
            if there.exists():
                raise ConfigError(f"{there} is there already, and is not written over: name another --output")
    for option, written in (("--output", output), ("--preview", page)):
        if written is not None and _ADDRESS.match(str(written)):
            raise ConfigError(f"{option} writes a file of this machine: copy it to {written.parts[0]}//… afterwards")
        if written is not None and not written.absolute().parent.is_dir():
            raise ConfigError(f"there is no folder {written.parent} for {option}")
    if feedback is not None and "://" not in feedback and not Path(feedback).exists():
        raise ConfigError(f"--feedback: there is no file {feedback}")
    return settings, (path, format)


def prepare(settings: CatalogSettings, source: tuple[str, str], split: str, attributes: Sequence[dict], rules: Rules,
            only: Sequence[str] | None = None, feedback: str | None = None) -> tuple["WriteBack", list[str]]:
    """What writes the model's tags into the file, and lines about what it cannot write.

    Args:
        only: attributes that are written (None: all).

    Raises ConfigError for attributes or columns that are not there.
    """
    schema = settings.schema
    file = open_file(*source, schema.without_tags().columns(), settings.source)
    name = settings.source.profile
    found = recognise(file.header) if name is None else None
    system = found[0] if found else None if name in (None, "none") else profile(name)

    def sample(column: str) -> Iterator[str]:
        for row in islice(file.rows(), _SAMPLE_ROWS) if column in file.header else ():
            yield file.value(row, column) or ""

    targets, notes = find_targets(attributes, file.header, schema.attributes, system, settings.write,
                                  file.holds_lists, only, sample)
    slots = find_slots(targets, file.header, system)
    file.add_columns({target.column: target.syntax.json for target in targets if target.column not in slots.targets})
    for target in targets:
        if file.header.count(target.column) > 1:
            raise ConfigError(f"{source[0]} has several columns {target.column!r}, and {target.attribute} goes into "
                              "one: catalog.write names another")
    policy = Policy(targets, rules, system.formula_escape if system else None, system.empty_value if system else None,
                    _verdicts(feedback, attributes), file.takes)
    text = [column for column in schema.text if column in file.header]
    written = [entry for entry in attributes if only is None or entry["name"] in only]
    known = known_tags(settings.source, schema, split, targets, file.header, system)
    return WriteBack(file, policy, written, text, slots, known), notes


def _verdicts(feedback: str | None, attributes: Sequence[dict]) -> dict[tuple[str, str, str], bool]:
    if feedback is None:
        return {}
    from hf_tagger.feedback.review_state import decided, settle
    from hf_tagger.feedback.store import FeedbackStore

    with FeedbackStore(feedback) as store:
        return settle(decided(store.verdicts(), attributes)).holds


def write(output: Path, work: WriteBack, folder: Path, about: dict[str, Any]) -> Written:
    """Writes the file, its undo file and its provenance. They get their names when all three are whole.

    Args:
        folder: of the shards with the tags.
        about: of the model, for both side files.
    """
    with ExitStack() as stack:
        # The last of them to be entered gets its name first: there is no output without what undoes it.
        output_part = stack.enter_context(unfinished(output))
        origins_part = stack.enter_context(unfinished(provenance_path(output)))
        undo_part = stack.enter_context(unfinished(undo_path(output)))
        lines = stack.enter_context(origins_part.open("w", encoding="utf-8"))
        taxonomies = {entry["name"]: " ".join(filter(None, map(entry["taxonomy"].get, ("name", "of", "version"))))
                      for entry in work.attributes if entry.get("taxonomy")}
        _line(lines, {"provenance": 1} | about | ({"taxonomies": taxonomies} if taxonomies else {}))

        def seen(product: dict, row: Any, changes: list[Change]) -> None:
            for line in work.origins(product, row, changes):
                _line(lines, line)

        original, changed = Digest(None), Digest(stack.enter_context(_open(output_part, output, "wb")))
        tagged = partial(work.tagged, log=partial(_line, lines))
        steps = work.file.write(work.patches(shard_rows(folder, tagged), seen), original, changed)
        about = about | {"file": output.name}
        if isinstance(work.file, ParquetTable):
            about |= {"values": True, "new": list(work.file.new)}
        write_undo(undo_part, steps, original, changed, about)
    return work.done


def undo(path: Path, output: Path | None = None) -> Path:
    """Restores the file that an undo file belongs to and lies beside, in its place or as `output`.

    Raises UndoError if that file is not the one that was written.
    """
    first, last = read_undo(path)
    changed_path = path.parent / Path(first["file"]).name
    if output is not None and output.exists():
        raise UndoError(f"{output} is there already, and is not written over")
    output = output or changed_path
    if not changed_path.exists():
        raise UndoError(f"there is no {changed_path}, which {path} undoes: put them side by side")
    with fsspec.open(str(changed_path), "rb", compression="infer") as read:
        now = Digest(None)
        for data in iter(lambda: read.read(1 << 20), b""):
            now.write(data)
    if now.sha256.hexdigest() != last["changed"]:
        raise UndoError(f"{changed_path} is not as it was written: it has changed since, and undo would spoil that.")
    with ExitStack() as stack:
        part = stack.enter_context(unfinished(output))
        restored = Digest(stack.enter_context(_open(part, output, "wb")))
        if first.get("values"):
            restore_values(path, str(changed_path), first["new"], restored)
            return output
        for _ in write_patched(str(changed_path), undo_patches(path), Digest(None), restored):
            pass
        if restored.sha256.hexdigest() != last["original"]:
            raise UndoError(f"{path} does not give back what was there: it is damaged")
    return output


def undo_path(output: Path) -> Path:
    return Path(f"{output}.undo.jsonl")


def provenance_path(output: Path) -> Path:
    return Path(f"{output}.provenance.jsonl")


def _open(part: Path, output: Path, mode: str):
    """Compressed as the name says that the file gets."""
    return fsspec.open(str(part), mode, compression=fsspec.utils.infer_compression(str(output)))


def _line(file: TextIO, values: dict) -> None:
    file.write(_ENCODER.encode(values) + "\n")
