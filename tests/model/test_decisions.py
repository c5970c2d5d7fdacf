import numpy as np
import pytest
import torch

from hf_tagger.model.configuration_tagger import TaggerConfig
from hf_tagger.model.decisions import grown, predicted_tags, tag_scores

COLOUR = {"name": "colour", "kind": "single", "tags": ["Red", "Blue"]}
USES = {"name": "uses", "kind": "multi", "tags": ["Outdoor", "Rain", "Storm"]}


def scores_of(attribute, logits, none=0.0):
    return tag_scores([attribute], np.array([[*logits, none]], np.float32))[0].tolist()


def given(attribute, scores):
    chosen = predicted_tags([attribute], np.array([scores], np.float32))[0]
    return [tag for tag, wanted in zip(attribute["tags"], chosen, strict=True) if wanted]


def test_temperature_divides_the_logits_of_tags_and_none():
    plain, softened = scores_of(COLOUR, [4.0, 2.0], 1.0), scores_of(COLOUR | {"temperature": 2.0}, [4.0, 2.0], 1.0)
    assert plain == pytest.approx(torch.tensor([4.0, 2.0, 1.0]).softmax(0)[:2].tolist())
    assert softened == pytest.approx(torch.tensor([2.0, 1.0, 0.5]).softmax(0)[:2].tolist())


def test_platt_scaling_moves_each_tag_by_its_own_numbers():
    uses = USES | {"calibration": {"slopes": [1.0, 2.0, 0.5], "intercepts": [0.0, -1.0, 1.0]}}
    assert scores_of(uses, [0.5, 0.5, 2.0]) == pytest.approx(torch.tensor([0.5, 0.0, 2.0]).sigmoid().tolist())


def test_where_lists_are_partial_a_score_is_that_of_being_right():
    listed = scores_of(USES, [0.0, -2.0, 3.0], 0.0)
    right = scores_of(USES | {"label_frequency": 0.6}, [0.0, -2.0, 3.0], 0.0)
    np.testing.assert_allclose(right, np.minimum(np.array(listed) / 0.6, 1.0), rtol=1e-6)


@pytest.mark.parametrize(("thresholds", "scores", "tags"), [
    (None, [0.4, 0.2], ["Red"]),
    (None, [0.3, 0.2], []),  # "none" has .5
    ([0.3, 0.9], [0.31, 0.2], ["Red"]),
    ([0.3, 0.9], [0.05, 0.8], []),  # abstains rather than fall back on the second best
])  # fmt: skip
def test_a_single_attribute_gives_its_best_tag_or_abstains(thresholds, scores, tags):
    assert given(COLOUR | {"thresholds": thresholds}, scores) == tags


def test_a_multi_attribute_gives_all_tags_that_reach_their_thresholds():
    assert given(USES, [0.5, 0.49, 0.9]) == ["Outdoor", "Storm"]
    assert given(USES | {"thresholds": [0.6, 0.3, 0.95]}, [0.5, 0.49, 0.9]) == ["Rain"]


FLAVOURS = {"name": "flavours", "kind": "multi", "tags": ["Mint", "Lime", "Plum", "Rare"], "thresholds": [0.5] * 4}


def flavours(scores, common, never_empty=False, used=True):
    lists = {"used": used, "never_empty": never_empty, "common": common}
    return given(FLAVOURS | {"lists": lists}, scores)


@pytest.mark.parametrize(("scores", "tags"), [
    ([0.7, 0.45, 0.1, 0.1], ["Mint", "Lime"]),  # no product has mint alone, and lime is not far off
    ([0.9, 0.05, 0.1, 0.1], ["Mint"]),  # but where lime is
    ([0.55, 0.05, 0.7, 0.1], ["Plum"]),  # mint is the less likely of two that never come together
    ([0.95, 0.1, 0.95, 0.1], ["Mint", "Plum"]),  # unless it is certain
    ([0.7, 0.45, 0.1, 0.8], ["Mint", "Lime", "Rare"]),  # what has few products is judged by itself
    ([0.1, 0.1, 0.1, 0.1], []),
])
def test_common_tags_of_a_list_are_given_as_products_have_them(scores, tags):
    assert flavours(scores, [[2], [0, 1], []]) == tags
    assert flavours(scores, [[2], [0, 1]]) == tags, "an unlikely list is not forced on a product"
    assert flavours(scores, [[2], [0, 1]], used=False) == [
        tag for tag, score in zip(FLAVOURS["tags"], scores, strict=True) if score >= 0.5]


@pytest.mark.parametrize(("scores", "tags"), [([0.1, 0.3, 0.2, 0.1], ["Lime"]), ([0.1, 0.1, 0.1, 0.35], ["Rare"]),
                                              ([0.1, 0.11, 0.1, 0.1], [])])
def test_where_no_list_is_empty_the_best_tag_is_given_if_it_comes_near(scores, tags):
    for common in ([[0], [1], [2], []], []):
        assert flavours(scores, common) == []
        assert flavours(scores, common, never_empty=True) == tags


def test_lists_of_many_products_are_decided_as_one_by_one():
    draw = np.random.default_rng(0)
    entry = FLAVOURS | {"lists": {"used": True, "never_empty": True, "common": [[2], [0, 1], [1, 2]]}}
    scores = draw.random((150, 4)).astype(np.float32)
    together = predicted_tags([entry], scores)
    assert (together == np.concatenate([predicted_tags([entry], row[None]) for row in scores])).all()
    assert (together != (scores >= 0.5)).any()


def test_no_child_stands_without_its_parents_at_any_threshold():
    # Children before their parents in the list, and a grandchild: order must not matter.
    tree = USES | {"tags": ["Storm", "Rain", "Outdoor"], "parents": {"Storm": "Rain", "Rain": "Outdoor"}}
    scores = scores_of(tree, [2.0, -1.0, 0.0])
    assert scores[0] == scores[1] == scores[2] == pytest.approx(torch.tensor(2.0).sigmoid().item())
    assert given(tree | {"thresholds": [0.5, 0.99, 0.99]}, scores) == ["Storm", "Rain", "Outdoor"]
    assert given(tree, [0.2, 0.3, 0.9]) == ["Outdoor"]


def test_tags_in_a_circle_of_parents_do_not_hang():
    circle = USES | {"parents": {"Rain": "Storm", "Storm": "Rain"}}
    assert set(given(circle, [0.1, 0.9, 0.1])) == {"Rain", "Storm"}


def test_added_tags_get_what_is_typical_of_their_attribute():
    uses = USES | {"counts": [5, 6, 7], "thresholds": [0.2, 0.4, 0.6],
                   "calibration": {"slopes": [1.0, 2.0, 3.0], "intercepts": [0.0, 0.0, 3.0]}}  # fmt: skip
    entry = grown(uses, ["Snow"])
    assert entry["tags"][-1] == "Snow" and entry["counts"][-1] == 0
    assert entry["thresholds"][-1] == pytest.approx(0.4)
    assert entry["calibration"]["slopes"][-1] == pytest.approx(2.0)
    assert entry["calibration"]["intercepts"] == [0.0, 0.0, 3.0, 1.0]
    TaggerConfig(attributes=[entry])


@pytest.mark.parametrize(("fitted", "message"), [
    ({"calibration": {"slopes": [1.0], "intercepts": [0.0] * 3}}, "'uses': 1 slopes for 3 tags"),
    ({"thresholds": [0.5] * 4}, "'uses': 4 thresholds for 3 tags"),
    ({"label_frequency": 1.2}, "'uses': label_frequency must be above 0 and at most 1.0, got 1.2"),
    ({"lists": {"common": [[0], [3]]}}, "'uses': lists.common holds columns of tags, from 0 to 2"),
    ({"temperature": -1.0}, "'uses': temperature must be above 0"),
])  # fmt: skip
def test_a_config_refuses_what_does_not_fit_its_tags(fitted, message):
    with pytest.raises(ValueError, match=message):
        TaggerConfig(attributes=[USES | fitted])
