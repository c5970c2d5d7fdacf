"""Every suite, within the test: only the processes of their own are left out, for starting one costs seconds."""

import io
import json
import os
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

from hf_tagger.evaluation.machine import resident_mb
from hf_tagger.model.pipeline_tagger import ProductTaggingPipeline
from recipes.lab import benchmark
from tests.tiny_tagger import tiny_model, tiny_processor

CONFIG = """
catalog: {synthetic: {rows: 200, picture_size: 48}}
model: {text_backbone: "scratch:bert-tiny", vision_backbone: "scratch:test_convnext", image_size: [32, 32],
        hidden_size: 16}
lora: null
phases:
  - {name: heads, train: [heads]}
  - {name: towers, train: [heads, text, vision]}
training: {loader: {batch_size: 16, bucket_batches: 2, shuffle_buffer: 40}, keep_freed_memory: false}
"""


def in_this_process(function, *arguments, **keywords):
    AcceleratorState._reset_state()  # precision is set once per process
    with redirect_stdout(sys.stderr):
        return function(*arguments, **keywords)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """What the suite `training` prints."""
    folder, printed = tmp_path_factory.mktemp("benchmark"), io.StringIO()
    (folder / "tiny.yaml").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
        patch.chdir(folder)
        patch.setattr(benchmark, "in_fresh_process", in_this_process)
        assert benchmark.main(["tiny.yaml", "--suite", "training", "--steps", "3", "--repeats", "1",
                               "--training.loader.shuffle_buffer", "50"]) == 0
    AcceleratorState._reset_state()
    return json.loads(printed.getvalue())


@pytest.fixture
def run_here(tmp_path, monkeypatch, capsys):
    """main() in this process: (exit status, JSON or None, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(benchmark, "in_fresh_process", in_this_process)
    Path("tiny.yaml").write_text(CONFIG)

    def run(*arguments):
        status = benchmark.main(["tiny.yaml", *arguments])
        printed = capsys.readouterr()
        return status, json.loads(printed.out) if printed.out else None, printed.err

    yield run
    AcceleratorState._reset_state()


def test_names_machine_versions_and_data(report):
    assert set(report) == {"config", "overrides", "machine", "versions", "data", "training"}
    assert report["config"] == "tiny.yaml" and report["overrides"] == ["--training.loader.shuffle_buffer", "50"]
    assert report["machine"]["cores"] <= os.cpu_count() and report["machine"]["threads"] == 1
    assert report["machine"]["cpu"] and report["machine"]["memory_gb"] > 0.5
    assert {"python", "torch", "transformers", "timm", "hf_tagger"} <= set(report["versions"])
    assert report["data"]["source"] == {"synthetic": {"rows": 200, "picture_size": 48}}
    assert report["data"]["rows"]["total"] == 160 and report["data"]["fingerprint"].startswith("160:")


def test_training_is_compared_on_the_same_rows_and_parameters(report):
    training = report["training"]
    assert training["phase"] == "towers" and training["phase_in_config"] and not training["lora"]
    assert training["same_rows"] is True and training["same_parameters"] is True
    # Three steps become four: whole pools of two.
    assert (training["warmup_steps"], training["steps"], training["batch_size"]) == (2, 4, 16)
    assert training["trainable_parameters"] > 300_000
    ratio = training["rows_per_second"] / training["plain_rows_per_second"]
    assert training["ratio"] == pytest.approx(ratio, rel=0.01) and training["ratios"] == [training["ratio"]]
    assert training["loader_rows_per_second"] > training["rows_per_second"]


def test_the_default_phase_stands_in_where_none_moves_a_tower(run_here, monkeypatch):
    asked = []

    def time_training(settings, phase, skip, steps, folder, plain=False):
        asked.append((phase, plain))
        return {"rows_per_second": 10.0 if plain else 20.0 + 10 * len(asked), "waiting": 0.01, "ids": [],
                "trainable_parameters": 5, "batch_size": 16, "mixed_precision": "no", "loader_rows_per_second": 90.0}

    monkeypatch.setattr(benchmark, "in_fresh_process", lambda function, *a, **k: time_training(*a, **k))
    _, result, _ = run_here("--suite", "training", "--repeats", "3", "--phases", "[{train: [heads]}]")
    assert result["training"]["phase_in_config"] is False
    assert {phase.name for phase, _ in asked} == {"fine-tune"}
    assert [plain for _, plain in asked] == [False, True] * 3
    assert result["training"]["ratios"] == [3, 5, 7] and result["training"]["ratio"] == 5
    assert result["training"]["rows_per_second"] == 50


def test_memory_counts_every_row_of_both_catalogues(run_here):
    before = resident_mb()
    status, result, _ = run_here("--suite", "memory", "--memory_rows", "100", "400")
    memory = result["memory"]
    assert status == 0 and "data" not in result and memory["loader"]["shuffle_buffer"] == 40
    assert {size: entry["rows_read"] for size, entry in memory["rows"].items()} == {"100": 100, "400": 400}
    peaks = [entry["peak_mb"] for entry in memory["rows"].values()]
    assert 0.8 * before < min(peaks) and max(peaks) < before + 1000
    assert memory["peak_difference_mb"] == pytest.approx(max(peaks) - min(peaks), abs=0.11)


def test_pipeline_is_timed_one_by_one_and_in_batches(run_here):
    ProductTaggingPipeline(tiny_model(), processor=tiny_processor()).save_pretrained("model")
    start = time.perf_counter()
    status, result, _ = run_here("--suite", "pipeline", "--model", "model", "--products", "10", "--repeats", "2")
    elapsed = time.perf_counter() - start
    pipeline = result["pipeline"]
    assert status == 0 and result["data"]["rows"]["total"] == 160
    assert (pipeline["split"], pipeline["products"], pipeline["repeats"]) == ("test", 10, 2)
    assert set(pipeline["rows_per_second"]) == {"1", "32"}
    assert sum(2 * 10 / speed for speed in pipeline["rows_per_second"].values()) < elapsed


def test_evaluation_is_timed_in_turns_with_the_pipeline_on_every_product_of_the_split(run_here):
    ProductTaggingPipeline(tiny_model(), processor=tiny_processor()).save_pretrained("model")
    status, result, _ = run_here("--suite", "evaluation", "--model", "model", "--repeats", "2")
    found = result["evaluation"]
    assert status == 0 and found["batch_size"] == 32
    assert 10 < found["products"] < result["data"]["rows"]["total"]  # the whole test split, and no other
    # The median of the turns' ratios beside that of the medians.
    assert 1 / 3 < found["ratio"] / (found["rows_per_second"] / found["pipeline_rows_per_second"]) < 3


def test_a_missing_model_and_an_unknown_key_stop_it_at_once(run_here):
    status, result, message = run_here("--suite", "all", "--output_dir", "runs/none")
    assert status == 2 and result is None and "runs/none holds no model" in message and "--model" in message
    status, result, message = run_here("--suite", "memory", "--training.loader.batchsize", "4")
    assert status == 2 and result is None and 'Did you mean "batch_size"?' in message
