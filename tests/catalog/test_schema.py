"""A shop's columns onto one product record."""

import time

import pytest

from hf_tagger.catalog.formats.columns import check_columns
from hf_tagger.catalog.photos import RemoteFile
from hf_tagger.catalog.quarantine import RowError
from hf_tagger.catalog.schema import CatalogSchema
from hf_tagger.catalog.strict import ConfigError, build


def schema(**data) -> CatalogSchema:
    return build(CatalogSchema, {"text": "title", "attributes": {"colour": {}}} | data)


def tags(spec: dict, value):
    """What an attribute `x` with this specification reads in a cell."""
    return schema(attributes={"x": spec}).record({"title": "Shirt", "x": value}, 1)["tags"]["x"]


def test_record():
    shop = schema(id="sku", text=["title", "about"], images=["front", "more"], language_column="lang", keep=["shelf"])
    row = {"sku": 7, "title": " Red <b>shirt</b>", "about": "Nice.", "front": "a.jpg", "more": ["b.jpg", b"bytes"],
           "lang": "de_AT", "colour": "Red", "unused": 1, "shelf": 4}  # fmt: skip
    assert shop.record(row, 12, file="shop.csv", image_root="/photos") == {
        "id": "7",
        "group": "7",
        "number": 12,
        "file": "shop.csv",
        "text": "Red shirt. Nice.",
        "texts": ["Red shirt", "Nice."],
        "language": "de-at",
        "images": ["/photos/a.jpg", "/photos/b.jpg", b"bytes"],
        "tags": {"colour": ["Red"]},
        "kept": {"shelf": 4},
    }


def test_text_columns_keep_their_order_and_empty_ones_leave_no_trace():
    shop = schema(text=["b", "a", "c"])
    assert shop.record({"a": "two", "b": "one", "c": " <br> "}, 1)["text"] == "one. two"
    assert shop.record({"a": ["x", "y"], "b": 5, "c": None}, 1)["texts"] == ["5", "x. y"]


def test_row_without_id_is_called_by_file_and_number():
    assert schema().record({"title": "Shirt"}, 3, file="shop.csv")["id"] == "shop.csv:3"
    assert schema(id="sku").record({"title": "Shirt", "sku": " "}, 3, file="shop.csv")["id"] == "shop.csv:3"
    assert schema(id="sku").record({"title": "Shirt", "sku": 12.0}, 3)["id"] == "12"


def test_one_language_for_all_products():
    assert schema(language="EN").record({"title": "Shirt"}, 1)["language"] == "en"
    assert schema(language_column="l").record({"title": "Shirt", "l": ""}, 1)["language"] is None


@pytest.mark.parametrize("row", [{"title": ""}, {"title": None, "photo": ""}, {"photo": {"bytes": None, "path": None}}])
def test_neither_text_nor_photo_is_refused(row):
    with pytest.raises(RowError) as refused:
        schema(images="photo").record(row, 1)
    assert refused.value.reason == "no_content"


def test_photos_in_every_form():
    shop = schema(images="photo", image_root="/root", image_delimiter="|")

    def photos(value):
        return shop.record({"title": "Shirt", "photo": value}, 1)["images"]

    assert photos("a.jpg| b/c.jpg|") == ["/root/a.jpg", "/root/b/c.jpg"]
    assert photos("/elsewhere/a.jpg") == ["/elsewhere/a.jpg"]
    assert photos({"bytes": b"x", "path": "a.jpg"}) == [{"bytes": b"x", "path": "a.jpg"}]
    assert photos({"bytes": None, "path": "a.jpg"}) == ["/root/a.jpg"]
    assert photos([b"x", None, ""]) == [b"x"]
    (remote,) = photos("s3://bucket/a.jpg")
    assert isinstance(remote, RemoteFile) and remote.url == "s3://bucket/a.jpg"


@pytest.mark.parametrize(
    ("value", "reason"),
    [("https://shop.example/a.jpg", "url_refused"), ("HTTP://x/a.jpg", "url_refused"), ("../../a.jpg", "outside_root"),
     ("x/../../a.jpg", "outside_root"), (5, "wrong_type")],
)  # fmt: skip
def test_a_refused_photo_leaves_the_row_and_a_note(value, reason):
    notes = []
    shop = schema(images="photo", image_root="/root")
    assert shop.record({"title": "Shirt", "photo": value}, 1, notes=notes)["images"] == []
    assert [(note.column, note.reason) for note in notes] == [("photo", reason)]
    with pytest.raises(RowError):
        shop.record({"photo": value}, 1)


def test_urls_pass_where_the_schema_allows_them():
    shop = schema(images="photo", image_root="/root", allow_urls=True)
    assert shop.record({"photo": "https://shop.example/a.jpg"}, 1)["images"] == ["https://shop.example/a.jpg"]


@pytest.mark.parametrize(
    ("spec", "value", "expected"),
    [
        ({}, "Red", ["Red"]),
        ({}, " red &amp; blue ", ["red & blue"]),
        ({}, 36, ["36"]),
        ({}, 36.0, ["36"]),
        ({}, None, None),
        ({}, "  ", None),
        ({}, float("nan"), None),
        ({"when_missing": "none"}, None, []),
        ({"none_values": ["No pattern"]}, "NO PATTERN", []),
        ({"unknown_values": ["n/a"], "when_missing": "none"}, "N/A", None),
        ({}, "None", ["None"]),
        ({}, "NA", ["NA"]),
        ({"aliases": {"Rouge": "Red"}}, "Rouge", ["Red"]),
        ({"aliases": {"Rouge": "Red"}}, "rouge", ["rouge"]),
        ({"aliases": {"Rouge": "Red"}, "fold_case": True}, "ROUGE", ["Red"]),
        ({"aliases": {"Rouge": "Red"}, "fold_case": True}, "RED", ["Red"]),
        ({"tags": ["Navy Blue"], "fold_case": True}, "navy blue", ["Navy Blue"]),
        ({"fold_case": True}, "Navy Blue", ["navy blue"]),
        ({"kind": "multi", "format": "list"}, ["Red", "Blue", "Red", None], ["Red", "Blue"]),
        ({"kind": "multi", "format": "list"}, [], []),
        ({"kind": "multi", "format": "list"}, None, None),
        ({"kind": "multi", "format": "list"}, '["Red", "Blue"]', ["Red", "Blue"]),
        ({"kind": "multi", "format": "delimited"}, "Red, Blue,,", ["Red", "Blue"]),
        ({"kind": "multi", "format": "delimited", "delimiter": "|"}, "Red, dark|Blue", ["Red, dark", "Blue"]),
        ({"kind": "multi", "format": "delimited"}, " , ", None),
        ({"format": "delimited", "aliases": {"Rouge": "Red"}}, "Rouge,Red", ["Red"]),
        ({"format": "delimited", "none_values": ["plain"]}, "plain,Red", ["Red"]),
        ({"format": "path", "level": 0}, "Apparel > Topwear > Tshirts", ["Apparel"]),
        ({"format": "path", "level": -1}, "Apparel > Topwear > Tshirts", ["Tshirts"]),
        ({"format": "path", "level": 2}, "Apparel > Topwear", None),
        ({"format": "path", "level": 1, "delimiter": "/"}, "Apparel/Topwear", ["Topwear"]),
        ({"format": "path", "kind": "multi"}, "Apparel > Topwear > Tshirts", ["Apparel", "Topwear", "Tshirts"]),
        ({"format": "path", "kind": "multi"}, ["Apparel > Topwear"], ["Apparel", "Topwear"]),
    ],
)
def test_tags_given_none_and_unknown(spec, value, expected):
    assert tags(spec, value) == expected
    assert tags(spec, value) == expected


PATHS = {"format": "path", "kind": "multi"}


@pytest.mark.parametrize(("spec", "value", "expected"), [
    # A JSON list is a list, wherever a list may stand.
    (PATHS | {"delimiter": ">>"}, '["Baby >> Toys", "Sale"]', ["Baby", "Toys", "Sale"]),
    ({"format": "path", "level": -1}, '["Baby > Toys"]', ["Toys"]),
    ({"kind": "multi"}, '["Red", "Blue, dark"]', ["Red", "Blue, dark"]),
    ({"format": "delimited", "kind": "multi"}, '["Red", "Blue, dark"]', ["Red", "Blue, dark"]),
    ({}, "[new] Red", ["[new] Red"]),
    # Several paths: told apart by `paths`, else where they begin with the same node.
    (PATHS | {"delimiter": "/"}, "Root/Gear,Root/Gear/Fitness, wellness,Root", ["Root", "Gear", "Fitness, wellness"]),
    (PATHS, "Clothing > Hoodies; Clothing > Sale", ["Clothing", "Hoodies", "Sale"]),
    (PATHS, "Home, garden > Tools", ["Home, garden", "Tools"]),
    (PATHS | {"paths": ","}, "Clothing > Hoodies, Sale", ["Clothing", "Hoodies", "Sale"]),
    (PATHS | {"paths": ",", "escape": "\\"}, r"Care > Perfume\, Cologne, Gifts", ["Care", "Perfume, Cologne", "Gifts"]),
    (PATHS | {"delimiter": "/", "escape": "\\"}, r"Home/Bits \/ Pieces", ["Home", "Bits / Pieces"]),
    ({"format": "path", "level": -1, "kind": "multi", "paths": "|"}, "A > B|A > C", ["B", "C"]),
    ({"format": "delimited", "kind": "multi", "quote": '"'}, 'Red, "Blue, dark"', ["Red", "Blue, dark"]),
])  # fmt: skip
def test_lists_and_paths_as_systems_write_them(spec, value, expected):
    assert tags(spec, value) == expected


def test_several_paths_are_kept_apart_in_the_record():
    record = schema(text="t", attributes={"c": PATHS | {"paths": ",", "aliases": {"Tops": "Topwear"}}}).record(
        {"t": "x", "c": "Men > Tops, Men > Sale"}, 1)
    assert record["tags"]["c"] == ["Men", "Topwear", "Sale"]
    assert record["paths"] == {"c": [["Men", "Topwear"], ["Men", "Sale"]]}


def test_a_json_list_of_photos_is_several(tmp_path):
    read = schema(images="i", attributes={"c": {}}).record({"i": '["a.jpg", "b.jpg"]', "c": "Red"}, 1, image_root="r")
    assert read["images"] == ["r/a.jpg", "r/b.jpg"]


def test_spellings_in_the_schema_are_cleaned_as_cells_are():
    dept = {"aliases": {"Women’s": "Women", "Ｍｅｎ": "Men’s"}, "tags": ["Women", "Men's", "Nike™", "10½"]}
    shop = schema(attributes={"dept": dept})
    for cell, tag in (("Women's", "Women"), ("Women’s", "Women"), ("Men", "Men's"), ("Nike™", "Nike™"), ("10½", "10½")):
        assert shop.record({"title": "x", "dept": cell}, 1)["tags"]["dept"] == [tag]
    assert shop.attributes["dept"].tags == ["Women", "Men's", "Nike™", "10½"]
    for wrong in ({"tags": ["Women’s", "Women's"]}, {"tags": [" "]}, {"aliases": {"x": ""}}):
        with pytest.raises(ConfigError, match="twice|is not a tag"):
            schema(attributes={"dept": wrong})
    with pytest.raises(ConfigError, match="an attribute has no name"):
        schema(attributes={" ": {"column": "dept"}})


@pytest.mark.parametrize("value", [
    [["Red"]], [{"name": "colour", "value": "Red"}], [("colour", "Red")], {"value": "Red"}, b"Red", ["Red", ["Blue"]]])
def test_a_nested_value_is_refused_with_the_remedy_and_as_text_left_out(value):
    shop = schema(attributes={"colour": {"kind": "multi", "format": "list"}})
    with pytest.raises(RowError, match="write the value") as refused:
        shop.record({"title": "Shirt", "colour": value}, 1)
    assert refused.value.reason == "wrong_type"
    notes = []
    with pytest.raises(RowError):
        shop.record({"title": value}, 1, notes=notes)
    assert [note.reason for note in notes] == ["wrong_type"]


@pytest.mark.parametrize("cell", ["[" * 100_000, "[" + "9" * 5000 + "]", '{"a": ' * 50_000])
def test_a_list_cell_that_nothing_can_read_is_refused(cell):
    with pytest.raises(RowError, match="wants a list") as refused:
        schema(attributes={"colour": {"kind": "multi", "format": "list"}}).record({"title": "x", "colour": cell}, 1)
    assert len(refused.value.detail) <= 300


def test_of_many_photos_the_first_are_read_and_it_is_said():
    notes = []
    record = schema(images="photo", max_images=3).record({"title": "x", "photo": [b"x"] * 300}, 1, notes=notes)
    assert record["images"] == [b"x"] * 3 and [note.reason for note in notes] == ["many_photos"]
    assert "300 photos; the product's first 3 are read" in notes[0].detail
    assert len(schema(images="photo").record({"title": "x", "photo": [b"x"] * 300}, 1)["images"]) == 8
    notes.clear()
    shop = schema(images="photo", image_delimiter="|")
    record = shop.record({"title": "x", "photo": "|".join(["a.png"] * 8)}, 1, notes=notes)
    assert len(record["images"]) == 8 and not notes


def test_many_tags_cost_no_more_than_their_number():
    shop, seconds = schema(attributes={"colour": {"kind": "multi", "format": "delimited"}}), []
    for count in (5_000, 40_000):
        start = time.process_time()
        record = shop.record({"title": "x", "colour": ",".join(f"{count} {n}" for n in range(count))}, 1)
        seconds.append(time.process_time() - start)
        assert len(record["tags"]["colour"]) == count
    assert seconds[1] < 24 * seconds[0], "eight times as many tags"


def test_reading_a_cell_twice_gives_two_lists():
    shop = schema()
    first = shop.record({"title": "Shirt", "colour": "Red"}, 1)["tags"]["colour"]
    first.append("changed by someone")
    assert shop.record({"title": "Shirt", "colour": "Red"}, 2)["tags"]["colour"] == ["Red"]


@pytest.mark.parametrize(
    ("spec", "value", "reason"),
    [
        ({"format": "delimited"}, "Red,Blue", "several_values"),
        ({"format": "list"}, ["Red", "Blue"], "several_values"),
        ({"format": "list"}, "Red", "wrong_type"),
        ({"format": "path", "level": 0}, ["A > B", "C > D"], "several_values"),
        ({"format": "path", "kind": "multi"}, [["A", "B"]], "wrong_type"),
        ({}, {"a": 1}, "wrong_type"),
    ],
)
def test_cells_that_an_attribute_cannot_have(spec, value, reason):
    with pytest.raises(RowError) as refused:
        tags(spec, value)
    assert (refused.value.column, refused.value.reason) == ("x", reason)


def test_pairs_leave_every_other_attribute_unknown():
    shop = schema(attributes={"Colour": {}, "Fit": {"kind": "multi"}, "brand": {"column": "maker"}},
                  pairs={"names": "names", "values": "values"})  # fmt: skip
    row = {"title": "Shirt", "maker": "Acme", "names": ["Fit", "Fit"], "values": ["Slim", "Tall"]}
    assert shop.record(row, 1)["tags"] == {"Colour": None, "Fit": ["Slim", "Tall"], "brand": ["Acme"]}
    assert shop.record({"title": "Shirt", "maker": "", "names": "Colour", "values": "Red"}, 1)["tags"] == {
        "Colour": ["Red"],
        "Fit": None,
        "brand": None,
    }
    with pytest.raises(ConfigError, match='"Color" is not declared. Did you mean "Colour"'):
        shop.record({"title": "Shirt", "names": ["Color"], "values": ["Red"]}, 1)
    with pytest.raises(RowError, match="2 names for 1 values"):
        shop.record({"title": "Shirt", "names": ["Fit", "Colour"], "values": ["Red"]}, 1)


def test_pairs_can_discover_attributes():
    shop = schema(attributes={"Colour": {}}, pairs={"names": "n", "values": "v", "discover": {"fold_case": True}})
    assert shop.record({"title": "Shirt", "n": ["Fit"], "v": ["SLIM"]}, 1)["tags"] == {"Colour": None, "Fit": ["slim"]}


def test_a_column_that_is_not_there_is_named_with_the_nearest():
    shop = schema(id="id", images="photo", pairs=None)
    check_columns(shop.columns(), ["title", "photo", "id", "colour", "more"], "shop.csv")
    message = r'shop.csv has no column "colour" \(schema: attributes.colour\). Did you mean "Color"'
    with pytest.raises(ConfigError, match=message):
        check_columns(shop.columns(), ["id", "title", "photo", "Color"], "shop.csv")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"attributes": {}}, "needs attributes"),
        ({"text": [], "attributes": {"x": {}}}, "at least one text or images column"),
        ({"language": "en", "language_column": "l"}, "not both"),
        ({"attributes": {"x": {"format": "path"}}}, "attributes.x: .*kind: multi, or level: -1"),
        ({"attributes": {"x": {"level": 1}}}, "attributes.x: level needs format: path"),
        ({"attributes": {"x": {"delimiter": ","}}}, "attributes.x: delimiter"),
        ({"attributes": {"x": {"min_count": 0}}}, "attributes.x: min_count"),
        ({"attributes": {"x": {"kind": "many"}}}, "attributes.x.kind"),
        ({"attributes": {"x": {"colum": "y"}}}, 'Unknown key "attributes.x.colum". Did you mean "column"'),
    ],
)
def test_a_schema_that_cannot_be(data, message):
    with pytest.raises(ConfigError, match=message):
        schema(**data)
