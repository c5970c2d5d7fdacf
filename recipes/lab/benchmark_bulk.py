"""What recipes/tag_catalog.py costs beside the tagger itself, and what memory it takes, as JSON.

    python recipes/lab/benchmark_bulk.py runs/fashion/onnx_int8 recipes/configs/fashion.yaml --products 1024
    python recipes/lab/benchmark_bulk.py --memory_rows 1000000
    python recipes/lab/benchmark_bulk.py --memory_rows 200000 --actors 1 2
    python recipes/lab/benchmark_bulk.py --export_rows 10000 200000

With a model: products of a split, read from the catalogue, tagged and written to shards, in turns with the same tagger
on the same products in memory, in batches of 16, 32 and 64; "ratio" is the rows per second of the first to the best of
the others. Without one: a small untrained tagger of texts, exported, goes through a made-up catalogue of --memory_rows
rows, with photos that it does not look at; what is resident within the first 10,000 rows is compared with all. With
--actors, so many actors of Ray go through it instead, each number in turn, with one processor each. With --export_rows,
it tags exports of Shopify's of so many rows back into CSV files, each in a process of its own.
"""

import argparse
import csv
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import count, islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch
from tqdm import tqdm
from transformers import AutoConfig

from hf_tagger import cli
from hf_tagger.catalog.reading.pieces import plan
from hf_tagger.catalog.reading.source import SourceConfig
from hf_tagger.catalog.settings import CatalogSettings, open_catalog
from hf_tagger.catalog.vocabulary import Vocabulary
from hf_tagger.deployment.bulk import tag_shards
from hf_tagger.deployment.export import export_tagger
from hf_tagger.deployment.worker import Work
from hf_tagger.evaluation.protocols import open_tagger
from hf_tagger.model.configuration_tagger import TaggerConfig
from hf_tagger.model.modeling_tagger import TaggerModel
from hf_tagger.model.processing_tagger import TaggerProcessor
from hf_tagger.runtime import TAGGER, OnnxTagger
from hf_tagger.training.unigram_tokenizer import train_unigram_tokenizer
from measuring import HF_TAGGER, as_product, conditions, in_fresh_process, measured, open_split, readable, resident_mb
from recipes.example import write_example

FILE_ROWS, SHARD_ROWS, PRODUCTS = 10_000, 4096, 1000
BATCH_SIZE, BATCH_SIZES = 32, (16, 32, 64)


@cli.recipe
def main(arguments: list[str]) -> None:
    options, overrides = parse(arguments)
    found = conditions()
    with TemporaryDirectory() as folder:
        if options.export_rows:
            model = make_up(1, Path(folder)).model
            found["export"] = [tag_export(model, rows, Path(folder, f"{rows}.csv")) for rows in options.export_rows]
        elif options.model is None and options.actors:
            work = make_up(options.memory_rows, Path(folder))
            found["ray"] = [by_actors(work, actors, Path(folder, f"by-{actors}")) for actors in options.actors]
        elif options.model is None:
            work = make_up(options.memory_rows, Path(folder))
            cli.say(f"tagging {options.memory_rows} rows")
            found["memory"] = in_fresh_process(memory_of_run, work, Path(folder, "shards"))
        else:
            _, catalog = open_split(options, overrides, folder)
            if Path(options.model, TAGGER).exists():
                tagger = OnnxTagger(options.model, threads=torch.get_num_threads())
            else:
                tagger = open_tagger(options.model, torch.device("cpu"))

            def records():
                return islice(readable(catalog, options.split), options.products)

            found |= {"model": options.model, "speed": speed(tagger, records, options.rounds)}
    print(json.dumps(found, indent=1))


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = cli.parser(__doc__)
    parser.add_argument("model", nargs="?", help="exported folder, model folder, adapter folder or Hub id")
    parser.add_argument("catalogue", nargs="?", help="YAML file, or the path of a catalogue like the training one")
    parser.add_argument("--split", default="test")
    parser.add_argument("--products", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory_rows", type=int, default=1_000_000)
    parser.add_argument("--export_rows", type=int, nargs="+", default=[], help="rows of exports that are tagged")
    parser.add_argument("--actors", type=int, nargs="+", default=[], help="numbers of Ray's actors")
    options, overrides = parser.parse_known_args(arguments)
    if options.model is not None and options.catalogue is None:
        parser.error("name a catalogue after the model")
    return options, overrides


def in_batches(tagger: Callable, size: int = BATCH_SIZE) -> Callable[[list[dict]], list]:
    return lambda products: tagger(products, batch_size=size, on_error="skip")


def speed(tagger: Callable, records: Callable[[], Iterable[dict]], rounds: int) -> dict:
    """`records` opens the records anew, always the same. The ratio is the median over the rounds of bulk tagging to the
    best batch size of the same round."""
    products = [as_product(record) for record in records()]
    tagger(products[: 2 * BATCH_SIZE], batch_size=BATCH_SIZE)
    bulk: list[float] = []
    plain: dict[int, list[float]] = {size: [] for size in BATCH_SIZES}
    for _ in range(rounds):
        for size, speeds in plain.items():
            speeds.append(rows_per_second(lambda size=size: len(in_batches(tagger, size)(products))))
        with TemporaryDirectory() as folder:
            bulk.append(rows_per_second(
                lambda to=folder: sum(tag_shards(in_shards(Path(to), records()), in_batches(tagger)))))
    ratios = [own / max(speeds[turn] for speeds in plain.values()) for turn, own in enumerate(bulk)]
    return {"rows": len(products), "rows_per_second": round(median(bulk), 1),
            "pipeline_rows_per_second": {str(size): round(median(speeds), 1) for size, speeds in plain.items()},
            "ratio": round(median(ratios), 3), "ratios": [round(ratio, 3) for ratio in ratios]}


def in_shards(folder: Path, records: Iterable[dict]) -> Iterator[tuple[Path, list[dict]]]:
    """The records as `tag_shards` takes them, SHARD_ROWS at a time."""
    records, number = iter(records), 0
    while shard := list(islice(records, SHARD_ROWS)):
        yield folder / f"part-{number:06}.parquet", shard
        number += 1


def rows_per_second(work: Callable[[], int]) -> float:
    start = time.perf_counter()
    return work() / (time.perf_counter() - start)


def make_up(rows: int, folder: Path) -> Work:
    """A catalogue of at least so many rows, and an exported tagger for it."""
    cli.say(f"making up {FILE_ROWS} rows and a tagger")
    made_up = CatalogSettings(synthetic={"rows": FILE_ROWS, "picture_size": 24, "rows_per_shard": FILE_ROWS})
    catalog = open_catalog(made_up, folder / "made-up")
    vocabulary = Vocabulary.scan(catalog.records("train"), catalog.schema, catalog.names)
    texts = (record["text"] for record in readable(catalog, "train") if record["text"])
    model, processor = text_tagger(vocabulary.attributes, train_unigram_tokenizer(texts, 2000))
    export_tagger(model, processor, folder / "onnx", "untrained")
    # As many rows as asked for, on no more disk: links to one file.
    (folder / "links").mkdir()
    file = next((folder / "made-up").glob("train-*.parquet"))
    for number in range(-(-rows // vocabulary.rows["total"])):
        os.link(file, folder / "links" / f"part-{number:05}.parquet")
    source = SourceConfig(path=f"{folder}/links/*.parquet", fractions={})
    return Work(str(folder / "onnx"), CatalogSettings(source=source, schema=catalog.schema), "train")


def by_actors(work: Work, count: int, folder: Path) -> dict:
    """Seconds until the first actor has opened the tagger, and from then on until all rows are tagged."""
    from hf_tagger.deployment.ray_engine import Actors

    cli.say(f"tagging by {count} actors")
    folder.mkdir()
    pieces, start = plan(work.open_catalog(), work.split, SHARD_ROWS), time.perf_counter()
    with Actors(work, count) as actors:
        opened = time.perf_counter()
        rows = sum(actors.tag(folder, pieces))
        seconds = time.perf_counter() - opened
    return {"actors": count, "opening_seconds": round(opened - start, 1), "rows": rows, "seconds": round(seconds, 1),
            "rows_per_second": round(rows / seconds, 1)}


def tag_export(model: str, rows: int, path: Path) -> dict:
    """An export of Shopify's with about two rows each, tagged by `hf_tagger tag` with the options of its variants read
    beside it."""
    (small,) = write_example("shopify", path.with_suffix(""), PRODUCTS)
    with small.open(newline="", encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    with path.open("w", newline="", encoding="utf-8") as file:
        written = csv.writer(file)
        written.writerow(header)
        copies = ([f"{line[0]}-{copy}", *line[1:]] for copy in count() for line in lines)
        written.writerows(islice(copies, rows))
    cli.say(f"tagging {rows} rows")
    column = ["--catalog.schema.attributes.colour.column", "option:Color", "--catalog.schema.attributes.colour.kind",
              "multi"]
    return {"rows": rows, **measured([*HF_TAGGER, "tag", model, str(path), "--output", f"{path}.csv", *column])}


def text_tagger(attributes: list[dict], tokenizer) -> tuple[TaggerModel, TaggerProcessor]:
    """A small untrained tagger of texts: its answers mean nothing."""
    torch.manual_seed(0)
    text = AutoConfig.for_model("bert", vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1,
                                num_attention_heads=2, intermediate_size=64, pad_token_id=tokenizer.pad_token_id)
    model = TaggerModel(TaggerConfig(attributes=attributes, text_config=text, hidden_size=32))
    return model.eval(), TaggerProcessor(tokenizer=tokenizer, max_length=32)


def memory_of_run(work: Work, folder: Path) -> dict:
    """Tags all records into shards, in a process of its own: what making the catalogue and the tagger took is gone.

    Returns "rows", "seconds", and resident memory in MiB after each shard: the highest within the first FILE_ROWS rows
    ("first_mb"), the highest of all ("peak_mb"), and at the end ("end_mb").
    """
    folder.mkdir()
    records = work.open_catalog().records(work.split)
    tag = in_batches(OnnxTagger(work.model, threads=torch.get_num_threads()))
    start, rows = time.perf_counter(), 0
    first, later = [], []
    with tqdm(unit="row", mininterval=5) as progress:
        for count in tag_shards(in_shards(folder, records), tag):
            rows += count
            (first if rows <= FILE_ROWS or not first else later).append(resident_mb())
            progress.update(count)
    return {"rows": rows, "seconds": round(time.perf_counter() - start, 1), "first_mb": round(max(first), 1),
            "peak_mb": round(max(first + later), 1), "end_mb": round((first + later)[-1], 1)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
