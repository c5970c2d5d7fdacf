"""Exported taggers beside their model in eager float32 torch: speed at batch 1 and 32, start, and what is lost."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import pipeline

from hf_tagger.catalog.collate import Collator
from hf_tagger.catalog.loader import CatalogLoader, LoaderSettings
from hf_tagger.catalog.stream import Catalog
from hf_tagger.evaluation.parity import both_predictions, parity, side_by_side
from hf_tagger.evaluation.speed import complete_products
from hf_tagger.runtime import TAGGER, OnnxTagger

BATCH_SIZES = (1, 32)


def exported_folders(model: str | Path) -> list[Path]:
    """What recipes/export.py wrote beside a model."""
    return sorted(path.parent for path in Path(model).glob(f"*/{TAGGER}"))


def inference_suite(catalog: Catalog, split: str, loader: LoaderSettings, model: str, exported: Sequence[Path],
                    products: int, rounds: int) -> dict[str, Any]:
    """{"batch 1": {"torch" and each export: rows_per_second, p50_ms, p95_ms, ratios to torch}, "batch 32": ...,
    "parity": ..., "start_seconds": ...}, on the products of the split that have text and photo, JPEGs decoded.

    Raises ValueError where the split has fewer than a batch of them.
    """
    chosen = complete_products(catalog, split, products)
    if len(chosen) < max(BATCH_SIZES):
        raise ValueError(f'the split "{split}" has {len(chosen)} products with both text and photo, fewer than a batch')
    tagger = pipeline("product-tagging", model=model, device="cpu")
    tagger.autocast = lambda: torch.autocast("cpu", enabled=False)
    runtimes = {path.name: OnnxTagger(path, threads=torch.get_num_threads()) for path in exported}
    result: dict[str, Any] = {"split": split, "products": len(chosen), "rounds": rounds,
                              "start_seconds": {path.name: start_seconds(path) for path in exported}}
    for size in BATCH_SIZES:
        times = side_by_side({"torch": tagger, **runtimes}, chosen[: len(chosen) // size * size], rounds, size)
        for found in times.values():
            found["p50_ratio"] = round(times["torch"]["p50_ms"] / found["p50_ms"], 2)
            found["rows_ratio"] = round(found["rows_per_second"] / times["torch"]["rows_per_second"], 2)
        result[f"batch {size}"] = times
    batches = CatalogLoader(catalog, split, Collator(tagger.processor, tagger.model.config.attributes), loader).epoch()
    (reference, *found), noise = both_predictions(tagger, list(runtimes.values()), batches)
    result["parity"] = {name: parity(reference, predictions, noise)
                        for name, predictions in zip(runtimes, found, strict=True)}
    return result


def start_seconds(folder: Path, repeats: int = 3) -> float:
    """Seconds from a new Python process to the first answer of an exported tagger: the best of some, files cached."""
    code = f"from hf_tagger.runtime import OnnxTagger; OnnxTagger({str(folder)!r})('red mug')"
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        taken.append(time.perf_counter() - start)
    return round(min(taken), 2)
