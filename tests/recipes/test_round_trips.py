"""The whole way of each system's export: what `hf_tagger init` makes of it reads it, and tags go back into it."""

import csv
import io
import json

import pytest

from recipes import init
from recipes.example import SYSTEMS, write_example
from tests.recipes import shop_exports
from tests.recipes.test_write_back_shops import changed_in, raw_cells, tagged

# {system: the columns that may change}
CHANGED = {
    "shopify": {"Tags", "Product Category"}, "woocommerce": {"Tags", "Categories"},
    "google": {"custom_label_0", "custom_label_1", "custom_label_2", "product_type"},
    "magento": {"additional_attributes", "categories"}, "akeneo": {"colour", "features", "categories"},
    "bigcommerce": {"Search Keywords", "Category"}, "bigcommerce_modern": {"Search Keywords", "Categories"},
    "bigcommerce_default": {"Search Keywords"}, "prestashop": {"Tags (x,y,z...)", "Categories (x,y,z...)"},
    "etsy": {"TAGS"}, "wix": {"collection"}, "squarespace": {"Tags", "Categories"},
    "square": {"Categories"}, "ecwid": {"colour", "features", "product_category_1"},
    "odoo": {"Product Tags", "Product Category"},
}  # fmt: skip


@pytest.mark.parametrize("system", CHANGED)
def test_from_an_export_to_tags_in_it_and_nothing_else(run_tag, tmp_path, system):
    if system in SYSTEMS:
        export = write_example(system, tmp_path / "shop", 200)[0]
    else:
        export = getattr(shop_exports, system)(tmp_path / "export.csv")
    yaml, before = tmp_path / "my.yaml", export.read_bytes()
    assert init.main([str(export), "--output", str(yaml)]) == 0
    after, printed = tagged(run_tag, export, tmp_path, "--config", yaml, "--catalog.schema.allow_urls", "false")
    delimiter = delimiter_of(before)
    was, now = (list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), delimiter=delimiter))
                for data in (before, after))
    rows, products, cells, _ = changed_in(printed)
    assert rows == len(was) == len(now) and products >= 200 and cells > 100
    differ = {column for one, other in zip(was, now, strict=True) for column in other
              if one.get(column) != other[column]}
    assert differ <= CHANGED[system] and differ
    if was[0].keys() == now[0].keys():  # as they are written, quotes and all
        pairs = list(zip(raw_cells(before, delimiter.encode()), raw_cells(after, delimiter.encode()), strict=True))
        assert sum(one != other for one, other in pairs) == cells
    for line in map(json.loads, (tmp_path / f"tagged{export.suffix}.provenance.jsonl").read_text().splitlines()):
        assert line.get("what") != "dropped"


def delimiter_of(data):
    first = data.partition(b"\n")[0].decode("utf-8-sig")
    return max(",;\t", key=first.count)
