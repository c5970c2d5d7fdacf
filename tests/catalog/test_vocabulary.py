"""One pass over the training rows fixes the attributes and their tags."""

import json

import pytest

from hf_tagger.catalog.quarantine import Refusal
from hf_tagger.catalog.schema import CatalogSchema
from hf_tagger.catalog.strict import ConfigError, build
from hf_tagger.catalog.vocabulary import Vocabulary
from tests.catalog.files import catalog, shirts_schema, write_jsonl


def scan(attributes: dict, rows: list[dict], **schema) -> Vocabulary:
    """The vocabulary of rows that get a title and an id where they have none."""
    schema = build(CatalogSchema, {"id": "id", "text": "title", "attributes": attributes} | schema)
    items = []
    for number, row in enumerate(rows, start=1):
        items.append(schema.record({"id": number, "title": f"Shirt {number}"} | row, number))
    return Vocabulary.scan(items, schema)


def colours(*values) -> list[dict]:
    return [{"colour": value} for value in values]


def test_tags_by_count_then_name():
    rows = colours("Red", "Blue", "Red", "Green", "Blue", "Amber", None, "plain")
    (colour,) = scan({"colour": {"none_values": ["plain"]}}, rows).attributes
    assert colour == {
        "name": "colour",
        "kind": "single",
        "tags": ["Blue", "Red", "Amber", "Green"],
        "counts": [2, 2, 1, 1],
        "none_count": 1,
        "unknown_count": 1,
    }


def test_rare_tags_are_reported_and_left_out():
    vocabulary = scan({"colour": {"min_count": 2}}, colours("Red", "Red", "Blue", "Amber"))
    assert vocabulary.attributes[0]["tags"] == ["Red"]
    assert vocabulary.below_min_count == {"colour": {"Amber": 1, "Blue": 1}}
    assert "left out: 2 below min_count" in vocabulary.summary()


def test_rare_tags_are_named():
    tags = ["Red"] * 3 + ["Blue"] * 2 + list("ABCDEF")
    assert "; 7 on fewer than 3 products: B, C, D, E, F, …; none" in scan({"colour": {}}, colours(*tags)).summary()
    assert "fewer than" not in scan({"colour": {}}, colours("Red", "Red", "Red")).summary()


def test_a_fixed_list_keeps_its_order_and_its_unseen_tags():
    spec = {"tags": ["Sage", "Red", "Blue"], "min_count": 5}
    vocabulary = scan({"colour": spec}, colours("Red", "Blue", "Blue", "Mauve"))
    assert vocabulary.attributes[0]["tags"] == ["Sage", "Red", "Blue"]
    assert vocabulary.attributes[0]["counts"] == [0, 1, 2]
    assert vocabulary.not_listed == {"colour": {"Mauve": 1}}


def test_an_attribute_without_tags_is_an_error():
    with pytest.raises(ConfigError, match=r"attributes.colour: no tag is on min_count=3 products \(.*'Red', has 2\)"):
        scan({"colour": {"min_count": 3}}, colours("Red", "Red"))
    with pytest.raises(ConfigError, match="no row has any"):
        scan({"colour": {}}, colours(None))


def test_counts_per_language_and_modality():
    rows = [{"colour": "Red", "lang": "de"}, {"colour": "Red", "lang": "en", "photo": b"x"}, {"colour": "Blue"},
            {"colour": None, "lang": "de", "title": "", "photo": b"y"}]  # fmt: skip
    vocabulary = scan({"colour": {}}, rows, language_column="lang", images="photo")
    assert vocabulary.rows_per_language == {"de": 2, "en": 1, "": 1}
    assert vocabulary.rows == {"total": 4, "refused": 0, "text_only": 2, "image_only": 1, "text_and_image": 1,
                               "duplicates": 0}  # fmt: skip


def test_paths_have_parents_unless_these_differ():
    paths = "Apparel > Topwear > Tshirts", "Apparel > Topwear", "Apparel > Socks", "Home > Socks"
    rows = [{"path": path} for path in paths]
    (path,) = scan({"path": {"format": "path", "kind": "multi"}}, rows).attributes
    assert path["tags"] == ["Apparel", "Socks", "Topwear", "Home", "Tshirts"]
    assert path["parents"] == {"Topwear": "Apparel", "Tshirts": "Topwear"}


def test_discovered_attributes_follow_the_declared_ones_commonest_first():
    pairs = ("Fit", "Slim"), ("Fit", "Wide"), ("Hem", "Long"), ("Hem", "Long"), ("Hem", "Short"), ("Rare", "x")
    rows = [{"n": [name], "v": [value]} for name, value in pairs]
    vocabulary = scan(
        {"Colour": {"tags": ["Red"]}}, rows, pairs={"names": "n", "values": "v", "discover": {"min_count": 2}}
    )
    assert [(a["name"], a["tags"], a["unknown_count"]) for a in vocabulary.attributes] == [
        ("Colour", ["Red"], 6),
        ("Hem", ["Long"], 3),
    ]
    assert vocabulary.below_min_count["Fit"] == {"Slim": 1, "Wide": 1}


def test_several_paths_in_a_cell_make_no_parents_of_their_own():
    rows = [{"path": "Men > Topwear, Sale > Winter"}, {"path": "Men > Topwear, Men > Shoes"}]
    (path,) = scan({"path": {"format": "path", "kind": "multi", "paths": ","}}, rows).attributes
    assert path["parents"] == {"Topwear": "Men", "Winter": "Sale", "Shoes": "Men"}


def test_lists_that_products_have_are_counted_by_their_common_tags():
    lists = 5 * [["Mint", "Lime"]] + 4 * [["lime"]] + 2 * [["Plum"]] + [["Plum", "Mint"]] + [None]
    schema = {"flavours": {"kind": "multi", "aliases": {"lime": "Lime"}}}
    vocabulary = scan(schema, [{"flavours": tags} for tags in lists])
    assert vocabulary.attributes[0]["tags"] == ["Lime", "Mint", "Plum"]
    # Plum is on three products alone. Those have no common tag, or Mint.
    assert vocabulary.lists == {"flavours": {"never_empty": True, "common": [["Lime", "Mint"], ["Lime"], [], ["Mint"]]}}
    assert scan(schema, [{"flavours": tags} for tags in [*lists, []]]).lists["flavours"]["never_empty"] is False
    assert scan({"flavours": {}}, [{"flavours": "Mint"}]).lists == {}, "a single attribute has no lists"
    assert scan({"flavours": {"kind": "multi", "format": "path"}}, [{"flavours": "Herbs > Mint"}]).lists == {}


def test_refusals_and_exact_duplicates_are_counted(tmp_path):
    rows = [{"id": str(n), "title": title, "colour": "Red"} for n, title in enumerate(["A", "B", "a", " A ", "A", ""])]
    write_jsonl(tmp_path / "shop.jsonl", rows)
    items = list(catalog(tmp_path / "shop.jsonl").records("train"))
    assert isinstance(items[-1], Refusal)
    vocabulary = Vocabulary.scan(iter(items), shirts_schema())
    assert vocabulary.rows["total"] == 6 and vocabulary.rows["refused"] == 1
    assert vocabulary.rows["duplicates"] == 2
    assert "1 refused, 2 exact duplicates" in vocabulary.summary()


def test_fingerprint_is_of_the_content_not_of_its_order():
    rows = [{"id": n, "colour": c} for n, c in enumerate(["Red", "Blue", "Red"])]
    fingerprint = scan({"colour": {}}, rows).fingerprint
    texts = [row | {"title": f"Shirt {n}"} for n, row in enumerate(rows, start=1)]
    assert scan({"colour": {}}, texts[::-1]).fingerprint == fingerprint
    for change in ({"id": 9}, {"title": "Hat"}, {"colour": "Green"}):
        changed = [texts[0] | change, *texts[1:]]
        assert scan({"colour": {}}, changed).fingerprint != fingerprint


def test_saved_as_json_that_a_person_can_read(tmp_path):
    vocabulary = scan({"colour": {}}, colours("Grün", "Rouge", "Rouge"))
    vocabulary.save(tmp_path / "vocabulary.json")
    assert Vocabulary.load(tmp_path / "vocabulary.json") == vocabulary
    text = (tmp_path / "vocabulary.json").read_text(encoding="utf-8")
    assert '"Grün"' in text and "\n" in text
    assert json.loads(text)["attributes"][0]["counts"] == [2, 1]
    (tmp_path / "older.json").write_text(json.dumps(json.loads(text) | {"languages": {}}))
    assert Vocabulary.load(tmp_path / "older.json") == vocabulary


def test_real_catalogue_of_pairs(shared_data):
    schema = build(CatalogSchema, {"id": "id", "text": "title", "pairs": {"names": "attributes", "values": "values",
                                                                          "discover": {}}})  # fmt: skip
    vocabulary = Vocabulary.scan(catalog(f"{shared_data}/implicit/train.parquet", schema).records("train"), schema)
    assert len(vocabulary.attributes) == 23
    assert sum(len(attribute["tags"]) for attribute in vocabulary.attributes) == 151
    assert sum(sum(attribute["counts"]) for attribute in vocabulary.attributes) == 54_881
