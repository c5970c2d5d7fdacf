"""The memory of a bulk run, on a catalogue that is one small file linked over and over."""

import json
import time

import pytest

from measuring import resident_mb
from recipes.lab import benchmark_bulk


def test_memory_is_watched_over_all_rows(monkeypatch, capsys):
    monkeypatch.setattr(benchmark_bulk, "FILE_ROWS", 200)
    monkeypatch.setattr(benchmark_bulk, "in_fresh_process", lambda function, *arguments: function(*arguments))
    before, start = resident_mb(), time.perf_counter()
    assert benchmark_bulk.main(["--memory_rows", "500"]) == 0
    memory = json.loads(capsys.readouterr().out)["memory"]
    assert 500 <= memory["rows"] < 800 and memory["seconds"] < time.perf_counter() - start
    # What earlier tests of this process held may be given back meanwhile.
    assert 100 < memory["first_mb"] <= memory["peak_mb"] < before + 1000


def test_a_model_needs_a_catalogue(capsys):
    with pytest.raises(SystemExit):
        benchmark_bulk.main(["some/model"])
    assert "name a catalogue" in capsys.readouterr().err
