"""What `hf_tagger tag` costs beside the tagger itself, and what memory it takes, as JSON.

    python recipes/lab/benchmark_bulk.py runs/fashion/onnx_int8 recipes/configs/fashion.yaml --products 1024
    python recipes/lab/benchmark_bulk.py --memory_rows 1000000

With a model: products of a split, read from the catalogue, tagged and written to shards, in turns with the same tagger
on the same products in memory, in batches of 16, 32 and 64; "ratio" is the rows per second of the first to the best of
the others. Without one: a small untrained tagger of texts, exported, goes through a made-up catalogue of --memory_rows
rows, with photos that it does not look at; what is resident within the first 10,000 rows is compared with all.
"""

import argparse
import json
import sys
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from hf_tagger import cli
from hf_tagger.catalog.quarantine import Refusal
from hf_tagger.catalog.settings import CatalogSettings, open_catalog
from hf_tagger.catalog.source import SourceConfig
from hf_tagger.catalog.stream import Catalog
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.catalog.vocabulary import Vocabulary
from hf_tagger.deployment.export import export_tagger
from hf_tagger.evaluation.bulk_speed import bulk_memory, bulk_speed, repeated_files, text_tagger
from hf_tagger.evaluation.machine import describe_machine, in_fresh_process
from hf_tagger.evaluation.protocols import open_tagger
from hf_tagger.evaluation.settings import load_evaluation
from hf_tagger.runtime import TAGGER, OnnxTagger
from hf_tagger.training.unigram_tokenizer import train_unigram_tokenizer

FILE_ROWS = 10_000


@cli.recipe
def main(arguments: list[str]) -> None:
    options, overrides = parse(arguments)
    if options.model is None:
        found = {"memory": memory(options.memory_rows)}
    else:
        found = {"model": options.model, "speed": speed(options, overrides)}
    print(json.dumps({"machine": describe_machine(), **found}, indent=1))


def speed(options: argparse.Namespace, overrides: list[str]) -> dict:
    settings = load_evaluation(options.catalogue, options.model, overrides)
    if Path(options.model, TAGGER).exists():
        tagger = OnnxTagger(options.model, threads=torch.get_num_threads())
    else:
        tagger = open_tagger(options.model, torch.device("cpu"))
    with TemporaryDirectory() as folder:
        catalog = open_catalog(settings.catalog, Path(folder, "catalog"))
        if options.split not in catalog.splits:
            raise ConfigError(f"there is no split {options.split!r}; the catalogue has {', '.join(catalog.splits)}")

        def records():
            readable = (record for record in catalog.records(options.split) if not isinstance(record, Refusal))
            return islice(readable, options.products)

        return bulk_speed(tagger, records, options.rounds)


def memory(rows: int) -> dict:
    with TemporaryDirectory() as folder:
        folder = Path(folder)
        cli.say(f"making up {FILE_ROWS} rows and a tagger")
        made_up = CatalogSettings(synthetic={"rows": FILE_ROWS, "picture_size": 24, "rows_per_shard": FILE_ROWS})
        catalog = open_catalog(made_up, folder / "made-up")
        vocabulary = Vocabulary.scan(catalog.records("train"), catalog.schema)
        texts = (record["text"] for record in catalog.records("train") if record["text"])
        model, processor = text_tagger(vocabulary.attributes, train_unigram_tokenizer(texts, 2000))
        export_tagger(model, processor, folder / "onnx", "untrained")
        file = next((folder / "made-up").glob("train-*.parquet"))
        links = repeated_files(file, -(-rows // vocabulary.rows["total"]), folder / "links")
        cli.say(f"tagging {rows} rows")
        return in_fresh_process(memory_of_run, folder, links, catalog.schema)


def memory_of_run(folder: Path, links: Path, schema) -> dict:
    """In a process of its own: what making the catalogue and the tagger took is gone."""
    shards = folder / "shards"
    shards.mkdir()
    records = Catalog(SourceConfig(path=f"{links}/*.parquet"), schema).records("train")
    tagger = OnnxTagger(folder / "onnx", threads=torch.get_num_threads())
    return bulk_memory(tagger, records, shards, settle_rows=FILE_ROWS)


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = cli.parser(__doc__)
    parser.add_argument("model", nargs="?", help="exported folder, model folder, adapter folder or Hub id")
    parser.add_argument("catalogue", nargs="?", help="YAML file, or the path of a catalogue like the training one")
    parser.add_argument("--split", default="test")
    parser.add_argument("--products", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory_rows", type=int, default=1_000_000)
    options, overrides = parser.parse_known_args(arguments)
    if options.model is not None and options.catalogue is None:
        parser.error("name a catalogue after the model")
    return options, overrides


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
