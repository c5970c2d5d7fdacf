"""The suite for a GPU, at sizes that a CPU runs."""

import io
import json
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial

import pytest
import torch
from transformers import XLMRobertaModel, pipeline

from recipes import finetune
from recipes.lab import benchmark
from tests.processes import as_started_by_hand, forks


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    output, printed = tmp_path_factory.mktemp("benchmark") / "tiny.json", io.StringIO()
    forks()  # those in which it measures
    with redirect_stdout(printed):
        assert benchmark.main(["--suite", "tiny", "--rounds", "1", "--output", str(output)]) == 0
    assert json.loads(printed.getvalue()) == json.loads(output.read_text())
    return json.loads(output.read_text())


def test_training_is_timed_in_the_phase_that_moves_both_towers(found):
    training = found["training"]
    assert training["batch_size"] == 8 and training["mixed_precision"] == "bf16"
    assert training["rows_per_second"] > 0 and 0 <= training["waiting"] < 1 and training["peak_gb"] > 0.1
    assert training["trainable_parameters"] > 10_000


def test_its_share_of_the_peak_is_that_of_what_it_multiplies(found):
    assert 0 < found["multiplied"]["gflop_per_row"] < 1 and found["matmul"]["dtype"] == "bfloat16"
    share = found["training"]["rows_per_second"] * found["multiplied"]["gflop_per_row"] / 1e3
    assert found["share_of_peak"] == pytest.approx(share / found["matmul"]["tflop_per_second"], abs=1e-3)


def test_tagging_is_timed_at_three_batch_sizes(found):
    for size in (1, 32, 256):
        times = found["tagging"][f"batch {size}"]
        assert times["rows_per_second"] == pytest.approx(1e3 * size / times["p50_ms"], rel=0.9)


def test_a_product_of_matrices_is_counted_as_two_per_multiplication(monkeypatch):
    taken = iter([0.5] * 8)
    monkeypatch.setattr(benchmark, "seconds", lambda work, repeats: next(taken))
    assert benchmark.matmul(64, "no")["tflop_per_second"] == pytest.approx(2 * 64**3 * 20 / 0.5 / 1e12, rel=1e-3)


def train(folder):
    """In a process of its own: compiling leaves threads behind, after which nothing can be forked."""
    as_started_by_hand(folder / "output")
    torch.compile = partial(torch.compile, backend="eager")  # traced; but no C++ compiler
    settings = benchmark.prepare(replace(benchmark.SUITES["tiny"], rows=160), [
        "--output_dir", str(folder / "model"), "--training.compile", "true", "--training.loader.num_workers", "0",
        "--phases.0.epochs", "1", "--phases.1.epochs", "1", "--phases.1.max_steps", "1"], folder)  # fmt: skip
    assert settings.lora.rank == 16 and [phase.moves_towers for phase in settings.phases] == [False, True]
    finetune.finetune(settings, {})


def test_the_configuration_trains_both_towers_and_what_is_saved_tags(tmp_path):
    process = forks().Process(target=train, args=(tmp_path,))
    process.start()
    process.join(240)
    assert process.exitcode == 0, (tmp_path / "output.err").read_text()[-3000:]
    tagger = pipeline("product-tagging", model=str(tmp_path / "model"), device="cpu")
    assert tagger.model.config.text_config.model_type == "xlm-roberta"
    assert tagger.model.config.vision_config.architecture == "test_convnext.r160_in1k"
    before = XLMRobertaModel.from_pretrained(tmp_path / "text").state_dict()
    after = tagger.model.encoder.text_tower.state_dict()
    moved = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert "encoder.layer.0.attention.self.query.weight" in moved and not any("embeddings" in name for name in moved)
    assert isinstance(tagger("red mug"), list)
