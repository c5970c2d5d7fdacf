"""The memory of a bulk run, on a catalogue that is one small file linked over and over."""

import json

import pytest

from recipes.lab import benchmark_bulk


def test_memory_is_watched_over_all_rows(monkeypatch, capsys):
    monkeypatch.setattr(benchmark_bulk, "FILE_ROWS", 200)
    monkeypatch.setattr(benchmark_bulk, "in_fresh_process", lambda function, *arguments: function(*arguments))
    assert benchmark_bulk.main(["--memory_rows", "500"]) == 0
    memory = json.loads(capsys.readouterr().out)["memory"]
    assert 500 <= memory["rows"] < 800 and memory["seconds"] > 0
    assert 0 < memory["first_mb"] <= memory["peak_mb"] and 0 < memory["end_mb"] <= memory["peak_mb"]


def test_a_model_needs_a_catalogue(capsys):
    with pytest.raises(SystemExit):
        benchmark_bulk.main(["some/model"])
    assert "name a catalogue" in capsys.readouterr().err
