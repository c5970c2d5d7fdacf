"""Exported taggers beside their model in eager float32 torch: speed, start, and what is lost, as JSON.

    python recipes/lab/benchmark_inference.py runs/fashion recipes/configs/fashion.yaml
    python recipes/lab/benchmark_inference.py MODEL CATALOGUE --exported runs/fashion/onnx_int8

Times what recipes/export.py wrote beside MODEL, or `--exported`, on products of a split that have text and photo, JPEGs
decoded, at batch 1 and 32, each tagger in a process of its own and in turns; compares logits, decisions and macro-F1 on
the whole split. Keys of the catalogue's YAML file can be overridden as `--key.sub value`. Run it on a machine that does
nothing else: "load_average" is the load found at the start.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from hf_tagger import cli
from hf_tagger.catalog.batching.collate import Collator
from hf_tagger.catalog.batching.loader import CatalogLoader
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.evaluation.inference import BATCH_SIZES, time_in_turns
from hf_tagger.evaluation.parity import both_predictions, parity
from hf_tagger.evaluation.protocols import open_tagger
from hf_tagger.runtime import TAGGER, OnnxTagger
from measuring import as_product, complete_records, conditions, open_split


@cli.recipe
def main(arguments: list[str]) -> None:
    options, overrides = parse(arguments)
    exported = options.exported or sorted(path.parent for path in Path(options.model).glob(f"*/{TAGGER}"))
    if not exported:
        raise ConfigError(f"nothing is exported beside {options.model}: run recipes/export.py, or give --exported")
    found = {"model": options.model, "split": options.split, "rounds": options.rounds, **conditions()}
    with TemporaryDirectory() as folder:
        settings, catalog = open_split(options, overrides, folder)
        records = complete_records(catalog, options.split, options.products, max(BATCH_SIZES))
        products = [as_product(record) for record in records]
        found |= {"products": len(products), "start_seconds": {path.name: start_seconds(path) for path in exported}}
        for size, times in time_in_turns({"torch": options.model, **{path.name: path for path in exported}}, products,
                                         options.rounds).items():
            for taken in times.values():
                taken["p50_ratio"] = round(times["torch"]["p50_ms"] / taken["p50_ms"], 2)
                taken["rows_ratio"] = round(taken["rows_per_second"] / times["torch"]["rows_per_second"], 2)
            found[size] = times
        tagger = open_tagger(options.model, torch.device("cpu"))
        collator = Collator(tagger.processor, tagger.model.config.attributes)
        batches = CatalogLoader(catalog, options.split, collator, settings.loader).epoch()
        (reference, *others), noise = both_predictions(tagger, [OnnxTagger(path) for path in exported], batches)
    found["parity"] = {path.name: parity(reference, predictions, noise)
                       for path, predictions in zip(exported, others, strict=True)}
    print(json.dumps(found, indent=1, ensure_ascii=False))


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = cli.parser(__doc__, "model", "catalogue")
    parser.add_argument("--exported", nargs="+", type=Path, help="exported folders (default: those in the model's)")
    parser.add_argument("--split", default="test")
    parser.add_argument("--products", type=int, default=256, help="products to tag in one round")
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_known_args(arguments)


def start_seconds(folder: Path, repeats: int = 3) -> float:
    """Seconds from a new Python process to the first answer of an exported tagger: the best of some, files cached."""
    code = f"from hf_tagger.runtime import OnnxTagger; OnnxTagger({str(folder)!r})('red mug')"
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        taken.append(time.perf_counter() - start)
    return round(min(taken), 2)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
