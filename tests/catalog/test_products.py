"""Products of shops' exports: variants, photos and translations stand in rows of their own."""

import csv

import pytest

from hf_tagger.catalog.profiles import profile
from hf_tagger.catalog.reading import products
from hf_tagger.catalog.schema import CatalogSchema
from hf_tagger.catalog.strict import ConfigError, build
from tests.catalog.files import catalog

SHOPIFY = [
    "Handle,Title,Body (HTML),Type,Tags,Option1 Name,Option1 Value,Option2 Name,Option2 Value,Image Src",
    'shirt,Linen shirt,"<p>Airy</p>",Shirts,"summer, linen",Color,Blue,Size,S,http://x/1.jpg',
    "shirt,,,,,,Red,,M,http://x/2.jpg",
    "shirt,,,,,,,,,http://x/3.jpg",
    "bag,Canvas bag,<p>Sturdy</p>,Bags,canvas,Title,Default Title,,,http://x/4.jpg",
    ",,,,,,,,,http://x/5.jpg",
]
WOO = [
    "ID,Type,SKU,Name,Description,Categories,Tags,Images,Parent,Attribute 1 name,Attribute 1 value(s)",
    r'1,variable,H,Zip hoodie,"Warm\nSoft","Clothing > Hoodies, Gifts",cosy,http://x/1.jpg,,Colour,"Blue, Dark\, grey"',
    "2,simple,S,'-20 scent,,\"Perfume\\, Cologne\",,\"http://x/2.jpg, http://x/3.jpg\",,,",
    "3,variation,H-B,Zip hoodie - Blue,,,,http://x/4.jpg,H,Colour,Blue",
    "4,variation,,Zip hoodie - Green,,,,http://x/5.jpg,id:1,Colour,Green",
    "5,variation,Z,Lost - Red,,,,http://x/6.jpg,gone,Colour,Red",
]
MAGENTO = [
    "sku,store_view_code,attribute_set_code,product_type,categories,name,description,base_image,additional_images,"
    "additional_attributes",
    'tee,,Top,simple,"Root/Men/Tees,Root/New",Running tee,Light,/1.jpg,"/2.jpg,/3.jpg",'
    '"care=Cold, hang dry,color=Blue,size=S|M"',
    'tee,fr,,,,T-shirt de course,__EMPTY__VALUE__,,,"color=Bleu,size=P|M"',
    "mat,,Gear,simple,Root/Gear,,,,,color=Red",
    "mat,fr,,,,Tapis,Doux,,,care=Froid",
]


def write(path, lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def read(path, schema, **source):
    found = catalog({"path": path, **source}, build(CatalogSchema, {"allow_urls": True, **schema}))
    return {item["id"]: item for item in found.records("train") if isinstance(item, dict)}


def test_shopify_rows_after_the_first_add_photos_and_options(tmp_path):
    found = read(write(tmp_path / "a.csv", SHOPIFY), {
        "id": "Handle", "text": ["Title", "Body (HTML)"], "images": "Image Src", "attributes": {
            "tags": {"column": "Tags", "kind": "multi", "format": "delimited"},
            "colour": {"column": "option:color", "kind": "multi"}, "size": {"column": "option:Size", "kind": "multi"},
            "first": {"column": "Option1 Value", "kind": "multi"}, "title": {"column": "option:Title"}}})  # fmt: skip
    assert list(found) == ["shirt", "bag"]
    assert found["shirt"]["text"] == "Linen shirt. Airy" and found["shirt"]["number"] == 1
    assert found["shirt"]["images"] == [f"http://x/{n}.jpg" for n in (1, 2, 3)]
    assert found["shirt"]["tags"] == {"tags": ["summer", "linen"], "colour": ["Blue", "Red"], "size": ["S", "M"],
                                      "first": ["Blue", "Red"], "title": None}
    assert found["bag"]["images"] == ["http://x/4.jpg", "http://x/5.jpg"]
    assert found["bag"]["tags"]["title"] is None  # "Default Title" says nothing


def test_woocommerce_variations_are_part_of_their_parent(tmp_path):
    found = read(write(tmp_path / "a.csv", WOO), {
        "id": "ID", "text": ["Name", "Description"], "images": "Images", "attributes": {
            "category": {"column": "Categories", "kind": "multi", "format": "path"},
            "colour": {"column": "attribute:Colour", "kind": "multi"}}})  # fmt: skip
    assert list(found) == ["1", "2", "5"]  # the last one's parent is not in the file
    assert found["1"]["text"] == "Zip hoodie. Warm Soft"
    assert found["1"]["images"] == [f"http://x/{n}.jpg" for n in (1, 4, 5)]
    assert found["1"]["tags"] == {"category": ["Clothing", "Hoodies", "Gifts"],
                                  "colour": ["Blue", "Dark, grey", "Green"]}
    assert found["1"]["paths"] == {"category": [["Clothing", "Hoodies"], ["Gifts"]]}
    assert found["2"]["texts"] == ["-20 scent"] and len(found["2"]["images"]) == 2
    assert found["2"]["tags"]["category"] == ["Perfume, Cologne"]
    assert found["5"]["tags"]["colour"] == ["Red"]


def test_a_variation_far_from_its_parent_is_a_product_and_memory_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(products, "WAITING", 2)
    rows = [WOO[0], *(f"{n},simple,S{n},Hat {n},,,,,,," for n in range(5)),
            "9,variation,,Hat 0 - Red,,,,,S0,Colour,Red", "10,variation,,Hat 4 - Red,,,,,id:4,Colour,Red"]
    found = read(write(tmp_path / "a.csv", rows), {
        "id": "ID", "text": "Name", "attributes": {"colour": {"column": "attribute:Colour", "kind": "multi"}}})
    assert list(found) == ["0", "1", "2", "3", "4", "9"]
    assert found["4"]["tags"]["colour"] == found["9"]["tags"]["colour"] == ["Red"]


def test_magento_store_views_fill_what_the_first_row_lacks(tmp_path):
    found = read(write(tmp_path / "a.csv", MAGENTO), {
        "id": "sku", "text": ["name", "description"], "images": ["base_image", "additional_images"], "attributes": {
            "category": {"column": "categories", "kind": "multi", "format": "path", "delimiter": "/"},
            "colour": {"column": "additional_attributes:color"}, "care": {"column": "additional_attributes:care"},
            "size": {"column": "additional_attributes:size", "kind": "multi"}}})  # fmt: skip
    assert {key: record["texts"] for key, record in found.items()} == {"tee": ["Running tee", "Light"],
                                                                       "mat": ["Tapis", "Doux"]}
    assert [image.rpartition("/")[2] for image in found["tee"]["images"]] == ["1.jpg", "2.jpg", "3.jpg"]
    assert found["tee"]["tags"] == {"category": ["Root", "Men", "Tees", "New"], "colour": ["Blue"],
                                    "care": ["Cold, hang dry"], "size": ["S", "M"]}
    assert found["mat"]["tags"]["care"] == ["Froid"]  # nobody says it in the first store view


def test_bigcommerce_rows_of_skus_follow_their_product(tmp_path):
    lines = ["Item Type,Product ID,Product Name,Product Description,Category,Product Image File - 1,"
             "Product Image File - 2,Product Custom Fields",
             "Product,7,Linen shirt,Airy,Shop/Shirts;Shop/Sale,a/1.jpg,a/2.jpg,Colour=Blue;Fit=Slim",
             '"  SKU",70,"[S]Size=Small,[CS]Trim=Red:#ff0000",,,a/3.jpg,,', "  Rule,700,,,,,,",
             '"  SKU",71,"[S]Size= 8"" wide,[CS]Trim=Grey",,,a/3.jpg,,', '"  Rule",701,"[S]Size=1,Size=2",,,,,',
             "Product,8,Bag,Sturdy,Shop\\/Home/Bags,,,Colour=Red"]
    found = read(write(tmp_path / "a.csv", lines), {
        "id": "Product ID", "text": "Product Name", "images": ["Product Image File - 1", "Product Image File - 2"],
        "attributes": {"category": {"column": "Category", "kind": "multi", "format": "path", "delimiter": "/",
                                    "escape": "\\"}, "colour": {"column": "custom_fields:Colour"},
                       "size": {"column": "option:Size", "kind": "multi"},
                       "trim": {"column": "option:Trim", "kind": "multi"}}})  # fmt: skip
    assert {key: record["tags"] for key, record in found.items()} == {
        "7": {"category": ["Shop", "Shirts", "Sale"], "colour": ["Blue"], "size": ["Small", '8" wide'],
              "trim": ["Red", "Grey"]},
        "8": {"category": ["Shop/Home", "Bags"], "colour": ["Red"], "size": None, "trim": None}}
    assert [image.rpartition("/")[2] for image in found["7"]["images"]] == ["1.jpg", "3.jpg", "2.jpg"]
    assert found["7"]["texts"] == ["Linen shirt"]


def test_the_modern_export_of_bigcommerce_has_rows_of_variants_and_images(tmp_path):
    lines = ["Item,ID,Name,Type,SKU,Options,Categories,Custom Fields,Variant Image URL,Internal Image URL (Export)",
             'Product,7,Linen shirt,physical,L,,23;24,"[{""name"":""Fit"",""value"":""Slim, long""}]",,',
             "Variant,70,,,L-S,Type=Rectangle|Name=Size|Value=SType=Swatch|Name=Trim|Value=Red[#ff0000],,,http://x/s.jpg,",
             "Variant,71,,,L-M,Type=Swatch|Name=Trim|Value=Grey[#888888|#999999]Type=Radio|Name=Size|Value=M,,,,",
             "Image,9,,,,,,,,http://x/1.jpg", "Product,8,Bag,physical,B,,23,,,", "Image,10,,,,,,,,http://x/2.jpg"]
    found = read(write(tmp_path / "a.csv", lines), {
        "id": "ID", "text": "Name", "images": ["Internal Image URL (Export)", "Variant Image URL"], "allow_urls": True,
        "attributes": {"category": {"column": "Categories", "kind": "multi", "format": "delimited", "delimiter": ";"},
                       "fit": {"column": "field:Fit"}, "size": {"column": "option:Size", "kind": "multi"},
                       "trim": {"column": "option:Trim", "kind": "multi"}}})  # fmt: skip
    assert {key: record["tags"] for key, record in found.items()} == {
        "7": {"category": ["23", "24"], "fit": ["Slim, long"], "size": ["S", "M"], "trim": ["Red", "Grey"]},
        "8": {"category": ["23"], "fit": None, "size": None, "trim": None}}
    assert [len(found[id]["images"]) for id in "78"] == [2, 1]


def test_the_default_template_of_bigcommerce_buries_categories_and_photos_in_words(tmp_path):
    lines = ["Product ID,Code,Name,Category Details,Images,Product Custom Fields",
             '7,L,Linen shirt,"Category Name: Men, Category Path: Shop/Men|Category Name: Sale , Category Path: '
             'Shop/Sale","Product Image File: a/1.jpg, Product Image URL: http://x/1.jpg|Product Image File: a/2.jpg, '
             'Product Image URL: http://x/2.jpg","Fit=Slim"";""Care=Cold; dry"',
             '8,B,Bag,"Category ID: 3, Category Name: Bags, Category Path: Bags",Product Image File: a/3.jpg,Fit=Wide',
             "9,N,Nothing,,,"]
    found = read(write(tmp_path / "a.csv", lines), {
        "id": "Product ID", "text": "Name", "images": ["Images"], "allow_urls": True, "attributes": {
            "category": {"column": "Category Details", "kind": "multi", "format": "path", "delimiter": "/"},
            "fit": {"column": "custom_fields:Fit"}, "care": {"column": "custom_fields:Care"}}})  # fmt: skip
    assert {key: record["tags"] for key, record in found.items()} == {
        "7": {"category": ["Shop", "Men", "Sale"], "fit": ["Slim"], "care": ["Cold; dry"]},
        "8": {"category": ["Bags"], "fit": ["Wide"], "care": None},
        "9": {"category": None, "fit": None, "care": None}}
    assert [len(found[id]["images"]) for id in "789"] == [2, 1, 0]
    assert found["8"]["images"][0].endswith("a/3.jpg")


def test_prestashop_features_are_attributes(tmp_path):
    lines = ["Product ID;Name *;Categories (x,y,z...);Image URLs (x,y,z...);Feature (Name:Value:Position:Customized)",
             "1;Shirt;Men/Shirts,Sale;http://x/1.jpg,http://x/2.jpg;Colour:Blue:1,Fabric:Linen:2"]
    found = read(write(tmp_path / "a.csv", lines), {
        "id": "Product ID", "text": "Name *", "images": "Image URLs (x,y,z...)", "attributes": {
            "category": {"column": "Categories (x,y,z...)", "kind": "multi", "format": "path", "delimiter": "/"},
            "colour": {"column": "feature:Colour"}, "fabric": {"column": "feature:fabric"}}})  # fmt: skip
    assert found["1"]["tags"] == {"category": ["Men", "Shirts", "Sale"], "colour": ["Blue"], "fabric": ["Linen"]}
    assert len(found["1"]["images"]) == 2


def test_google_items_stay_apart_and_lists_are_split(tmp_path):
    lines = ["id\ttitle\tdescription\tlink\timage_link\tadditional_image_link\tproduct_type\tcolor\titem_group_id",
             '1\tShirt\tAiry\tx\thttp://x/1.jpg\thttp://x/2.jpg,http://x/3.jpg\t"Men > Shirts, long",Sale\tBlue/Red\tg',
             "2\tShirt\tAiry\tx\thttp://x/4.jpg\t\tHome, garden > Bags\tBlue\tg",
             "3\tShirt\tAiry\tx\thttp://x/5.jpg\t\tMen > Shirts, Home > Bags\tBlue\tg"]
    found = read(write(tmp_path / "a.tsv", lines), {
        "id": "id", "text": "title", "images": ["image_link", "additional_image_link"], "group": "item_group_id",
        "attributes": {"color": {"kind": "multi", "format": "delimited", "delimiter": "/"},
                       "product_type": {"kind": "multi", "format": "path"}}})  # fmt: skip
    assert [(record["group"], len(record["images"]), record["tags"]["color"]) for record in found.values()] == [
        ("g", 3, ["Blue", "Red"]), ("g", 1, ["Blue"]), ("g", 1, ["Blue"])]  # fmt: skip
    assert [record["tags"]["product_type"] for record in found.values()] == [
        ["Men", "Shirts, long", "Sale"], ["Home, garden", "Bags"], ["Men", "Shirts", "Home", "Bags"]]


def test_a_profile_can_be_declared_or_refused(tmp_path):
    path, schema = write(tmp_path / "a.csv", SHOPIFY), {"id": "Handle", "text": "Title", "attributes": {"Type": {}}}
    assert len(read(path, schema)) == len(read(path, schema, profile="shopify")) == 2
    apart = list(catalog({"path": path, "profile": "none"}, build(CatalogSchema, schema)).records("train"))
    assert len(apart) == 5
    with pytest.raises(ConfigError, match="is no Magento product CSV: it has no column sku"):
        read(path, schema, profile="magento")
    with pytest.raises(ConfigError, match='Did you mean "shopify"'):
        read(path, schema, profile="shopfy")


def test_a_column_that_no_pattern_has_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match='no column "options:Color"'):
        read(write(tmp_path / "a.csv", SHOPIFY), {"id": "Handle", "text": "Title",
                                                 "attributes": {"colour": {"column": "options:Color"}}})


def test_rows_stream_and_a_column_that_is_no_id_fills_no_memory():
    layout = products.Layout(profile("shopify"), SHOPIFY[0].split(","), {"Handle": "id", "Image Src": "images"})
    read = []

    def rows():
        for number in range(1, 100_001):
            read.append(number)
            yield number, {"Handle": f"h{min(number, 50)}", "Title": "x", "Image Src": f"{number}.jpg"}, None

    made = layout.products(rows())
    assert next(made)[1] == {"Handle": "h1", "Image Src": ["1.jpg"]} and read == [1, 2]
    last = list(made)[-1]
    assert last[0] == 50 and len(last[1]["Image Src"]) == 200 and len(read) == 100_000


def test_every_row_is_in_a_product_or_set_aside(tmp_path):
    path = tmp_path / "a.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(SHOPIFY[0].split(","))
        for product in range(300):
            for row in range(product % 4 + 1):
                title = f"Shirt {product}" if row == 0 else ""
                option = "Size" if title else ""
                writer.writerow([f"h{product}", title, "", "", "", option, row, "", "", f"http://x/{product}-{row}.jpg"])
    path.write_text(path.read_text() + 'broken,"x\n')
    items = list(catalog({"path": str(path)}, build(CatalogSchema, {
        "id": "Handle", "text": "Title", "images": "Image Src", "allow_urls": True,
        "attributes": {"size": {"column": "Option1 Value", "kind": "multi"}}})).records("train"))  # fmt: skip
    found = [item for item in items if isinstance(item, dict)]
    assert len(found) == 300 and [item.reason for item in items if not isinstance(item, dict)] == ["malformed"]
    assert sum(len(item["images"]) for item in found) == sum(product % 4 + 1 for product in range(300))
