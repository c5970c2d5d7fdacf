import typing

import numpy as np
import pytest
import torch
from torch import nn

from hf_tagger.augmentation.methods import augment
from hf_tagger.augmentation.settings import AugmentationSettings, Method
from hf_tagger.catalog.strict import build
from tests.augmentation.gaussians import problem, world

GAN = {"hidden": 16, "latent": 4, "check_every": 20, "learning_rate": 2e-3}


def retrained(data, tau=1.0, seed=0, source=None, **settings):
    torch.manual_seed(0)
    head = nn.Linear(6, 7)
    basic = {"epochs": 30, "batch_size": 32, "learning_rate": 1e-2, "gan": GAN}
    settings = build(AugmentationSettings, basic | settings)
    return head, augment(problem(data, tau), head, settings, seed, source=source)


def recall_of_sage(head):
    vectors, labels = world(seed=5).batch(np.arange(96, 100))
    return (head(vectors)[:, :3].argmax(1) == labels[:, :3].argmax(1)).float().mean().item()


@pytest.mark.parametrize("method", typing.get_args(Method))
def test_every_method_trains_a_head_that_knows_the_rare_tag(method):
    head, source = retrained(world(unlabelled=100), method=method)
    assert recall_of_sage(head) == 1.0
    assert hasattr(source, "generator") == ("gan" in method) and (source is None) == (method == "none")
    assert not head.training


def test_a_head_is_the_same_with_the_same_seed_only():
    weights = [retrained(world(), method="residual_transfer", seed=seed)[0].weight for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_the_random_numbers_of_the_run_go_on_as_if_nothing_had_been_drawn():
    torch.manual_seed(0)
    nn.Linear(6, 7)
    expected = torch.rand(1)
    retrained(world(), method="semi_supervised_gan")
    assert torch.rand(1) == expected


def test_a_source_of_ones_own_takes_the_place_of_the_methods():
    _, first = retrained(world(), method="residual_transfer")
    (alone, _), (head, second) = (retrained(world(), method="none", source=source) for source in (None, first))
    assert second is first and not torch.equal(head.weight, alone.weight)


def test_scores_are_probabilities_by_attribute():
    ready = problem(world())
    scores = ready.scores(ready.data.batch(np.arange(100))[0])
    assert scores.shape == (100, 5) and (scores[:, :3].sum(1) < 1.0001).all()
    assert scores[:, :3].amax(1).min() > 0.8
    assert torch.allclose(scores[:, 3:], torch.tensor(0.5))


def test_only_named_attributes_gain():
    _, source = retrained(world(), method="residual_transfer", attributes=["features"])
    assert set(source.sampler.columns) == {3, 4}
