import numpy as np
import pytest

from hf_tagger.evaluation.mistakes import NONE, confident_mistakes, confusions, uncertain_products, verdicts_of
from hf_tagger.evaluation.predict import Predictions

COLOUR = {"name": "colour", "kind": "single", "tags": ["Red", "Blue"]}
USES = {"name": "uses", "kind": "multi", "tags": ["Rain", "Snow"]}


@pytest.fixture
def found():
    rows = [  # given colour, given uses; scores
        (["Red"], ["Rain"], [0.99, 0.0, 0.9, 0.1]),  # all right
        (["Red"], ["Rain"], [0.1, 0.8, 0.2, 0.9]),  # Blue for Red, Snow for Rain
        (["Red"], [], [0.2, 0.7, 0.6, 0.1]),  # Blue for Red, a false Rain
        (None, ["Snow"], [0.34, 0.33, 0.5, 0.5]),  # unknown colour, false Rain
        ([], None, [0.95, 0.0, 0.9, 0.9]),  # Red where none applies
        (["Teal"], ["Rain", "Snow"], [0.1, 0.1, 0.9, 0.4]),  # nothing for a tag never learned, Snow missed
    ]
    tags = [{"colour": colour, "uses": uses} for colour, uses, _ in rows]
    about = [{"text": f"product {row}", "language": None, "photos": 0, "kept": {}} for row in range(len(rows))]
    scores = np.array([row[2] for row in rows], np.float32)
    return Predictions([COLOUR, USES], list("abcdef"), tags, scores, about=about).decided([COLOUR, USES])


def test_confused_pairs_are_counted_per_attribute_the_commonest_first(found):
    pairs = confusions(found)
    assert pairs["colour"] == [("Red", "Blue", 2), (NONE, "Red", 1), ("Teal", NONE, 1)]
    assert sorted(pairs["uses"]) == sorted([("Rain", "Snow", 1), (NONE, "Rain", 2), ("Snow", NONE, 1)])
    assert confusions(found, most=1)["colour"] == [("Red", "Blue", 2)]


def test_the_surest_wrong_tags_come_first_and_unknown_ones_are_not_wrong(found):
    cases = confident_mistakes(found)
    assert [(case.id, case.reason) for case in cases] == [
        ("e", "colour: Red, 95.0% sure"), ("b", "uses: Snow, 90.0% sure"), ("c", "colour: Blue, 70.0% sure"),
        ("d", "uses: Rain, 50.0% sure")], "of each product the surest one"  # fmt: skip
    assert [verdict.attribute for verdict in cases[0].verdicts] == ["colour"]
    assert [case.id for case in confident_mistakes(found, per_attribute=1)] == ["e", "b"]


def test_the_least_decided_products_come_first_labelled_or_not(found):
    assert [case.id for case in uncertain_products(found, most=1)] == ["d"]
    assert [case.id for case in uncertain_products(found)][-1] == "a"


def test_of_tags_that_are_certain_there_is_no_doubt():
    scores = np.array([[1.0, 1.0], [0.5, 1.0], [0.0, 1.0]], np.float32)
    about = [{"text": "Shirt", "language": None, "photos": 0}] * 3
    cases = uncertain_products(Predictions([USES], list("abc"), [{}] * 3, scores, scores > 0.4, about=about))
    assert {case.id: case.reason for case in cases} == {"b": "doubt 0.50", "a": "doubt 0.00", "c": "doubt 0.00"}
    assert cases[0].id == "b"


def test_verdicts_tell_what_was_said_what_is_given_and_whether_it_is_right(found):
    colour, uses = verdicts_of(found, 3)
    assert (colour.given, colour.right) == (None, None) and colour.predicted == [("Red", pytest.approx(0.34))]
    assert (uses.given, uses.right) == (["Snow"], False) and [tag for tag, _ in uses.predicted] == ["Rain", "Snow"]
    assert [verdict.right for verdict in verdicts_of(found, 0)] == [True, True]
