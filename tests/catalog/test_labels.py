import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_tagger.catalog.reading.labels import Labels
from hf_tagger.catalog.schema import CatalogSchema
from hf_tagger.catalog.strict import ConfigError, build
from hf_tagger.catalog.vocabulary import Vocabulary
from tests.catalog.files import catalog, write_csv

SCHEMA = {"id": "id", "text": "title",
          "attributes": {"colour": {}, "size": {}, "features": {"kind": "multi", "format": "delimited"}}}
ROWS = [
    {"id": "1", "title": "Mug", "colour": "Red", "size": "L", "features": "New,Old"},
    {"id": "2", "title": "Bag", "colour": "Blue", "size": "M", "features": ""},
    {"id": "3", "title": "Hat", "colour": "Blue", "size": "", "features": "New"},
]


@pytest.fixture
def shop(tmp_path):
    """labels rows -> (catalogue with these corrections, the corrections)."""

    def make(*rows, schema=SCHEMA):
        write_csv(tmp_path / "shop.csv", ROWS)
        corrections = [dict(zip(("id", "attribute", "tags"), row, strict=True)) for row in rows]
        schema = build(CatalogSchema, schema)
        labels = Labels(write_csv(tmp_path / "corrected.csv", corrections), schema)
        return catalog({"path": str(tmp_path / "shop.csv")}, schema, labels), labels

    return make


def tags(opened):
    return {record["id"]: record["tags"] for record in opened.records("train")}


def test_corrected_tags_stand_in_for_those_of_the_catalogue_and_nothing_else_changes(shop):
    opened, labels = shop(("1", "colour", '["Blue"]'), ("1", "features", '["New"]'), ("2", "features", "[]"),
                          ("3", "colour", ""))  # fmt: skip
    assert tags(opened) == {
        "1": {"colour": ["Blue"], "size": ["L"], "features": ["New"]},
        "2": {"colour": ["Blue"], "size": ["M"], "features": []},
        "3": {"colour": None, "size": None, "features": ["New"]},
    }
    assert len(labels) == 4
    assert tags(opened) == tags(opened.with_text(["title"]))


def test_parquet_and_jsonl_say_the_same_as_csv(tmp_path):
    rows = [{"id": "1", "attribute": "colour", "tags": ["Blue"]}, {"id": "2", "attribute": "size", "tags": None},
            {"id": "2", "attribute": "features", "tags": []}]  # fmt: skip
    kinds = pa.schema([("id", pa.string()), ("attribute", pa.string()), ("tags", pa.list_(pa.string()))])
    pq.write_table(pa.Table.from_pylist(rows, kinds), tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    schema = build(CatalogSchema, SCHEMA)
    expected = {"1": {"colour": ["Blue"]}, "2": {"size": None, "features": []}}
    assert Labels(tmp_path / "a.parquet", schema).tags == Labels(tmp_path / "a.jsonl", schema).tags == expected


def test_an_id_stays_text(shop):
    _, labels = shop(("007", "colour", '["Blue"]'))
    assert list(labels.tags) == ["007"]


@pytest.mark.parametrize(("rows", "message"), [
    ([("1", "color", '["Blue"]')], r'row 1: The attribute "color" is not declared. Did you mean "colour"\?'),
    ([("1", "size", '["L"]'), ("1", "colour", "Blue")], r'row 2: tags must be a list such as \["Red"\]'),
    ([("1", "colour", '["Blue", "Red"]')], "row 1: colour is single and takes one tag, got Blue, Red"),
    ([("1", "colour", '["Blue"]'), ("1", "colour", '["Red"]')], r"row 2: colour of 1 is \['Red'\], but an earlier row"),
    ([("", "colour", '["Blue"]')], "row 1: id and attribute must be given"),
])  # fmt: skip
def test_a_row_that_does_not_fit_is_named(shop, rows, message):
    with pytest.raises(ConfigError, match=message):
        shop(*rows)


def test_a_file_that_does_not_fit_is_named(tmp_path):
    schema = build(CatalogSchema, SCHEMA)
    with pytest.raises(ConfigError, match="there is no file"):
        Labels(tmp_path / "none.csv", schema)
    (tmp_path / "labels.pdf").write_text("")
    with pytest.raises(ConfigError, match="labels come as .parquet, .csv or .jsonl"):
        Labels(tmp_path / "labels.pdf", schema)
    write_csv(tmp_path / "a.csv", [{"id": "1", "attribute": "colour", "tag": '["Blue"]'}])
    with pytest.raises(ConfigError, match='has no column "tags" .labels.. Did you mean "tag"'):
        Labels(tmp_path / "a.csv", schema)


def checked(opened, labels):
    return labels.check(Vocabulary.scan(opened.records("train"), opened.schema), opened.schema)


def test_products_that_are_not_there_are_counted(shop):
    line = checked(*shop(("1", "colour", '["Blue"]'), ("9", "colour", '["Blue"]'), ("8", "size", "")))
    assert line == ("labels: 3 corrections of 3 products, 1 of them in the training split (not there: 9, 8)")


def test_ids_on_several_rows_are_told(shop, tmp_path):
    opened, labels = shop(("1", "colour", '["Red"]'), ("2", "colour", '["Red"]'))
    write_csv(tmp_path / "shop.csv", [*ROWS, ROWS[1] | {"title": "Another bag"}, ROWS[2]])
    for _ in range(2):  # a row that is read again is no other row
        assert checked(opened, labels).endswith("training split (on several rows, all of them corrected: 2)")


def test_a_tag_that_no_product_has_is_refused(shop):
    with pytest.raises(ConfigError, match="colour of 2 is 'Rde', which no product .* Did you mean \"Red\""):
        checked(*shop(("2", "colour", '["Rde"]')))
    # Red is left on no product, but the catalogue knows it.
    assert checked(*shop(("1", "colour", '["Blue"]'), ("2", "colour", '["Red"]')))
    with pytest.raises(ConfigError, match="size of 3 is 'XL'"):
        checked(*shop(("3", "size", '["XL"]'), ("2", "size", '["XL"]')))


def test_a_tag_that_the_schema_lists_may_be_new(shop):
    attributes = SCHEMA["attributes"] | {"size": {"tags": ["M", "L", "XL"]}}
    assert checked(*shop(("3", "size", '["XL"]'), schema=SCHEMA | {"attributes": attributes}))
