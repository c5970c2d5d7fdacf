"""What is read of a text: folded words, hashed words and letter n-grams, and how the names of tags stand in it."""

import math
import re
import time
import zlib
from collections import Counter

import numpy as np
import pytest

from hf_tagger.model.lexical_features import (
    LONGEST_WORD,
    NAME_FEATURES,
    LexicalFeatures,
    fold,
    inverse_document_frequency,
    spelling,
    words_of,
)

ATTRIBUTES = [
    {"name": "colour", "kind": "single", "tags": ["Blue", "Navy Blue", "Red", "Black and White"]},
    {"name": "article", "kind": "single", "tags": ["Bag", "Hand Bag", "T-Shirt", "Nail Polish", "Bath and Body"]},
    {"name": "features", "kind": "multi", "tags": ["Sleeve", "Long Sleeve", "Waterproof", "Black"]},
]
TAGS = [tag for attribute in ATTRIBUTES for tag in attribute["tags"]]
BUCKETS = 2**20
FOUND, LAST, FIRST, SHARE, ALTERNATIVE, LAST_WORD = range(NAME_FEATURES)
ALL_THREE = {FOUND: 1, LAST: 1, FIRST: 1}


@pytest.mark.parametrize(("text", "folded"), [
    ("T-SHIRT", "t-shirt"),
    ("Écru naïve café", "ecru naive cafe"),
    ("Größe STRASSE Straße", "grosse strasse strasse"),
    ("Ｆｕｌｌｗｉｄｔｈ ﬁt", "fullwidth fit"),
    ("Синяя КУРТКА", "синяя куртка"),
    ("İstanbul", "istanbul"),
    ("№ 5, 2 ㎏ ℡", "no 5, 2 kg tel"),
])  # fmt: skip
def test_case_accents_and_compatibility_forms_make_no_difference(text, folded):
    assert fold(text) == folded


def test_folding_twice_changes_nothing():
    for text in ("Größe", "İĞŞ", "ﬁﬂ", "가방", "ﷺ", "ǅ", "Ω℧", "ナイキ"):
        assert fold(fold(text)) == fold(text)


@pytest.mark.parametrize(("text", "words"), [
    ("T-Shirts, blue", ["tshirts", "blue"]),
    ("Men's navy-blue/white [new] {x} a|b; c:d & (e) f_g + h", "mens navyblue white new x a b c d e f g h".split()),
    ("size 3.5", ["size", "35"]),
    ("红色连衣裙 M号", ["红", "色", "连", "衣", "裙", "m", "号"]),
    ("ナイキ Tシャツ", ["ナ", "イ", "キ", "t", "シ", "ャ", "ツ"]),
    ("𠮷野家bag", ["𠮷", "野", "家", "bag"]),
    ("가방 검정", ["가방", "검정"]),
    ("--- !!! …", []),
    ("", []),
    ("tab\there\nthere\u00a0too", ["tab", "here", "there", "too"]),
])  # fmt: skip
def test_words_end_at_spaces_and_some_punctuation_and_ideographs_are_words_of_their_own(text, words):
    assert words_of(text) == words


@pytest.mark.parametrize(("one", "other"), [
    ("T-Shirts", "tshirt"), ("Hand Bag", "handbags"), ("Watches", "watch"),
    ("Écru", "ECRU"), ("红色", "红 色"), ("Dress", "dress"),
])  # fmt: skip
def test_a_name_is_one_name_however_it_is_spelled(one, other):
    assert spelling(one) == spelling(other) != ""


def features_of(text, **options):
    """{feature as a string: damped term frequency}, from a reference of dictionaries and strings."""
    char_ngrams, word_ngrams = options.get("char_ngrams", (3, 4, 5)), options.get("word_ngrams", 1)
    words = re.findall(r"[^\W_]+", re.sub(r"[-'.]", "", text.lower()))
    counts = Counter()
    for word in words:
        ended = f" {word} "
        counts.update([f"word {word}"])
        counts.update(f"letters {ended[start:start + length]}" for length in char_ngrams
                      for start in range(len(ended) - length + 1))
    for length in range(2, word_ngrams + 1):
        counts.update("run " + " ".join(words[start:start + length]) for start in range(len(words) - length + 1))
    return {feature: 1 + math.log(count) for feature, count in counts.items()}


def terms(text, buckets=BUCKETS, **options):
    ids, weights = LexicalFeatures(buckets, **options).terms(words_of(text))
    return dict(zip(ids.tolist(), weights.tolist(), strict=True))


@pytest.mark.parametrize("options", [{}, {"word_ngrams": 3}, {"char_ngrams": (2,)}, {"char_ngrams": ()}])
def test_a_text_has_as_many_features_as_a_plain_reference_and_their_frequencies(options):
    text = "Red red T-shirt for red-hot summer red shirt, size 42"
    expected = features_of(text, **options)
    found = terms(text, **options)
    assert len(found) == len(expected)
    assert sorted(found.values()) == pytest.approx(sorted(expected.values()))


def test_different_words_have_no_bucket_in_common_but_those_of_shared_n_grams():
    red, reds, blue = (set(terms(text)) for text in ("red", "reds", "blue"))
    # " re", "red", " red" and none with the end of the word.
    assert len(red & reds) == 3 and not red & blue
    assert not set(terms("abc def", char_ngrams=(), word_ngrams=2)) & set(terms("abcdef", char_ngrams=()))
    runs = [set(terms(text, char_ngrams=(), word_ngrams=2)) for text in ("ab c", "a bc")]
    assert not runs[0] & runs[1] and len(runs[0]) == 3
    assert len(terms("red", char_ngrams=(5,))) == 2, "a word is not taken for the n-gram that spells it"


def test_buckets_are_the_same_in_every_process():
    """They are part of a saved model: Python's own hash of a string would differ each time."""
    features = (b"word red", b"letters  re", b"letters red", b"letters ed ")
    assert set(terms("red", buckets=1000, char_ngrams=(3,))) == {zlib.crc32(feature) % 1000 for feature in features}


def test_the_last_word_of_a_long_text_counts_like_the_first():
    filler = " ".join(f"word{number}" for number in range(5000))
    found = LexicalFeatures(BUCKETS, attributes=ATTRIBUTES)([f"{filler} waterproof", filler])
    tag = TAGS.index("Waterproof") * NAME_FEATURES
    assert tag in found["name_ids"][0] and tag not in found["name_ids"][1]
    word = terms("waterproof")
    assert set(word) <= set(found["lexical_ids"][0].tolist())
    assert not set(terms("waterproof", char_ngrams=())) & set(found["lexical_ids"][1].tolist())


def test_a_word_longer_than_any_word_is_cut_and_the_next_one_read():
    assert words_of("a" * 300 + " dress") == ["a" * LONGEST_WORD, "dress"]


def test_a_word_read_before_gives_what_it_gave():
    reader = LexicalFeatures(BUCKETS)
    first = reader.terms(["red", "mug"])
    reader.terms(["blue"])
    for once, again in zip(first, reader.terms(["red", "mug"]), strict=True):
        np.testing.assert_array_equal(once, again)


def matches(text, attributes=ATTRIBUTES):
    """{tag: {feature: value}} of the tags of which anything is found."""
    tags = [tag for attribute in attributes for tag in attribute["tags"]]
    found: dict[str, dict[int, float]] = {}
    for place, value in LexicalFeatures(0, attributes=attributes).name_matches(words_of(text)).items():
        found.setdefault(tags[place // NAME_FEATURES], {})[place % NAME_FEATURES] = value
    return found


def test_a_name_in_the_text_is_found_the_only_one_being_first_and_last():
    assert matches("T-shirt") == {"T-Shirt": ALL_THREE}
    assert matches("waterproof tshirts") == {"T-Shirt": ALL_THREE, "Waterproof": ALL_THREE}
    assert matches("t shirt") == {"T-Shirt": ALL_THREE}


def test_a_name_inside_a_longer_one_counts_only_where_tags_do_not_exclude_each_other():
    assert matches("navy blue") == {"Navy Blue": ALL_THREE}
    assert matches("hand bag") == matches("handbag") == {"Hand Bag": ALL_THREE}
    assert matches("long sleeves") == {"Long Sleeve": ALL_THREE, "Sleeve": ALL_THREE}


def test_a_longer_name_of_another_attribute_covers_nothing():
    both = [{"name": "colour", "kind": "single", "tags": ["Blue"]},
            {"name": "brand", "kind": "single", "tags": ["Deep Blue Sea"]}]
    assert matches("deep blue sea", both) == {"Blue": ALL_THREE, "Deep Blue Sea": ALL_THREE}


def test_a_name_that_also_stands_alone_is_found():
    assert matches("blue, navy blue") == {"Blue": {FOUND: 1, FIRST: 1}, "Navy Blue": {FOUND: 1, LAST: 1}}
    assert matches("navy blue, blue") == {"Navy Blue": {FOUND: 1, FIRST: 1}, "Blue": {FOUND: 1, LAST: 1}}


def test_order_tells_first_from_last_within_a_single_attribute():
    found = matches("red bag in blue")
    assert found["Red"] == {FOUND: 1, FIRST: 1} and found["Blue"] == {FOUND: 1, LAST: 1}
    assert found["Bag"] == ALL_THREE


def test_tags_of_a_multi_attribute_are_each_first_and_last():
    found = matches("waterproof, long sleeves, black")
    assert found["Waterproof"] == found["Black"] == found["Long Sleeve"] == ALL_THREE


def test_of_a_name_that_is_not_found_the_share_of_its_words_and_its_last_word_count():
    assert matches("navy")["Navy Blue"] == {SHARE: pytest.approx(1 / 2)}
    assert matches("blue")["Navy Blue"] == {SHARE: pytest.approx(1 / 2), LAST_WORD: 1}
    assert matches("blue in navy")["Navy Blue"] == {SHARE: pytest.approx(1), LAST_WORD: 1}
    assert matches("polish polish")["Nail Polish"] == {SHARE: pytest.approx(1 / 2), LAST_WORD: 1}
    assert "Nail Polish" not in matches("polished")
    twice = [{"name": "style", "kind": "single", "tags": ["Bora Bora Shirt"]}]
    assert matches("bora", twice)["Bora Bora Shirt"] == {SHARE: pytest.approx(2 / 3)}


def test_words_in_plural_count_for_names_in_singular_and_the_other_way_round():
    assert matches("long sleeve") == matches("long sleeves")
    assert matches("nails")["Nail Polish"] == {SHARE: pytest.approx(1 / 2)}
    plural = [{"name": "article", "kind": "single", "tags": ["Party Dresses and Skirts"]}]
    found = {SHARE: pytest.approx(1 / 3), ALTERNATIVE: 1, LAST_WORD: 1}
    assert matches("skirt", plural)["Party Dresses and Skirts"] == found


def test_one_of_two_alternatives_counts():
    assert matches("bath foam")["Bath and Body"] == {SHARE: pytest.approx(1 / 2), ALTERNATIVE: 1}
    found = matches("white shoe")["Black and White"]
    assert found == {SHARE: pytest.approx(1 / 2), ALTERNATIVE: 1, LAST_WORD: 1}
    assert matches("black and white")["Black and White"] == ALL_THREE


@pytest.mark.parametrize("name", ["Dress / Skirt", "Dress, Skirt", "Dress & Skirt", "Dress und Skirt"])
def test_alternatives_are_written_in_many_ways(name):
    attribute = [{"name": "article", "kind": "single", "tags": [name]}]
    assert matches("skirts", attribute)[name] == {SHARE: pytest.approx(1 / 2), ALTERNATIVE: 1, LAST_WORD: 1}


@pytest.mark.parametrize(("text", "name"), [
    ("handcart", "Hand Bag"), ("sleeveless", "Sleeve"), ("shirt", "T-Shirt"), ("bagged", "Bag"), ("redden", "Red"),
    ("and", "Bath and Body"),
])  # fmt: skip
def test_letters_inside_another_word_are_no_name(text, name):
    assert name not in matches(text)


def test_chinese_names_are_found_in_texts_without_spaces():
    attribute = [{"name": "colour", "kind": "single", "tags": ["红", "红色", "色红"]}]
    assert matches("大红色连衣裙", attribute)["红色"] == ALL_THREE
    assert matches("大红色连衣裙", attribute)["色红"] == {SHARE: pytest.approx(1), LAST_WORD: 1}
    assert FOUND not in matches("大红色连衣裙", attribute).get("红", {})


def test_names_without_a_letter_or_digit_match_nothing():
    attribute = [{"name": "size", "kind": "single", "tags": ["***", "42", "—"]}]
    assert matches("*** bag 42 —", attribute) == {"42": ALL_THREE}


def test_two_tags_of_one_spelling_are_both_found():
    attribute = [{"name": "article", "kind": "single", "tags": ["T-Shirt", "Tshirts"]}]
    assert matches("t shirt", attribute) == {"T-Shirt": ALL_THREE, "Tshirts": ALL_THREE}


def test_other_spellings_and_translations_of_a_name_are_found_as_a_whole():
    aliases = {"Hemd": "Shirts", "rote Schuhe": "Shoes", "77": "Shoes", "Hut": "Hats", "shirt": "Shirts"}
    attribute = [{"name": "article", "kind": "single", "tags": ["Shirts", "Shoes"], "aliases": aliases}]
    assert matches("Hemd aus Leinen", attribute) == {"Shirts": ALL_THREE}
    assert matches("rote Schuhe", attribute) == {"Shoes": ALL_THREE}
    assert matches("Schuhe 77 Hut", attribute) == {}  # a part, a code, and a tag that is not there


def test_names_can_be_set_anew():
    reader = LexicalFeatures(0, attributes=ATTRIBUTES)
    reader.set_names([{"name": "colour", "kind": "single", "tags": ["Teal"]}])
    assert reader.name_matches(["teal"]) == {FOUND: 1, LAST: 1, FIRST: 1} and not reader.name_matches(["red"])


def test_texts_become_padded_arrays_of_which_padding_weighs_nothing():
    texts = ["red t-shirt", None, "", "navy blue waterproof bag with long sleeves", "!!!"]
    found = LexicalFeatures(64, attributes=ATTRIBUTES)(texts)
    assert {name: array.dtype for name, array in found.items()} == {
        "lexical_ids": np.int64, "lexical_weights": np.float32, "name_ids": np.int64, "name_weights": np.float32}
    for ids, weights, size in (("lexical_ids", "lexical_weights", 64),
                               ("name_ids", "name_weights", len(TAGS) * NAME_FEATURES)):
        assert found[ids].shape == found[weights].shape and len(found[ids]) == len(texts)
        assert found[ids].min() >= 0 and found[ids].max() < size
        assert found[weights].any(1).tolist() == [True, False, False, True, False]
        assert not found[ids][~found[weights].astype(bool)].any()
        for row in range(len(texts)):
            real = found[ids][row][found[weights][row] > 0]
            assert len(set(real.tolist())) == len(real), "each id once"


def test_company_changes_nothing_but_the_padding():
    texts = ["red t-shirt", "navy blue waterproof bag with long sleeves"]
    reader = LexicalFeatures(BUCKETS, attributes=ATTRIBUTES)
    together = reader(texts)
    for row, text in enumerate(texts):
        for name, array in reader([text]).items():
            np.testing.assert_array_equal(together[name][row, :array.shape[1]], array[0])
            assert not together[name][row, array.shape[1]:].any()


def test_without_any_product_or_any_kind_of_feature_arrays_are_empty_but_there():
    for reader, texts in ((LexicalFeatures(64, attributes=ATTRIBUTES), []), (LexicalFeatures(0), ["red mug"])):
        for array in reader(texts).values():
            assert array.shape == (len(texts), 1) and not array.any()


@pytest.mark.parametrize("text", [
    "\ud800 red", "red \udfff\ud800", "red\x00mug", "\u0301\u0301red", "red " * 20_000, "\u200b\ufeffred\u202e",
    "🧵👗 red", "'" * 1000 + " red", "ﷺ" * 500 + " red",
])  # fmt: skip
def test_hostile_texts_are_read(text):
    found = LexicalFeatures(512, word_ngrams=2, attributes=ATTRIBUTES)([text])
    assert found["lexical_weights"].any() and np.isfinite(found["lexical_weights"]).all()


def test_a_name_said_over_and_over_takes_time_in_proportion():
    reader = LexicalFeatures(0, attributes=ATTRIBUTES)

    def seconds(words):
        start = time.process_time()
        reader.name_matches(["navy", "blue"] * (words // 2))
        return time.process_time() - start

    seconds(100)
    assert seconds(20_000) < 100 * max(seconds(1000), 1e-3)


def test_a_hostile_name_of_a_tag_harms_no_other():
    attribute = [{"name": "colour", "kind": "single", "tags": ["\ud800", "Red", "and", "and and", " ", "x" * 500]}]
    assert matches("red", attribute) == {"Red": ALL_THREE}


def test_rare_buckets_weigh_more_and_unseen_ones_most():
    idf = inverse_document_frequency(np.array([0, 1, 9]), 9)
    assert idf.tolist() == pytest.approx([math.log(10) + 1, math.log(5) + 1, 1])
    assert idf.dtype == np.float32
