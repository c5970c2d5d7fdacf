"""Recognising the system that wrote an export."""

import pytest

from hf_tagger.catalog.profiles import FOLDER, pattern_regex, profile, recognise
from hf_tagger.catalog.strict import ConfigError

HEADERS = {
    "shopify": ["Handle", "Title", "Body (HTML)", "Vendor", "Type", "Tags", "Option1 Name", "Option1 Value",
                "Image Src"],  # fmt: skip
    "woocommerce": ["ID", "Type", "SKU", "Name", "Published", "Description", "Categories", "Tags", "Images", "Parent"],
    "google": ["id", "title", "description", "link", "image_link", "product_type", "color", "item_group_id"],
    "akeneo": ["sku", "categories", "enabled", "family", "parent", "groups", "color", "name-de_DE", "name-en_US",
               "description-en_US-ecommerce", "description-en_US-print", "image"],
    "bigcommerce": ["Item Type", "Product ID", "Product Name", "Brand Name", "Product Code/SKU", "Product Description",
                    "Price", "Category", "Product Image File - 1", "Product Custom Fields"],
    "prestashop": ["Product ID", "Active (0/1)", "Name *", "Categories (x,y,z...)", "Tags (x,y,z...)",
                   "Image URLs (x,y,z...)", "Feature (Name:Value:Position:Customized)"],
    "etsy": ["TITLE", "DESCRIPTION", "PRICE", "TAGS", "MATERIALS", "IMAGE1", "VARIATION 1 NAME", "SKU"],
    "wix": ["handle", "fieldType", "name", "visible", "plainDescription", "categorySlugs", "media"],
    "squarespace": ["Product ID [Non Editable]", "Product Page", "Title", "Option Name 1", "Option Value 1", "Tags"],
    "odoo": ["id", "name", "categ_id", "attribute_line_ids/attribute_id", "attribute_line_ids/value_ids"],
    "square": ["Token", "Item Name", "Variation Name", "SKU", "Categories", "Option Name 1", "Option Value 1"],
    "ecwid": ["type", "product_internal_id", "product_sku", "product_name", "product_option_name"],
    "magento": ["sku", "store_view_code", "attribute_set_code", "product_type", "categories", "name", "description"],
}
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("name", HEADERS)
def test_a_system_is_recognised_by_its_columns(name):
    found, columns = recognise(HEADERS[name])
    assert found.name == name
    assert set(columns.values()) <= set(HEADERS[name]) and columns[found.id] in HEADERS[name]


def test_texts_are_of_all_locales_and_of_the_first_channel_in_each():
    header = [*HEADERS["akeneo"], "description-de_DE-print"]
    assert profile("akeneo").texts(header) == ["name-de_DE", "name-en_US", "description-en_US-ecommerce",
                                               "description-de_DE-print"]
    assert profile("shopify").texts(["Handle", "Body (HTML)", "Title"]) == ["Title", "Body (HTML)"]
    assert profile("akeneo").texts(["sku", "categories", "family", "name"]) == ["name"]


@pytest.mark.parametrize(("header", "expected"), [
    (["Item", "ID", "Name", "Type", "SKU", "Options", "Categories"], {"id": "ID", "categories": "Categories"}),
    (["Item", "ID", "Name", "Description", "Internal Image URL (Export)"], {"image_1": "Internal Image URL (Export)"}),
    (["Item", "Name", "Type", "SKU", "Price", "Options", "Image URL (Import)"], {"id": "SKU", "options": "Options"}),
    (["Product ID", "Code", "Name", "Category Details", "Images"], {"category": "Category Details", "title": "Name"}),
    (["Product ID", "Name", "Category String", "Product Images"], {"category": "Category String"}),
    ([*HEADERS["bigcommerce"], "Product Image URL - 1"], {"image_1": "Product Image URL - 1"}),
])  # fmt: skip
def test_the_exports_of_bigcommerce_with_the_columns_that_their_templates_leave(header, expected):
    found, columns = recognise(header)
    assert found.name == "bigcommerce" and expected.items() <= columns.items()


def test_both_generations_of_shopify_headers_and_another_case_where_it_is_declared():
    assert recognise(["Title", "URL handle", "Description", "Product image URL"])[1]["image"] == "Product image URL"
    lower = ["handle", "title", "body (html)"]
    assert recognise(lower) is None
    assert profile("shopify").columns(lower) == dict(zip(("id", "title", "description"), lower, strict=True))


@pytest.mark.parametrize("header", [[], ["id", "title", "colour"], ["Handle", "Price"], ["sku", "name", "categories"],
                                    ["Item", "ID", "Name"], ["Product ID", "Name"]])
def test_other_files_are_not_taken_for_an_export(header):
    assert recognise(header) is None


@pytest.mark.parametrize("name", NAMES)
def test_every_name_that_a_profile_uses_is_a_column_of_each_generation(name):
    made = profile(name)
    assert made.name == name
    used = {made.id, *made.text, *made.images, *made.attributes, *filter(None, [made.language, made.group])}
    used |= {write.column for write in made.write.values() if write.how != "column"}
    used |= {*made.rows.starts, *(name for name in vars(made.rows).values() if isinstance(name, str))}
    used |= {name for pattern in made.patterns.values() for name in (pattern.pairs, pattern.items) if name}
    known = set().union(*(generation.names for generation in made.generations))
    assert used <= known
    for generation in made.generations:
        columns = [[names] if isinstance(names, str) else names for names in generation.names.values()]
        assert set(generation.parts) <= set(generation.names)
        required = {name for names in generation.required for name in ([names] if isinstance(names, str) else names)}
        assert required <= {*sum(columns, []), "link", "Inventory Tracking", "Channels"}
        assert {made.id, made.text[0]} <= set(generation.names)
        # What is written to is one column.
        assert all(isinstance(generation.names.get(write.column, ""), str) or write.column in generation.parts
                   for write in made.write.values())


def test_an_unknown_profile_names_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match='Did you mean "shopify"'):
        profile("shopfy")


def test_a_profile_may_be_a_file_of_the_shop(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\ntitle: My shop\nid: id\ntext: [name]\n"
                    "generations: [{required: [no], names: {id: no, name: what}}]\n")
    assert profile(str(file)).columns(["no", "what"]) == {"id": "no", "name": "what"}


@pytest.mark.parametrize(("template", "column", "groups"), [
    ("Option{n} Name", "Option2 name", {"n": "2"}),
    ("Attribute {n} value(s)", "Attribute 10 value(s)", {"n": "10"}),
    ("{name} (product.metafields.{key})", "Color (product.metafields.shopify.color-pattern)",
     {"name": "Color", "key": "shopify.color-pattern"}),
])  # fmt: skip
def test_patterns(template, column, groups):
    assert pattern_regex(template).fullmatch(column).groupdict() == groups
