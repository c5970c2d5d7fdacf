"""Slopes of a cost, and what is made up."""

import json

import pytest

from recipes.lab import benchmark_scale


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    monkeypatch.setattr(benchmark_scale, "in_fresh_process", lambda function, *arguments: function(*arguments))


def test_titles_are_the_same_every_time_and_tags_as_frequent_as_asked_for():
    made = list(benchmark_scale.products(3000, 50, 1.0))
    assert made == list(benchmark_scale.products(3000, 50, 1.0))
    counts = [sum(tag == number for _, tag, _ in made) for number in range(50)]
    assert counts[0] == pytest.approx(10 * counts[9], rel=0.3)
    assert sum(tag != given for _, tag, given in made) / 3000 == pytest.approx(0.03, abs=0.01)
    assert len({tag for _, tag, _ in benchmark_scale.products(60, 50, 1.0, every=True)}) == 50


def test_a_slope_is_that_of_the_logarithms_and_small_costs_have_none():
    cells = {size: {"fit": {"seconds": size / 100, "mb": 100.0}, "save": {"seconds": 0.1, "mb": 10.0}}
             for size in (100, 200, 400)}
    found = benchmark_scale.growth(cells)
    assert (found["fit"]["seconds"]["slope"], found["fit"]["seconds"]["last"]) == (1.0, 1.0)
    assert found["fit"]["mb"]["slope"] == 0.0 and found["save"]["seconds"]["slope"] is None
    assert "| fit | 1.0 s, 100 MB | 2.0 s, 100 MB | 4.0 s, 100 MB | 1.00 (1.00) | 0.00 (0.00) |" in (
        benchmark_scale.table("products", found))


def test_growth_is_drawn_with_a_line_and_its_slope_for_each_step_that_costs(tmp_path):
    cells = {size: {"fit": {"seconds": size / 100, "mb": 100.0}, "save": {"seconds": 0.1, "mb": 10.0}}
             for size in (100, 200, 400)}
    benchmark_scale.plot({"products": benchmark_scale.growth(cells)}, tmp_path / "scale.svg")
    text = (tmp_path / "scale.svg").read_text()
    assert "fit (1.00)" in text and "400" in text and "save" not in text


def test_the_lexical_head_is_scored_beside_sgd(tmp_path):
    out = tmp_path / "words.json"
    benchmark_scale.TEST_ROWS, before = 100, benchmark_scale.TEST_ROWS
    try:
        assert benchmark_scale.main(["--words", "300", "20", "--sgd_passes", "2", "--output", str(out)]) == 0
    finally:
        benchmark_scale.TEST_ROWS = before
    (found,) = json.loads(out.read_text())["words"]
    assert found["texts"] == 300 and found["kept"] == "" and found["peak_mb"] > 100
    assert found["ours"]["accuracy"] > 0.5 and found["sgd"]["accuracy"] > 0.5


def test_what_calibration_and_evaluation_cost_is_told_with_what_they_looked_at(tmp_path, monkeypatch, fresh_accelerate):
    monkeypatch.setattr("hf_tagger.evaluation.predict.ENTRIES", 100 * 21)
    out = tmp_path / "judged.json"
    assert benchmark_scale.main(["--judged", "400", "20", "--output", str(out)]) == 0
    (found,) = json.loads(out.read_text())["judged"]
    assert 30 < found["scored"] <= 100 and found["peak_mb"] > 100
    assert found["remarks"][0].startswith(f"scored on {found['scored']} products, a sample of 400, by a hash")
