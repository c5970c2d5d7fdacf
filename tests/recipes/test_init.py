"""`hf_tagger init` on exports of known systems: to a YAML file that opens and streams."""

import csv

import pytest

from recipes import init
from recipes.example import SYSTEMS, write_example
from tests.recipes import shop_exports
from tests.recipes.init_runs import roles, started

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
    "magento": {"sku": "id", "name": "text", "name:fr": "text", "description": "text", "base_image": "photo",
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
        "Categories": "attribute multi delimited", "Search Keywords": "attribute multi delimited",
        "option:Size": "attribute multi column", "option:Colour": "attribute multi column",
        "field:Print": "attribute multi column"},
    "bigcommerce_default": {
        "Product ID": "id", "Name": "text", "Description": "text", "Images": "photo",
        "Category Details": "attribute multi path", "custom_fields:Colour": "attribute multi column",
        "custom_fields:Print": "attribute multi column"},
    "prestashop": {"Product ID": "id", "Name *": "text", "Description": "text", "Image URLs (x,y,z...)": "photo",
                   "Categories (x,y,z...)": "attribute multi path", "Tags (x,y,z...)": "attribute multi delimited",
                   "feature:Colour": "attribute multi column", "feature:Print": "attribute multi column"},
    "etsy": {"SKU": "id", "TITLE": "text", "DESCRIPTION": "text", "IMAGE1": "photo", "IMAGE2": "photo",
             "IMAGE3": "photo", "TAGS": "attribute multi delimited", "MATERIALS": "attribute multi delimited",
             "option:Primary color": "attribute multi column", "option:Size": "attribute multi column"},
    "wix": {"handleId": "id", "name": "text", "description": "text", "productImageUrl": "photo",
            "collection": "attribute multi delimited", "ribbon": "attribute single column",
            "option:Color": "attribute multi column", "option:Size": "attribute multi column",
            "info:Material": "attribute multi column"},
    "squarespace": {"Product ID [Non Editable]": "id", "Title": "text", "Description": "text",
                    "Hosted Image URLs": "photo", "Categories": "attribute multi path",
                    "Tags": "attribute multi delimited", "option:Size": "attribute multi column",
                    "option:Colour": "attribute multi column"},
    "odoo": {"External ID": "id", "Name": "text", "Sales Description": "text",
             "Product Category": "attribute multi path", "Product Tags": "attribute multi delimited",
             "attribute:Colour": "attribute multi column",
             "attribute:Size": "attribute multi column", "Responsible/Email": "personal"},
    "square": {"Token": "id", "Item Name": "text", "Description": "text", "Categories": "attribute multi delimited",
               "option:Size": "attribute multi column", "option:Colour": "attribute multi column"},
    "ecwid": {"product_internal_id": "id", "product_name": "text", "product_description": "text",
              "product_media_main_image_url": "photo", "product_category_1": "attribute multi path",
              "product_attribute_Print": "attribute single column", "option:Size": "attribute multi column",
              "option:Colour": "attribute multi column"},
}  # fmt: skip


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


def test_rare_tags_are_said_and_kept(tmp_path, capsys):
    rows = [f"{number},Shirt {number} of linen,{'Red' if number % 2 else 'Blue'}" for number in range(100)]
    (tmp_path / "shop.csv").write_text("\n".join(["sku,title,colour", *rows, "100,Shirt 100 of linen,Mauve\n"]))
    found, catalog = started(capsys, tmp_path / "shop.csv", tmp_path / "my.yaml")
    assert found["columns"][-1]["warnings"] == ["1 of 3 tags stand on fewer than 3 products"]
    assert catalog.schema.attributes["colour"].min_count == 1


@pytest.mark.parametrize("system", ["magento", "akeneo", "bigcommerce", "bigcommerce_modern",
                                    "bigcommerce_default", "prestashop", "etsy", "wix", "squarespace", "odoo", "square",
                                    "ecwid"])
def test_every_column_of_other_systems_exports(system, tmp_path, capsys):
    path = getattr(shop_exports, system)(tmp_path / "export.csv")
    found, catalog = started(capsys, path, tmp_path / "my.yaml")
    assert (found["system"], found["products"], found["refused_rows"]) == (system.partition("_")[0], 200, 0)
    assert {column: role for column, role in roles(found).items() if role is not None} == RIGHT[system]
    records = [item for split in ("train", "validation", "test") for item in catalog.records(split)]
    assert len({record["id"] for record in records}) == 200
    written = {row["id"]: row for row in shop_exports.products()}
    colours = next(name for name in records[0]["tags"] if name in ("color", "colour", "primary color"))
    if system in ("wix", "etsy"):
        assert {len(record["images"]) for record in records} == ({2} if system == "wix" else {1, 2, 3})
        assert all(photo.startswith("https://") for record in records for photo in record["images"])
    assert sorted(tag for record in records for tag in record["tags"][colours]) == sorted(
        row["colour"].lower() if system == "akeneo" else row["colour"] for row in written.values())


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_a_graphql_answer_and_a_bulk_operation_are_read_as_products(suffix, tmp_path, capsys):
    found, catalog = started(capsys, shop_exports.shopify_graphql(tmp_path / f"a.{suffix}"), tmp_path / "my.yaml")
    assert (found["system"], found["products"], found["refused_rows"]) == ("shopify_graphql", 200, 0)
    photos = ["image.url"] if suffix == "jsonl" else ["media.image.url", "featuredMedia.preview.image.url"]
    field = "field" if suffix == "jsonl" else "metafield"
    assert {column: role for column, role in roles(found).items() if role} == dict.fromkeys(photos, "photo") | {
        "id": "id", "title": "text", "descriptionHtml": "text", "category.fullName": "attribute multi path",
        "productType": "attribute single column", "tags": "attribute multi delimited", f"{field}:fabric":
        "attribute multi column", f"{field}:lining": "attribute multi column", "option:Size": "attribute multi column",
        "option:Colour": "attribute multi column"}
    assert max(column["filled"] for column in found["columns"]) == 1
    records = {record["id"]: record for split in catalog.splits for record in catalog.records(split)}
    assert len(records) == 200
    for number, row in enumerate(shop_exports.products()):
        record = records[f"gid://shopify/Product/{number}"]
        tags = record["tags"]
        assert tags["size"] == (["S", "M"] if number % 2 else None) and len(record["texts"]) == 2
        assert tags["colour"] == ([row["colour"]] if number % 2 and row["colour"] else None)
        assert tags["fabric"] == (["Cotton", "Silk"] if number % 2 else ["Cotton"])
        assert tags["lining"] == [["Satin", "Mesh"][number % 2]]
        assert record["images"] == [f"https://cdn.example/{number}{place}.jpg" for place in range(1 + number % 3)]


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


def test_metafields_of_numbers_are_no_tags_and_one_that_repeats_an_option_is_left_out(tmp_path, capsys):
    columns = ["Handle", "Title", "Body (HTML)", "Option1 Name", "Option1 Value"] + [
        f"{name} (product.metafields.custom.{name.lower()})" for name in ("Shade", "Stars", "Made", "Shape", "Size")]
    rows = [[f"k{n}", f"Lamp {n}", "", "Shade", f"Dark {SHADES[n % 3]}", f"dark-{SHADES[n % 3].lower()}", n % 50,
             f"2024-01-{n % 28 + 1:02d}", ["Round", "Flat"][n // 3 % 2], [38, 40][n % 2]] for n in range(60)]
    found, catalog = started(capsys, table(tmp_path / "a.csv", columns, rows), tmp_path / "a.yaml")
    assert {column for column, role in roles(found).items() if (role or "").startswith("attribute")} == {
        "option:Shade", columns[8], columns[9]}
    why = {column["column"]: column["why"] for column in found["columns"]}
    assert why[columns[5]] == "the same tags as option:Shade"
    assert set(catalog.schema.attributes) == {"shade", "shape", "size"}


def test_attributes_that_name_themselves_may_be_texts_units_persons_makers_or_other_products(tmp_path, capsys):
    names = {"Care": lambda n: ["Wash at thirty degrees and dry it flat in the shade", "Never ever iron it"][n % 2],
             "Weight unit": lambda n: ["kg", "g"][n % 2], "Mail": lambda n: f"x{n % 2}@shop.example",
             "Manufacturer": lambda n: ["Acme", "Ada"][n % 2], "Fit": lambda n: ["Slim", "Wide"][n % 2],
             "Height": lambda n: f"{n % 2}0 cm"}
    columns = ["ID", "Type", "SKU", "Name", "Categories"] + [f"Attribute {i} {key}" for i in range(1, 7)
                                                            for key in ("name", "value(s)")]
    rows = [[n, "simple", f"S{n}", f"Moon lamp {n}", "Lamps", *(cell for name, value in names.items()
                                                               for cell in (name, value(n)))] for n in range(60)]
    found, _ = started(capsys, table(tmp_path / "a.csv", columns, rows), tmp_path / "a.yaml")
    assert {column: role for column, role in roles(found).items() if role and ":" in column} == {
        "attribute:Fit": "attribute multi column", "attribute:Mail": "personal"}
    columns = ["id", "title", "description", "link", "image_link", "product_highlight", "product_detail",
               "custom_label_0"]
    rows = [[n, f"Moon lamp {n}", "", "", "", "Soft light, for years",
             f'Build:Fit:{["Slim", "Wide"][n % 2]},"Build:Care:{["Cold, dry", "Warm"][n // 2 % 2]}"',
             f"2031-01-{n % 9 + 1:02d}"] for n in range(60)]
    found, catalog = started(capsys, table(tmp_path / "b.tsv", columns, rows, "\t"), tmp_path / "b.yaml")
    assert {column: role for column, role in roles(found).items() if role} == {
        "id": "id", "title": "text", "product_highlight": "text", "product_detail:Fit": "attribute multi column",
        "product_detail:Care": "attribute multi column"}
    assert next(catalog.records("train"))["tags"] in [
        {"fit": [fit], "care": [care]} for fit in ("Slim", "Wide") for care in ("Cold, dry", "Warm")]
    mate = "Mates (product.metafields.shopify--discovery--product_recommendation.related_products)"
    rows = [[f"k{n}", f"Lamp {n}", "", SHADES[n % 3], f"k{n % 5}; k{n % 7}", "Quantity", n % 3, "Size", n % 3 + 38]
            for n in range(60)]
    columns = ["Handle", "Title", "Body (HTML)", "Tags", mate, "Option1 Name", "Option1 Value", "Option2 Name",
               "Option2 Value"]
    found, _ = started(capsys, table(tmp_path / "c.csv", columns, rows), tmp_path / "c.yaml")
    assert [roles(found)[column] is None for column in (mate, "option:Quantity", "option:Size", "Tags")] == [
        True, True, False, False]


def test_what_was_found_is_printed_for_people(tmp_path, capsys):
    columns = ["sku", "attribute_set_code", "product_type", "name", "additional_attributes", "qty", "weight"]
    rows = [[f"S{n}", "Default", "simple", f"Moon lamp {n}", f"finish={SHADES[n % 2]}", n, n] for n in range(60)]
    assert init.main([str(table(tmp_path / "a.csv", columns, rows)), "--output", str(tmp_path / "a.yaml")]) == 0
    assert capsys.readouterr().out == """\
read as Magento product CSV (profile: magento); encoding utf-8, delimiter ','

column                        role       tags  filled  because
sku                           id                 100%  Magento product CSV: 60 different ones
name                          text               100%  Magento product CSV: 3 words on average
additional_attributes:finish  attribute     2    100%  2 tags: Red (30), Blue (30)

Not read:
  the shop system's own: attribute_set_code, product_type
  read under the attributes' own names: additional_attributes
  numbers: qty, weight

! no photos
"""


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
