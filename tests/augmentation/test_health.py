import math

import pytest
import torch
from torch import nn

from hf_tagger.augmentation.health import AugmentationStopped, Watch


@pytest.fixture
def network():
    return nn.Linear(2, 2)


def test_the_last_good_state_comes_back(network):
    watch = Watch({"generator": network}, min_diversity=0.1)
    good = network.weight.detach().clone()
    assert watch.check(10, {"critic": 1.0}, diversity=0.5) is None
    nn.init.constant_(network.weight, 7.0)
    assert "diverged at step 20 (critic loss nan)" in watch.check(20, {"critic": math.nan}, diversity=0.5)
    watch.restore()
    assert torch.equal(network.weight, good) and watch.step == 10


@pytest.mark.parametrize("loss", [math.inf, -1e5])
def test_losses_without_bound_are_divergence(network, loss):
    assert "critic loss" in Watch({"generator": network}, 0.1).check(1, {"critic": loss}, 0.5)


def test_infinite_weights_are_divergence(network):
    nn.init.constant_(network.bias, math.inf)
    assert "generator has infinite weights" in Watch({"generator": network}, 0.1).check(1, {"critic": 0.0}, 0.5)


def test_lasting_lack_of_diversity_is_mode_collapse(network):
    watch = Watch({"generator": network}, min_diversity=0.1)
    found = [watch.check(step, {}, spread) for step, spread in enumerate((0.5, 0.01, 0.5, 0.01, 0.01), 1)]
    assert found == [None] * 5, "it recovered at step 3"
    assert "mode collapse at step 6" in watch.check(6, {}, 0.01)
    watch.restore()
    assert watch.step == 3


def test_without_any_good_state_there_is_nothing_to_restore(network):
    watch = Watch({"generator": network}, min_diversity=0.1)
    assert [watch.check(step, {}, 0.0) for step in range(1, 6)] == [None] * 5
    assert "mode collapse" in watch.check(6, {}, 0.0)
    with pytest.raises(AugmentationStopped, match="never reached a good state"):
        watch.restore()
