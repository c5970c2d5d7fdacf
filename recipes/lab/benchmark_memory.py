"""How much memory reading a catalogue takes, and whether it grows with the rows, as JSON.

    python recipes/lab/benchmark_memory.py recipes/configs/fashion.yaml
    python recipes/lab/benchmark_memory.py recipes/configs/fashion.yaml --memory_rows 10000 1000000

Counts the tags of a made-up catalogue and reads all its batches as the configuration's training would, in a process of
its own for each size. Every key of the YAML file can be overridden as `--key.sub value`.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from transformers import ViTImageProcessor

from hf_tagger import cli
from hf_tagger.catalog.batching.collate import Collator
from hf_tagger.catalog.batching.loader import CatalogLoader
from hf_tagger.catalog.reading.source import SourceConfig
from hf_tagger.catalog.reading.stream import Catalog
from hf_tagger.catalog.schema import CatalogSchema
from hf_tagger.catalog.strict import build
from hf_tagger.catalog.synthetic.products import generate, write_catalog
from hf_tagger.catalog.vocabulary import Vocabulary
from hf_tagger.model.processing_tagger import TaggerProcessor
from hf_tagger.training.arguments import TrainingSettings, load_run
from hf_tagger.training.memory import keep_freed_memory
from hf_tagger.training.unigram_tokenizer import train_unigram_tokenizer
from measuring import conditions, in_fresh_process, resident_mb

PHOTO_SIZE = 24


@cli.recipe
def main(arguments: list[str]) -> None:
    options, overrides = parse(arguments)
    settings = load_run(options.config, overrides)[0].training
    found = {"config": options.config, "overrides": overrides, **conditions()}
    tokenizer = train_unigram_tokenizer(row["title"] for row in generate(rows=5000, picture_size=0))
    measured = {}
    with TemporaryDirectory() as folder:
        for rows in options.memory_rows:
            cli.say(f"making up {rows} rows")
            catalog = write_catalog(Path(folder, "made-up"), rows_per_shard=5000, rows=rows, picture_size=PHOTO_SIZE)
            measured[str(rows)] = in_fresh_process(reading, catalog, settings, tokenizer)
            cli.say(f"reading {rows} rows: {measured[str(rows)]}")
            shutil.rmtree(catalog)
    peaks, ends = ([entry[key] for entry in measured.values()] for key in ("peak_mb", "end_mb"))
    found |= {
        "data": f"hf_tagger.catalog.synthetic: texts in six languages, photos of {PHOTO_SIZE} x {PHOTO_SIZE} pixels",
        "loader": asdict(settings.loader), "rows": measured,
        "peak_difference_mb": round(max(peaks) - min(peaks), 1), "end_difference_mb": round(max(ends) - min(ends), 1),
    }
    print(json.dumps(found, indent=1, ensure_ascii=False))


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = cli.parser(__doc__, "config")
    parser.add_argument("--memory_rows", type=int, nargs="+", default=[10_000, 1_000_000], help="catalogue sizes")
    return parser.parse_known_args(arguments)


def reading(folder: Path, settings: TrainingSettings, tokenizer) -> dict[str, float]:
    """Of a catalogue that `write_catalog` wrote: "rows_read", "peak_mb" and "end_mb" of `resident_mb` (loader workers
    included), "count_seconds", "read_seconds"."""
    if settings.keep_freed_memory:
        keep_freed_memory()
    schema = build(CatalogSchema, yaml.safe_load((folder / "schema.yaml").read_text(encoding="utf-8")))
    catalog = Catalog(SourceConfig(path=f"{folder}/*.parquet"), schema)
    pixels = ViTImageProcessor(size={"height": PHOTO_SIZE, "width": PHOTO_SIZE}, image_mean=[0.5] * 3,
                               image_std=[0.5] * 3)
    resident: list[float] = []

    def watched(items, every: int) -> Iterator[Any]:
        for number, item in enumerate(items):
            if number % every == 0:
                resident.append(resident_mb())
            yield item

    start = time.perf_counter()
    vocabulary = Vocabulary.scan(watched(catalog.records("train"), every=500), schema, catalog.names)
    counted = time.perf_counter()
    collator = Collator(TaggerProcessor(pixels, tokenizer), vocabulary.attributes)
    loader = CatalogLoader(catalog, "train", collator, settings.loader, shuffle=True)
    rows = sum(len(batch["ids"]) for batch in watched(loader.epoch(), every=10))
    return {
        "rows_read": rows, "peak_mb": round(max(resident), 1), "end_mb": round(resident[-1], 1),
        "count_seconds": round(counted - start, 1), "read_seconds": round(time.perf_counter() - counted, 1),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
