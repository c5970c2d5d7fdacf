from types import SimpleNamespace

import numpy as np
import pytest

from hf_tagger.catalog.attributes import AttributeSpec
from hf_tagger.catalog.completeness import ASSUMED, COMPLETE, Repeats, label_frequency
from hf_tagger.catalog.schema import CatalogSchema, PairsSpec
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.catalog.vocabulary import Vocabulary
from hf_tagger.training.report import with_lists


def thinned_pairs(listed: float, pairs: int = 400) -> dict[str, int]:
    """Of products with the same words and the same six tags, of which each list holds some."""
    random, repeats = np.random.default_rng(0), Repeats()
    for pair in range(pairs):
        for size in ("100 g", "250 g"):
            tags = [f"tag {number}" for number in range(6) if random.random() < listed]
            repeats.add(f"Jam of {'abcdefghij'[pair % 10] * (2 + pair // 10)}, {size}", {"kinds": tags} if tags else {})
    return repeats.found["kinds"]


@pytest.mark.parametrize("listed", [0.6, 0.75])
def test_products_with_the_same_words_tell_how_much_lists_leave_out(listed):
    share, why = label_frequency(AttributeSpec(kind="multi"), thinned_pairs(listed))
    assert share == pytest.approx(listed, abs=0.03)
    assert "have the words of another" in why and f"{share:.0%}" in why


def test_lists_that_agree_are_complete_unless_it_is_said_otherwise():
    counts = thinned_pairs(0.95)
    assert label_frequency(AttributeSpec(kind="multi"), counts)[0] == 1.0
    assert label_frequency(AttributeSpec(kind="multi", absent="unknown"), counts)[0] == COMPLETE
    assert label_frequency(AttributeSpec(kind="multi", absent="no"), thinned_pairs(0.6))[0] == 1.0


def test_few_products_conclude_nothing():
    counts = thinned_pairs(0.6, pairs=5)
    assert label_frequency(AttributeSpec(kind="multi"), counts)[0] == 1.0
    assert label_frequency(AttributeSpec(kind="multi"), None)[0] == 1.0
    assert label_frequency(AttributeSpec(kind="multi", absent="unknown"), counts)[0] == ASSUMED


def test_variants_that_differ_in_their_one_colour_leave_nothing_out():
    repeats = Repeats()
    for number in range(150):
        repeats.add(f"Linen shirt {number}", {"colours": [f"colour {number}"]})
    share, why = label_frequency(AttributeSpec(kind="multi"), repeats.found["colours"])
    assert share == 1.0 and "a choice" in why


def test_only_lists_of_products_with_words_count_and_the_first_rows(monkeypatch):
    monkeypatch.setattr("hf_tagger.catalog.completeness.MOST_ROWS", 4)
    repeats = Repeats()
    for text, tags in ((None, ["a"]), ("Jam", ["a"]), ("Red jam", ["a", "b"]), ("Jam, red", ["a"]), ("red JAM", ["c"])):
        repeats.add(text, {"kinds": tags})
    assert repeats.found == {"kinds": {"lists": 2, "tags": 3, "repeated": 2}}


def test_of_one_tag_per_product_nothing_is_absent():
    with pytest.raises(ConfigError, match="kind: multi"):
        AttributeSpec(absent="unknown")


def test_products_with_photos_are_not_compared():
    schema = CatalogSchema(text="title", images="photo", attributes={"kinds": AttributeSpec(kind="multi")})
    records = [schema.record({"title": f"Jam {number}", "kinds": ["a", "b"], "photo": photo}, number)
               for number, photo in enumerate(("a.jpg", "b.jpg", None, None))]
    records = [record | {"text": "Red jam"} for record in records]
    assert Vocabulary.scan(records, schema).agreement == {"kinds": {"lists": 2, "tags": 4, "repeated": 4}}


@pytest.mark.parametrize("discover", [False, True])
def test_a_run_writes_how_partial_lists_are_into_the_model_and_says_so(discover):
    multi = AttributeSpec(kind="multi")
    attributes = {"brand": AttributeSpec(), **({} if discover else {"kinds": multi})}
    schema = CatalogSchema(text="title", attributes=attributes,
                           pairs=PairsSpec("names", "values", multi) if discover else None)
    vocabulary = Vocabulary(agreement={"kinds": {"lists": 200, "tags": 800, "repeated": 480}})
    data = SimpleNamespace(catalog=SimpleNamespace(schema=schema), vocabulary=vocabulary)
    entries = [{"name": "brand", "kind": "single", "tags": ["x"], "label_frequency": 0.9},
               {"name": "kinds", "kind": "multi", "tags": ["a"]}]
    (brand, kinds), (line,) = with_lists(entries, data)
    assert "label_frequency" not in brand and kinds["label_frequency"] == 0.6
    assert line.startswith("kinds: lists are taken to hold 60% of the right tags (absent: no")


def test_lists_that_products_have_come_into_the_model_by_its_own_columns_unless_they_are_partial():
    multi = AttributeSpec(kind="multi")
    schema = CatalogSchema(text="title", attributes={"kinds": multi, "uses": multi})
    lists = {"never_empty": True, "common": [["a", "b"], ["gone"], []]}
    vocabulary = Vocabulary(agreement={"uses": {"lists": 200, "tags": 800, "repeated": 480}},
                            lists={"kinds": lists, "uses": lists})
    data = SimpleNamespace(catalog=SimpleNamespace(schema=schema), vocabulary=vocabulary)
    entries = [{"name": name, "kind": "multi", "tags": ["c", "b", "a"]} for name in ("kinds", "uses")]
    (kinds, uses), _ = with_lists(entries, data)
    assert kinds["lists"] == {"used": False, "never_empty": True, "common": [[2, 1], []]}
    assert "lists" not in uses
