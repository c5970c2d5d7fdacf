"""The stopwatch, what makes the plain loop plain, and the whole program with the processes that it starts."""

import io
import json
import os
import time
from contextlib import redirect_stdout

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image

from hf_tagger.catalog.strict import build
from hf_tagger.training.arguments import PhaseSettings, RunSettings
from hf_tagger.training.batches import Batches
from hf_tagger.training.context import start_run
from hf_tagger.training.data import read_catalog
from hf_tagger.training.lora import find_towers
from hf_tagger.training.phases import start_training
from hf_tagger.training.starting_model import starting_model
from recipes.lab import benchmark_training
from recipes.lab.benchmark_training import (
    PlainProcessor,
    TimedLoader,
    make_plain,
    plain_settings,
    time_training,
    timed_settings,
    train_plainly,
)
from tests.processes import forks
from tests.tiny_tagger import SIZE, tiny_processor

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


class SlowLoader:
    """Epochs of three batches of two rows, each 30 ms in the making (the second of all 500 ms), and an empty one, such
    as refusals leave behind."""

    def epoch(self, epoch):
        for number in range(3):
            time.sleep(0.5 if (epoch, number) == (0, 1) else 0.03)
            yield {"ids": [f"{epoch}.{number}a", f"{epoch}.{number}b"]}
        yield {"ids": []}


def test_a_step_lasts_from_its_batch_to_the_next():
    loader = TimedLoader(SlowLoader())
    for number, batch in enumerate(loader.epoch()):
        assert batch["ids"]
        if number == 5:
            break
        time.sleep(0.5 if number == 0 else 0.09)  # the first step is slow, and not to be counted
    reading = loader.reading(skip=1, steps=4)
    assert reading["ids"] == ["0.1a", "0.1b", "0.2a", "0.2b", "1.0a", "1.0b", "1.1a", "1.1b"]
    assert reading["rows_per_second"] == pytest.approx(2 / 0.12, rel=0.25)
    assert reading["waiting"] == pytest.approx(0.25, abs=0.08)


def test_plain_processor_pads_to_128_tokens_and_decodes_whole_photos():
    tiny = tiny_processor()
    plain = PlainProcessor(tiny.image_processor, tiny.tokenizer, text_prefix="new ", max_length=128)
    batch = plain.collate(["red mug", None], [[], []])
    assert batch["input_ids"].shape == (2, 128) and batch["attention_mask"].sum(1).tolist() == [3, 0]
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)).resize((1024, 1024))
    file = io.BytesIO()
    photo.save(file, "JPEG")
    whole = np.asarray(Image.open(file).resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    assert np.array_equal(plain.pixels(file.getvalue()), whole)
    assert not np.array_equal(tiny.pixels(file.getvalue()), whole)


@pytest.fixture
def settings():
    AcceleratorState._reset_state()  # precision is set once per process
    yield build(RunSettings, {
        "catalog": {"synthetic": {"rows": 60, "picture_size": 24}},
        "model": {"text_backbone": "scratch:gru", "vision_backbone": "scratch:test_convnext", "image_size": [32, 32],
                  "hidden_size": 16},
        "training": {"mixed_precision": "bf16", "loader": {"batch_size": 4, "bucket_batches": 2}},
    })  # fmt: skip
    AcceleratorState._reset_state()


def test_plain_run_is_float32_in_the_default_layout(settings, tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr("hf_tagger.training.context.keep_freed_memory", lambda: kept.append(True))
    phase = PhaseSettings(max_steps=1)
    run = start_run(plain_settings(timed_settings(settings, phase, tmp_path)), {})
    catalogue = read_catalog(run)
    batches = Batches(catalogue, *starting_model(run, catalogue))
    training, model = start_training(run, batches), batches.model
    make_plain(batches)
    assert run.accelerator.mixed_precision == "no" and not kept
    assert run.settings.training.loader.num_workers == 0 and run.settings.training.loader.bucket_batches == 1
    assert all(weight.is_contiguous() for weight in model.parameters())
    seen = []
    tower = next(tower for name, tower in find_towers(model).items() if name.endswith("vision_tower"))
    stem = next(module for module in tower.modules() if isinstance(module, torch.nn.Conv2d))
    stem.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    train_plainly(run, training, phase, batches.training(phase))
    assert seen and all(pixels.is_contiguous() and pixels.dtype == torch.float32 for pixels in seen)


def test_both_sides_train_the_same_rows_and_parameters(settings, tmp_path):
    phase = PhaseSettings(train=["heads", "vision"])
    fast = time_training(settings, phase, skip=2, steps=4, folder=tmp_path / "fast")
    AcceleratorState._reset_state()
    slow = time_training(settings, phase, skip=2, steps=4, folder=tmp_path / "slow", plain=True)
    assert fast["ids"] == slow["ids"] and len(set(fast["ids"])) == 16
    assert fast["trainable_parameters"] == slow["trainable_parameters"] > 0
    assert (fast["mixed_precision"], slow["mixed_precision"]) == ("bf16", "no")
    assert fast["loader_rows_per_second"] > 0 and "loader_rows_per_second" not in slow


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    forks()  # those in which training is timed
    (folder / "tiny.yaml").write_text(CONFIG)
    arguments = ["tiny.yaml", "--steps", "3", "--repeats", "1", "--training.loader.shuffle_buffer", "50"]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as printed:
        patch.chdir(folder)
        assert benchmark_training.main(arguments) == 0
    return json.loads(printed.getvalue())


def test_the_report_names_machine_versions_and_data(process):
    assert process["config"] == "tiny.yaml" and process["overrides"] == ["--training.loader.shuffle_buffer", "50"]
    assert process["machine"]["cores"] <= os.cpu_count() and process["machine"]["threads"] == 1
    assert {"python", "torch", "transformers", "timm", "hf_tagger"} <= set(process["versions"])
    assert process["data"]["rows"]["total"] == 160 and process["data"]["fingerprint"].startswith("160:")


def test_training_is_compared_on_the_same_rows_and_parameters(process):
    assert process["phase"] == "towers" and process["phase_in_config"] and not process["lora"]
    assert process["same_rows"] is True and process["same_parameters"] is True
    # Three steps become four: whole pools of two.
    assert (process["warmup_steps"], process["steps"], process["batch_size"]) == (2, 4, 16)
    assert process["trainable_parameters"] > 300_000
    ratio = process["rows_per_second"] / process["plain_rows_per_second"]
    assert process["ratio"] == pytest.approx(ratio, rel=0.01) and process["ratios"] == [process["ratio"]]
    assert 0.5 < ratio < 100
    assert 0 <= process["waiting"] < 1 and 0 < process["plain_waiting"] < 1
    assert process["loader_rows_per_second"] > process["rows_per_second"]


def test_the_default_phase_stands_in_where_none_moves_a_tower(tmp_path, monkeypatch, capsys):
    asked = []

    def time_training(_, settings, phase, skip, steps, folder, plain):
        asked.append((phase, plain))
        return {"rows_per_second": 10.0 if plain else 20.0 + 10 * len(asked), "waiting": 0.01, "ids": [], "data": {},
                "trainable_parameters": 5, "batch_size": 16, "mixed_precision": "no", "loader_rows_per_second": 90.0}

    monkeypatch.setattr(benchmark_training, "in_fresh_process", time_training)
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    arguments = [str(tmp_path / "tiny.yaml"), "--repeats", "3", "--phases", "[{train: [heads]}]"]
    assert benchmark_training.main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["phase_in_config"] is False
    assert {phase.name for phase, _ in asked} == {"fine-tune"}
    assert [plain for _, plain in asked] == [False, True] * 3
    assert found["ratios"] == [3, 5, 7] and found["ratio"] == 5 and found["rows_per_second"] == 50
