"""The recipe with a tiny text tower: curves grow by steps, nothing is asked twice, no label is known too early."""

import json

import numpy as np
import pytest

from recipes.lab import simulate_active_learning
from tests.shops import write_config

pytestmark = pytest.mark.usefixtures("fresh_accelerate")

SHOP = {"rows": 200, "picture_size": 0, "languages": ["en"], "label_noise": 0.0}


def test_strategies_ask_for_more_and_more(tmp_path, monkeypatch, capsys):
    config = write_config(tmp_path / "config.yaml", {"synthetic": SHOP}, output_dir=str(tmp_path / "out"),
                          model={"text_backbone": "scratch:gru", "vision_backbone": None, "lexical": {"buckets": 1024}},
                          phases=[{"train": ["heads"], "cached_views": 1, "epochs": 1, "batch_size": 32}],
                          training={"loader": {"num_workers": 0}})  # fmt: skip
    asked, ask = [], simulate_active_learning.ask

    def watched(heads, name, pool, labelled, count, rng):
        rows = ask(heads, name, pool, labelled, count, rng)
        asked.append((name, rows, labelled.copy()))
        return rows

    monkeypatch.setattr(simulate_active_learning, "ask", watched)
    arguments = [str(config), "--step", "50", "--most", "90"]
    assert simulate_active_learning.main(arguments) == 0
    report = json.loads((tmp_path / "out" / "active_learning.json").read_text())
    assert list(report["curves"]) == list(simulate_active_learning.STRATEGIES)
    for curve in report["curves"].values():
        assert [count for count, _ in curve] == [50, 90]
        assert curve[0][1] == report["curves"]["random"][0][1], "all start from the same products"
    for _, rows, labelled in asked:
        assert len(set(rows.tolist())) == len(rows) and not labelled[rows].any()
    chosen = {name: set(rows.tolist()) for name, rows, _ in asked}
    assert len({frozenset(rows) for rows in chosen.values()}) > 4, "strategies differ"
    assert set(report["reached_95_percent"]) == set(report["curves"])
    assert (tmp_path / "out" / "active_learning.png").stat().st_size > 10_000
    assert np.isfinite([value for curve in report["curves"].values() for _, value in curve]).all()


def test_an_unknown_strategy_is_an_error(tmp_path, capsys):
    assert simulate_active_learning.main([str(tmp_path / "config.yaml"), "--strategies", "margn"]) == 2
    assert 'Did you mean "margin"' in capsys.readouterr().err
