import numpy as np
import pytest
import torch

from hf_tagger.catalog.strict import ConfigError
from hf_tagger.feedback.interactions import Interactions
from hf_tagger.model.reranking import met_tags
from hf_tagger.training.personalization import fit_personalization, histories
from recipes.lab.simulate_shoppers import simulate_shoppers
from tests.feedback.random_tags import random_tags

ATTRIBUTES = [{"name": name, "kind": "single", "tags": [f"{name}{number}" for number in range(5)]}
              for name in ("colour", "size")]


@pytest.fixture
def products():
    return random_tags()


def test_histories_are_what_the_pipeline_would_count(products):
    tags = torch.from_numpy(products).float()
    log = simulate_shoppers(products, 3, choices=6).log
    met = histories(log, tags, 10.0)
    for row in range(len(log.user)):
        earlier = np.flatnonzero(log.user[:row] == log.user[row])
        events = [{"time": log.time[one], "weight": 1.0, "tags": [
            {"attribute": ATTRIBUTES[place // 5]["name"], "label": ATTRIBUTES[place // 5]["tags"][place % 5]}
            for place in np.flatnonzero(products[log.product[one]])]} for one in earlier]
        assert torch.allclose(met[row], met_tags(events, ATTRIBUTES, 10.0), atol=1e-5)


def test_the_gate_opens_for_what_shoppers_choose_by_and_for_nothing_else(products):
    # They care for colours alone.
    for_colours = products.copy()
    for_colours[:, 5:] = False
    log = simulate_shoppers(for_colours, 200, liked=1, strength=3.0).log
    vectors = torch.nn.functional.normalize(torch.randn(10, 16, generator=torch.Generator().manual_seed(0)))
    settings, report = fit_personalization(log, torch.from_numpy(products).float(), vectors, ATTRIBUTES)
    assert settings["gates"]["colour"] > 5 * abs(settings["gates"]["size"])
    assert report["loss"] < report["loss_of_chance"] - 0.3
    shuffled = Interactions(np.random.default_rng(1).permutation(log.user), log.product, log.time)
    with pytest.raises(ConfigError, match="no better than by chance"):
        fit_personalization(shuffled, torch.from_numpy(products).float(), vectors, ATTRIBUTES)


def test_a_log_in_which_nobody_comes_back_is_too_short(products):
    once = Interactions(np.arange(5), np.arange(5), np.arange(5.0))
    with pytest.raises(ConfigError, match="too few"):
        fit_personalization(once, torch.from_numpy(products).float(), torch.eye(10), ATTRIBUTES)
