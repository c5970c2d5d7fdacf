"""The evidence of words: hashed features against a plain reference, and how names of tags stand in a text."""

import math
import re
from collections import Counter

import pytest
import torch

from hf_tagger.model.configuration_tagger import RecurrentTextConfig, TaggerConfig
from hf_tagger.model.letters import BOUNDARY, MODULUS, WORD_OFFSET, char_codes, fold, span_hash
from hf_tagger.model.lexical_head import NameMatch, WordEvidence
from hf_tagger.model.tag_head import candidate_attributes
from hf_tagger.training.unigram_tokenizer import train_unigram_tokenizer

ATTRIBUTES = [
    {"name": "colour", "kind": "single", "tags": ["Blue", "Navy Blue", "Red", "Black and White"]},
    {"name": "article", "kind": "single", "tags": ["Bag", "Hand Bag", "T-Shirt", "Nail Polish", "Bath and Body"]},
    {"name": "features", "kind": "multi", "tags": ["Sleeve", "Long Sleeve", "Waterproof"]},
]
TAGS = [tag for attribute in ATTRIBUTES for tag in attribute["tags"]]
TEXTS = [
    "navy blue tshirts, long sleeves",
    "red bag in blue",
    "nail file for bath and shower, polish remover",
    "hand-bag black waterproof",
    "ideal for ideals",
    "红色 T-shirt",
    "size 42",
]
BUCKETS = 4096


@pytest.fixture(scope="module")
def tokenizer():
    return train_unigram_tokenizer(TEXTS, 120)


def evidence(tokenizer, attributes=ATTRIBUTES, **options):
    config = TaggerConfig(
        text_config=RecurrentTextConfig(vocab_size=len(tokenizer), hidden_size=8), vision_config=None,
        attributes=attributes, **({"lexical_buckets": BUCKETS, "name_match": True} | options),
    )  # fmt: skip
    words = WordEvidence(config)
    words.reset()
    words.set_tokenizer(tokenizer, attributes)
    return words, candidate_attributes(config)


def tokens(tokenizer, texts):
    return dict(tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False))


def reference_features(tokenizer, text, idf, word_ngrams=0):
    """TF-IDF of pieces, of the letter n-grams of "^word$" and of runs of words, with strings and dictionaries."""
    multiplier, counts = 1_000_003, Counter()
    pieces = tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids)
    folded = [fold(piece.replace("▁", " ")) for piece in pieces if piece not in tokenizer.all_special_tokens]
    first = {}
    for index, piece in enumerate(tokenizer.convert_ids_to_tokens(range(len(tokenizer)))):
        if piece not in tokenizer.all_special_tokens:
            first.setdefault(fold(piece.replace("▁", " ")), index)
    codes = [first[piece] + 1 for piece in folded]
    words = re.findall(r"[^\W_]+|[\u4e00-\u9fff]", re.sub(r"[-']", "", re.sub(r"([一-鿿])", r" \1 ", fold(text))))
    for length in range(1, word_ngrams + 1):
        codes += [(span_hash(" ".join(words[start : start + length])) + WORD_OFFSET) % MODULUS
                  for start in range(len(words) - length + 1)]
    for word in words:
        letters = [BOUNDARY, *(code for code in char_codes(word) if code != BOUNDARY), BOUNDARY]
        for order in (3, 4, 5):
            for start in range(len(letters) - order + 1):
                code = order
                for letter in letters[start : start + order]:
                    code = (code * multiplier + letter + 1) % MODULUS
                codes.append(code)
    counts = Counter(code * 69_069 % MODULUS % BUCKETS for code in codes)
    values = {bucket: (1 + math.log(count)) * float(idf[bucket]) for bucket, count in counts.items()}
    length = math.sqrt(sum(value**2 for value in values.values()))
    return {bucket: value / length for bucket, value in values.items()}


@pytest.mark.parametrize("word_ngrams", [0, 2])
def test_features_equal_a_plain_reference(tokenizer, word_ngrams):
    words, _ = evidence(tokenizer, lexical_word_ngrams=word_ngrams)
    words.lexical.idf.copy_(torch.rand(BUCKETS, generator=torch.Generator().manual_seed(0)) + 0.5)
    buckets, values = words.lexical.features(words.reader(**tokens(tokenizer, TEXTS)))
    dense = torch.zeros(len(TEXTS), BUCKETS).scatter_add(1, buckets, values)
    for row, text in enumerate(TEXTS):
        expected = reference_features(tokenizer, text, words.lexical.idf, word_ngrams)
        assert dense[row].nonzero().flatten().tolist() == sorted(expected)
        for bucket, value in expected.items():
            assert float(dense[row, bucket]) == pytest.approx(value, abs=1e-5)
    torch.testing.assert_close(dense.norm(dim=1), torch.ones(len(TEXTS)))


def test_evidence_is_linear_in_the_features_and_apart_for_every_view(tokenizer):
    words, candidates = evidence(tokenizer, name_match=False, word_views=2)
    torch.manual_seed(0)
    words.lexical.weight.weight.data.normal_()
    words.lexical.bias.weight.data.normal_()
    found, named = words(**tokens(tokenizer, TEXTS), candidate_attribute=candidates)
    buckets, values = words.lexical.features(words.reader(**tokens(tokenizer, TEXTS)))
    dense = torch.zeros(len(TEXTS), BUCKETS).scatter_add(1, buckets, values)
    tables = words.lexical.weight.weight.view(BUCKETS, 2, -1)
    for view in range(2):
        expected = dense @ tables[:, view] + words.lexical.bias.weight[:, view]
        torch.testing.assert_close(found[:, view], expected, rtol=1e-4, atol=1e-5)
    assert not named.any()


def test_a_row_without_text_gives_no_evidence(tokenizer):
    words, candidates = evidence(tokenizer)
    words.lexical.bias.weight.data.fill_(3.0)
    inputs = tokens(tokenizer, ["navy blue", "red"])
    inputs["attention_mask"][1] = 0
    found, named = words(**inputs, candidate_attribute=candidates)
    assert found[0].all(dim=-1).all() and not found[1].any()
    assert named.tolist() == [[True, False, False], [False] * 3]


FOUND, LAST, FIRST, SHARE, PART, HEAD = range(NameMatch.FEATURES)


@pytest.fixture(scope="module")
def matches(tokenizer):
    words, candidates = evidence(tokenizer)

    def read(text):
        """{tag: its features that are not zero, as {feature: value}}"""
        features = words.names.features(words.reader(**tokens(tokenizer, [text])), candidates)[0]
        found = {tag: {k: value for k, value in enumerate(row) if value} for tag, row in
                 zip(TAGS, features.tolist(), strict=True)}  # fmt: skip
        return {tag: row for tag, row in found.items() if row}

    return read


def test_a_name_in_the_text_is_found_the_only_one_being_first_and_last(matches):
    assert matches("T-shirt") == {"T-Shirt": {FOUND: 1, LAST: 1, FIRST: 1}}
    assert matches("waterproof tshirts") == {tag: {FOUND: 1, LAST: 1, FIRST: 1} for tag in ("T-Shirt", "Waterproof")}


def test_a_name_inside_a_longer_one_counts_only_where_tags_exclude_each_other(matches):
    assert matches("navy blue") == {"Navy Blue": {FOUND: 1, LAST: 1, FIRST: 1}}
    assert set(matches("handbag")) == {"Hand Bag"}
    both = matches("long sleeve")
    assert both["Long Sleeve"] == both["Sleeve"] == {FOUND: 1, LAST: 1, FIRST: 1}


def test_a_name_that_also_stands_alone_is_found(matches):
    assert matches("blue, navy blue") == {"Blue": {FOUND: 1, FIRST: 1}, "Navy Blue": {FOUND: 1, LAST: 1}}


def test_order_tells_first_from_last_within_an_attribute(matches):
    found = matches("red bag in blue")
    assert found["Red"] == {FOUND: 1, FIRST: 1} and found["Blue"] == {FOUND: 1, LAST: 1}
    assert found["Bag"] == {FOUND: 1, LAST: 1, FIRST: 1}


def test_part_of_a_name_counts_by_how_rare_its_words_are(matches):
    # Of "Black and White" and "Navy Blue" one word each; "blue" is in two of four names, "navy" in one.
    navy, blue = math.log(5 / 1), math.log(5 / 2)
    assert matches("navy")["Navy Blue"] == {SHARE: pytest.approx(navy / (navy + blue))}
    assert "Navy Blue" in matches("blue")  # its last word
    assert matches("blue")["Navy Blue"] == {SHARE: pytest.approx(blue / (navy + blue)), HEAD: 1}
    assert matches("black")["Black and White"] == {SHARE: pytest.approx(0.5), PART: 1}
    assert matches("polish")["Nail Polish"] == {SHARE: pytest.approx(0.5), HEAD: 1}


def test_one_of_two_alternatives_counts(matches):
    assert matches("bath foam")["Bath and Body"] == {SHARE: pytest.approx(0.5), PART: 1}
    assert matches("white shoe")["Black and White"] == {SHARE: pytest.approx(0.5), PART: 1, HEAD: 1}
    assert matches("black and white")["Black and White"] == {FOUND: 1, LAST: 1, FIRST: 1}


def test_before_any_fit_the_named_tag_leads_and_multi_attributes_never_count_as_named(tokenizer):
    words, candidates = evidence(tokenizer)
    found, named = words(**tokens(tokenizer, ["red bag waterproof"]), candidate_attribute=candidates)
    scores = dict(zip(TAGS, found[0, 0].tolist(), strict=False))
    assert max(scores, key=scores.get) in ("Red", "Bag", "Waterproof")
    assert scores["Red"] == scores["Waterproof"] == pytest.approx(sum(NameMatch.PRIOR[:3]))
    assert scores["Blue"] == 0 == found[0, 0, -3:].abs().sum()
    assert named.tolist() == [[True, True, False]]


def test_names_without_a_letter_or_digit_match_nothing(tokenizer):
    attributes = [{"name": "size", "kind": "single", "tags": ["***", "42", "—"]}]
    words, candidates = evidence(tokenizer, attributes)
    found, _ = words(**tokens(tokenizer, ["bag 42"]), candidate_attribute=candidates)
    assert found[0, 0].tolist() == [0, pytest.approx(3.0), 0, 0]


def test_evidence_of_words_is_float32_under_autocast(tokenizer):
    words, candidates = evidence(tokenizer)
    torch.nn.init.normal_(words.lexical.weight.weight)
    inputs = tokens(tokenizer, TEXTS).values()
    plain, _ = words(*inputs, candidates)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(words(*inputs, candidates)[0], plain)
