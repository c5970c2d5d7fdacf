"""Exported taggers beside their model in eager float32 torch: speed at batch 1 and 32, start, and what is lost.

Every tagger is timed in a process of its own, which is how a shop runs one: threads of torch and of onnxruntime that
have run out of work wait busily for more, and those of several taggers open in one process would slow each other.
"""

import multiprocessing
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import pipeline

from hf_tagger.catalog.collate import Collator
from hf_tagger.catalog.loader import CatalogLoader
from hf_tagger.catalog.settings import LoaderSettings
from hf_tagger.catalog.stream import Catalog
from hf_tagger.evaluation.parity import both_predictions, parity
from hf_tagger.evaluation.speed import complete_products
from hf_tagger.runtime import TAGGER, OnnxTagger

BATCH_SIZES = (1, 32)
# Until all threads of the tagger before have gone to sleep.
PAUSE_SECONDS = 0.5
# What a process of `time_in_turns` has open.
_opened: dict[str, Any] = {}


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
    taggers = {"torch": model, **{path.name: path for path in exported}}
    result: dict[str, Any] = {"split": split, "products": len(chosen), "rounds": rounds,
                              "start_seconds": {path.name: start_seconds(path) for path in exported}}
    for times in (timed := time_in_turns(taggers, chosen, rounds, BATCH_SIZES)).values():
        for found in times.values():
            found["p50_ratio"] = round(times["torch"]["p50_ms"] / found["p50_ms"], 2)
            found["rows_ratio"] = round(found["rows_per_second"] / times["torch"]["rows_per_second"], 2)
    tagger = pipeline("product-tagging", model=model, device="cpu")
    batches = CatalogLoader(catalog, split, Collator(tagger.processor, tagger.model.config.attributes), loader).epoch()
    (reference, *found), noise = both_predictions(tagger, [OnnxTagger(path) for path in exported], batches)
    return result | timed | {"parity": {path.name: parity(reference, predictions, noise)
                                        for path, predictions in zip(exported, found, strict=True)}}


def time_in_turns(taggers: dict[str, str | Path], products: Sequence[dict], rounds: int,
                  batch_sizes: Sequence[int] = BATCH_SIZES, **options) -> dict[str, dict[str, dict[str, float]]]:
    """Times calls of each tagger on the same products, each in its own process, one at work at a time; in turns of a
    round each, so that all of them meet the machine's other work.

    Args:
        taggers: {name: folder of an exported tagger, or a model for the pipeline, which then runs in eager float32 on
            the CPU}.
        products: as the pipeline takes them; those that fill no batch are left out.
        options: of each call.

    Returns {"batch 1": {name: {"rows_per_second", "p50_ms", "p95_ms"}}, ...} of calls with so many products each,
    photos decoded. A size that there are too few products for is missing.
    """
    sizes = [size for size in batch_sizes if len(products) >= size]
    seconds: dict[str, dict[str, list[float]]] = {f"batch {size}": {name: [] for name in taggers} for size in sizes}
    spawn = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        processes = {name: stack.enter_context(ProcessPoolExecutor(
            1, spawn, initializer=_open, initargs=(source, list(products), options, torch.get_num_threads())))
            for name, source in taggers.items()}
        for size in sizes:
            for _ in range(rounds):
                for name, process in processes.items():
                    seconds[f"batch {size}"][name] += process.submit(_round, size).result()
                    time.sleep(PAUSE_SECONDS)
    return {f"batch {size}": {name: _summary(taken, size) for name, taken in seconds[f"batch {size}"].items()}
            for size in sizes}


def _open(source: str | Path, products: list[dict], options: dict[str, Any], threads: int) -> None:
    if Path(source, TAGGER).exists():
        tagger = OnnxTagger(source, threads=threads)
    else:
        torch.set_num_threads(threads)
        tagger = pipeline("product-tagging", model=str(source), device="cpu")
        tagger.autocast = lambda: torch.autocast("cpu", enabled=False)
    _opened.update(tagger=tagger, products=products, options=options)


def _round(size: int) -> list[float]:
    products, seconds = _opened["products"], []
    chunks = [products[start : start + size] for start in range(0, len(products) // size * size, size)]
    # Not timed: the first two calls, by which buffers are there and threads are awake.
    for chunk in [*chunks[:2], *chunks]:
        start = time.perf_counter()
        _opened["tagger"](chunk, batch_size=size, num_workers=0, **_opened["options"])
        seconds.append(time.perf_counter() - start)
    return seconds[len(chunks[:2]) :]


def _summary(seconds: list[float], size: int) -> dict[str, float]:
    return {"rows_per_second": round(size * len(seconds) / sum(seconds), 2),
            "p50_ms": round(1e3 * float(np.percentile(seconds, 50)), 2),
            "p95_ms": round(1e3 * float(np.percentile(seconds, 95)), 2)}


def start_seconds(folder: Path, repeats: int = 3) -> float:
    """Seconds from a new Python process to the first answer of an exported tagger: the best of some, files cached."""
    code = f"from hf_tagger.runtime import OnnxTagger; OnnxTagger({str(folder)!r})('red mug')"
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        taken.append(time.perf_counter() - start)
    return round(min(taken), 2)
