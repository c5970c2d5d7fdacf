"""The main job as real processes on tiny catalogues: finished, killed and resumed, interrupted, and shared by two."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file
from transformers import AutoProcessor, pipeline

from hf_tagger.catalog.batching.collate import Collator
from hf_tagger.catalog.batching.loader import CatalogLoader
from hf_tagger.catalog.schema import CatalogSchema
from hf_tagger.catalog.settings import LoaderSettings
from hf_tagger.catalog.strict import build
from hf_tagger.catalog.synthetic.products import catalog_schema, generate
from hf_tagger.evaluation.predict import predict
from hf_tagger.model.modeling_tagger import TaggerModel
from hf_tagger.training import checkpoint, frozen_heads
from hf_tagger.training.loop import TrainingLoop
from recipes import finetune
from tests.catalog.files import catalog, photo, write_parquet
from tests.csv_shop import write_csv_shop
from tests.processes import ROOT, as_started_by_hand, forks, run_recipe
from tests.shops import LOADER, write_config

ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
SHOP = {"rows": 120, "picture_size": 32, "languages": ["en"], "missing_modality": 0.2}
DECODER = {"layers": 2, "d_model": 16, "heads": 2, "ffn_dim": 32, "vocab_size": 500}
PRODUCTS = ["Red cotton dress", "Waterproof blue mug with dots", {"text": "Bag"}]


def killed_at(point, arguments, output):
    """In a process of its own: the recipe, killed at the point {"step": n}, {"writing": n} or {"fusion": 1}."""

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    as_started_by_hand(output)
    loop, writer = TrainingLoop, checkpoint
    step, write, save_checkpoint = loop._step, writer.write_safetensors, writer.save_checkpoint
    now = {"step": 0}

    def counting_step(self, *given):
        now["step"] = self.progress.step + 1
        if point.get("step") == now["step"]:
            die()
        return step(self, *given)

    def dying_write(path, tensors):
        write(path, tensors)
        if path.parent.suffix == ".incomplete" and point.get("writing") == now["step"]:
            die()

    loop._step, writer.write_safetensors = counting_step, dying_write
    assert writer.save_checkpoint is save_checkpoint
    if "fusion" in point:
        frozen_heads.fit_logit_fusion = die
    sys.exit(finetune.main(arguments))


def in_a_process(point, config, output_dir, *arguments):
    """Exit code of `killed_at`."""
    arguments = [str(config), "--output_dir", str(output_dir), *arguments]
    process = forks().Process(target=killed_at, args=(point, arguments, Path(f"{output_dir}.log")))
    process.start()
    process.join(240)
    return process.exitcode


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Sums depend on the number of threads: all processes get the same."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    """A config with all there is to resume: phases, cached features, LoRA, dropout, lexical head, augmentation,
    kernel head, logit fusion, and a decoder, trained jointly and then alone."""
    folder = tmp_path_factory.mktemp("adapters")
    config = write_config(
        folder / "config.yaml",
        {"synthetic": SHOP},
        model={"text_backbone": "scratch:bert-tiny", "vision_backbone": "scratch:test_efficientnet",
               "kernel": {"landmarks": 20},
               "decoder": DECODER},
        lora={"rank": 2},
        save_adapter=True,
        training={"loader": LOADER | {"num_workers": 1}},
        phases=[
            {"name": "heads", "train": ["heads", "decoder"], "cached_views": 2, "epochs": 2, "batch_size": 24},
            {"name": "adapters", "train": ["heads", "text", "vision", "decoder"], "epochs": 2, "evaluate_every": 2,
             "tower_learning_rate": 1e-2},
            {"name": "decoder", "train": ["decoder"], "cached_views": 2, "epochs": 2, "batch_size": 24},
        ],
        augmentation={"method": "semi_supervised_gan", "min_examples": 10, "epochs": 1,
                      "gan": {"check_every": 1, "hidden": 8, "min_diversity": 0}},
        evaluation={"protocols": {"both": {}, "photo only": {"without": ["text"]}}},
    )  # fmt: skip
    return config, folder / "whole", run_recipe("finetune", config, "--output_dir", folder / "whole")


def test_the_recipe_writes_a_folder_that_the_pipeline_opens(adapters):
    _, folder, printed = adapters
    lines = printed.splitlines()
    assert "photo only" in printed and any(line.startswith("colour ") for line in lines)
    assert f"model folder: {folder}" in lines and f"model='{folder}'" in lines[-2]
    assert lines[-1] == "96 rows: 96 used, 0 set aside"
    tags = pipeline("product-tagging", model=str(folder))(PRODUCTS[0], threshold=0)
    assert {tag["attribute"] for tag in tags} == {"category", "colour", "pattern", "features"}
    scores = json.loads((folder / "metrics.json").read_text())["test"]
    assert set(scores) == {"both", "photo only"} and scores["both"] != scores["photo only"]
    assert len(list((folder / "checkpoints").glob("checkpoint-*"))) == 1
    assert (folder / "checkpoints" / "best.safetensors").exists()
    assert not list((folder / "checkpoints").glob("features*"))


def test_every_trained_model_brings_calibration_and_thresholds_and_so_does_its_adapter(adapters):
    _, folder, printed = adapters
    assert "log-loss" in next(line for line in printed.splitlines() if line.startswith("calibration "))
    category, colour, pattern, features = json.loads((folder / "config.json").read_text())["attributes"]
    assert all(entry["temperature"] > 0 and "thresholds" not in entry for entry in (category, colour, pattern))
    assert len(features["thresholds"]) == len(features["calibration"]["slopes"]) == len(features["tags"])
    adapter = pipeline("product-tagging", model=str(folder / "adapter"))
    assert adapter.model.config.attributes == [category, colour, pattern, features]
    counted = json.loads((folder / "vocabulary.json").read_text())["attributes"]
    assert not any("temperature" in entry or "thresholds" in entry for entry in counted)


def test_the_generator_is_saved_beside_the_model(adapters):
    _, folder, printed = adapters
    assert "tag head retrained by semi_supervised_gan, 192 real vectors" in printed
    assert {"generator.safetensors", "report.json"} <= {path.name for path in (folder / "augmentation").iterdir()}


def test_what_made_the_model_is_saved_beside_it(adapters):
    config, folder, _ = adapters
    saved = yaml.safe_load((folder / "training_config.yaml").read_text())
    given = yaml.safe_load(config.read_text()) | {"output_dir": str(folder)}
    assert saved["model"].items() >= given.pop("model").items() and saved["model"]["vision_stages"] == []
    assert saved.items() >= given.items(), "beside what was chosen"
    assert saved["logit_fusion"] == {"folds": 0} and saved["budget"] is None, "the phases move towers"
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["versions"]["torch"] and provenance["data_fingerprint"] and provenance["rows"]
    assert [entry["phase"] for entry in provenance["validation"]] == [0, 0, 1, 2, 2]
    vocabulary = json.loads((folder / "vocabulary.json").read_text())
    assert provenance["data_fingerprint"] == vocabulary["fingerprint"]


def test_the_saved_adapter_gives_the_logits_of_the_merged_model(adapters):
    _, folder, printed = adapters
    assert ", its adapter alone 0." in printed
    weights = load_file(folder / "adapter" / "adapter_model.safetensors")
    assert any(value.abs().max() > 0 for name, value in weights.items() if "lora_B" in name)
    merged, adapter = (pipeline("product-tagging", model=str(path)) for path in (folder, folder / "adapter"))
    inputs = merged.processor(text=["Red dress", "Waterproof mug"])
    for name in ("tag_logits", "none_logits"):
        difference = merged.model(**inputs)[name] - adapter.model(**inputs)[name]
        assert difference.abs().max() < 1e-4


def test_killed_and_resumed_a_run_ends_with_the_very_same_weights(adapters, tmp_path):
    config, whole, _ = adapters
    # Phase 1 has steps 1 to 4 and phase 2 steps 5 to 16; checkpoints come every 3 steps and with every epoch. (Killed
    # before the first: tests/storm/test_training.py.)
    assert in_a_process({"step": 4}, config, tmp_path) == -signal.SIGKILL
    assert list((tmp_path / "checkpoints").glob("checkpoint-00000003.*"))
    assert in_a_process({"writing": 9}, config, tmp_path, "--resume") == -signal.SIGKILL
    assert {path.name for path in (tmp_path / "checkpoints").glob("checkpoint-*")} == {
        "checkpoint-00000006.01", "checkpoint-00000009.01.incomplete"}  # fmt: skip
    # Between the phases, and then of the decoder alone: phase 3 has steps 17 to 20.
    assert in_a_process({"fusion": 1}, config, tmp_path, "--resume") == -signal.SIGKILL
    assert in_a_process({"step": 20}, config, tmp_path, "--resume") == -signal.SIGKILL
    assert in_a_process({}, config, tmp_path, "--resume") == 0
    for file in ("model.safetensors", "adapter/adapter_model.safetensors", "base/model.safetensors", "vocabulary.json",
                 "metrics.json"):  # fmt: skip
        assert (tmp_path / file).read_bytes() == (whole / file).read_bytes(), file
    histories = [json.loads((folder / "provenance.json").read_text())["validation"] for folder in (tmp_path, whole)]
    assert histories[0] == histories[1]


@pytest.fixture(scope="module")
def classic(tmp_path_factory):
    """The classic architecture of the field, all of it trained, on a CSV and a folder of photos."""
    folder = tmp_path_factory.mktemp("classic")
    config = write_config(
        folder / "config.yaml",
        write_csv_shop(folder / "shop", **SHOP),
        model={"lexical": {"buckets": 0, "name_match": False}},
        phases=[{"epochs": 3}],
        training={"log_with": ["tensorboard"], "log_every": 2},
    )
    whole = run_recipe("finetune", config, "--output_dir", folder / "whole", "--training.checkpoint_steps", 0,
                       "--calibration", "null")
    return config, folder / "whole", whole


def test_the_classic_architecture_trains_by_the_same_recipe(classic):
    _, folder, _ = classic
    model = TaggerModel.from_pretrained(folder)
    assert model.config.text_config.cell == "lstm" and model.lexical_head is None and model.config.fusion == "concat"
    assert len(pipeline("product-tagging", model=str(folder))(PRODUCTS)) == 3
    assert not any("temperature" in entry or "thresholds" in entry for entry in model.config.attributes)
    assert list(folder.glob("finetune/events.out.tfevents.*"))


def interrupted(arguments, output):
    """In a process of its own, and the first of its group, as a shell starts it."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the server of forks hears of none
    as_started_by_hand(output)
    sys.exit(finetune.main(arguments))


def test_ctrl_c_saves_and_exits_and_the_run_goes_on_as_if_nothing_had_happened(classic, tmp_path):
    config, whole, _ = classic
    arguments, output = ("--training.loader.num_workers", "2"), tmp_path / "output"
    command = [str(config), "--output_dir", str(tmp_path), *arguments]
    process = forks().Process(target=interrupted, args=(command, output))
    process.start()
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("checkpoints/checkpoint-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the loader's workers get it too
    process.join(120)
    errors = output.with_suffix(".err").read_text()
    assert process.exitcode == 130, errors[-3000:]
    assert "finetune: stopped at step" in errors and "Traceback" not in errors
    assert not (tmp_path / "model.safetensors").exists()
    assert in_a_process({}, config, tmp_path, *arguments, "--resume") == 0
    assert (tmp_path / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_two_processes_with_uneven_shards_finish_and_count_every_row_once(tmp_path):
    rows = {"train": [], "test": []}
    for row in generate(rows=120, picture_size=32, languages=("en",), missing_modality=0.4):
        row["image"] = {"bytes": row["image"], "path": None} if row["image"] else None
        rows["train" if row["split"] == "train" else "test"].append(row)
    # 33 and 31 rows: five batches for one process, four for the other.
    write_parquet(tmp_path / "train-0.parquet", rows["train"][:33])
    write_parquet(tmp_path / "train-1.parquet", rows["train"][33:64])
    write_parquet(tmp_path / "test.parquet", rows["test"][:17])
    schema = catalog_schema()
    source = {"files": {"train": str(tmp_path / "train-*.parquet"), "validation": str(tmp_path / "test.parquet"),
                        "test": str(tmp_path / "test.parquet")}}  # fmt: skip
    config = write_config(tmp_path / "config.yaml", {"source": source, "schema": schema},
                          model={"text_backbone": "scratch:gru", "decoder": DECODER},
                          phases=[{"train": ["heads", "text", "vision", "decoder"], "epochs": 2}],
                          # In bfloat16 a product's scores depend a little on the batch it comes in.
                          training={"mixed_precision": "no"})  # fmt: skip
    run_recipe("finetune", config, "--output_dir", tmp_path / "out", processes=2)
    scores = json.loads((tmp_path / "out" / "metrics.json").read_text())["test"]["all"]
    model = TaggerModel.from_pretrained(tmp_path / "out")
    collator = Collator(AutoProcessor.from_pretrained(tmp_path / "out"), model.config.attributes)
    loader = CatalogLoader(catalog(source, build(CatalogSchema, schema)), "test", collator, LoaderSettings(64))
    found = predict(model, loader.epoch())
    assert len(set(found.ids)) == len(found.ids) == 17
    expected = found.metrics()
    # Ranks, unlike decisions, hang on the last bits of scores, which depend on the batch.
    ranked = {name for name in expected if name.endswith("average_precision") or name == "map"}
    assert {name: scores[name] for name in expected if name not in ranked} == pytest.approx(
        {name: score for name, score in expected.items() if name not in ranked}, nan_ok=True)
    assert {name: scores[name] for name in ranked} == pytest.approx(
        {name: expected[name] for name in ranked}, abs=0.02, nan_ok=True)
    assert "free_form/f1@M" in scores
    assert json.loads((tmp_path / "out" / "provenance.json").read_text())["processes"] == 2


@pytest.mark.parametrize("cached_views", [0, 1])
def test_damaged_photos_stop_a_run_with_cached_features_as_one_without(tmp_path, capsys, cached_views):
    rows = [{"id": str(n), "title": f"Shirt {n}" if n % 4 else None, "colour": ["Red", "Blue"][n % 2],
             "photo": {"bytes": b"no photo" if n % 8 == 0 else photo(), "path": None}} for n in range(120)]
    schema = {"id": "id", "text": "title", "images": "photo", "attributes": {"colour": {}}}
    source = {"path": str(write_parquet(tmp_path / "shop.parquet", rows)), "fractions": {}}
    config = write_config(tmp_path / "config.yaml", {"source": source, "schema": schema},
                          phases=[{"train": ["heads"], "cached_views": cached_views, "epochs": 1}])  # fmt: skip
    assert finetune.main([str(config), "--output_dir", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert "of 120 rows cannot be used (max_bad_fraction: 0.05)" in message and "× unreadable" in message
    assert (tmp_path / "out" / "quarantine.jsonl").read_text()


def test_an_unknown_key_names_the_nearest_and_nothing_starts(tmp_path, capsys):
    config = write_config(tmp_path / "config.yaml", {"synthetic": SHOP}, output_dir=str(tmp_path / "out"))
    assert finetune.main([str(config), "--training.optimizer.learning_rat", "1"]) == 2
    assert finetune.main([str(config), "--training.loader.batchsize", "1"]) == 2
    assert 'Unknown key "training.loader.batchsize". Did you mean "batch_size"?' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
