"""Write a small made-up shop export with drawn photos, to try everything on.

    hf_tagger example shopify                   # shopify_example/products_export.csv and photos
    hf_tagger init shopify_example/products_export.csv --output my-shop.yaml
    hf_tagger finetune my-shop.yaml

SYSTEM is shopify, woocommerce or google (a feed as TSV and as XML). Scores on made-up products say nothing about a real
shop.
"""

import argparse
import sys
from pathlib import Path

from hf_tagger import UserError, cli

SYSTEMS = ("shopify", "woocommerce", "google")


@cli.recipe
def main(arguments: list[str]) -> None:
    options = parse(arguments)
    folder = Path(options.output_dir or f"{options.system}_example")
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is there already, and is not written over: name another --output_dir")
    from hf_tagger.catalog.synthetic.exports import write_example

    for path in write_example(options.system, folder, options.products, options.seed):
        print(path)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("system", metavar="SYSTEM", choices=SYSTEMS, help=", ".join(SYSTEMS))
    parser.add_argument("--output_dir", metavar="DIR", help="default: SYSTEM_example, here")
    parser.add_argument("--products", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="another seed, other products")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
