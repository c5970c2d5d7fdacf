"""Write a small made-up shop export with drawn photos, to try everything on.

    hf_tagger example shopify                   # shopify_example/products_export.csv and photos
    hf_tagger init shopify_example/products_export.csv --output my-shop.yaml
    hf_tagger finetune my-shop.yaml

SYSTEM is shopify, woocommerce or google (a feed as TSV and as XML). Scores on made-up products say nothing about a real
shop.
"""

import argparse
import csv
import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.sax.saxutils import escape

from hf_tagger import UserError, cli
from hf_tagger.catalog.formats.cells import CellSyntax, join

_DEPARTMENTS = {"Mug": "Home", "Lamp": "Home", "Cushion": "Home", "Vase": "Home", "Chair": "Home", "Handbag": "Bags",
                "Backpack": "Bags", "Umbrella": "Accessories", "Cap": "Accessories"}
_SHOPIFY = """Handle,Title,Body (HTML),Vendor,Product Category,Type,Tags,Published,Option1 Name,Option1 Value,Option1
Linked To,Option2 Name,Option2 Value,Option2 Linked To,Option3 Name,Option3 Value,Option3 Linked To,Variant SKU,Variant
Grams,Variant Inventory Tracker,Variant Inventory Policy,Variant Fulfillment Service,Variant Price,Variant Compare At
Price,Variant Requires Shipping,Variant Taxable,Variant Barcode,Image Src,Image Position,Image Alt Text,Gift Card,SEO
Title,SEO Description,Variant Image,Variant Weight Unit,Variant Tax Code,Cost per item,Status""".replace("\n", " ")
_WOO = """ID,Type,SKU,Name,Published,Is featured?,Visibility in catalog,Short description,Description,Date sale price
starts,Date sale price ends,Tax status,Tax class,In stock?,Stock,Low stock amount,Backorders allowed?,Sold
individually?,Weight (kg),Length (cm),Width (cm),Height (cm),Allow customer reviews?,Purchase note,Sale price,Regular
price,Categories,Tags,Shipping class,Images,Download limit,Download expiry days,Parent,Grouped
products,Upsells,Cross-sells,External URL,Button text,Position,Attribute 1 name,Attribute 1 value(s),Attribute 1
visible,Attribute 1 global""".replace("\n", " ")
_GOOGLE = ["id", "title", "description", "link", "image_link", "availability", "price", "condition", "brand",
           "product_type", "color", "pattern", "item_group_id", "custom_label_0"]


@cli.recipe
def main(arguments: list[str]) -> None:
    options = parse(arguments)
    folder = Path(options.output_dir or f"{options.system}_example")
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is there already, and is not written over: name another --output_dir")
    for path in write_example(options.system, folder, options.products, options.seed):
        print(path)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument("system", metavar="SYSTEM", choices=SYSTEMS, help=", ".join(SYSTEMS))
    parser.add_argument("--output_dir", metavar="DIR", help="default: SYSTEM_example, here")
    parser.add_argument("--products", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="another seed, other products")
    return parser.parse_args(arguments)


def write_example(system: str, folder: str | Path, products: int = 200, seed: int = 0) -> list[Path]:
    """Writes an export of so many products and a folder `photos` beside it; returns the files of the export.

    Args:
        system: one of `SYSTEMS`.
        products: about half of them have several variants; at least 10.
    """
    folder = Path(folder)
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    from hf_tagger.catalog.synthetic.products import generate

    rows = generate(rows=2 * products, languages=("en",), picture_size=128, seed=seed)
    grouped = [list(group) for _, group in itertools.groupby(rows, key=lambda row: row["product"])][:products]
    for row in itertools.chain(*grouped):
        row["photo"] = f"photos/{row['id']}.jpg" if row["image"] else ""
        if row["image"]:
            (folder / row["photo"]).write_bytes(row["image"])
    return SYSTEMS[system](folder, grouped)


def _shopify(folder: Path, products: list[list[dict]]) -> list[Path]:
    path, number = folder / "products_export.csv", itertools.count()
    with _writer(path, _SHOPIFY.split(","), "utf-8") as write:
        for product in products:
            first = _first(product)
            for place, row in enumerate(product):
                line = {"Handle": row["product"].lower(), "Option1 Value": row["colour"] or "",
                        "Variant SKU": row["id"], "Variant Grams": "300", "Variant Inventory Tracker": "shopify",
                        "Variant Inventory Policy": "deny", "Variant Fulfillment Service": "manual",
                        "Variant Barcode": f"{4_000_000_000_000 + next(number)}", "Variant Price": _price(row),
                        "Variant Requires Shipping": "true", "Variant Taxable": "true", "Image Src": row["photo"],
                        "Image Position": place + 1 if row["photo"] else "",
                        "Variant Image": row["photo"], "Variant Weight Unit": "g"}
                if place == 0:
                    line |= {"Title": first["title"], "Body (HTML)": _html(first), "Vendor": "Acme",
                             "Product Category": _path(first), "Type": first["category"] or "",
                             "Tags": join(_tags(first), CellSyntax(",")), "Published": "true", "Option1 Name": "Color",
                             "Gift Card": "false", "SEO Title": first["title"], "Status": "active"}
                write(line)
    return [path]


def _woocommerce(folder: Path, products: list[list[dict]]) -> list[Path]:
    path = folder / "wc-product-export.csv"
    syntax, number = CellSyntax(",", escape="\\"), itertools.count(100)
    with _writer(path, _WOO.split(","), "utf-8-sig") as write:
        for product in products:
            first, colours = _first(product), [row["colour"] for row in product if row["colour"]]
            photos = [row["photo"] for row in product if row["photo"]]
            line = {"ID": next(number), "Type": "variable" if len(product) > 1 else "simple", "SKU": first["product"],
                    "Name": first["title"], "Published": 1, "Is featured?": 0, "Visibility in catalog": "visible",
                    "Description": _html(first).replace("\n", "\\n"), "Tax status": "taxable", "In stock?": 1,
                    "Stock": 7, "Backorders allowed?": 0, "Sold individually?": 0, "Weight (kg)": "0.3",
                    "Allow customer reviews?": 1, "Regular price": _price(first), "Categories": _path(first),
                    "Tags": join(_tags(first), syntax), "Images": ", ".join(photos), "Position": 0,
                    "Attribute 1 name": "Colour", "Attribute 1 value(s)": join(list(dict.fromkeys(colours)), syntax),
                    "Attribute 1 visible": 1, "Attribute 1 global": 1}
            write(line)
            for place, row in enumerate(product if len(product) > 1 else ()):
                write({"ID": next(number), "Type": "variation", "SKU": row["id"], "Published": 1, "Is featured?": 0,
                       "Name": f"{first['title']} - {row['colour']}", "Visibility in catalog": "visible",
                       "Tax status": "taxable", "In stock?": 1, "Regular price": _price(row), "Images": row["photo"],
                       "Parent": row["product"], "Position": place, "Attribute 1 name": "Colour",
                       "Attribute 1 value(s)": row["colour"] or "", "Attribute 1 global": 1})
    return [path]


def _google(folder: Path, products: list[list[dict]]) -> list[Path]:
    table, feed = folder / "feed.tsv", folder / "feed.xml"
    items = []
    for row in itertools.chain(*products):
        items.append({"id": row["id"], "title": row["title"] or "", "description": row["description"] or "",
                      "link": f"https://shop.example/{row['id']}",
                      "image_link": row["photo"],
                      "availability": "in_stock", "price": f"{_price(row)} EUR", "condition": "new",
                      "brand": "Acme", "product_type": _path(row),
                      "color": row["colour"] or "",
                      "pattern": "" if row["pattern"] == "Plain" else row["pattern"] or "",
                      "item_group_id": row["product"], "custom_label_0": next(iter(row["features"] or ()), "")})
    with _writer(table, _GOOGLE, "utf-8", delimiter="\t") as write:
        for item in items:
            write({name: " ".join(str(value).split()) for name, value in item.items()})
    with feed.open("w", encoding="utf-8") as file:
        file.write('<?xml version="1.0" encoding="UTF-8"?>\n<rss version="2.0" xmlns:g="http://base.google.com/ns/1.0">\n'
                   "<channel>\n<title>Made-up shop</title>\n")
        for item in items:
            cells = "".join(f"  <g:{name}>{escape(str(value))}</g:{name}>\n" for name, value in item.items() if value)
            file.write(f"<item>\n{cells}</item>\n")
        file.write("</channel>\n</rss>\n")
    return [table, feed]


SYSTEMS: dict[str, Callable[[Path, list[list[dict]]], list[Path]]] = {
    "shopify": _shopify, "woocommerce": _woocommerce, "google": _google}


@contextmanager
def _writer(path: Path, columns: list[str], encoding: str, delimiter: str = ",") -> Iterator[Callable[[dict], None]]:
    """Writes dicts as lines of a csv file: `with _writer(…) as write: write({column: cell})`."""
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", delimiter=delimiter, lineterminator="\n")
        writer.writeheader()
        yield writer.writerow


def _first(product: list[dict]) -> dict:
    """The first variant, with the texts of the first that has them."""
    texts = next((row for row in product if row["title"]), {"title": "", "description": ""})
    return product[0] | {"title": texts["title"], "description": texts["description"]}


def _html(row: dict) -> str:
    description = (row["description"] or "").replace("\r\n", "\n")
    return description if "<" in description or not description else f"<p>{description}</p>"


def _path(row: dict) -> str:
    category = row["category"]
    return " > ".join([_DEPARTMENTS.get(category, "Clothing"), category]) if category else ""


def _tags(row: dict) -> list[str]:
    return [tag for tag in [row["pattern"], *(row["features"] or ())] if tag]


def _price(row: dict) -> str:
    return f"{len(row['id']) + len(row['title'] or '') / 10:.2f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
