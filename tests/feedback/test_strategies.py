import numpy as np
import pytest

from hf_tagger.feedback.strategies import (
    entropy,
    k_center,
    label_cost,
    margin,
    mix,
    queue,
    rare_tags,
)
from tests.tiny_tagger import ATTRIBUTES

SURE = [0.98, 0.01, 0.97, 0.02, 0.01, 0.99]
TORN = [0.49, 0.48, 0.97, 0.02, 0.01, 0.99]
NONE = [0.01, 0.01, 0.01, 0.01, 0.01, 0.01]  # surely no colour and no category
EVEN = [0.98, 0.01, 0.97, 0.02, 0.50, 0.99]
SCORES = np.array([SURE, TORN, NONE, EVEN])


@pytest.mark.parametrize("strategy", [margin, entropy])
def test_doubt_is_found_in_single_and_multi_attributes_and_a_sure_none_is_no_doubt(strategy):
    sure, torn, none, even = strategy(ATTRIBUTES, SCORES)
    assert min(torn, even) > 2 * max(sure, none)


def test_margin_and_entropy_as_computed_by_hand():
    one = [{"name": "colour", "kind": "single", "tags": ["Red", "Blue"]}]
    assert margin(one, np.array([[0.5, 0.3]])) == pytest.approx(0.8)
    expected = -(0.5 * np.log(0.5) + 0.3 * np.log(0.3) + 0.2 * np.log(0.2))
    assert entropy(one, np.array([[0.5, 0.3]])) == pytest.approx(expected)
    many = [{"name": "features", "kind": "multi", "tags": ["A", "B"]}]
    assert margin(many, np.array([[0.4, 0.9]])) == pytest.approx(0.8)
    assert entropy(many, np.array([[0.5, 0.0]])) == pytest.approx(np.log(2))


def test_label_cost_counts_expected_corrections():
    chosen = np.array([[True, False, True, False, False, True]] * 2)
    cost = label_cost(np.array([SURE, [1, 0, 1, 0, 1, 1]]), chosen)
    assert cost == pytest.approx([0.02 + 0.01 + 0.03 + 0.02 + 0.01 + 0.01, 1.0])


def test_products_with_rare_tags_come_first():
    attributes = [{"name": "colour", "kind": "single", "tags": ["Red", "Teal"], "counts": [99, 1]}]
    assert rare_tags(attributes, np.array([[1.0, 0.0], [0.5, 0.5]])) == pytest.approx([0.01, 0.255])


def test_k_center_visits_every_cluster_before_it_visits_one_twice():
    rng = np.random.default_rng(0)
    vectors = np.repeat(np.eye(4), 10, axis=0) + 0.01 * rng.normal(size=(40, 4))
    labelled = np.zeros(40, bool)
    labelled[0] = True
    assert sorted(k_center(vectors, labelled, 3) // 10) == [1, 2, 3]
    assert sorted(k_center(vectors, np.zeros(40, bool), 4) // 10) == [0, 1, 2, 3]
    assert len(set(k_center(vectors, labelled, 39))) == 39 and labelled.sum() == 1
    with pytest.raises(ValueError, match="40 products asked for, and 39"):
        k_center(vectors, labelled, 40)


def test_a_mix_weighs_ranks_and_a_queue_leaves_out_what_is_labelled():
    values = {"margin": np.array([0.1, 0.2, 0.3]), "rare": np.array([500.0, 9.0, 1.0])}
    assert mix(values, {"margin": 1.0, "rare": 1.0}) == pytest.approx([1.0, 1.0, 1.0])
    assert mix(values, {"margin": 2.0, "rare": 1.0}).argmax() == 2
    with pytest.raises(ValueError, match='Did you mean "margin"'):
        mix(values, {"marging": 1.0})
    assert queue(np.array([3.0, 1.0, 2.0, 2.0]), np.array([True, False, False, False]), 2).tolist() == [2, 3]
