import math

import numpy as np
import pytest
import torch
from torch import nn

from hf_tagger.augmentation.gan import SemiSupervisedGan, condition
from hf_tagger.augmentation.retrain import AugmentationStopped
from hf_tagger.augmentation.settings import GanSettings
from hf_tagger.augmentation.tag_sets import TagSetSampler
from tests.augmentation.gaussians import NAMES, SLICES, problem, world

SMALL = {"latent": 8, "hidden": 32, "learning_rate": 2e-3, "check_every": 100, "unlabelled": 1.0}


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def untrained(log=None, **settings):
    """A head, and a GAN of 200 products without tags."""
    data = world(unlabelled=200)
    torch.manual_seed(0)
    head = nn.Linear(6, 7)
    return head, SemiSupervisedGan(data, TagSetSampler(data, [0, 1, 2], SLICES), NAMES, GanSettings(**SMALL | settings),
                                   log, groups=problem(data).candidates(), random=random(), batch_size=32)


def train(head, gan, steps=100):
    """The losses of the head."""
    optimizer, losses = torch.optim.Adam(head.parameters(), 1e-2), []
    for step in range(steps):
        loss = gan(head, step)
        optimizer.zero_grad()
        if loss.requires_grad:
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    return losses


def test_a_tag_set_is_the_mean_of_its_tags():
    labels = torch.tensor([[1.0, 0, 0, 1, 0], [-100, -100, -100, -100, -100]])
    assert condition(labels, NAMES).tolist() == [[0.5, 0, 0, 0.5, 0], [0, 0, 0, 0, 0]]


def test_the_discriminator_learns_from_products_without_tags():
    head, gan = untrained()
    losses = train(head, gan)
    gan.finish()
    assert gan.stopped is None and len(gan.history) == 1
    assert np.mean(losses[-20:]) < losses[0]
    assert gan.history[-1]["matching"] < 0.5, "the generator's mean is that of the products"


def test_losses_are_logged():
    logged = []
    train(*untrained(log=lambda values, step: logged.append((step, set(values))), check_every=50))
    assert [step for step, _ in logged] == [50, 100]
    assert logged[0][1] == {"gan/discriminator", "gan/matching", "gan/diversity"}


def test_the_same_seed_gives_the_same_generator():
    (head, again), (other_head, other) = untrained(), untrained()
    train(head, again, 20)
    train(other_head, other, 20)
    assert all(torch.equal(weight, same) for weight, same in
               zip(other.generator.state_dict().values(), again.generator.state_dict().values(), strict=True))


def test_divergence_before_any_good_state_leaves_nothing():
    head, gan = untrained(learning_rate=1e12, check_every=10)
    assert train(head, gan)[-1] == 0, "the head then trains without it"
    with pytest.raises(AugmentationStopped, match="diverged at step"):
        gan.finish()


def test_a_collapsed_generator_is_stopped():
    head, gan = untrained(min_diversity=50.0, check_every=10)
    train(head, gan)
    with pytest.raises(AugmentationStopped, match="mode collapse at step 60"):
        gan.finish()


def test_the_last_good_state_comes_back():
    _, gan = untrained(min_diversity=0.1)
    weight = gan.generator.layers[0].weight
    good = weight.detach().clone()
    assert gan.check(10, {"critic": 1.0}, diversity=0.5) is None
    nn.init.constant_(weight, 7.0)
    assert "diverged at step 20 (critic loss nan)" in gan.check(20, {"critic": math.nan}, diversity=0.5)
    gan.finish()
    assert torch.equal(weight, good)


@pytest.mark.parametrize("loss", [math.inf, -1e5])
def test_losses_without_bound_are_divergence(loss):
    assert "critic loss" in untrained()[1].check(1, {"critic": loss}, 0.5)


def test_infinite_weights_are_divergence():
    _, gan = untrained()
    nn.init.constant_(gan.generator.condition.bias, math.inf)
    assert "generator has infinite weights" in gan.check(1, {"critic": 0.0}, 0.5)


def test_lasting_lack_of_diversity_is_mode_collapse():
    _, gan = untrained(min_diversity=0.1)
    found = [gan.check(step, {}, spread) for step, spread in enumerate((0.5, 0.01, 0.5, 0.01, 0.01), 1)]
    assert found == [None] * 5, "it recovered at step 3"
    assert "mode collapse at step 6" in gan.check(6, {}, 0.01)


def test_without_any_good_state_there_is_nothing_to_restore():
    _, gan = untrained(min_diversity=0.1)
    assert [gan.check(step, {}, 0.0) for step in range(1, 6)] == [None] * 5
    assert "mode collapse" in gan.check(6, {}, 0.0)
    with pytest.raises(AugmentationStopped, match="never reached a good state"):
        gan.finish()
