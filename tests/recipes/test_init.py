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
                                    "bigcommerce_default", "prestashop"])
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


def test_what_was_found_is_printed_for_people(tmp_path, capsys):
    columns = ["sku", "attribute_set_code", "product_type", "name", "additional_attributes", "qty", "weight"]
    rows = [[f"S{n}", "Default", "simple", f"Moon lamp {n}", f"finish={SHADES[n % 2]}", n, n] for n in range(60)]
    assert init.main([str(table(tmp_path / "a.csv", columns, rows)), "--output", str(tmp_path / "a.yaml")]) == 0
    assert capsys.readouterr().out == """\
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


def several_locales(path):
    """Products in German or English or both, with codes of options, and some French."""
    columns = ["uuid", "sku", "categories", "enabled", "family", "name-de_DE", "name-en_US", "name-fr_FR",
               "description-de_DE-mobile", "description-en_US-mobile", "description-en_US-print", "image",
               "picture-print", "shade", "print-de_DE", "print-en_US", "PACK-groups", "X_SELL-products", "size-unit"]
    rows = [[f"u{n}", n, SHADES[n % 2].lower(), 1, "lamps", f"Mondlampe {n}" * (n % 3 == 0), f"Lamp {n}" * (n % 3 < 2),
             f"Lampe {n}" * (n % 9 == 8), f"Eine Lampe für das Haus und die Nacht {n}" * (n % 3 == 0),
             f"A lamp for the house {n}" * (n % 9 == 1), f"A lamp that glows like the moon, number {n}" * (n % 3 < 2),
             f"files/{n}/image/a.jpg" * (n % 2), f"files/{n}/picture/a.jpg" * (n % 2 == 0), SHADES[n % 3].lower(),
             ["Punkte", "Streifen"][n % 2], ["dots", "stripes"][n % 2], SHADES[n % 2], SHADES[n % 2], SHADES[n % 2]]
            for n in range(27)]
    return table(path, columns, rows, ";")


def test_a_product_has_the_texts_of_all_its_locales_the_fullest_of_its_channels_in_each(tmp_path, capsys):
    found, catalog = started(capsys, several_locales(tmp_path / "a.csv"), tmp_path / "a.yaml")
    given = {column: role for column, role in roles(found).items() if role}
    assert given == {"sku": "id", "name-en_US": "text", "name-de_DE": "text", "name-fr_FR": "text",
                     "description-en_US-print": "text", "description-de_DE-mobile": "text", "image": "photo",
                     "picture-print": "photo", "categories": "attribute multi delimited",
                     "shade": "attribute single column", "print-de_DE": "attribute single column",
                     "print-en_US": "attribute single column"}
    assert {column["column"]: column["why"] for column in found["columns"]}["description-en_US-mobile"] == (
        "description in another language or channel")
    assert any("en_US, de_DE, fr_FR: all that a product has" in warning for warning in found["warnings"])
    assert catalog.schema.text == ["name-en_US", "name-de_DE", "name-fr_FR", "description-en_US-print",
                                   "description-de_DE-mobile"]
    assert catalog.schema.language is None
    records = {record["id"]: record for split in catalog.splits for record in catalog.records(split)
               if isinstance(record, dict)}
    assert records["0"]["texts"] == ["Lamp 0", "Mondlampe 0", "A lamp that glows like the moon, number 0",
                                     "Eine Lampe für das Haus und die Nacht 0"]
    assert records["8"]["texts"] == ["Lampe 8"] and "2" in records  # has a photo alone


def test_one_locale_alone_is_read_where_it_is_asked_for(tmp_path, capsys):
    path = several_locales(tmp_path / "a.csv")
    (tmp_path / "options.csv").write_text("code;attribute;label-de_DE;label-en_US\nred;shade;Rot;Fire red\n"
                                          "blue;shade;Blau;Sky\ngreen;shade;;Moss\n")
    labels = ["--labels", str(tmp_path / "options.csv")]
    found, catalog = started(capsys, path, tmp_path / "a.yaml", "--locale", "de_DE", *labels)
    given = {column: role for column, role in roles(found).items() if role}
    assert {column for column in given if "_" in column} == {"name-de_DE", "description-de_DE-mobile", "print-de_DE"}
    shade = next(column for column in found["columns"] if column["column"] == "shade")
    assert shade["spec"]["aliases"] == {"red": "Rot", "blue": "Blau"}
    assert "2 labels of options.csv (de_DE)" in shade["why"]
    found, _ = started(capsys, path, tmp_path / "b.yaml", *labels)  # most texts are in English
    shade = next(column for column in found["columns"] if column["column"] == "shade")
    assert shade["spec"]["aliases"] == {"red": "Fire red", "blue": "Sky", "green": "Moss"}
    assert init.main([str(path), "--output", str(tmp_path / "c.yaml"), "--locale", "en_UK"]) == 2
    assert 'Did you mean "en_US"' in capsys.readouterr().err
    assert init.main([str(path), "--output", str(tmp_path / "c.yaml"), "--locale", "fr_FR", *labels]) == 2
    assert "no labels of fr_FR, but of de_DE, en_US" in capsys.readouterr().err
    plain = table(tmp_path / "plain.csv", ["sku", "name", "shade"], [[n, f"Lamp {n}", SHADES[n % 2]] for n in range(9)])
    assert init.main([str(plain), "--output", str(tmp_path / "c.yaml"), "--locale", "de_DE"]) == 2
    assert "whose columns name several" in capsys.readouterr().err


def test_numbers_of_categories_get_their_names(tmp_path, capsys):
    path = shop_exports.bigcommerce_modern(tmp_path / "export.csv")
    (tmp_path / "categories.csv").write_text("Category ID,Category Name\n19,New\n20,Cups\n21,Frocks\n")
    found, catalog = started(capsys, path, tmp_path / "my.yaml", "--labels", str(tmp_path / "categories.csv"))
    spec = next(column["spec"] for column in found["columns"] if column["column"] == "Categories")
    assert spec["aliases"] == {"19": "New", "20": "Cups", "21": "Frocks"}
    tags = {tag for record in catalog.records("train") for tag in record["tags"]["categories"]}
    assert {"New", "Cups", "22"} < tags and not tags & {"19", "20"}


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
