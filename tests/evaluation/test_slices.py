from hf_tagger.evaluation.predict import Predictions
from hf_tagger.evaluation.slices import MOST_VALUES, product_slices


def products(*rows):
    """Products of (text, photos, language, kept)."""
    about = [dict(zip(("text", "photos", "language", "kept"), row, strict=True)) for row in rows]
    return Predictions([], [str(number) for number in range(len(rows))], about=about)


def members(slices, family):
    return {value: rows.nonzero()[0].tolist() for value, rows in slices[family].items()}


def test_products_are_parted_by_language_and_by_what_they_bring():
    slices = product_slices(products(("a", 1, "de", {}), ("b", 0, "en", {}), (None, 2, None, {}), ("c", 1, "de", {})))
    assert members(slices, "language") == {"de": [0, 3], "en": [1], "unknown": [2]}
    assert list(slices["language"]) == ["de", "en", "unknown"], "the largest first"
    assert members(slices, "modalities") == {"text and photo": [0, 3], "text only": [1], "photo only": [2]}


def test_what_all_have_in_common_tells_nothing_unless_it_was_asked_for():
    same = products(("a", 1, "de", {"shop": 1}), ("b", 1, "de", {"shop": 1}))
    assert product_slices(same) == {}
    assert members(product_slices(same, ["shop"]), "shop") == {"1": [0, 1]}


def test_lists_part_products_by_each_item_and_gaps_are_a_part_of_their_own():
    values = [["new", "sale"], ["sale"], [], None, float("nan"), ""]
    slices = product_slices(products(*(("a", 1, "de", {"labels": value}) for value in values)), ["labels"])
    assert members(slices, "labels") == {"(empty)": [2, 3, 4, 5], "sale": [0, 1], "new": [0]}


def test_of_a_column_with_many_values_the_commonest_are_taken():
    rows = [("a", 1, "de", {"brand": number // 2}) for number in range(4 * MOST_VALUES)]
    slices = product_slices(products(*rows, ("a", 1, "de", {"brand": "once"})), ["brand"])
    assert len(slices["brand"]) == MOST_VALUES and "once" not in slices["brand"]
