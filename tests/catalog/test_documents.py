"""Catalogues that are one document: JSON, JSON-LD, XML feeds, spreadsheets."""

import json
import zipfile

import pytest

from hf_tagger.catalog.formats.documents import read_json_document
from hf_tagger.catalog.formats.json_values import json_products
from hf_tagger.catalog.schema import CatalogSchema
from hf_tagger.catalog.strict import ConfigError, build
from tests.catalog.files import catalog

PRODUCTS = [{"id": 1, "title": "Shirt", "tags": ["a", "b"], "brand": {"name": "Acme"},
             "images": [{"src": "http://x/1.jpg"}, {"src": "http://x/2.jpg"}],
             "options": [{"name": "Color", "values": ["Blue", "Red"]}]},
            {"id": 2, "title": "Bag", "tags": "c", "brand": {"name": "Umbra"}, "images": []}]  # fmt: skip
SCHEMA = {"id": "id", "text": "title", "images": "images.src", "allow_urls": True, "attributes": {
    "tags": {"kind": "multi"}, "brand": {"column": "brand.name"}}}  # fmt: skip
FEED = """<?xml version="1.0"?>
<!DOCTYPE rss [<!ENTITY secret SYSTEM "file:///etc/hostname">]>
<rss version="2.0" xmlns:g="http://base.google.com/ns/1.0"><channel><title>Shop</title>
<item><g:id>1</g:id><title>Plain</title><g:title>Shirt</g:title><g:description>&lt;b&gt;Airy&lt;/b&gt;</g:description>
<link>x</link><g:image_link>http://x/1.jpg</g:image_link><g:additional_image_link>http://x/2.jpg</g:additional_image_link>
<g:additional_image_link>http://x/3.jpg</g:additional_image_link><g:product_type>Men &gt; Shirts</g:product_type>
<g:product_type>Sale</g:product_type><g:color>Blue</g:color><g:product_detail>
<g:attribute_name>Fit</g:attribute_name><g:attribute_value>Slim</g:attribute_value></g:product_detail></item>
<item><g:id>2</g:id><g:title>Bag &secret;</g:title><link>x</link><g:description>d</g:description>
<g:image_link>http://x/4.jpg?size=1,2</g:image_link><g:product_type>Home, garden &gt; Bags</g:product_type>
<g:color>Red/Blue</g:color><g:product_detail><g:attribute_name>Fit</g:attribute_name>
<g:attribute_value>Wide</g:attribute_value><g:attribute_name>Lining</g:attribute_name>
<g:attribute_value>None</g:attribute_value></g:product_detail></item>
</channel></rss>"""


def read(path, schema=SCHEMA):
    return [item for item in catalog({"path": str(path)}, build(CatalogSchema, schema)).records("train")]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize("wrap", [lambda rows: rows, lambda rows: {"count": {"n": 2}, "products": rows},
                                  lambda rows: {"@context": "x", "@graph": rows}])
@pytest.mark.parametrize("indent", [None, 2])
def test_json_documents(tmp_path, wrap, indent, name):
    (tmp_path / name).write_text(json.dumps(wrap(PRODUCTS), indent=indent), encoding="utf-8-sig")
    shirt, bag = read(tmp_path / name)
    assert (shirt["id"], shirt["text"], shirt["images"]) == ("1", "Shirt", ["http://x/1.jpg", "http://x/2.jpg"])
    assert shirt["tags"] == {"tags": ["a", "b"], "brand": ["Acme"]} and bag["tags"]["brand"] == ["Umbra"]


def test_json_lines_may_be_nested_too(tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PRODUCTS))
    assert [record["tags"]["brand"] for record in read(tmp_path / "a.jsonl")] == [["Acme"], ["Umbra"]]


def test_json_ld_gives_products_alone(tmp_path):
    graph = [{"@type": "Organization", "name": "Shop"},
             {"@type": ["Product", "Thing"], "sku": "1", "name": "Shirt", "image": ["http://x/1.jpg"],
              "additionalProperty": [{"@type": "PropertyValue", "name": "Color", "value": "Blue"}]},
             {"@type": "ListItem", "item": {"@type": "Product", "sku": "2", "name": "Bag"}}]  # fmt: skip
    (tmp_path / "a.jsonld").write_text(json.dumps({"@context": "https://schema.org", "@graph": graph}))
    found = read(tmp_path / "a.jsonld", {"id": "sku", "text": "name", "images": "image", "allow_urls": True,
                                         "attributes": {"property": {"column": "additionalProperty.value"}}})
    assert [(record["id"], record["tags"]["property"]) for record in found] == [("1", ["Blue"]), ("2", None)]


def test_what_ends_in_the_middle_is_told_and_what_stands_before_is_read(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(PRODUCTS, indent=1)[:-20])
    shirt, refused = read(tmp_path / "a.json")
    assert shirt["id"] == "1" and "not JSON from here on" in refused.detail
    (tmp_path / "a.xml").write_text(FEED[: FEED.index("<item><g:id>2") + 30])
    schema = {"id": "id", "text": "title", "attributes": {"color": {}}}
    shirt, refused = read(tmp_path / "a.xml", schema)
    assert shirt["id"] == "1" and "not XML from here on" in refused.detail


def test_a_google_feed_in_xml(tmp_path):
    (tmp_path / "a.xml").write_text(FEED)
    schema = {"id": "id", "text": ["title", "description"], "images": ["image_link", "additional_image_link"],
              "allow_urls": True, "attributes": {
                  "type": {"column": "product_type", "kind": "multi", "format": "path"},
                  "fit": {"column": "product_detail:fit"},
                  "color": {"kind": "multi", "format": "delimited", "delimiter": "/"}}}  # fmt: skip
    shirt, bag = read(tmp_path / "a.xml", schema)
    assert (shirt["text"], len(shirt["images"])) == ("Shirt. Airy", 3)
    assert shirt["tags"] == {"type": ["Men", "Shirts", "Sale"], "fit": ["Slim"], "color": ["Blue"]}
    assert bag["images"] == ["http://x/4.jpg?size=1,2"]
    assert bag["tags"] == {"type": ["Home, garden", "Bags"], "fit": ["Wide"], "color": ["Red", "Blue"]}
    assert bag["text"] == "Bag. d"  # the entity, which names a file of this machine, is not opened


def test_other_xml(tmp_path):
    (tmp_path / "a.xml").write_text("<shop>" + "".join(
        f'<article no="{n}"><name>Shirt {n}</name><tints><tint>Red</tint><tint>Blue</tint></tints></article>'
        for n in range(3)) + "</shop>")
    found = read(tmp_path / "a.xml", {"id": "no", "text": "name", "attributes": {
        "colour": {"column": "tints.tint", "kind": "multi"}}})
    assert [record["id"] for record in found] == ["0", "1", "2"]
    assert all(record["tags"]["colour"] == ["Red", "Blue"] for record in found)


def test_a_spreadsheet(tmp_path):
    write_xlsx(tmp_path / "a.xlsx", [["My shop"], ["id", "title", "colour", "price"], [1.0, "Shirt", "Red", 9.5], [],
                                     ["0002", "Bag", None, 12]])
    found = read(tmp_path / "a.xlsx", {"id": "id", "text": "title", "attributes": {"colour": {}}})
    assert [(record["id"], record["text"], record["tags"]["colour"]) for record in found] == [
        ("1", "Shirt", ["Red"]), ("0002", "Bag", None)]  # fmt: skip
    with pytest.raises(ConfigError, match='no column "color"'):
        read(tmp_path / "a.xlsx", {"text": "title", "attributes": {"color": {}}})


def test_what_is_no_document_is_told_so(tmp_path):
    for name, message in [("a.xlsx", "cannot be read as xlsx"), ("a.xml", "is not XML")]:
        (tmp_path / name).write_text("no such thing")
        with pytest.raises(ConfigError, match=message):
            read(tmp_path / name)


def write_xlsx(path, rows):
    """The smallest workbook that spreadsheets open."""
    cells = ""
    for number, row in enumerate(rows, start=1):
        cells += f'<row r="{number}">'
        for letter, value in zip("ABCDEFGH", row, strict=False):
            if isinstance(value, str):
                cells += f'<c r="{letter}{number}" t="inlineStr"><is><t>{value}</t></is></c>'
            elif value is not None:
                cells += f'<c r="{letter}{number}"><v>{value}</v></c>'
        cells += "</row>"
    main, office = "http://schemas.openxmlformats.org/spreadsheetml/2006/main", "http://schemas.openxmlformats.org"
    package, document = f"{office}/package/2006", f"{office}/officeDocument/2006/relationships"

    def related(type, target):
        return (f'<Relationships xmlns="{package}/relationships"><Relationship Id="r1" Type="{document}/{type}" '
                f'Target="{target}"/></Relationships>')

    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("[Content_Types].xml", f'<Types xmlns="{package}/content-types"/>')
        archive.writestr("_rels/.rels", related("officeDocument", "xl/workbook.xml"))
        archive.writestr("xl/workbook.xml", f'<workbook xmlns="{main}" xmlns:r="{document}"><sheets>'
                                            '<sheet name="S" sheetId="1" r:id="r1"/></sheets></workbook>')
        archive.writestr("xl/_rels/workbook.xml.rels", related("worksheet", "worksheets/sheet1.xml"))
        archive.writestr("xl/worksheets/sheet1.xml",
                         f'<worksheet xmlns="{main}"><sheetData>{cells}</sheetData></worksheet>')


@pytest.mark.parametrize("document", [
    {"_links": {"self": [1]}, "_embedded": {"items": [{"sku": "é"}, {"sku": "b"}]}},
    {"data": {"shop": {"name": "Ü"}, "all": {"products": {"nodes": [{"sku": "é"}, {"sku": "b"}]}}}},
    {"data": {"products": {"edges": [{"cursor": "x", "node": {"sku": "é"}}, {"node": {"sku": "b"}}]}}},
    {"response": {"data": [{"sku": "é"}, {"sku": "b"}]}},
])  # fmt: skip
def test_products_in_the_wrapping_of_an_answer(tmp_path, document):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document, ensure_ascii=False, indent=1), encoding="utf-8")
    assert [values for _, values, _ in read_json_document(str(path))] == [{"sku": "é"}, {"sku": "b"}]
    raw = path.read_bytes()
    for start, text, value in json_products(str(path)):
        assert json.loads(raw[start:start + len(text.encode())]) == value
