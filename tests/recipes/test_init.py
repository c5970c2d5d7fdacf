"""`hf_tagger init` and `hf_tagger example`: from an export to a YAML file that opens and streams."""

import csv
import json
import random
import sqlite3
from contextlib import closing

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_tagger.catalog.guessing import column_stats
from hf_tagger.catalog.settings import CatalogSettings, open_catalog
from hf_tagger.catalog.strict import build, read_yaml
from hf_tagger.catalog.synthetic.exports import SYSTEMS, write_example
from recipes import example, init
from tests.recipes import shop_exports

# {system: {column: its right role, and of an attribute its kind and format}} of the made-up exports.
RIGHT = {
    "shopify": {"Handle": "id", "Title": "text", "Body (HTML)": "text", "Image Src": "photo",
                "Product Category": "attribute multi path", "Type": "attribute single column",
                "Tags": "attribute multi delimited", "option:Color": "attribute multi column"},
    "woocommerce": {"ID": "id", "Name": "text", "Description": "text", "Images": "photo",
                    "Categories": "attribute multi path", "Tags": "attribute multi delimited",
                    "attribute:Colour": "attribute multi column"},
    "google": {"id": "id", "item_group_id": "group", "title": "text", "description": "text", "image_link": "photo",
               "product_type": "attribute multi path", "color": "attribute multi delimited",
               "pattern": "attribute single column", "custom_label_0": "attribute single column"},
    "magento": {"sku": "id", "name": "text", "description": "text", "base_image": "photo",
                "additional_images": "photo", "categories": "attribute multi path",
                "additional_attributes:color": "attribute multi column",
                "additional_attributes:print": "attribute multi column",
                "additional_attributes:features": "attribute multi column"},
    "akeneo": {"sku": "id", "name-en_US": "text", "description-en_US-ecommerce": "text", "image": "photo",
               "parent": "group", "categories": "attribute multi delimited", "color": "attribute single column",
               "print": "attribute single column", "features": "attribute multi delimited"},
    "bigcommerce": {"Product ID": "id", "Product Name": "text", "Product Description": "text",
                    "Product Image File - 1": "photo", "Category": "attribute multi path",
                    "Search Keywords": "attribute multi delimited", "option:Size": "attribute multi column",
                    "custom_fields:Colour": "attribute multi column", "custom_fields:Print": "attribute multi column"},
    "bigcommerce_modern": {
        "ID": "id", "Name": "text", "Description": "text", "Internal Image URL (Export)": "photo",
        "Categories": "attribute multi path", "Search Keywords": "attribute multi delimited",
        "option:Size": "attribute multi column", "option:Colour": "attribute multi column",
        "field:Print": "attribute multi column"},
    "prestashop": {"Product ID": "id", "Name *": "text", "Description": "text", "Image URLs (x,y,z...)": "photo",
                   "Categories (x,y,z...)": "attribute multi path", "Tags (x,y,z...)": "attribute multi delimited",
                   "feature:Colour": "attribute multi column", "feature:Print": "attribute multi column"},
}  # fmt: skip


def started(capsys, export, output, *options):
    """What init found, and the catalogue of the YAML file that it wrote."""
    assert init.main([str(export), "--output", str(output), "--json", *options]) == 0
    found = json.loads(capsys.readouterr().out)
    settings = read_yaml(output)
    assert set(settings) == {"output_dir", "catalog"}
    return found, open_catalog(build(CatalogSettings, settings["catalog"]), output.parent)


def roles(found):
    def described(column):
        if column["role"] != "attribute":
            return column["role"]
        spec = column["spec"]
        return f"attribute {spec.get('kind', 'single')} {spec.get('format', 'column')}"

    return {column["column"]: described(column) for column in found["columns"]}


@pytest.fixture(scope="module", params=SYSTEMS)
def example_export(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, write_example(request.param, folder)


def test_every_column_of_an_export_is_taken_for_what_it_is(example_export, tmp_path, capsys):
    system, files = example_export
    for number, file in enumerate(files):
        found, catalog = started(capsys, file, tmp_path / f"{number}.yaml")
        assert found["system"] == system and found["refused_rows"] == 0
        given = {column: role for column, role in roles(found).items() if role is not None}
        assert given == RIGHT[system]
        records = [item for split in ("train", "validation", "test") for item in catalog.records(split)]
        assert len(records) == found["products"] == (399 if system == "google" else 200)
        assert all(isinstance(record, dict) and (record["text"] or record["images"]) for record in records)
        assert len({record["id"] for record in records}) == len(records)
        assert sum(len(record["images"]) for record in records) == len(list((file.parent / "photos").iterdir()))


def test_the_present_headers_of_shopify(tmp_path, capsys):
    (old,) = write_example("shopify", tmp_path / "shop", products=60)
    header, _, rest = old.read_text(encoding="utf-8").partition("\n")
    for before, now in (("Handle", "URL handle"), ("Body (HTML)", "Description"), ("Published", "Published on store"),
                        ("Product Category", "Product category"), ("Image Src", "Product image URL"),
                        ("Variant Image", "Variant image URL"), ("Variant SKU", "SKU"), (" Name", " name"),
                        (" Value", " value"), ("Variant Price", "Price"), ("Variant Barcode", "Barcode")):
        assert before in header
        header = header.replace(before, now)
    old.write_text(f"{header}\n{rest}", encoding="utf-8")
    found, _ = started(capsys, old, tmp_path / "my.yaml")
    assert found["system"] == "shopify" and found["products"] == 60
    assert {column: role for column, role in roles(found).items() if role} == {
        "URL handle": "id", "Title": "text", "Description": "text", "Product image URL": "photo",
        "Product category": "attribute multi path", "Type": "attribute single column",
        "Tags": "attribute multi delimited", "option:Color": "attribute multi column"}


@pytest.mark.parametrize("system", ["magento", "akeneo", "bigcommerce", "bigcommerce_modern", "prestashop"])
def test_every_column_of_other_systems_exports(system, tmp_path, capsys):
    path = getattr(shop_exports, system)(tmp_path / "export.csv")
    found, catalog = started(capsys, path, tmp_path / "my.yaml")
    assert (found["system"], found["products"], found["refused_rows"]) == (system.partition("_")[0], 200, 0)
    assert {column: role for column, role in roles(found).items() if role is not None} == RIGHT[system]
    records = [item for split in ("train", "validation", "test") for item in catalog.records(split)]
    assert len({record["id"] for record in records}) == 200
    written = {row["id"]: row for row in shop_exports.products()}
    colours = next(name for name in records[0]["tags"] if name in ("color", "colour"))
    assert sorted(tag for record in records for tag in record["tags"][colours]) == sorted(
        row["colour"].lower() if system == "akeneo" else row["colour"] for row in written.values())


SHADES = ["Red", "Blue", "Green"]


def table(path, columns, rows, delimiter=","):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([columns, *rows])
    return path


def test_a_magento_export_with_long_paths_codes_and_more_photos(tmp_path, capsys):
    columns = ["sku", "attribute_set_code", "product_type", "categories", "name", "base_image", "small_image",
               "additional_attributes"]
    root = "Default Category/Everything for garden and balcony and terrace/Moon lamps of all kinds"
    rows = [[f"S{n}", "Default", "simple", f"Default Category,{root},{root}/{SHADES[n % 3]} moon lamps", f"Lamp {n}",
             f"/l/a/{n}.jpg", f"/l/a/{n % 4}.jpg", f"ean_code={4_000_000_000_000 + n},finish={SHADES[n % 2]}"]
            for n in range(12)]
    found, _ = started(capsys, table(tmp_path / "a.csv", columns, rows), tmp_path / "a.yaml")
    given = {column: role for column, role in roles(found).items() if role}
    assert given == {"sku": "id", "name": "text", "base_image": "photo", "categories": "attribute multi path",
                     "additional_attributes:finish": "attribute multi column"}
    assert next(column["tags"] for column in found["columns"] if column["column"] == "categories") == 6


def test_settings_of_a_shop_are_no_tags(tmp_path, capsys):
    flags = ["use_config_backorders", "is_returnable", "shipment_type", "bundle_values", "enable_parcel_point"]
    columns = ["sku", "attribute_set_code", "product_type", "name", *flags, "additional_attributes"]
    said = ["Use config", "Yes", "No"]
    rows = [[f"S{n}", "Default", "simple", f"Moon lamp {n}", n % 2, said[n % 3], ["together", "separately"][n % 2],
             ["name=Lamp", "name=Shade"][n % 2], said[n % 3],
             f"gift_wrapping_available={said[n % 3]},parcel_point={said[n % 3]},has_options={n % 2},"
             f"finish={SHADES[n % 2]}"] for n in range(60)]
    found, _ = started(capsys, table(tmp_path / "a.csv", columns, rows), tmp_path / "a.yaml")
    assert {column: role for column, role in roles(found).items() if role} == {
        "sku": "id", "name": "text", "additional_attributes:finish": "attribute multi column"}


@pytest.mark.parametrize(("name", "cell", "role"), [
    ("Options & variants", "Size: S, M, L; Colour: {}", None), ("Options & variants", "Colour: {}", None),
    ("Variant", "{}", "attribute single column"), ("Specs", "Size: S, M, L; Colour: {}", "text"),
    ("Specs", "Colour: {} | Size: S", "text"), ("Specs", "Colour={},Size=S", "text"),
    ("Specs", "Colour: {}", "attribute single column"),
])  # fmt: skip
def test_options_and_their_values_in_one_cell_are_no_tags(tmp_path, capsys, name, cell, role):
    rows = [[f"k{n}", f"Moon lamp {n}", cell.format(SHADES[n % 3]), f"mood:{SHADES[n % 2]}, size:S", SHADES[n % 2]]
            for n in range(60)]
    path = table(tmp_path / "a.csv", ["sku", "name", name, "tags", "shade"], rows)
    found, _ = started(capsys, path, tmp_path / "a.yaml")
    assert roles(found) == {"sku": "id", "name": "text", name: role, "tags": "attribute multi delimited",
                            "shade": "attribute single column"}
    each = table(tmp_path / "b.csv", ["sku", "name", "Options & variants", "shade"], [
        [f"k{n}", f"Moon lamp {n}", f"Size: {n} inch, {n + 2} inch", SHADES[n % 2]] for n in range(9)])
    found, _ = started(capsys, each, tmp_path / "b.yaml")
    assert roles(found)["Options & variants"] is None


def test_the_old_import_template_of_prestashop(tmp_path, capsys):
    columns = ["id", "Active (0/1)", "Name*", "Categories (x,y,z,...)", "Reference #", "Tags (x,y,z,...)",
               "Image URLs (x,y,z,...)", "Feature (Name:Value:Position)"]
    rows = [[n, 1, f"Moon lamp {n}", f"Home, {SHADES[n % 2]} lamps", f"R{n}", f"lamp, {SHADES[n % 3]}",
             f"https://shop.example/{n}.jpg", f"Finish:{SHADES[n % 2]}:1"] for n in range(9)]
    found, _ = started(capsys, table(tmp_path / "a.csv", columns, rows, ";"), tmp_path / "a.yaml")
    assert found["system"] == "prestashop"
    assert {column: role for column, role in roles(found).items() if role} == {
        "id": "id", "Name*": "text", "Categories (x,y,z,...)": "attribute multi path",
        "Tags (x,y,z,...)": "attribute multi delimited", "Image URLs (x,y,z,...)": "photo",
        "feature:Finish": "attribute multi column"}


def test_of_a_text_in_several_channels_the_fullest_is_read(tmp_path, capsys):
    columns = ["uuid", "sku", "categories", "enabled", "family", "name", "description-de_DE-mobile",
               "description-en_US-print", "image", "picture-print", "PACK-groups", "X_SELL-products", "diagonal-unit"]
    rows = [[f"u{n}", n, SHADES[n % 2].lower(), 1, "lamps", f"Lamp {n}", ["Lampe", "Licht"][n % 2] * (n < 6),
             f"A lamp that glows like the moon, number {n}", f"files/{n}/image/a.jpg" * (n % 2),
             f"files/{n}/picture/a.jpg" * (n % 2 == 0), SHADES[n % 2], SHADES[n % 2], SHADES[n % 2]] for n in range(9)]
    found, catalog = started(capsys, table(tmp_path / "a.csv", columns, rows, ";"), tmp_path / "a.yaml")
    given = {column: role for column, role in roles(found).items() if role}
    assert given == {"sku": "id", "name": "text", "description-en_US-print": "text", "image": "photo",
                     "picture-print": "photo", "categories": "attribute multi delimited"}
    assert {column["column"]: column["why"] for column in found["columns"]}["description-de_DE-mobile"] == (
        "description in another language or channel")
    assert all("glows" in record["text"] for record in catalog.records("train"))


def test_a_column_that_says_tags_is_one_and_an_option_without_a_name_is_none(tmp_path, capsys):
    rows = [[f"k{n}", f"Moon lamp {n}", f"A lamp that glows like the moon, number {n}",
             f"lamp number {n}, moon of {n}, gift {n % 2}, hand made by {n}", SHADES[n % 3]] for n in range(9)]
    columns = ["ID", "Name", "Description", "Tags (comma separated)", "Shade"]
    found, _ = started(capsys, table(tmp_path / "a.csv", columns, rows), tmp_path / "a.yaml")
    assert roles(found)["Tags (comma separated)"] == "attribute multi delimited"
    columns = ["Handle", "Title", "Body (HTML)", "Tags", "Option1 Name", "Option1 Value"]
    rows = [[f"k{n}", f"Lamp {n}", "", "new" if n % 2 else "old", "Title", SHADES[n % 3]] for n in range(9)]
    found, _ = started(capsys, table(tmp_path / "b.csv", columns, rows), tmp_path / "b.yaml")
    assert {column: role for column, role in roles(found).items() if role} == {
        "Handle": "id", "Title": "text", "Tags": "attribute multi delimited"}


def test_codes_get_their_labels(tmp_path, capsys):
    path = shop_exports.akeneo(tmp_path / "export.csv")
    (tmp_path / "options.csv").write_text(
        "code;attribute;label-de_DE;label-en_US;sort_order\nblue;color;Blau;Deep blue;1\nred;color;Rot;Fire red;2\n"
        "grey;color;Grau;Deep blue;3\nstriped;print;Gestreift;Striped print;1\nnever;color;Nie;Never;4\n")
    (tmp_path / "categories.csv").write_text("code;parent;label-en_US\nshop;;The shop\nmug;shop;Mugs & cups\n")
    found, catalog = started(capsys, path, tmp_path / "my.yaml", "--labels", str(tmp_path / "options.csv"), "--labels",
                             str(tmp_path / "categories.csv"))
    aliases = {column["column"]: column["spec"].get("aliases") for column in found["columns"]}
    assert set(aliases["color"]) == {"blue", "red", "grey"} and aliases["color"]["red"] == "Fire red"
    assert {aliases["color"]["blue"], aliases["color"]["grey"]} in (
        {"Deep blue", "Deep blue (grey)"}, {"Deep blue", "Deep blue (blue)"})
    tags = {tag for record in catalog.records("train") for tag in record["tags"]["category"]}
    assert {"The shop", "Mugs & cups"} < tags and "shop" not in tags and "dress" in tags
    assert init.main([str(path), "--output", str(tmp_path / "b.yaml"), "--labels", str(path)]) == 2
    assert "labels need a column code" in capsys.readouterr().err


TREES = {
    "categories.txt": "# Shopify Product Taxonomy - Categories: 2031-02\n" + "".join(
        f"gid://shopify/TaxonomyCategory/{id} : {path}\n" for id, path in (
            ("qx", "Moon Garden"), ("qx-1", "Moon Garden > Lamps"), ("qx-2", "Moon Garden > Benches"))),
    "google.txt": "# Google_Product_Taxonomy_Version: 2031-03-04\n7 - Moon Garden\n71 - Moon Garden > Lamps\n"
                  "72 - Moon Garden > Benches\n"}  # fmt: skip


@pytest.mark.parametrize(("columns", "cells", "tree"), [
    ("Handle,Title,Body (HTML),Tags,Product Category",
     ["gid://shopify/TaxonomyCategory/qx-1", "gid://shopify/TaxonomyCategory/qx-2"], "categories.txt"),
    ("Handle,Title,Body (HTML),Tags,Product Category", ["qx-1", "qx-2"], "categories.txt"),
    ("Handle,Title,Body (HTML),Tags,Google Shopping / Google Product Category", ["71", "72"], "google.txt"),
    ("sku,name,description,colour,google_product_category", ["71", "72"], "google.txt"),
    ("sku,name,description,colour,node", ["gid://shopify/TaxonomyCategory/qx-1", "", "gid://shopify/TaxonomyCategory/qx"],
     "categories.txt"),
])  # fmt: skip
def test_ids_of_a_taxonomy_need_its_file(tmp_path, capsys, columns, cells, tree):
    columns = columns.split(",")
    rows = [[f"k{n}", f"Moon lamp {n}", f"A lamp that glows like the moon, number {n}", SHADES[n % 2],
             cells[n // 3 % len(cells)]] for n in range(12)]
    path = table(tmp_path / "a.csv", columns, rows)
    found, _ = started(capsys, path, tmp_path / "a.yaml")
    column = found["columns"][-1]
    assert column["role"] == "taxonomy" and "run init again with --taxonomy FILE" in column["warnings"][0]
    text = (tmp_path / "a.yaml").read_text(encoding="utf-8")
    assert "  # taxonomy: FILE  # ids of" in text and "      #   taxonomy: categories\n" in text
    (tmp_path / tree).write_text(TREES[tree])
    found, catalog = started(capsys, path, tmp_path / "b.yaml", "--taxonomy", str(tmp_path / tree))
    column = found["columns"][-1]
    assert column["role"] == "attribute" and column["spec"]["taxonomy"] == "categories"
    tags = [record["tags"][column["attribute"]] for record in catalog.records("train")]
    assert ["Moon Garden", "Lamps"] in tags and all(given is None or given[0] == "Moon Garden" for given in tags)


def test_paths_are_nodes_where_the_file_is_given(tmp_path, capsys):
    columns = ["id", "title", "description", "link", "image_link", "product_type", "google_product_category"]
    rows = [[n, f"Moon lamp {n}", "", "", "", f"Home > {SHADES[n % 3]}", f"Moon Garden > {['Lamps', 'Benches'][n % 2]}"]
            for n in range(40)]
    rows[0][-1] = "Moon Garden > Moats"
    (tmp_path / "google.txt").write_text(TREES["google.txt"])
    path = table(tmp_path / "a.tsv", columns, rows, "\t")
    found, catalog = started(capsys, path, tmp_path / "b.yaml", "--taxonomy", str(tmp_path / "google.txt"))
    assert [column["spec"].get("taxonomy") for column in found["columns"][-2:]] == [None, "categories"]
    assert any("1 cells name no node of Google" in warning for warning in found["columns"][-1]["warnings"])
    found, _ = started(capsys, path, tmp_path / "c.yaml")
    assert roles(found)["google_product_category"] == "attribute multi path"
    (tmp_path / "categories.txt").write_text(TREES["categories.txt"].replace("Moon", "Sun"))
    found, _ = started(capsys, path, tmp_path / "d.yaml", "--taxonomy", str(tmp_path / "categories.txt"))
    assert any("no column names categories" in warning for warning in found["warnings"])


def test_the_table_says_what_each_column_is(example_export, tmp_path, capsys):
    _, (file, *_) = example_export
    assert init.main([str(file), "--output", str(tmp_path / "a.yaml")]) == 0
    table = capsys.readouterr().out
    assert "role" in table and all(name in table for name in ("text", "photo", "attribute"))
    text = (tmp_path / "a.yaml").read_text(encoding="utf-8")
    assert "# 12 tags: Black (" in text and "# Not read:" in text


COLUMNS = ["Artikelnummer", "EAN", "Bezeichnung", "Beschreibung", "Preis", "Marke", "Kategorie", "Farbe", "Material",
           "Größe", "Bild", "Kontakt", "Telefon", "Aktiv", "Angelegt", "Modell-Nr"]  # fmt: skip


def german_shop(path, encoding="cp1252", delimiter=";", photos=0.6, rows=300):
    draw = random.Random(0)
    departments = {"Bekleidung": ["Hemden", "Hosen"], "Taschen": ["Rucksäcke", "Shopper"], "Wohnen": ["Vasen"]}
    materials = ["Leinen", "Baumwolle", "Wolle", "Leder"]
    with open(path, "w", newline="", encoding=encoding) as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(COLUMNS)
        for n in range(rows):
            department = draw.choice(list(departments))
            kind = draw.choice(departments[department])
            writer.writerow([
                f"A{n:05d}", 4_000_000_000_000 + n, f"{kind} {draw.choice(['Riva', 'Tolo', 'Nika'])} {n % 97}",
                f"Ein schönes Stück für jeden Tag und mit Liebe gemacht, Nummer {n}.", f"{draw.randint(5, 99)},90",
                draw.choice(["Acme", "Umbra"]), f"{department} > {kind}",
                draw.choice(["Rot", "Blau", "Grün", "grün", "k.A.", ""]),
                ", ".join(draw.sample(materials, draw.choice([1, 1, 2]))), draw.choice("SML"),
                f"{n}.jpg" if draw.random() < photos else "", f"info{n}@shop.example", f"+49 30 {1_000_000 + n}",
                draw.choice(["ja", "ja", "nein"]), "2024-01-02", f"M{n // 3}"])
    return path


@pytest.mark.parametrize(("encoding", "delimiter"), [("cp1252", ";"), ("utf-8-sig", ","), ("utf-16", "\t")])
def test_an_unknown_table_is_read_by_its_content(tmp_path, capsys, encoding, delimiter):
    path = german_shop(tmp_path / "plain.csv", encoding, delimiter)
    found, catalog = started(capsys, path, tmp_path / "my.yaml")
    assert found["system"] is None and found["languages"] == {"de": 300}
    assert {column: role for column, role in roles(found).items() if role} == {
        "Artikelnummer": "id", "Bezeichnung": "text", "Beschreibung": "text", "Bild": "photo", "Kontakt": "personal",
        "Telefon": "personal", "Kategorie": "attribute multi path", "Farbe": "attribute single column",
        "Material": "attribute multi delimited", "Größe": "attribute single column", "Modell-Nr": "group"}
    colour = next(column for column in found["columns"] if column["column"] == "Farbe")
    assert colour["spec"]["unknown_values"] == ["k.A."] and set(colour["spec"]["aliases"]) < {"grün", "Grün"}
    assert any("of the products without photo" in warning for warning in found["warnings"])
    records = [item for item in catalog.records("train") if isinstance(item, dict)]
    assert {tag for record in records for tag in record["tags"]["farbe"] or ()} in (
        {"Rot", "Blau", "Grün"}, {"Rot", "Blau", "grün"})
    assert {record["language"] for record in records} == {"de"}


def test_personal_data_is_never_written_as_something_to_read(tmp_path, capsys):
    started(capsys, german_shop(tmp_path / "plain.csv"), tmp_path / "my.yaml")
    schema = read_yaml(tmp_path / "my.yaml")["catalog"]["schema"]
    assert not {"Kontakt", "Telefon"} & set(json.dumps(schema, ensure_ascii=False).split('"'))


def test_a_column_that_repeats_the_id_is_told(tmp_path, capsys):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"sku": f"S{n}", "code": f"S{n}", "title": f"Shirt number {n} of linen",
                                        "colour": ["Red", "Blue"][n % 2]}) + "\n" for n in range(50)))
    found, _ = started(capsys, path, tmp_path / "my.yaml")
    repeated = next(column for column in found["columns"] if column["column"] == "code")
    assert repeated["role"] is None and repeated["warnings"] == ["repeats the id (sku)"]


@pytest.mark.parametrize("values", [["Red", "Blue"], [["Red"], ["Blue", "Red"]]])
def test_parquet_and_lists(tmp_path, capsys, values):
    rows = [{"id": n, "title": f"Linen shirt number {n}", "colour": values[n % 2]} for n in range(60)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    found, catalog = started(capsys, tmp_path / "a.parquet", tmp_path / "my.yaml")
    kind = "multi list" if isinstance(values[0], list) else "single column"
    assert roles(found)["colour"] == f"attribute {kind}"
    assert [record["tags"]["colour"] for record in catalog.records("train")][:1] != [None]


def test_a_hub_dataset_is_read_like_a_file(tmp_path, capsys, monkeypatch):
    rows = {"sku": [f"S{n}" for n in range(60)], "name": [f"Linen shirt number {n}" for n in range(60)],
            "colour": [n % 2 for n in range(60)]}
    features = datasets.Features(sku=datasets.Value("string"), name=datasets.Value("string"),
                                 colour=datasets.ClassLabel(names=["Red", "Blue"]))
    stored = datasets.Dataset.from_dict(rows, features=features).to_iterable_dataset()
    monkeypatch.setattr(datasets, "load_dataset", lambda path, *args, **options: stored)
    found, _ = started(capsys, "shop/catalogue", tmp_path / "my.yaml")
    assert roles(found) == {"sku": "id", "name": "text", "colour": "attribute single column"}
    assert next(c["tags"] for c in found["columns"] if c["column"] == "colour") == 2


def test_a_database_is_read_like_a_file(tmp_path, capsys):
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE products (row INTEGER, sku TEXT, name TEXT, colour TEXT)")
        database.executemany("INSERT INTO products VALUES (?, ?, ?, ?)", [
            (n, f"S{n:03d}", f"Linen shirt number {n}", ["Red", "Blue"][n % 2]) for n in range(60)])
        database.commit()
    found, catalog = started(capsys, f"sqlite:///{path}", tmp_path / "my.yaml", "--table", "products")
    assert roles(found) == {"sku": "id", "name": "text", "colour": "attribute single column", "row": None}
    assert (catalog.source.table, catalog.source.key) == ("products", "sku")
    assert sum(1 for split in ("train", "validation", "test") for _ in catalog.records(split)) == 60


def test_splits_in_files_of_their_own_stay_apart(tmp_path, capsys):
    for split, start in (("train", 0), ("test", 100)):
        german_shop(tmp_path / f"{split}.csv", rows=60 + start)
    _, catalog = started(capsys, tmp_path / "train.csv", tmp_path / "my.yaml")
    assert catalog.splits == ["train", "test", "validation"] and catalog.source.fractions == {"validation": 0.1}
    assert sum(1 for _ in catalog.records("test")) == 160


def test_nested_json(tmp_path, capsys):
    products = [{"id": n, "title": f"Linen shirt number {n}", "details": {"colour": ["Red", "Blue"][n % 2]},
                 "images": [{"src": f"https://x.example/{n}.jpg"}, {"src": f"https://x.example/{n}b.jpg"}]}
                for n in range(40)]  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps({"products": products}))
    found, catalog = started(capsys, tmp_path / "a.json", tmp_path / "my.yaml")
    assert roles(found) == {"id": "id", "title": "text", "details.colour": "attribute single column",
                            "images.src": "photo"}
    assert all(len(record["images"]) == 2 for record in catalog.records("train"))


@pytest.mark.parametrize("system", ["schema_org", "shopify_json"])
def test_products_of_a_shop_in_json(tmp_path, capsys, system):
    colours = ["Red", "Blue"]
    if system == "schema_org":
        document = {"@context": "https://schema.org", "@graph": [{"@type": "Organization", "name": "Shop"}] + [
            {"@type": "Product", "sku": f"S{n}", "name": f"Linen shirt number {n}", "category": "Men > Shirts",
             "image": [{"@type": "ImageObject", "url": f"https://x.example/{n}.jpg"}], "color": colours[n % 2],
             "brand": {"@type": "Brand", "name": "Acme"}, "offers": {"@type": "Offer", "price": "9.90"},
             "additionalProperty": [{"@type": "PropertyValue", "name": "Fit", "value": ["Slim", "Wide"][n // 2 % 2]}]}
            for n in range(60)]}
        right = {"sku": "id", "name": "text", "image": "photo", "category": "attribute multi path",
                 "color": "attribute multi column", "property:Fit": "attribute multi column"}
    else:
        document = {"products": [
            {"id": 900 + n, "title": f"Linen shirt number {n}", "handle": f"shirt-{n}", "body_html": "<p>Airy</p>",
             "vendor": "Acme", "product_type": ["Shirts", "Bags"][n % 2], "tags": ["summer", "linen, raw"][: n % 2 + 1],
             "variants": [{"id": n, "option1": colours[0], "price": "9.90"}], "images": [
                 {"id": n, "src": f"https://x.example/{n}.jpg"}],
             "options": [{"name": "Color", "position": 1, "values": colours[: n % 2 + 1]}]} for n in range(60)]}
        right = {"id": "id", "title": "text", "body_html": "text", "images": "photo",
                 "product_type": "attribute single column", "tags": "attribute multi delimited",
                 "option:Color": "attribute multi column"}
    (tmp_path / "a.json").write_text(json.dumps(document))
    found, catalog = started(capsys, tmp_path / "a.json", tmp_path / "my.yaml")
    assert found["system"] == system and found["products"] == 60
    assert {column: role for column, role in roles(found).items() if role} == right
    records = list(catalog.records("train"))
    assert all(len(record["images"]) == 1 for record in records)
    if system == "shopify_json":
        assert {tag for record in records for tag in record["tags"]["tags"]} == {"summer", "linen, raw"}


def test_keys_without_end_are_not_all_counted(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(column_stats, "_MOST_COLUMNS", 10)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(
        {"sku": f"S{n}", "name": f"Linen shirt number {n}", "colour": ["Red", "Blue"][n % 2], f"key{n}": n}) + "\n"
        for n in range(60)))
    found, _ = started(capsys, tmp_path / "a.jsonl", tmp_path / "my.yaml")
    assert len(found["columns"]) == 10 and roles(found)["colour"] == "attribute single column"
    assert "more than 10 columns: the others are not looked at" in found["warnings"]


def test_cells_that_would_be_something_else_in_yaml(tmp_path, capsys):
    lines = ["no: 1,title #,yes"] + [f"{n:03d},Linen shirt number {n} of all,{['no', 'on', '010'][n % 3]}"
                                     for n in range(60)]
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    found, catalog = started(capsys, tmp_path / "a.csv", tmp_path / "my.yaml")
    assert roles(found)["yes"] == "attribute single column" and roles(found)["title #"] == "text"
    assert {tag for record in catalog.records("train") for tag in record["tags"]["yes"] or ()} <= {"on", "010"}


def test_columns_without_a_name_of_their_own(tmp_path, capsys):
    lines = ["sku,,note,note,name,colour"] + [f"S{n},x,a,b,Linen shirt number {n},{['Red', 'Blue'][n % 2]}"
                                              for n in range(60)]
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    found, catalog = started(capsys, tmp_path / "a.csv", tmp_path / "my.yaml")
    assert roles(found) == {"sku": "id", "name": "text", "colour": "attribute single column"}
    assert any("several columns have one name" in warning and "note" in warning for warning in found["warnings"])
    assert next(catalog.records("train"))["tags"]["colour"]


def test_what_is_there_is_not_written_over(tmp_path, capsys):
    path = german_shop(tmp_path / "plain.csv", rows=30)
    (tmp_path / "my.yaml").write_text("mine")
    assert init.main([str(path), "--output", str(tmp_path / "my.yaml")]) == 2
    assert "not written over" in capsys.readouterr().err and (tmp_path / "my.yaml").read_text() == "mine"


@pytest.mark.parametrize(("content", "message"), [
    ("", "no product in it"), ("a,b\n1,2\n3,4\n", "no column looks like a text or a photo")])
def test_what_cannot_be_tagged_is_told_in_one_line(tmp_path, capsys, content, message):
    (tmp_path / "a.csv").write_text(content)
    assert init.main([str(tmp_path / "a.csv"), "--output", str(tmp_path / "my.yaml")]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "my.yaml").exists()


def test_a_file_that_is_not_there(tmp_path, capsys):
    assert init.main([str(tmp_path / "none.csv")]) == 2
    assert "No catalogue file at" in capsys.readouterr().err


def test_example(tmp_path, capsys):
    folder = tmp_path / "shop"
    assert example.main(["shopify", "--output_dir", str(folder), "--products", "12"]) == 0
    assert capsys.readouterr().out == f"{folder / 'products_export.csv'}\n"
    assert example.main(["shopify", "--output_dir", str(folder)]) == 2
    assert "not written over" in capsys.readouterr().err
    assert (folder / "photos").is_dir()
