"""How many products per second a served tagger answers, how fast, and what the server itself costs, as JSON.

    python recipes/lab/load_test.py runs/fashion/onnx_int8 recipes/configs/fashion.yaml

Starts `hf_tagger serve MODEL` on this machine's loopback address, sends it the products of a split that have text and
a photo, one per request (photos in base64), by 1, 8 and 32 clients that each wait for their answer, and stops it. In
turns with that, the same model tags the same products in batches of 32 without a server: "ratio" is rows per second
with the server to those without. Clients and server share the machine. Exits with 1 where 32 clients get less than
--least.
"""

import argparse
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from hf_tagger import cli
from hf_tagger.catalog.settings import open_catalog
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.deployment.engines import open_engine
from hf_tagger.evaluation.load import load_test, photo_bytes, running_server
from hf_tagger.evaluation.machine import describe_machine
from hf_tagger.evaluation.settings import check_model, load_evaluation
from hf_tagger.evaluation.speed import complete_products
from hf_tagger.runtime import TAGGER


@cli.recipe
def main(arguments: list[str]) -> int:
    options, overrides = parse(arguments)
    if not Path(options.model, TAGGER).exists():
        check_model(options.model)
    settings = load_evaluation(options.catalogue, options.model, overrides)
    products = read_products(settings, options.split, options.products)
    engine = open_engine(options.model, options.threads)
    with running_server(options.model, options.threads) as (port, seconds):
        found = load_test(engine, port, products, options.clients, options.rounds)
    print(json.dumps({"model": options.model, "split": options.split, "products": len(products),
                      "rounds": options.rounds, "threads": options.threads, "machine": describe_machine(),
                      "start_seconds": round(seconds, 2), **found}, indent=1))
    return int(found["clients"].get("32", {"ratio": options.least})["ratio"] < options.least)


def read_products(settings, split: str, count: int) -> list[dict]:
    """Products with text and photos, these as bytes."""
    with TemporaryDirectory() as folder:
        catalog = open_catalog(settings.catalog, Path(folder, "catalog"))
        if split not in catalog.splits:
            raise ConfigError(f"there is no split {split!r}; the catalogue has {', '.join(catalog.splits)}")
        products = [product | {"images": [photo_bytes(photo) for photo in product["images"]]}
                    for product in complete_products(catalog, split, count)]
    if len(products) < 64:
        raise ConfigError(f"{split} has {len(products)} products with text and a photo, too few to load a server with")
    return products


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = cli.parser(__doc__, "model", "catalogue")
    parser.add_argument("--split", default="test")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--products", type=int, default=512, help="requests of a round with the most clients")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="that the model computes with")
    parser.add_argument("--least", type=float, default=0.8, help="least ratio of rows per second at 32 clients")
    return parser.parse_known_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
