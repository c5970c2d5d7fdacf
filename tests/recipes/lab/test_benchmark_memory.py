import json

import pytest

from recipes.lab import benchmark_memory


def test_every_row_of_both_catalogues_is_read(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark_memory, "in_fresh_process", lambda function, *arguments: function(*arguments))
    config = tmp_path / "tiny.yaml"
    config.write_text("catalog: {synthetic: {rows: 200}}\n"
                      "training: {loader: {shuffle_buffer: 40}, keep_freed_memory: false}\n")
    assert benchmark_memory.main([str(config), "--memory_rows", "100", "400"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["loader"]["shuffle_buffer"] == 40
    assert {size: entry["rows_read"] for size, entry in found["rows"].items()} == {"100": 100, "400": 400}
    peaks = [entry["peak_mb"] for entry in found["rows"].values()]
    assert min(peaks) > 100 and all(entry["end_mb"] <= entry["peak_mb"] for entry in found["rows"].values())
    assert found["peak_difference_mb"] == pytest.approx(max(peaks) - min(peaks), abs=0.11)
