"""What tagging a catalogue into shards costs beside the tagger itself, and whether memory grows with the rows."""

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from tqdm import tqdm
from transformers import AutoConfig

from hf_tagger.deployment.bulk import tag_shards
from hf_tagger.evaluation.machine import resident_mb
from hf_tagger.model.configuration_tagger import TaggerConfig
from hf_tagger.model.modeling_tagger import TaggerModel
from hf_tagger.model.processing_tagger import TaggerProcessor

BATCH_SIZES = (16, 32, 64)


def bulk_speed(tagger: Callable, records: Callable[[], Iterable], rounds: int, shard_rows: int = 4096,
               batch_size: int = 32) -> dict[str, Any]:
    """Bulk tagging beside the tagger on products that are in memory, in turns.

    Args:
        tagger: `ProductTaggingPipeline` or `OnnxTagger`.
        records: opens the catalogue's records anew, always the same.

    Returns "rows_per_second" of bulk, "pipeline_rows_per_second" by batch size, and "ratio", the median over the rounds
    of bulk to the best batch size of the same round.
    """
    products = [{"text": record["text"], "images": record["images"]} for record in records()]

    def tag(some):
        return tagger(some, batch_size=batch_size, on_error="skip")

    tagger(products[: 2 * batch_size], batch_size=batch_size)
    bulk: list[float] = []
    plain: dict[int, list[float]] = {size: [] for size in BATCH_SIZES}
    for _ in range(rounds):
        for size, speeds in plain.items():
            speeds.append(_rows_per_second(lambda size=size: len(tagger(products, batch_size=size, on_error="skip"))))
        with TemporaryDirectory() as folder:
            bulk.append(_rows_per_second(lambda: sum(tag_shards(Path(folder), records(), tag, shard_rows))))  # noqa: B023
    ratios = [own / max(speeds[turn] for speeds in plain.values()) for turn, own in enumerate(bulk)]
    return {"rows": len(products), "rows_per_second": round(median(bulk), 1),
            "pipeline_rows_per_second": {str(size): round(median(speeds), 1) for size, speeds in plain.items()},
            "ratio": round(median(ratios), 3), "ratios": [round(ratio, 3) for ratio in ratios]}


def _rows_per_second(work: Callable[[], int]) -> float:
    start = time.perf_counter()
    return work() / (time.perf_counter() - start)


def bulk_memory(tagger: Callable, records: Iterable, folder: Path, settle_rows: int, shard_rows: int = 4096) -> dict:
    """Tags all records into shards in `folder`.

    Returns "rows", "seconds", and resident memory in MiB after each shard: the highest within the first `settle_rows`
    rows ("first_mb"), the highest of all ("peak_mb"), and at the end ("end_mb").
    """
    start, rows = time.perf_counter(), 0
    first, later = [], []

    def tag(some):
        return tagger(some, batch_size=32, on_error="skip")

    with tqdm(unit="row", mininterval=5) as progress:
        for count in tag_shards(folder, records, tag, shard_rows):
            rows += count
            (first if rows <= settle_rows or not first else later).append(resident_mb())
            progress.set_postfix(resident_mb=round((first + later)[-1]), refresh=False)
            progress.update(count)
    return {"rows": rows, "seconds": round(time.perf_counter() - start, 1), "first_mb": round(max(first), 1),
            "peak_mb": round(max(first + later), 1), "end_mb": round((first + later)[-1], 1)}


def repeated_files(file: Path, times: int, folder: Path) -> Path:
    """A catalogue of `times` as many rows as `file` that takes no more disk: links to it, in `folder`."""
    folder.mkdir()
    for number in range(times):
        os.link(file, folder / f"part-{number:05}{file.suffix}")
    return folder


def text_tagger(attributes: list[dict], tokenizer) -> tuple[TaggerModel, TaggerProcessor]:
    """A small untrained tagger of texts, for measuring what is around a model: its answers mean nothing."""
    torch.manual_seed(0)
    text = AutoConfig.for_model("bert", vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1,
                                num_attention_heads=2, intermediate_size=64, pad_token_id=tokenizer.pad_token_id)
    model = TaggerModel(TaggerConfig(attributes=attributes, text_config=text, hidden_size=32, tag_head="linear"))
    return model.eval(), TaggerProcessor(tokenizer=tokenizer, max_length=32)


