"""How fast exported taggers are beside their model in eager float32 torch, at batch 1 and 32.

Every tagger is timed in a process of its own, which is how a shop runs one: idle threads of torch and of onnxruntime
keep a core busy while they wait, and in one process those of several taggers would slow each other.
"""

import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import pipeline

from hf_tagger.runtime import TAGGER, OnnxTagger

BATCH_SIZES = (1, 32)
# For the threads of the tagger that was timed before to go idle.
PAUSE_SECONDS = 0.5
# What a process of `time_in_turns` has open.
_opened: dict[str, Any] = {}


def time_in_turns(taggers: dict[str, str | Path], products: Sequence[dict], rounds: int,
                  **options) -> dict[str, dict[str, dict[str, float]]]:
    """Times calls of each tagger on the same products, one tagger at a time, in turns of a round each: so the machine's
    other work slows all of them alike.

    Args:
        taggers: {name: folder of an exported tagger, or a model for the pipeline, which then runs in eager float32 on
            the CPU}.
        products: as the pipeline takes them; those that fill no batch are left out.
        options: of each call.

    Returns {"batch 1": {name: {"rows_per_second", "p50_ms", "p95_ms", "cpu_ms"}}, ...} of calls with so many products
    each, decoding of photos included; the median of CPU time hardly depends on what else the machine does. Batch sizes
    for which there are too few products are left out.
    """
    sizes = [size for size in BATCH_SIZES if len(products) >= size]
    seconds: dict[str, dict[str, list[tuple[float, float]]]] = {
        f"batch {size}": {name: [] for name in taggers} for size in sizes}
    # Where there is a fork server, one process imports torch, and the others come from it.
    served = "forkserver" in multiprocessing.get_all_start_methods()
    forks = multiprocessing.get_context("forkserver" if served else "spawn")
    if served:
        forks.set_forkserver_preload([__name__])
    with ExitStack() as stack:
        processes = {name: stack.enter_context(ProcessPoolExecutor(
            1, forks, initializer=_open, initargs=(source, list(products), options, torch.get_num_threads())))
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


def _round(size: int) -> list[tuple[float, float]]:
    """Seconds and CPU seconds of each call."""
    products, seconds = _opened["products"], []
    chunks = [products[start : start + size] for start in range(0, len(products) // size * size, size)]
    # The first two calls, which allocate buffers and wake threads, are not timed.
    for chunk in [*chunks[:2], *chunks]:
        start, used = time.perf_counter(), time.process_time()
        _opened["tagger"](chunk, batch_size=size, num_workers=0, **_opened["options"])
        seconds.append((time.perf_counter() - start, time.process_time() - used))
    return seconds[len(chunks[:2]) :]


def _summary(taken: list[tuple[float, float]], size: int) -> dict[str, float]:
    seconds, used = zip(*taken, strict=True)
    return {"rows_per_second": round(size * len(seconds) / sum(seconds), 2),
            "p50_ms": round(1e3 * float(np.percentile(seconds, 50)), 2),
            "p95_ms": round(1e3 * float(np.percentile(seconds, 95)), 2),
            "cpu_ms": round(1e3 * float(np.median(used)), 2)}
