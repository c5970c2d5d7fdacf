import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_tagger.catalog.strict import ConfigError
from hf_tagger.feedback.interactions import read_interactions
from hf_tagger.feedback.shoppers import ndcg, simulate_shoppers, write_interactions
from hf_tagger.model.reranking import DAY
from tests.feedback.random_tags import random_tags


def test_shoppers_choose_what_they_like():
    products = random_tags()
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


def test_a_log_that_does_not_fit_is_an_error(tmp_path):
    path = tmp_path / "log.parquet"
    with pytest.raises(ConfigError, match="there is no file"):
        read_interactions(path, [])
    pq.write_table(pa.table({"user": ["x"], "item": ["A"], "time": [1.0]}), path)
    with pytest.raises(ConfigError, match="no column 'product'"):
        read_interactions(path, [])
    pq.write_table(pa.table({"user": ["x"], "product": ["A"], "time": ["noon"]}), path)
    with pytest.raises(ConfigError, match="time must be"):
        read_interactions(path, [])


def test_ndcg_as_computed_by_hand():
    # Gains 0, 2, 1: (2 / log2(3) + 1 / 2) / (2 + 1 / log2(3))
    assert ndcg(np.array([0.0, 2.0, 1.0])) == pytest.approx((2 / np.log2(3) + 0.5) / (2 + 1 / np.log2(3)))
    assert ndcg(np.array([2.0, 1.0, 0.0])) == 1
    assert np.isnan(ndcg(np.zeros(3)))
