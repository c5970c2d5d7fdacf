import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from hf_tagger.catalog.strict import ConfigError
from hf_tagger.feedback.personalization import Interactions, fit_personalization, histories, read_interactions
from hf_tagger.feedback.shoppers import ndcg, simulate_shoppers, write_interactions
from hf_tagger.model.personalization import DAY, met_tags

ATTRIBUTES = [{"name": name, "kind": "single", "tags": [f"{name}{number}" for number in range(5)]}
              for name in ("colour", "size")]


@pytest.fixture
def products():
    """One colour and one size each, bool [60, 10]."""
    rng = np.random.default_rng(0)
    tags = np.zeros((60, 10), bool)
    tags[np.arange(60), rng.integers(5, size=60)] = True
    tags[np.arange(60), 5 + rng.integers(5, size=60)] = True
    return tags


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


def test_shoppers_choose_what_they_like(products):
    shoppers = simulate_shoppers(products, 100)
    liked = [shoppers.liking[user] @ products[row] for user, row in
             zip(shoppers.log.user, shoppers.log.product, strict=True)]
    assert np.mean(liked) > 1.5 * (shoppers.liking @ products.T).mean()
    assert (np.diff(shoppers.log.time) >= 0).all() and shoppers.log.time.max() < 90 * DAY
    assert ((shoppers.liking > 0).sum(1) == 4).all()


def test_a_log_is_read_in_the_order_of_time_and_strangers_are_counted(tmp_path):
    ids = ["A", "B"]
    pq.write_table(pa.table({"user": ["x", "y", "x", None, "x"], "product": ["B", "C", "A", "A", "B"],
                             "time": pa.array([2e6, 1e6, 1e6, 0, None], pa.float64())}), tmp_path / "log.parquet")
    log, left_out = read_interactions(tmp_path / "log.parquet", ids)
    assert (log.user.tolist(), log.product.tolist(), log.time.tolist()) == ([0, 0], [0, 1], [1e6, 2e6])
    assert left_out == 3
    write_interactions(tmp_path / "again.parquet", log, ids)
    again, left_out = read_interactions(tmp_path / "again.parquet", ids)
    assert again.time.tolist() == log.time.tolist() and again.product.tolist() == [0, 1] and left_out == 0


def test_a_log_that_does_not_fit_is_an_error(tmp_path, products):
    path = tmp_path / "log.parquet"
    with pytest.raises(ConfigError, match="cannot be read"):
        read_interactions(path, [])
    pq.write_table(pa.table({"user": ["x"], "item": ["A"], "time": [1.0]}), path)
    with pytest.raises(ConfigError, match="no column 'product'"):
        read_interactions(path, [])
    pq.write_table(pa.table({"user": ["x"], "product": ["A"], "time": ["noon"]}), path)
    with pytest.raises(ConfigError, match="time must be"):
        read_interactions(path, [])
    once = Interactions(np.arange(5), np.arange(5), np.arange(5.0))
    with pytest.raises(ConfigError, match="too few"):
        fit_personalization(once, torch.from_numpy(products).float(), torch.eye(10), ATTRIBUTES)


def test_ndcg_as_computed_by_hand():
    # Gains 0, 2, 1: (2 / log2(3) + 1 / 2) / (2 + 1 / log2(3))
    assert ndcg(np.array([0.0, 2.0, 1.0])) == pytest.approx((2 / np.log2(3) + 0.5) / (2 + 1 / np.log2(3)))
    assert ndcg(np.array([2.0, 1.0, 0.0])) == 1
    assert np.isnan(ndcg(np.zeros(3)))
