import numpy as np
import pytest

from hf_tagger.feedback.interactions import read_interactions
from hf_tagger.model.reranking import DAY
from recipes.lab.simulate_shoppers import ndcg, simulate_shoppers, write_interactions
from tests.feedback.random_tags import random_tags


def test_shoppers_choose_what_they_like():
    products = random_tags()
    shoppers = simulate_shoppers(products, 100)
    liked = [shoppers.liking[user] @ products[row] for user, row in
             zip(shoppers.log.user, shoppers.log.product, strict=True)]
    assert np.mean(liked) > 1.5 * (shoppers.liking @ products.T).mean()
    assert (np.diff(shoppers.log.time) >= 0).all() and shoppers.log.time.max() < 90 * DAY
    assert ((shoppers.liking > 0).sum(1) == 4).all()


def test_the_log_is_read_as_it_was_written(tmp_path):
    log, ids = simulate_shoppers(random_tags(), 3).log, [f"P{number}" for number in range(len(random_tags()))]
    write_interactions(tmp_path / "log.parquet", log, ids)
    again, left_out = read_interactions(tmp_path / "log.parquet", ids)
    assert np.allclose(again.time, log.time) and again.product.tolist() == log.product.tolist() and left_out == 0


def test_ndcg_as_computed_by_hand():
    # Gains 0, 2, 1: (2 / log2(3) + 1 / 2) / (2 + 1 / log2(3))
    assert ndcg(np.array([0.0, 2.0, 1.0])) == pytest.approx((2 / np.log2(3) + 0.5) / (2 + 1 / np.log2(3)))
    assert ndcg(np.array([2.0, 1.0, 0.0])) == 1
    assert np.isnan(ndcg(np.zeros(3)))
