"""Tags a catalogue of any size into parquet shards; a killed run goes on where it stopped, no row lost or twice."""

import csv
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hf_tagger.catalog.editing.policy import FORMULA
from hf_tagger.catalog.quarantine import Refusal
from hf_tagger.catalog.reading.pieces import Piece, plan
from hf_tagger.catalog.reading.stream import Catalog
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.deployment import shards, storage
from hf_tagger.model.urls import without_credentials
from hf_tagger.runtime import model_fingerprint

MANIFEST = "manifest.json"
_REASON = re.compile(r"([^:]+: [a-z_]+): ")
COLUMNS = {"tags": "label", "scores": "score", "attribute": "attribute", "source": "source"}  # of shards: keys of a tag
SCHEMA = pa.schema([
    ("id", pa.string()), ("tags", pa.list_(pa.string())), ("scores", pa.list_(pa.float32())),
    ("attribute", pa.list_(pa.string())), ("source", pa.list_(pa.string())), ("error", pa.string()),
    ("row", pa.int64()), ("photos", pa.int32()),
])


def open_shards(folder: Path, catalog: Catalog, split: str, rows: int, manifest: dict[str, Any], resume: bool,
                main: bool, anew: bool = False) -> list[Piece]:
    """The pieces of the split, of at most so many rows. The main process writes the plan of them, and a manifest of
    what makes the shards, without credentials. With `anew`, shards that something else has made are removed.

    Raises ConfigError where there are shards and `resume` is not wanted, or where they were made by something else.
    """
    if not main:
        return shards.read_plan(folder)
    pieces = plan(catalog, split, rows)
    manifest = {key: without_credentials(value) if isinstance(value, str) else value for key, value in manifest.items()}
    manifest["content"] = shards.describe(pieces)
    path, changed = folder / MANIFEST, []
    if path.exists():
        if not resume and not anew:
            raise ConfigError(f"{folder} holds tags already: add --resume to go on with them, or name another folder")
        earlier = json.loads(path.read_text(encoding="utf-8"))
        changed = [key for key in manifest if manifest[key] != earlier.get(key)]
    if changed and not anew:
        raise ConfigError(f"{folder} was begun with another {changed[0]} ({earlier.get(changed[0])}, now "
                          f"{manifest[changed[0]]}): go on as it was begun, or name another folder")
    if changed:
        shutil.rmtree(folder)  # of another model, or of the file as it was before
    if not path.exists():
        if not storage.is_store(folder):
            folder.mkdir(parents=True, exist_ok=True)
        storage.write(path, json.dumps(manifest, indent=1))
    shards.write_plan(folder, pieces)
    return pieces


def opened_fingerprint(model: str | Path, opened) -> str:
    """Identifies a model by its content, wherever it lies: by weights and calibration, those of an adapter with those
    of its base; a model of the Hub by its commit. `model`: folder or Hub id that `opened`, the model itself, came from.
    """
    folder = Path(model)
    if not folder.is_dir():
        return f"{model}@{getattr(opened.config, '_commit_hash', None) or 'main'}"
    adapter = folder / "adapter_config.json"
    if not adapter.exists():
        return model_fingerprint(folder)
    base = json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"]
    return f"{model_fingerprint(folder)} on {model_fingerprint(base) if Path(base).is_dir() else base}"


def tag_shards(work: Iterable[tuple[Path, Iterable[dict | Refusal]]], tag: Callable[[list[dict]], list],
               attributes: Sequence[dict] = ()) -> Iterator[int]:
    """Tags the records of one shard after the other. A shard carries its name only once it is whole.

    Args:
        work: (path, records as of `Catalog.records`); a refused row becomes a row with an error.
        tag: products, as `pipeline` takes them -> their tags, or {"error": ...} each.

    Yields the number of products of each shard.
    """
    for path, records in work:
        rows = list(product_rows(records))
        write_shard(path, tag_rows(rows, tag), [entry["name"] for entry in attributes])
        shards.mark(path)
        yield len(rows)


def product_rows(records: Iterable[dict | Refusal]) -> Iterator[dict]:
    """{"id", "product", "error", "row"} of every row: lost ones with an error alone, damaged ones with both."""
    notes: list[str] = []  # refusals of a row's parts stand before its record
    for record in records:
        if isinstance(record, Refusal):
            message = f"{record.column or 'row'}: {record.reason}: {record.detail}"
            if record.fatal:
                name = record.id or f"{record.file}:{record.number}"
                yield {"id": name, "product": None, "error": "; ".join([*notes, message]), "row": record.number}
                notes = []
            else:
                notes.append(message)
            continue
        product = {"text": record["text"], "images": record["images"], "language": record["language"]}
        yield {"id": record["id"], "product": product, "error": "; ".join(notes) or None, "row": record["number"]}
        notes = []


def tag_rows(rows: list[dict], tag: Callable[[list[dict]], list]) -> list[dict]:
    """Rows of `product_rows` -> rows of `SCHEMA`, in their order. Texts of like length share a batch; where a photo
    cannot be read, the text alone is tagged, and the row says so."""
    products = [row["product"] for row in rows]
    order = sorted((index for index, product in enumerate(products) if product is not None),
                   key=lambda index: len(products[index]["text"] or ""))
    results = dict(zip(order, tag([products[index] for index in order]), strict=True))
    # "item 12: ", the place in a batch, is left out of a message: nobody sees the batch.
    errors = {index: result["error"].partition(": ")[2] for index, result in results.items() if "error" in result}
    again = [index for index in errors if products[index]["text"] and products[index]["images"]]
    results |= zip(again, tag([{"text": products[index]["text"]} for index in again]), strict=True)
    tagged = []
    for index, row in enumerate(rows):
        tags = results.get(index)
        tags = tags if isinstance(tags, list) else []
        columns = {column: [tag[key] for tag in tags] for column, key in COLUMNS.items()}
        error = "; ".join(filter(None, (row["error"], errors.get(index))))
        photos = 0 if row["product"] is None or index in errors else len(row["product"]["images"])
        tagged.append({"id": row["id"], **columns, "error": error or None, "row": row["row"], "photos": photos})
    return tagged


def write_shard(path: Path, rows: list[dict], attributes: Sequence[str] = ()) -> None:
    """With `attributes`, a column `by_attribute` holds the tags once more, a list of each."""
    schema = SCHEMA
    if attributes:
        of_each = pa.struct([(name, pa.list_(pa.string())) for name in attributes])
        schema = schema.append(pa.field("by_attribute", of_each))
        rows = [row | {"by_attribute": by_attribute(row, attributes)} for row in rows]
    with storage.unfinished(path) as part:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), part, compression="zstd")


def read_shard(path: Path, columns: list[str] | None = None) -> pa.Table:
    with path.open("rb") as file:
        return pq.read_table(file, columns=columns)


def by_attribute(row: dict, attributes: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {name: [] for name in attributes}
    for name, tag in zip(row["attribute"], row["tags"], strict=True):
        if name in found:
            found[name].append(tag)
    return found


def write_plain(folder: Path, format: str, attributes: Sequence[str]) -> Path:
    """All shards as one file: tags.jsonl with {"id", "tags": {attribute: [tag, …]}, "scores": the same, "error"} a
    line, or tags.csv with a column of each attribute, a JSON list where there are several tags."""
    path, encoding = folder / f"tags.{format}", "utf-8-sig" if format == "csv" else "utf-8"
    with storage.unfinished(path) as part, part.open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if format == "csv":
            writer.writerow(["id", *attributes, "error"])
        for shard in sorted(folder.glob("part-*.parquet")):
            for row in read_shard(shard).to_pylist():
                tags = by_attribute(row, attributes)
                if format == "csv":
                    cells = [json.dumps(each, ensure_ascii=False) if len(each) > 1 else "".join(each)
                             for each in tags.values()]
                    # Ids and messages are the shop's own text: a spreadsheet must not compute them.
                    writer.writerow([f"'{cell}" if cell.startswith(FORMULA) else cell
                                     for cell in (row["id"], *cells, row["error"] or "")])
                    continue
                scores = by_attribute(row | {"tags": row["scores"]}, attributes)
                line = {"id": row["id"], "tags": tags, "scores": scores, "error": row["error"]}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return path


class Progress:
    """What all workers have done, those of earlier runs among them, by the shards that are there."""

    def __init__(self, folder: Path, pieces: Sequence[Piece]):
        self.folder, self.left = folder, set(pieces)
        self.rows = self.errors = self.untagged = 0
        self.reasons, self.tags, self.covered = Counter(), Counter(), Counter()

    def look(self) -> int:
        """Rows of the catalogue that have been done since the last look."""
        found = shards.done(self.folder, self.left)
        for piece in found:
            for row in read_shard(shards.shard_path(self.folder, piece), ["attribute", "error"]).to_pylist():
                self.rows += 1
                self.errors += row["error"] is not None
                self.untagged += not row["attribute"]
                self.reasons.update(reasons(row["error"]))
                self.tags.update(row["attribute"])
                self.covered.update(set(row["attribute"]))
        self.left -= set(found)
        return sum(piece.rows for piece in found)

    def summary(self, attributes: Iterable[str]) -> dict[str, Any]:
        """"rows", "errors", "untagged" (rows that could not be tagged at all or have no tag), the rows of each of the
        "reasons", and of each attribute its tags and "abstentions", the rows without one."""
        self.look()
        return {"rows": self.rows, "errors": self.errors, "untagged": self.untagged,
                "reasons": dict(self.reasons.most_common()),
                "attributes": {name: {"tags": self.tags[name], "abstentions": self.rows - self.covered[name]}
                               for name in attributes}}

    def __str__(self) -> str:
        return ", ".join(f"{count} {reason}" for reason, count in self.reasons.most_common(3))


def reasons(error: str | None) -> set[str]:
    """"images: url_refused: https://…; …" -> {"images: url_refused"}"""
    if error is None:
        return set()
    found = {match.group(1) for part in error.split("; ") if (match := _REASON.match(part))}
    return found or {"a photo or text could not be read"}
