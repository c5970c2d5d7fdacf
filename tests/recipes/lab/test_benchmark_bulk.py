"""The memory of a bulk run, on a catalogue that is one small file linked over and over."""

import csv
import json
import time
from types import SimpleNamespace

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


def test_an_export_with_variants_is_tagged_back(monkeypatch, capsys):
    monkeypatch.setattr(benchmark_bulk, "PRODUCTS", 20)
    monkeypatch.setattr(benchmark_bulk, "make_up", lambda rows, folder: SimpleNamespace(model="a/model"))

    def seen(command):
        assert command[3:5] == ["tag", "a/model"] and "option:Color" in command
        with open(command[5], newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return {"found": len(rows), "products": len({row["Handle"] for row in rows})}

    monkeypatch.setattr(benchmark_bulk, "measured", seen)
    assert benchmark_bulk.main(["--export_rows", "50", "90"]) == 0
    found = json.loads(capsys.readouterr().out)["export"]
    assert [one["rows"] for one in found] == [one["found"] for one in found] == [50, 90]
    assert found[1]["products"] > 40 > found[0]["products"] > 20


def test_a_model_needs_a_catalogue(capsys):
    with pytest.raises(SystemExit):
        benchmark_bulk.main(["some/model"])
    assert "name a catalogue" in capsys.readouterr().err
