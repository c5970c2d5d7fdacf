"""Spellings of one tag: which are merged, which stay apart, and that every reader knows of it."""

import itertools
import json
import time
from pathlib import Path

import pytest

from hf_tagger.catalog.reading.labels import Labels
from hf_tagger.catalog.spellings import lookalikes, one_spelling_each, propose_merges
from hf_tagger.catalog.vocabulary import Vocabulary
from hf_tagger.model.configuration_tagger import TaggerConfig
from tests.catalog.files import catalog, records, shirts_schema, write_csv, write_jsonl


def merged(counts: dict[str, int], **options) -> dict[str, str]:
    return {merge.spelling: merge.tag for merge in propose_merges(counts, **options)}


@pytest.mark.parametrize("spellings", [
    ["Shirt", "shirt", "SHIRT"], ["Navy Blue", "navyblue", "Navy  blue"], ["500 ml", "500ml", "500 ML"],
    ["Lycra", "Lycra®", "LYCRA ®"], ["Café", "Cafe"], ["Été", "Eté"], ["ёлка", "елка"], ["Shirt", "Shirts"],
    ["Party", "Parties"], ["Dress", "Dresses"], ["Pantalón", "pantalones", "Pantalon"], ["Color", "Colores"],
    ["Men", "Men's", "Mens", "MEN’S"], ["Polo Shirts", "Polo shirt"], ["Accessory", "Accessories"], ["Cape", "Capes"],
    ["ｼｬﾂ", "シャツ"],
])  # fmt: skip
def test_of_several_spellings_the_most_frequent_is_the_tag(spellings):
    counts = {spelling: number for number, spelling in enumerate(spellings, 1)}
    assert merged(counts) == dict.fromkeys(spellings[:-1], spellings[-1])
    assert merged(dict.fromkeys(spellings, 4)) == dict.fromkeys(sorted(spellings)[1:], min(spellings))


@pytest.mark.parametrize("tags", [
    ["Cap", "Cape"], ["Pin", "Pine"], ["Maße", "Masse"], ["501", "501s"], ["C", "C++", "C#"], ["ハス", "バス"],
    ["bo", "bò", "bơ"], ["Мой", "Мои"], ["S", "SS"], ["A", "As"], ["Boss", "Bos"], ["+2", "-2", "2"], ["2.5", "25"],
    ["V-neck", "U-neck"], ["Size 1", "Size 10"], ["🙂", "🙁"], ["®"],
])  # fmt: skip
def test_what_is_another_word_stays_apart(tags):
    assert merged(dict.fromkeys(tags, 3)) == {}


def test_what_the_catalogue_tells_apart_stays_apart_but_case_is_one_for_certain():
    counts = {"Glass": 9, "glass": 2, "Glasses": 5, "GLASSES": 1}
    together = list(lookalikes(["Glass", "Glasses", "Cup"]))
    assert together == [frozenset(["Glass", "Glasses"])]
    assert merged(counts, together=together) == {"glass": "Glass", "GLASSES": "Glasses"}
    assert merged(counts) == {"glass": "Glass", "Glasses": "Glass", "GLASSES": "Glass"}
    assert one_spelling_each(["Shirt", "SHIRT", "Hat", "shirt"]) == ["Shirt", "Hat"]


def test_declared_tags_win_and_are_never_merged():
    assert merged({"Navy": 2, "NAVY": 90}, known=["Navy"]) == {"NAVY": "Navy"}
    assert merged({"navies": 9}, known=["Navy"]) == {"navies": "Navy"}
    assert merged({"Shirt": 2, "Shirts": 90, "shirts": 5}, known=["Shirt", "Shirts"]) == {"shirts": "Shirts"}


def test_thousands_of_forms_of_a_word_cost_no_more_than_their_number():
    accents = "aàáâãäåāăą"
    words = ["".join(letters) for letters in itertools.product(accents, repeat=4)]
    start = time.process_time()
    assert merged(dict.fromkeys([*words, *map(str.upper, words)], 1), together=lookalikes(words)) == {
        word: word.upper() for word in words}
    assert time.process_time() - start < 10


def shop(tmp_path: Path, colours: list, labels=None, **spec):
    rows = [{"id": str(number), "title": f"Shirt {number}", "colour": colour} for number, colour in enumerate(colours)]
    schema = shirts_schema(attributes={"colour": {"kind": "multi", "format": "list"} | spec})
    return catalog(write_jsonl(tmp_path / "shop.jsonl", rows), schema, labels and Labels(labels, schema))


def counted(opened) -> Vocabulary:
    return Vocabulary.scan(opened.records("train"), opened.schema, opened.names)


def test_counting_merges_says_so_and_later_records_have_the_tag(tmp_path):
    opened = shop(tmp_path, [["Navy"], ["navy", "Red"], ["Navy", "NAVY"], ["navy blue"], ["Reds"], [], None])
    vocabulary = counted(opened)
    (entry,) = vocabulary.attributes
    assert dict(zip(entry["tags"], entry["counts"], strict=True)) == {"Navy": 3, "Red": 2, "navy blue": 1}
    assert entry["aliases"] == {"navy": "Navy", "Reds": "Red"} and entry["none_count"] == 1
    assert vocabulary.merged == {"colour": {"navy": 1, "Reds": 1}}
    assert "; merged spellings (merge_spellings): navy (1) → Navy, Reds (1) → Red" in vocabulary.summary()
    given = [record["tags"]["colour"] for record in records(opened)]
    assert given == [["Navy"], ["Navy", "Red"], ["Navy"], ["navy blue"], ["Red"], [], None]
    assert [record["tags"]["colour"] for record in records(opened.with_text(["title"]))] == given
    assert Vocabulary.load(saved(vocabulary, tmp_path)) == vocabulary
    assert TaggerConfig(attributes=vocabulary.attributes).attributes[0]["aliases"] == entry["aliases"]


def saved(vocabulary: Vocabulary, folder: Path) -> Path:
    vocabulary.save(folder / "vocabulary.json")
    return folder / "vocabulary.json"


def test_a_key_switches_it_off(tmp_path):
    vocabulary = counted(shop(tmp_path, [["Navy"], ["navy"]], merge_spellings=False))
    assert vocabulary.attributes[0]["tags"] == ["Navy", "navy"] and vocabulary.merged == {}
    assert "merged" not in vocabulary.summary()


def test_a_rare_spelling_counts_before_rare_tags_are_left_out(tmp_path):
    vocabulary = counted(shop(tmp_path, [["Navy"], ["navy"], ["Red"]], min_count=2))
    assert vocabulary.attributes[0]["tags"] == ["Navy"] and vocabulary.below_min_count == {"colour": {"Red": 1}}


def test_a_cell_that_spells_one_tag_twice_has_one_value(tmp_path):
    opened = shop(tmp_path, ["Red, red", "RED", "Red"], kind="single", format="delimited")
    counted(opened)
    assert [record["tags"]["colour"] for record in records(opened)] == [["Red"]] * 3


def test_paths_keep_their_parents(tmp_path):
    opened = shop(tmp_path, ["Clothing > Tops", "Clothing > Tops", "CLOTHING > Top", "clothing > Socks"], format="path")
    (entry,) = counted(opened).attributes
    assert entry["parents"] == {"Tops": "Clothing", "Socks": "Clothing"} and entry["counts"] == [4, 3, 1]


def test_corrected_labels_may_use_any_spelling(tmp_path):
    write_csv(tmp_path / "labels.csv", [{"id": "1", "attribute": "colour", "tags": json.dumps(["navy"])},
                                        {"id": "2", "attribute": "colour", "tags": json.dumps(["Navy"])}])
    opened = shop(tmp_path, [["Navy"], ["Red"], ["Red"], ["navy"], ["Navy"]], labels=tmp_path / "labels.csv")
    vocabulary = counted(opened)
    assert "2 corrections of 2 products" in opened.labels.check(vocabulary, opened.schema, opened.names)
    assert [record["tags"]["colour"] for record in records(opened)] == [["Navy"]] * 5


def test_a_models_own_spelling_holds_for_other_catalogues(tmp_path):
    opened = shop(tmp_path, [["navies"], ["NAVY "], ["Teal"], ["azul"]])
    opened.names.learn([{"name": "colour", "tags": ["Navy", "Red"], "aliases": {"azul": "Navy"}},
                        {"name": "another", "tags": ["X"]}])
    assert [record["tags"]["colour"] for record in records(opened)] == [["navies"], ["Navy"], ["Teal"], ["Navy"]]
    (entry,) = counted(opened).attributes
    assert entry["tags"] == ["Navy", "Teal"] and entry["counts"] == [3, 1]
