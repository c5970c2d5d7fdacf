"""Small real catalogue files, and short ways to read them."""

import csv
import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from hf_tagger.catalog.quarantine import Refusal
from hf_tagger.catalog.reading.labels import Labels
from hf_tagger.catalog.reading.source import SourceConfig
from hf_tagger.catalog.reading.stream import Catalog
from hf_tagger.catalog.schema import CatalogSchema
from hf_tagger.catalog.strict import build


def photo(colour: str = "red", size: tuple[int, int] = (8, 8)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def products(start: int, stop: int) -> list[dict]:
    colours = ["Black", "Red", "Blue"]
    return [
        {"id": f"{n:05d}", "title": f"Shirt number {n}", "colour": colours[n % 3], "family": f"f{n // 4}"}
        for n in range(start, stop)
    ]


def write_parquet(path: Path, rows: list[dict], **options) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path, **options)
    return path


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_csv(path: Path, rows: list[dict]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def shirts_schema(**changes) -> CatalogSchema:
    """The schema of `products`."""
    return build(CatalogSchema, {"id": "id", "text": "title", "attributes": {"colour": {}}} | changes)


def catalog(source: dict | Path | str, schema: CatalogSchema | None = None, labels: Labels | None = None) -> Catalog:
    source = source if isinstance(source, dict) else {"path": str(source)}
    return Catalog(build(SourceConfig, source), schema or shirts_schema(), labels)


def records(catalog: Catalog, split: str = "train", **options) -> list[dict]:
    """The records of a split; a refusal fails the test."""
    items = list(catalog.records(split, **options))
    assert not [item for item in items if isinstance(item, Refusal)]
    return items


def refusals(catalog: Catalog, split: str = "train", **options) -> list[Refusal]:
    return [item for item in catalog.records(split, **options) if isinstance(item, Refusal)]


def ids(items: list[dict]) -> list[str]:
    return [item["id"] for item in items]
