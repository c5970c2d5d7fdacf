import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_tagger.catalog.strict import ConfigError
from hf_tagger.feedback.interactions import read_interactions


def test_a_log_is_read_in_the_order_of_time_and_strangers_are_counted(tmp_path):
    ids = ["A", "B"]
    pq.write_table(pa.table({"user": ["x", "y", "x", None, "x"], "product": ["B", "C", "A", "A", "B"],
                             "time": pa.array([2e6, 1e6, 1e6, 0, None], pa.float64())}), tmp_path / "log.parquet")
    log, left_out = read_interactions(tmp_path / "log.parquet", ids)
    assert (log.user.tolist(), log.product.tolist(), log.time.tolist()) == ([0, 0], [0, 1], [1e6, 2e6])
    assert left_out == 3


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
