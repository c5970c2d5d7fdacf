"""What the benchmarks share: products to measure on, processes to measure in, and how much memory these hold."""

import multiprocessing
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path

import psutil

from hf_tagger.catalog.quarantine import Refusal
from hf_tagger.catalog.reading.stream import Catalog
from hf_tagger.catalog.settings import open_catalog
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.evaluation.machine import describe_machine, package_versions
from hf_tagger.evaluation.settings import EvaluateSettings, load_evaluation

HF_TAGGER = (sys.executable, "-m", "hf_tagger.cli")
# What takes seconds to import.
HEAVY = ["hf_tagger.evaluation.inference", "hf_tagger.training.phases", "hf_tagger.training.starting_model"]


def conditions() -> dict:
    """The "machine", with its load before anything is measured, and "versions"."""
    return {"machine": describe_machine(), "versions": {"python": platform.python_version(), **package_versions()}}


def open_split(options, overrides: list[str], folder: str) -> tuple[EvaluateSettings, Catalog]:
    """The settings and the catalogue that `options.model` and `options.catalogue` name; a made-up one is written into
    `folder`. Raises ConfigError where it has no split `options.split`."""
    settings = load_evaluation(options.catalogue, options.model, overrides)
    catalog = open_catalog(settings.catalog, Path(folder))
    if options.split not in catalog.splits:
        raise ConfigError(f"there is no split {options.split!r}; the catalogue has {', '.join(catalog.splits)}")
    return settings, catalog


def readable(catalog: Catalog, split: str) -> Iterator[dict]:
    """The records of a split without refused rows."""
    return (record for record in catalog.records(split) if not isinstance(record, Refusal))


def complete_records(catalog: Catalog, split: str, most: int, least: int = 1) -> list[dict]:
    """The first records of a split that have both text and photo. Raises ConfigError where there are fewer than
    `least`."""
    complete = (record for record in readable(catalog, split) if record["text"] and record["images"])
    records = list(islice(complete, most))
    if len(records) < least:
        raise ConfigError(f'the split "{split}" has {len(records)} products with both text and photo, too few: '
                          f"at least {least} are measured")
    return records


def as_product(record: dict) -> dict:
    """A record as the pipeline takes it."""
    return {"text": record["text"], "images": record["images"]}


def measured(command: list[str], environment: dict[str, str] | None = None) -> dict[str, float]:
    """Runs a program: its "seconds", "cpu_seconds" and "peak_mb" of memory in MiB, with those of its children that it
    waited for. Raises ConfigError where it fails."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise ConfigError(f"{' '.join(command)} failed")
    return {"seconds": round(time.perf_counter() - start, 1), "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
            "peak_mb": round(usage.ru_maxrss / 1024)}


def resident_mb() -> float:
    """MiB of memory resident for this process and its children; pages they share count for each of them."""
    total, process = 0, psutil.Process()
    for each in (process, *process.children(recursive=True)):
        try:
            total += each.memory_info().rss
        except psutil.NoSuchProcess:  # a worker that has just ended
            continue
    return total / 2**20


def in_fresh_process(function, *arguments, **keywords):
    """`function` in a process of its own, forked from one that has only imported: nothing measured finds memory or
    settings that an earlier measurement left. What it prints goes to stderr."""
    own = multiprocessing.get_start_method()
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(HEAVY)
    with ProcessPoolExecutor(1, forks, initializer=_as_if_started_by_hand, initargs=(own,)) as pool:
        return pool.submit(function, *arguments, **keywords).result()


def _as_if_started_by_hand(start_method: str) -> None:
    os.dup2(2, 1)
    # Such a process would also ask the server for its loader's workers, where training forks them.
    multiprocessing.set_start_method(start_method, force=True)
