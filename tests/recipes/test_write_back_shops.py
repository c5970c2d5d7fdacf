"""Tags go back into the exports of shop systems: rows in are rows out, and no byte changes that no tag changes."""

import csv
import io
import json
import re

import pytest

from hf_tagger.catalog.formats.cells import split_pairs
from recipes.example import write_example
from tests.recipes import shop_exports


def raw_cells(data, delimiter=b","):
    """The cells of a csv file as they are written, each with what ends it: a reader of its own, for comparison."""
    end = re.escape(delimiter)
    cell = rb'(?:"(?:[^"]|"")*"|[^' + end + rb'\r\n"]*)(?:' + end + rb"|\r?\n|\Z)"
    return [match.group() for match in re.finditer(cell, data) if match.group()]


def tagged(run_tag, export, tmp_path, *arguments):
    """Runs it; checks what holds of every file; returns the file's bytes after it, and what was printed."""
    before, output = export.read_bytes(), tmp_path / f"tagged{export.suffix}"
    status, printed = run_tag(export, "--output", output, *arguments)
    assert status == 0, printed.err
    assert export.read_bytes() == before
    status, _ = run_tag(output, "--output", tmp_path / f"again{export.suffix}", *arguments)
    assert status == 0 and (tmp_path / f"again{export.suffix}").read_bytes() == output.read_bytes()
    after = output.read_bytes()
    assert after != before
    restored = tmp_path / f"restored{export.suffix}"
    assert run_tag("--undo", f"{output}.undo.jsonl", "--output", restored)[0] == 0
    assert restored.read_bytes() == before
    assert run_tag("--undo", f"{output}.undo.jsonl", "--output", restored)[0] == 2  # it is not written over
    return after, printed


def changed_in(printed):
    """(rows, products, cells, products changed) that a run counted."""
    found = re.search(r"([\d,]+) rows, ([\d,]+) products: ([\d,]+) cells of ([\d,]+) products changed", printed.out)
    return tuple(int(number.replace(",", "")) for number in found.groups())


def check_cells(before, after, column, delimiter=b","):
    """The file's cells differ in one column alone; returns its cells, before and after."""
    was, now = raw_cells(before, delimiter), raw_cells(after, delimiter)
    width = next(place for place, cell in enumerate(was, start=1) if cell.endswith(b"\n"))
    names = [cell.strip(b'\r\n"' + delimiter).removeprefix(b"\xef\xbb\xbf").decode() for cell in was[:width]]
    assert len(was) == len(now) and len(was) % width == 0
    place = names.index(column)
    differ = {index % width for index, (one, other) in enumerate(zip(was, now, strict=True)) if one != other}
    assert differ == {place}
    return was[width + place::width], now[width + place::width]


CURRENT_SHOPIFY = {"Handle": "URL handle", "Body (HTML)": "Description", "Product Category": "Product category",
                   "Option1 Name": "Option1 name", "Option1 Value": "Option1 value", "Image Src": "Product image URL",
                   "Variant Image": "Variant image URL"}


@pytest.mark.parametrize("current", [False, True])
def test_shopify(run_tag, tmp_path, current):
    (export,) = write_example("shopify", tmp_path / "shop", 100)
    if current:
        header, _, rest = export.read_bytes().partition(b"\n")
        names = [CURRENT_SHOPIFY.get(name, name) for name in header.decode().strip().split(",")]
        export.write_bytes(",".join(names).encode() + b"\n" + rest)
    before = export.read_bytes()
    after, printed = tagged(run_tag, export, tmp_path)
    was, now = check_cells(before, after, "Tags")
    rows, products, cells, _ = changed_in(printed)
    assert (rows, products) == (len(was), 100)
    changed = [place for place, pair in enumerate(zip(was, now, strict=True)) if pair[0] != pair[1]]
    assert len(changed) == cells > 50
    seen = set()
    for row in csv.DictReader(io.StringIO(after.decode(), newline="")):
        handle = row["URL handle" if current else "Handle"]
        assert handle not in seen or not row["Tags"]  # tags stand in first rows only
        assert len(set(row["Tags"].split(", "))) == len(row["Tags"].split(", "))
        seen.add(handle)


def test_what_the_variants_say_already_is_not_written_into_the_tags(run_tag, tmp_path):
    export = tmp_path / "export.csv"
    export.write_text("Handle,Title,Body (HTML),Tags,Option1 Name,Option1 Value\na,red mug,,new,Colour,Teal\n"
                      "a,,,,,RED\nb,red mug,,Red,Colour,Red\nc,red mug,,Reddish,Size,Red\nd,,,,Colour,Blue\n"
                      "e,blue mug,,,Colour,Red\n")
    options = ["--attributes", "colour", "--catalog.schema.attributes.colour.column", "option:Colour",
               "--catalog.schema.attributes.colour.kind", "multi"]
    after, printed = tagged(run_tag, export, tmp_path, *options)
    assert [row.split(b",")[3] for row in after.splitlines()[1:]] == [b"new", b"", b"Red", b'"Reddish', b"", b"Blue"]
    assert re.search(r"\ncolour +2 +0 +2 +0 +1 +Tags\n", printed.out)


def test_woocommerce(run_tag, tmp_path):
    (export,) = write_example("woocommerce", tmp_path / "shop", 100)
    before = export.read_bytes()
    after, printed = tagged(run_tag, export, tmp_path)
    was, now = check_cells(before, after, "Tags")
    rows, products, cells, _ = changed_in(printed)
    assert (rows, products) == (len(was), 100) and cells > 50
    for row in csv.DictReader(io.StringIO(after.decode("utf-8-sig"), newline="")):
        assert row["Type"] != "variation" or not row["Tags"]


def test_woocommerce_attributes_go_into_columns_that_each_row_names(run_tag, tmp_path):
    export = tmp_path / "export.csv"
    header = "ID,Type,SKU,Name,Categories,Tags"
    header += "".join(f",Attribute {number} name,Attribute {number} value(s)" for number in (1, 2))
    export.write_text(f'{header}\n1,simple,a,red mug,,,Size,"S, M",,\n2,simple,b,blue mug,,,colour,,Size,S\n'
                      "3,simple,c,red mug,,,Fit,Slim,Size,S\n")
    status, printed = run_tag(export, "--output", tmp_path / "a.csv", "--attributes", "colour",
                          "--catalog.write.colour.column", "attribute:Colour")
    assert status == 0, printed.err
    assert (tmp_path / "a.csv").read_bytes().splitlines()[1:] == [
        b'1,simple,a,red mug,,,Size,"S, M",Colour,Red', b"2,simple,b,blue mug,,,colour,Blue,Size,S",
        b"3,simple,c,red mug,,,Fit,Slim,Size,S"]
    assert "1 tags not written: no column is free for it" in printed.out


def test_google_tsv_and_xml(run_tag, tmp_path):
    table, feed = write_example("google", tmp_path / "shop", 120)
    before = table.read_bytes()
    after, printed = tagged(run_tag, table, tmp_path)
    rows, products, cells, _ = changed_in(printed)
    assert rows == products >= 200 and cells > 100
    was, now = (list(csv.DictReader(io.StringIO(data.decode(), newline=""), delimiter="\t"))
                for data in (before, after))
    assert [{name: row[name] for name in was[0] if name != "custom_label_0"} for row in now] == [
        {name: row[name] for name in was[0] if name != "custom_label_0"} for row in was]
    assert {"custom_label_1", "custom_label_2"} <= set(now[0])
    assert all(new["custom_label_0"] == old["custom_label_0"] for old, new in zip(was, now, strict=True)
               if old["custom_label_0"])
    before = feed.read_bytes()
    after, printed = tagged(run_tag, feed, tmp_path)
    assert changed_in(printed)[:2] == (rows, rows)
    added = re.compile(rb"\n *<g:custom_label_[012]>[^<]*</g:custom_label_[012]>")
    assert added.sub(b"", after) == added.sub(b"", before) and after.count(b"<item>") == rows


@pytest.mark.parametrize(("write", "delimiter", "column"), [
    (shop_exports.magento, b",", "additional_attributes"), (shop_exports.bigcommerce, b",", "Search Keywords"),
    (shop_exports.bigcommerce_modern, b",", "Search Keywords"),
    (shop_exports.prestashop, b";", "Tags (x,y,z...)"), (shop_exports.etsy, b",", "TAGS"),
    (shop_exports.wix, b",", "collection"), (shop_exports.squarespace, b",", "Tags"),
    (shop_exports.odoo, b",", "Product Tags"),
])  # fmt: skip
def test_systems_that_have_a_place_for_tags(run_tag, tmp_path, write, delimiter, column):
    export = write(tmp_path / "export.csv")
    before = export.read_bytes()
    after, printed = tagged(run_tag, export, tmp_path)
    was, now = check_cells(before, after, column, delimiter)
    rows, products, cells, _ = changed_in(printed)
    changed = [(one, other) for one, other in zip(was, now, strict=True) if one != other]
    assert (rows, products, cells) == (len(was), 200, len(changed)) and cells > 100
    for pair in changed:  # what was there is there, before what is new
        one, other = (next(csv.reader([cell.decode().rstrip("\r\n,;") or '""']))[0] for cell in pair)
        if column == "additional_attributes":
            was, now = split_pairs(one), split_pairs(other)
            assert list(now)[:len(was)] == list(was) and all(now[code].startswith(was[code]) for code in was)
        else:
            assert other.startswith(one)


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_products_from_graphql(run_tag, tmp_path, suffix):
    export = shop_exports.shopify_graphql(tmp_path / f"export.{suffix}")
    before = export.read_bytes()
    after, printed = tagged(run_tag, export, tmp_path)
    was, now = (list(map(json.loads, data.splitlines())) if suffix == "jsonl" else [
        edge["node"] for edge in json.loads(data)["data"]["products"]["edges"]] for data in (before, after))
    changed = [(one, other) for one, other in zip(was, now, strict=True) if one != other]
    assert changed_in(printed)[:3] == (len(was), 200, len(changed)) and len(changed) > 100
    assert all("handle" in one and other == one | {"tags": other["tags"]} and other["tags"][:len(one["tags"])]
               == one["tags"] for one, other in changed)
    assert re.sub(rb'"tags": \[[^\]]*\]', b"", after) == re.sub(rb'"tags": \[[^\]]*\]', b"", before)


@pytest.mark.parametrize(("write", "place", "column"), [
    (shop_exports.shopify_json, "products", "tags"), (shop_exports.json_ld, "@graph", "keywords")])  # fmt: skip
def test_one_json_document(run_tag, tmp_path, write, place, column):
    export = write(tmp_path / "export.json")
    before = export.read_bytes()
    after, printed = tagged(run_tag, export, tmp_path)
    was, now = ([item.get("item", item) for item in json.loads(data.decode("utf-8-sig"))[place]]
                for data in (before, after))
    rows, products, cells, _ = changed_in(printed)
    changed = [place for place, pair in enumerate(zip(was, now, strict=True)) if pair[0] != pair[1]]
    assert (rows, products, cells) == (200, 200, len(changed)) and cells > 100
    for one, other in zip(was, now, strict=True):
        assert one | {column: None} == other | {column: None}
        given, held = one.get(column), other.get(column)
        assert given is None or type(given) is type(held) and held[:len(given)] == given  # what was there stands first
    pieces = re.compile(rb',\s*"' + column.encode() + rb'": ?(\[[^\]]*\]|"[^"]*")')
    assert pieces.sub(b"", after) == pieces.sub(b"", before)


def test_the_default_template_of_bigcommerce_gets_a_column_of_search_keywords(run_tag, tmp_path):
    export = shop_exports.bigcommerce_default(tmp_path / "export.csv")
    before = export.read_bytes()
    after, printed = tagged(run_tag, export, tmp_path)
    rows, products, cells, _ = changed_in(printed)
    was, now = (list(csv.DictReader(io.StringIO(data.decode(), newline=""))) for data in (before, after))
    assert (rows, products) == (200, 200) and sum(bool(row["Search Keywords"]) for row in now) == cells > 100
    assert [row | {"Search Keywords": None} for row in was] == [row | {"Search Keywords": None} for row in now]


def test_akeneo_gets_columns_of_its_own(run_tag, tmp_path):
    export = shop_exports.akeneo(tmp_path / "export.csv")
    before = export.read_bytes()
    after, printed = tagged(run_tag, export, tmp_path)
    assert changed_in(printed)[:2] == (200, 200)
    was, now = (list(csv.DictReader(io.StringIO(data.decode(), newline=""), delimiter=";")) for data in (before, after))
    assert list(now[0]) == [*was[0], "colour"]
    kept = [name for name in was[0] if name not in ("features", "categories")]
    assert [[row[name] for name in kept] for row in now] == [[row[name] for name in kept] for row in was]
    assert {row["colour"] for row in now} <= {"Red", "Blue", ""}
