"""Products per second through `pipeline("product-tagging")`, and rows per second of an evaluation, as JSON.

    python recipes/lab/benchmark_tagging.py runs/fashion recipes/configs/fashion.yaml

"pipeline": products of a split that have text and photo, one by one and in batches of 32. "evaluation": the whole split
scored as `hf_tagger evaluate` scores it, in turns with the pipeline on the same products in batches of the same size;
"ratio" is the median of evaluation / pipeline. Keys of the catalogue's YAML file can be overridden as
`--key.sub value`. Run it on a machine that does nothing else: "load_average" is the load found at the start.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from statistics import median
from tempfile import TemporaryDirectory

from transformers import Pipeline

from hf_tagger import cli
from hf_tagger.evaluation.machine import process_state
from hf_tagger.evaluation.protocols import Evaluator, open_tagger
from hf_tagger.evaluation.settings import Protocol
from measuring import as_product, complete_records, conditions, open_split, readable

BATCH_SIZES = (1, 32)


@cli.recipe
def main(arguments: list[str]) -> None:
    options, overrides = parse(arguments)
    found = {"model": options.model, "split": options.split, "overrides": overrides, **conditions()}
    with TemporaryDirectory() as folder:
        settings, catalog = open_split(options, overrides, folder)
        tagger = open_tagger(options.model, process_state().device)
        urls = {"allow_urls": catalog.schema.allow_urls}
        chosen = [as_product(record) for record in complete_records(catalog, options.split, options.products)]
        found |= {"device": str(tagger.device), "repeats": options.repeats,
                  "pipeline": tagging(tagger, chosen, options.repeats, urls)}
        every = [as_product(record) for record in readable(catalog, options.split)]
        evaluator = Evaluator(tagger, catalog, settings.evaluation, settings.loader, process_state())
        found["evaluation"] = evaluation(evaluator, options.split, every, options.repeats, urls)
    print(json.dumps(found, indent=1, ensure_ascii=False))


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = cli.parser(__doc__, "model", "catalogue")
    parser.add_argument("--split", default="test")
    parser.add_argument("--products", type=int, default=256, help="products that the pipeline tags in one measurement")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each kind, of which the median counts")
    return parser.parse_known_args(arguments)


def tagging(tagger: Pipeline, products: list[dict], repeats: int, options: dict) -> dict:
    speeds = {}
    for size in BATCH_SIZES:
        tagger(products[:2 * size], batch_size=size, **options)
        speeds[str(size)] = median(
            rows_per_second(lambda size=size: tagger(products, batch_size=size, **options)) for _ in range(repeats))
    return {"products": len(products), "rows_per_second": {size: round(speed, 2) for size, speed in speeds.items()}}


def evaluation(evaluator: Evaluator, split: str, products: list[dict], repeats: int, options: dict) -> dict:
    size, tagger = evaluator.settings.batch_size, evaluator.tagger
    tagger(products[:2 * size], batch_size=size, **options)
    evaluated, tagged = [], []
    for _ in range(repeats):
        evaluated.append(rows_per_second(lambda: evaluator.predict(split, Protocol()).ids))
        tagged.append(rows_per_second(lambda: tagger(products, batch_size=size, **options)))
    ratios = [ours / theirs for ours, theirs in zip(evaluated, tagged, strict=True)]
    return {"products": len(products), "batch_size": size, "rows_per_second": round(median(evaluated), 2),
            "pipeline_rows_per_second": round(median(tagged), 2), "ratio": round(median(ratios), 3)}


def rows_per_second(work: Callable[[], list]) -> float:
    start = time.perf_counter()
    return len(work()) / (time.perf_counter() - start)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
