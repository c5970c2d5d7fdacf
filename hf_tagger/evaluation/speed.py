"""What reading a catalogue costs in memory; products per second that a pipeline tags, or an evaluation scores."""

import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import yaml
from accelerate import PartialState
from transformers import ViTImageProcessor, pipeline

from hf_tagger.catalog.collate import Collator
from hf_tagger.catalog.loader import CatalogLoader
from hf_tagger.catalog.quarantine import Refusal
from hf_tagger.catalog.schema import CatalogSchema
from hf_tagger.catalog.settings import LoaderSettings
from hf_tagger.catalog.source import SourceConfig
from hf_tagger.catalog.stream import Catalog
from hf_tagger.catalog.strict import build
from hf_tagger.catalog.vocabulary import Vocabulary
from hf_tagger.evaluation.machine import resident_mb
from hf_tagger.evaluation.protocols import Evaluator
from hf_tagger.evaluation.settings import EvaluationSettings, Protocol
from hf_tagger.model.processing_tagger import TaggerProcessor


def reading_memory(folder: Path, settings: LoaderSettings, tokenizer, photo_size: int) -> dict[str, float]:
    """Counts the tags of all rows of a catalogue that `synthetic.write_catalog` wrote, then reads all of them in
    batches, as training does. Call it in a process of its own.

    Returns "rows_read", "peak_mb" and "end_mb" of `resident_mb` (loader workers included), "count_seconds",
    "read_seconds".
    """
    schema = build(CatalogSchema, yaml.safe_load((folder / "schema.yaml").read_text(encoding="utf-8")))
    catalog = Catalog(SourceConfig(path=f"{folder}/*.parquet"), schema)
    pixels = ViTImageProcessor(size={"height": photo_size, "width": photo_size}, image_mean=[0.5] * 3,
                               image_std=[0.5] * 3)
    resident: list[float] = []

    def watched(items, every: int) -> Iterator[Any]:
        for number, item in enumerate(items):
            if number % every == 0:
                resident.append(resident_mb())
            yield item

    start = time.perf_counter()
    vocabulary = Vocabulary.scan(watched(catalog.records("train"), every=500), schema)
    counted = time.perf_counter()
    collator = Collator(TaggerProcessor(pixels, tokenizer), vocabulary.attributes)
    loader = CatalogLoader(catalog, "train", collator, settings, shuffle=True)
    rows = sum(len(batch["ids"]) for batch in watched(loader.epoch(), every=10))
    return {
        "rows_read": rows,
        "peak_mb": round(max(resident), 1),
        "end_mb": round(resident[-1], 1),
        "count_seconds": round(counted - start, 1),
        "read_seconds": round(time.perf_counter() - counted, 1),
    }


def complete_products(catalog: Catalog, split: str, count: int) -> list[dict[str, Any]]:
    """The first products of a split that have both text and photo, as the pipeline takes them."""
    records = (record for record in catalog.records(split) if not isinstance(record, Refusal))
    whole = (record for record in records if record["text"] and record["images"])
    return [{"text": record["text"], "images": record["images"]} for record in islice(whole, count)]


def tagging_speed(
    catalog: Catalog, split: str, model: str, products: int, repeats: int, batch_sizes: Sequence[int] = (1, 32)
) -> dict[str, Any]:
    """Products per second through `pipeline("product-tagging", model=model)`, the median of `repeats` passes.

    Args:
        products: how many of the split are tagged, of those that have both text and photo.

    Raises ValueError where there is none.
    """
    chosen = complete_products(catalog, split, products)
    if not chosen:
        raise ValueError(f'the split "{split}" has no product with both text and photo')
    tagger = pipeline("product-tagging", model=model)
    speeds = {}
    for batch_size in batch_sizes:
        options = {"batch_size": batch_size, "allow_urls": catalog.schema.allow_urls}
        tagger(chosen[:2 * batch_size], **options)
        speed = median(_speed(tagger, chosen, options) for _ in range(repeats))
        speeds[str(batch_size)] = round(speed, 2)
    return {"model": model, "split": split, "products": len(chosen), "device": str(tagger.device), "repeats": repeats,
            "rows_per_second": speeds}


def evaluation_speed(
    catalog: Catalog, split: str, model: str, settings: EvaluationSettings, loader: LoaderSettings, repeats: int
) -> dict[str, Any]:
    """Rows per second of `Evaluator.predict` on a whole split, which is kept in memory, and of the pipeline on the same
    products in batches of the same size, in turns; "ratio" is the median of evaluation / pipeline."""
    products = [{"text": record["text"], "images": record["images"]} for record in catalog.records(split)
                if not isinstance(record, Refusal)]
    tagger = pipeline("product-tagging", model=model)
    evaluator = Evaluator(tagger, catalog, settings, loader, PartialState())
    options = {"batch_size": settings.batch_size, "allow_urls": catalog.schema.allow_urls}
    tagger(products[:2 * settings.batch_size], **options)
    evaluated, tagged = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        rows = len(evaluator.predict(split, Protocol()).ids)
        evaluated.append(rows / (time.perf_counter() - start))
        tagged.append(_speed(tagger, products, options))
    return {"model": model, "split": split, "products": len(products), "batch_size": settings.batch_size,
            "repeats": repeats, "rows_per_second": round(median(evaluated), 2),
            "pipeline_rows_per_second": round(median(tagged), 2),
            "ratio": round(median(ours / theirs for ours, theirs in zip(evaluated, tagged, strict=True)), 3)}


def _speed(tagger, products: list[dict], options: dict[str, Any]) -> float:
    start = time.perf_counter()
    tagged = tagger(products, **options)
    return len(tagged) / (time.perf_counter() - start)
