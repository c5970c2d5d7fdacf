import numpy as np
import pytest
import torch
from torch import nn

from hf_tagger.augmentation.health import AugmentationStopped
from hf_tagger.augmentation.networks import condition
from hf_tagger.augmentation.semi_supervised import SemiSupervisedGan
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
