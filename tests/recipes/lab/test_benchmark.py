"""Training is timed as a real process, as the command line starts it. The other suites run within the test, where only
the processes of their own are left out: starting one costs seconds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

from hf_tagger.model.pipeline_tagger import ProductTaggingPipeline
from recipes.lab import benchmark
from tests.tiny_tagger import tiny_model, tiny_processor

ROOT = Path(__file__).parents[3]
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


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    (folder / "tiny.yaml").write_text(CONFIG)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, ROOT / "recipes" / "lab" / "benchmark.py", "tiny.yaml", "--suite", "training",
               "--steps", "3", "--repeats", "1", "--training.loader.shuffle_buffer", "50"]
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.fixture
def run_here(tmp_path, monkeypatch, capsys):
    """main() in this process: (exit status, JSON or None, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(benchmark, "in_fresh_process", lambda function, *arguments: function(*arguments))
    Path("tiny.yaml").write_text(CONFIG)
    AcceleratorState._reset_state()  # precision is set once per process

    def run(*arguments):
        status = benchmark.main(["tiny.yaml", *arguments])
        printed = capsys.readouterr()
        return status, json.loads(printed.out) if printed.out else None, printed.err

    yield run
    AcceleratorState._reset_state()


def test_names_machine_versions_and_data(process):
    assert set(process) == {"config", "overrides", "machine", "versions", "data", "training"}
    assert process["config"] == "tiny.yaml" and process["overrides"] == ["--training.loader.shuffle_buffer", "50"]
    assert process["machine"]["cores"] <= os.cpu_count() and process["machine"]["threads"] == 1
    assert process["machine"]["cpu"] and process["machine"]["memory_gb"] > 0.5
    assert {"python", "torch", "transformers", "timm", "hf_tagger"} <= set(process["versions"])
    assert process["data"]["source"] == {"synthetic": {"rows": 200, "picture_size": 48}}
    assert process["data"]["rows"]["total"] == 160 and process["data"]["fingerprint"].startswith("160:")


def test_training_is_compared_on_the_same_rows_and_parameters(process):
    training = process["training"]
    assert training["phase"] == "towers" and training["phase_in_config"] and not training["lora"]
    assert training["same_rows"] is True and training["same_parameters"] is True
    # Three steps become four: whole pools of two.
    assert (training["warmup_steps"], training["steps"], training["batch_size"]) == (2, 4, 16)
    assert training["trainable_parameters"] > 300_000
    ratio = training["rows_per_second"] / training["plain_rows_per_second"]
    assert training["ratio"] == pytest.approx(ratio, rel=0.01) and training["ratios"] == [training["ratio"]]
    assert 0.5 < ratio < 100
    assert 0 <= training["waiting"] < 1 and 0 < training["plain_waiting"] < 1
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
    status, result, _ = run_here("--suite", "memory", "--memory_rows", "100", "400")
    memory = result["memory"]
    assert status == 0 and "data" not in result and memory["loader"]["shuffle_buffer"] == 40
    assert {size: entry["rows_read"] for size, entry in memory["rows"].items()} == {"100": 100, "400": 400}
    peaks = [entry["peak_mb"] for entry in memory["rows"].values()]
    assert min(peaks) > 100 and all(entry["end_mb"] <= entry["peak_mb"] for entry in memory["rows"].values())
    assert memory["peak_difference_mb"] == pytest.approx(max(peaks) - min(peaks), abs=0.11)


def test_pipeline_is_timed_one_by_one_and_in_batches(run_here):
    ProductTaggingPipeline(tiny_model(), processor=tiny_processor()).save_pretrained("model")
    status, result, _ = run_here("--suite", "pipeline", "--model", "model", "--products", "10", "--repeats", "2")
    pipeline = result["pipeline"]
    assert status == 0 and result["data"]["rows"]["total"] == 160
    assert (pipeline["split"], pipeline["products"], pipeline["repeats"]) == ("test", 10, 2)
    assert set(pipeline["rows_per_second"]) == {"1", "32"}
    assert all(1 < speed < 100_000 for speed in pipeline["rows_per_second"].values())


def test_evaluation_is_timed_in_turns_with_the_pipeline_on_every_product_of_the_split(run_here):
    ProductTaggingPipeline(tiny_model(), processor=tiny_processor()).save_pretrained("model")
    status, result, _ = run_here("--suite", "evaluation", "--model", "model", "--repeats", "2")
    found = result["evaluation"]
    assert status == 0 and found["batch_size"] == 32
    assert 10 < found["products"] < result["data"]["rows"]["total"]  # the whole test split, and no other
    assert found["rows_per_second"] > 1 and found["pipeline_rows_per_second"] > 1
    assert found["ratio"] == pytest.approx(found["rows_per_second"] / found["pipeline_rows_per_second"], rel=0.5)


def test_a_missing_model_and_an_unknown_key_stop_it_at_once(run_here):
    status, result, message = run_here("--suite", "all", "--output_dir", "runs/none")
    assert status == 2 and result is None and "runs/none holds no model" in message and "--model" in message
    status, result, message = run_here("--suite", "memory", "--training.loader.batchsize", "4")
    assert status == 2 and result is None and 'Did you mean "batch_size"?' in message
