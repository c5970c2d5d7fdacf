"""What gives a product its tags beside a decoder, and what the table says of it."""

from collections import Counter

import numpy as np
import pytest

from recipes.lab.benchmark_free_form_rivals import RIVALS, averaged, chosen_threshold, f1, fitted, report, scores_of
from recipes.lab.tag_writers import Keyphrases, NamedInText, Neighbours, Texts, TfidfRegression

WORDS = {"honey": ["bee products", "honey"], "bread": ["bakery", "bread"], "milk": ["dairies", "milk"]}


def shop(rows):
    texts = [f"{'fresh old good'.split()[row % 3]} {list(WORDS)[row % 3]} number {row}" for row in range(rows)]
    return Texts(texts, ["en"] * rows, [list(WORDS.values())[row % 3] for row in range(rows)])


def by_letters(texts):
    vectors = np.array([[text.count(letter) for letter in "hbm"] for text in texts], np.float32) + 0.01
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_products_whose_tags_are_not_known_are_left_out():
    records = [{"text": "a", "language": "en", "free_form": {"keywords": ["Bee  products"], "more": None}},
               {"text": None, "language": None, "free_form": {"keywords": []}},
               {"text": "c", "language": "en", "free_form": {"keywords": None}}]
    assert Texts.of(records) == Texts(["a", ""], ["en", None], [["bee products"], []])


@pytest.mark.parametrize("method", ["tfidf", "neighbours"])
def test_a_method_that_learns_tags_what_it_has_learned(method):
    train, validation = shop(36), shop(9)
    if method == "tfidf":
        write = TfidfRegression(train, validation)
    else:
        write = Neighbours(train, by_letters, validation, lambda scored: f1(scored, validation))
    assert f1(write(validation), validation) > 0.99
    assert "neighbours by" in write.choice or "alpha" in write.choice


def test_a_named_tag_is_scored_by_how_often_naming_it_means_having_it():
    train = Texts(["sour milk", "milk", "milk bread"], ["en"] * 3, [["milk"], ["milk"], ["bread"]])
    (row,) = NamedInText(train)(Texts(["Bread with milk"], ["en"], [[]]))
    assert dict(row) == pytest.approx({"milk": 2.5 / 4, "bread": 1.5 / 2})


def test_keyphrases_are_phrases_of_the_text_and_none_of_a_text_without_words():
    first, second = Keyphrases(by_letters)(Texts(["honey, bread", "7"], [None, None], [[], []]))
    assert {phrase for phrase, _ in first} == {"honey", "bread", "honey bread"} and second == []


def test_the_threshold_is_where_f1_is_highest_and_a_repeated_tag_counts_once():
    products = Texts(["", ""], [None, None], [["a", "b"], ["a"]])
    scored = [[("A", 0.9), ("b", 0.8), ("b", 0.1), ("c", 0.3)], [("a", 0.7), ("d", 0.2)]]
    assert 0.3 < chosen_threshold(scored, products) < 0.7


def test_scores_are_told_apart_by_frequency_text_and_language():
    products = Texts(["milk from cows", "bread"], ["en", "de"], [["milk", "rare", "never"], ["bread"]])
    counts = Counter(milk=50, bread=5, rare=1)
    scores = scores_of([["milk", "never", "wrong"], ["bread"]], products, counts)
    assert scores["unseen/recall"]["value"] == 1.0 and scores["unseen/precision"]["value"] == 0.5
    assert [scores[f"{name}/recall"]["value"] for name in ("1-2", "3-9", "10+")] == [0.0, 1.0, 1.0]
    assert scores["present/recall"]["value"] == 1.0 and scores["absent/recall"]["value"] == 0.5
    assert scores["f1@M"]["value"] == pytest.approx(6 / 8) and scores["unseen/right"] == {"value": 1}
    assert scores["f1@M"]["low"] <= scores["f1@M"]["value"] <= scores["f1@M"]["high"]


def test_the_table_has_the_mean_of_a_taggers_seeds():
    products = Texts(["milk"] * 60, ["en"] * 60, [["milk"]] * 60)
    good, bad = (scores_of([[tag]] * 60, products, Counter(milk=9)) for tag in ("milk", "x"))
    found = {"config": "my.yaml", "machine": {"cpu": "a machine", "cores": 2}, "methods": {
        "tfidf": {"choice": "alpha 1", "test": bad}, "free runs/0": {"choice": "", "test": good},
        "free runs/1": {"choice": "", "test": bad}}}
    assert averaged(found)["free"]["f1@M"]["value"] == 0.5
    page = report(found)
    assert "| free | .500 [.500, .500] |" in page and "| method | en |" in page and "tfidf: alpha 1." in page


def test_a_method_that_reads_with_a_tower_asks_for_a_tagger():
    with pytest.raises(Exception, match="--models"):
        fitted(RIVALS[1], [], shop(3), shop(3))
