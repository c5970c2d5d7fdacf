import numpy as np
import pytest

from hf_tagger.evaluation.label_issues import (
    confident_joint,
    estimated_errors,
    find_label_issues,
)

COLOUR = {"name": "colour", "kind": "single", "tags": ["Red", "Blue"]}
FEATURES = {"name": "features", "kind": "multi", "tags": ["Waterproof", "Handmade"]}


def test_a_row_counts_for_the_class_of_which_the_model_is_as_sure_as_usual():
    given = np.array([0, 0, 0, 1, 1, 1])
    first = np.array([0.9, 0.7, 0.2, 0.1, 0.6, 0.45])
    # Thresholds: mean of class 0 over its rows .6, of class 1 over its rows (.9 + .4 + .55) / 3 = .617.
    joint, confident = confident_joint(given, np.stack([first, 1 - first], axis=1))
    assert confident.tolist() == [0, 0, 1, 1, 0, -1]
    assert joint.tolist() == [[2, 1], [1, 1]]
    # A third of the 3 rows given as class 0 and half of the 3 given as class 1.
    assert estimated_errors(joint, np.array([3, 3])) == pytest.approx(1 + 1.5)


def test_of_several_confident_classes_the_likeliest_counts():
    given = np.array([0, 1, 2, 2])
    probabilities = np.array([[0.3, 0.4, 0.3], [0.3, 0.4, 0.3], [0.1, 0.1, 0.8], [0.35, 0.45, 0.2]])
    _, confident = confident_joint(given, probabilities)
    assert confident.tolist() == [1, 1, 2, 1]


def single(rows, wrong=()):
    """Labels and scores of `rows` products, red and blue in turns, whose model is sure of the true colour; the rows
    `wrong` are given the other one."""
    true = np.arange(rows) % 2
    scores = np.where(np.arange(2) == true[:, None], 0.9, 0.1)
    labels = (np.arange(2) == true[:, None]).astype(np.float32)
    labels[list(wrong)] = 1 - labels[list(wrong)]
    return labels, scores


def test_a_planted_error_is_found_with_what_it_should_be():
    labels, scores = single(40, wrong=[6])
    issues = find_label_issues([COLOUR], labels, scores)
    (suspect,) = issues.suspects
    assert (suspect.row, suspect.attribute, suspect.given, suspect.suggested) == (6, "colour", ("Blue",), ("Red",))
    assert suspect.score == pytest.approx(0.8)
    assert issues.judged == {"colour": 40} and issues.skipped == {"colour": {}}
    assert issues.estimated["colour"] == pytest.approx(1.0)


def test_the_most_suspicious_comes_first_over_all_attributes():
    labels, scores = single(40, wrong=[6, 9])
    scores[6] = [0.6, 0.4]
    features = np.zeros((40, 2), np.float32)
    features[::2] = 1
    probabilities = np.where(features > 0, 0.8, 0.2)
    features[3, 1], probabilities[3, 1] = 1, 0.15
    attributes = [COLOUR, FEATURES]
    issues = find_label_issues(attributes, np.hstack([labels, features]), np.hstack([scores, probabilities]))
    found = [(suspect.row, suspect.attribute, suspect.suggested) for suspect in issues.suspects]
    # Row 6 is less sure of red than other red products are: not suspected, its other colour is no likelier than usual.
    assert found == [(9, "colour", ("Blue",)), (3, "features", ())]
    assert [suspect.score for suspect in issues.suspects] == pytest.approx([0.8, 0.7])


def test_several_doubtful_tags_of_a_product_are_one_suspect():
    features = np.zeros((40, 2), np.float32)
    features[::2] = 1
    scores = np.where(features > 0, 0.9, 0.1)
    scores[0] = [0.1, 0.05]
    (suspect,) = find_label_issues([FEATURES], features, scores).suspects
    assert (suspect.given, suspect.suggested) == (("Waterproof", "Handmade"), ())
    assert suspect.score == pytest.approx(0.9)


def test_in_a_tree_a_suggestion_is_a_whole_path():
    tree = {"name": "category", "kind": "multi", "tags": ["Mugs", "Kitchen", "Cups"],
            "parents": {"Mugs": "Kitchen", "Cups": "Kitchen"}}  # fmt: skip
    labels = np.zeros((60, 3), np.float32)
    labels[:20], labels[20:40] = [1, 1, 0], [0, 1, 1]
    scores = np.where(labels > 0, 0.9, 0.1)
    scores[0] = [0.05, 0.95, 0.95]  # cups rather than mugs
    scores[1] = [0.9, 0.05, 0.1]  # without its parent, which stays because of it
    scores[40] = [0.1, 0.05, 0.95]  # neither, but cups: and so in the kitchen
    found = {suspect.row: suspect for suspect in find_label_issues([tree], labels, scores).suspects}
    assert {row: (suspect.given, suspect.suggested) for row, suspect in found.items()} == {
        0: (("Kitchen", "Mugs"), ("Kitchen", "Cups")), 40: ((), ("Kitchen", "Cups"))}  # fmt: skip


def test_what_nobody_knows_is_never_suspected():
    labels, scores = single(40, wrong=[6])
    labels[6] = -100
    issues = find_label_issues([COLOUR], labels, scores)
    assert issues.suspects == [] and issues.judged == {"colour": 39}


def test_none_is_an_answer_of_a_single_attribute():
    labels, scores = single(40)
    labels[:10], scores[:10] = 0, 0.02
    labels[0, 0] = 1
    labels[20], scores[21] = 0, [0.02, 0.02]
    found = {suspect.row: suspect for suspect in find_label_issues([COLOUR], labels, scores).suspects}
    assert {row: (suspect.given, suspect.suggested) for row, suspect in found.items()} == {
        0: (("Red",), ()), 20: ((), ("Red",)), 21: (("Blue",), ())}  # fmt: skip


def test_rare_tags_are_neither_judged_nor_suggested_but_listed():
    attribute = {"name": "colour", "kind": "single", "tags": ["Red", "Blue", "Mauve", "Teal"]}
    labels, scores = (np.hstack([part, np.zeros((40, 2), part.dtype)]) for part in single(40))
    labels[[0, 1]] = [0, 0, 1, 0]
    scores[2] = [0.05, 0.0, 0.9, 0.0]
    issues = find_label_issues([attribute], labels, scores, min_positives=3)
    assert issues.skipped == {"colour": {"Mauve": 2, "Teal": 0}} and issues.judged == {"colour": 38}
    assert issues.suspects == []
    features = np.zeros((40, 2), np.float32)
    features[:20, 0] = features[:2, 1] = 1
    issues = find_label_issues([FEATURES], features, np.full((40, 2), 0.5), min_positives=3)
    assert issues.skipped == {"features": {"Handmade": 2}}


def test_an_attribute_with_one_tag_left_has_nothing_to_compare():
    labels, scores = single(40)
    labels[:] = [1, 0]
    assert find_label_issues([COLOUR], labels, scores).suspects == []


def test_wrong_shapes_and_scores_that_are_no_probabilities_are_refused():
    labels, scores = single(10)
    with pytest.raises(ValueError, match=r"labels \(10, 2\) and scores \(9, 2\)"):
        find_label_issues([COLOUR], labels, scores[1:])
    with pytest.raises(ValueError, match="probabilities"):
        find_label_issues([COLOUR], labels, scores * 3 - 1)
    with pytest.raises(ValueError, match="probabilities"):
        find_label_issues([COLOUR], labels, np.full_like(scores, np.nan))
