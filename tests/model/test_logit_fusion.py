"""What the sources say, brought to one scale and added with weights that depend on what there is to go by."""

import numpy as np
import pytest
import torch

from hf_tagger.model.configuration_tagger import RecurrentTextConfig, TaggerConfig
from hf_tagger.model.heads import LogitFusion, candidate_attributes

ATTRIBUTES = [
    {"name": "colour", "kind": "single", "tags": ["Red", "Blue"]},
    {"name": "features", "kind": "multi", "tags": ["Waterproof", "Handmade", "New"]},
    {"name": "category", "kind": "single", "tags": ["Mug"]},
]
COLOUR, CATEGORY, FEATURES = [0, 1, 6], [5, 8], [2, 3, 4]
KERNEL = {"kernel_landmarks": 5, "kernel_weights": {"text": 1.0}}


def fusion(**options):
    """(fusion, which attribute each candidate is of); two sources, three with `KERNEL`."""
    config = TaggerConfig(attributes=ATTRIBUTES, text_config=RecurrentTextConfig(vocab_size=10, hidden_size=8),
                          **{"lexical_buckets": 16} | options)
    made = LogitFusion(config.attributes, len(config.sources))
    made.reset()
    return made, candidate_attributes(config.attributes)


def features(made, named=(False, False, False), has_image=True):
    return made.features(torch.tensor([named]), torch.tensor([has_image]))


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_single_attributes_become_log_probabilities_with_their_none_and_multi_ones_stay_logits():
    made, candidates = fusion()
    logits = 5 * torch.randn(4, 9)
    found = made.normalise(logits, candidates).numpy()
    for columns in (COLOUR, CATEGORY):
        np.testing.assert_allclose(found[:, columns], log_softmax(logits.numpy()[:, columns]), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found[:, FEATURES], logits[:, FEATURES])


def test_logits_of_any_size_stay_finite():
    made, candidates = fusion()
    logits = torch.tensor([[3e4, -3e4, 0, 0, 0, -3e4, 0, 0, 3e4], [-1e4] * 9, [80.0] * 9])
    assert made.normalise(logits, candidates).isfinite().all()
    assert made.normalise(logits.bfloat16(), candidates).dtype == torch.float32


def test_a_source_with_nothing_to_go_by_adds_nothing():
    made, candidates = fusion()
    sources = torch.randn(2, 2, 9)
    sources[0, 1] = 0
    state = features(made).expand(2, -1, -1)
    found = made(sources, state, candidates)
    alone = sources.clone()
    alone[0, 1] = 0
    alone[1, 1] = 0
    torch.testing.assert_close(found[0], made(alone, state, candidates)[0])
    assert not made.normalise(sources[0], candidates)[1].any()
    assert (found[1] - made(alone, state, candidates)[1]).abs().min() > 0


@pytest.mark.parametrize(("options", "count"), [({"lexical_buckets": 0}, 1), ({}, 2), (KERNEL, 3)])
def test_at_first_all_sources_weigh_the_same_whatever_the_state(options, count):
    made, candidates = fusion(**options)
    assert made.sources == count
    sources = torch.randn(1, count, 9)
    expected = made.normalise(sources[0], candidates).sum(0) * (1.5 / count if count > 1 else 1.0)
    for named in ((False,) * 3, (True, False, True)):
        for has_image in (True, False):
            torch.testing.assert_close(made(sources, features(made, named, has_image), candidates)[0], expected)


@pytest.mark.parametrize(("named", "has_image", "states"), [
    ((False, False, False), True, [0, 0, 0]),
    ((True, False, False), True, [3, 1, 1]),
    ((True, False, True), True, [4, 2, 4]),
    ((True, False, True), False, [4, 2, 4]),
])  # fmt: skip
def test_features_are_the_state_of_the_text_and_whether_there_is_a_photo(named, has_image, states):
    made, _ = fusion()
    found = features(made, named, has_image)[0]
    assert found.shape == (3, LogitFusion.FEATURES)
    assert found[:, :5].argmax(1).tolist() == states and (found[:, :5].sum(1) == 1).all()
    assert (found[:, 5] == (not has_image)).all()


def test_weights_count_in_their_own_state_and_never_turn_a_source_around():
    made, candidates = fusion()
    weights = made.weights.weight.data.view(3, 2, LogitFusion.FEATURES)
    weights.zero_()
    weights[0, 1, 3] = 2.0  # colour, the second source, a colour and nothing else is named
    weights[1, 0, :] = -1.0
    sources = torch.randn(1, 2, 9)
    normalised = made.normalise(sources[0], candidates)
    found = made(sources, features(made, (True, False, False)), candidates)[0]
    torch.testing.assert_close(found[COLOUR], 2 * normalised[1, COLOUR])
    assert not found[FEATURES].any() and not found[CATEGORY].any()
    assert not made(sources, features(made, (False, False, True)), candidates)[0, COLOUR].any()


def test_a_missing_photo_adds_its_own_weight():
    made, candidates = fusion()
    made.weights.weight.data.view(3, 2, LogitFusion.FEATURES)[0, 0, -1] = 0.25
    sources = torch.randn(1, 2, 9)
    with_photo, without = (made(sources, features(made, has_image=there), candidates)[0] for there in (True, False))
    torch.testing.assert_close(without[COLOUR] - with_photo[COLOUR],
                               0.25 * made.normalise(sources[0], candidates)[0, COLOUR])
    torch.testing.assert_close(without[FEATURES], with_photo[FEATURES])


def test_rows_do_not_touch_each_other_and_autocast_is_left_out():
    made, candidates = fusion(**KERNEL)
    sources = torch.randn(3, 3, 9)
    state = made.features(torch.tensor([[True, False, False], [False] * 3, [True, False, True]]),
                          torch.tensor([True, False, True]))
    together = made(sources, state, candidates)
    for row in range(3):
        torch.testing.assert_close(made(sources[row:row + 1], state[row:row + 1], candidates)[0], together[row])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(made(sources, state, candidates), together)
