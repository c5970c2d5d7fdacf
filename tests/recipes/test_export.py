"""The recipe on a tiny model: what it writes, what it reports, and when it fails. The benchmark then finds it."""

import json
import shutil
import time
from dataclasses import replace

import pytest
import torch
import yaml
from transformers import pipeline

from hf_tagger.deployment.quantize import PARTS
from hf_tagger.evaluation import inference, parity
from hf_tagger.model.pipeline_tagger import ProductTaggingPipeline
from recipes import export
from recipes.lab import benchmark_bulk, benchmark_inference, load_test
from tests.catalog.files import write_parquet
from tests.deployment.test_export import Traced, bert_tagger
from tests.evaluation.splits import a_split
from tests.processes import forks
from tests.shops import SCHEMA, shop_rows


@pytest.fixture(scope="module", autouse=True)
def no_pauses():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inference, "PAUSE_SECONDS", 0)
        yield


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    model, processor = bert_tagger()
    ProductTaggingPipeline(model, processor=processor).save_pretrained(folder / "model")
    for split, (start, stop) in {"train": (0, 20), "validation": (20, 80), "test": (80, 140)}.items():
        write_parquet(folder / f"{split}.parquet", shop_rows(start, stop))
    files = {split: str(folder / f"{split}.parquet") for split in ("train", "validation", "test")}
    config = {"catalog": {"source": {"files": files}, "schema": SCHEMA},
              "training": {"loader": {"batch_size": 8, "num_workers": 0}}}
    (folder / "shop.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture(scope="module")
def run(shop, exported):
    """(folder, status) of the recipe, for which the model was traced before."""
    forks()  # those in which taggers are timed
    arguments = [str(shop / "model"), str(shop / "shop.yaml"), "--products", "32", "--calibration_batches", "2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.onnx, "export", lambda *_, **__: Traced(exported))
        return shop, export.main(arguments)


def test_writes_both_precisions_with_their_reports(run):
    shop, status = run
    assert status == 0
    for name, precision in (("onnx", "float32"), ("onnx_int8", "int8")):
        report = json.loads((shop / "model" / name / "parity.json").read_text())
        assert report["products"] == len(shop_rows(20, 80))
        assert set(report["macro_f1"]) == {"colour", "category", "features", "mean"}
        assert set(report["speed"]["batch 32"]) == {"torch", name}
        assert json.loads((shop / "model" / name / "tagger.json").read_text())["precision"] == precision
        assert pipeline("product-tagging", model=str(shop / "model"), backend=name)("red mug", top_k=1, threshold=0)


def test_the_parts_that_may_compute_in_int8_are_those_that_can():
    assert tuple(PARTS) == export.PARTS


def exported_before(shop, monkeypatch):
    """Lets the recipe take the export of the fixture for what it writes itself."""
    monkeypatch.setattr("hf_tagger.deployment.export.export_tagger", lambda model, processor, folder, fingerprint:
                        shutil.copytree(shop / "model" / "onnx", folder))


def test_an_export_that_says_something_else_gets_no_name(run, tmp_path, capsys, monkeypatch):
    shop, _ = run
    of_the_model = parity._logits
    monkeypatch.setattr(parity, "_logits", lambda model, tensors: of_the_model(model, tensors) + 0.01)
    exported_before(shop, monkeypatch)
    assert export.main([str(shop / "model"), str(shop / "shop.yaml"), "--int8", "--products", "0",
                        "--output_dir", str(tmp_path)]) == 1
    assert "must not be used: float32 logits differ by 0.01" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_run_that_dies_leaves_what_was_there(run, tmp_path, monkeypatch):
    shop, _ = run
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "of_before").touch()
    exported_before(shop, monkeypatch)

    def die(*arguments):
        raise RuntimeError("killed")

    arguments = [str(shop / "model"), str(shop / "shop.yaml"), "--int8", "--products", "0",
                 "--output_dir", str(tmp_path)]
    with monkeypatch.context() as dying:
        dying.setattr(export, "speed", die)
        with pytest.raises(RuntimeError, match="killed"):
            export.main(arguments)
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["onnx", "onnx/of_before"]
    assert export.main(arguments) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["onnx"]
    assert not (tmp_path / "onnx" / "of_before").exists() and (tmp_path / "onnx" / "parity.json").exists()


def test_products_that_cannot_be_read_are_passed_over_and_counted(run, tmp_path, capsys, monkeypatch):
    shop, _ = run
    rows = shop_rows(20, 80)
    for row in rows[::10]:
        row["image"] = b"no photo"
    write_parquet(tmp_path / "validation.parquet", rows)
    exported_before(shop, monkeypatch)
    assert export.main([str(shop / "model"), str(shop / "shop.yaml"), "--int8", "--products", "32", "--output_dir",
                        str(tmp_path), "--catalog.source.files.validation",
                        str(tmp_path / "validation.parquet")]) == 0
    assert "passed over 4 products that cannot be read" in capsys.readouterr().err
    assert "batch 32" in json.loads((tmp_path / "onnx" / "parity.json").read_text())["speed"]


def test_products_without_columns_of_tags_are_compared_by_what_is_tagged(run, tmp_path, capsys, monkeypatch):
    shop, _ = run
    rows = [{name: row[name] for name in ("sku", "title", "language", "image")} for row in shop_rows(20, 80)]
    files = write_parquet(tmp_path / "untagged.parquet", rows)
    exported_before(shop, monkeypatch)
    overrides = [word for split in ("train", "validation", "test")
                 for word in (f"--catalog.source.files.{split}", str(files))]
    assert export.main([str(shop / "model"), str(shop / "shop.yaml"), "--int8", "--products", "0", "--output_dir",
                        str(tmp_path / "out"), *overrides]) == 0
    printed = capsys.readouterr()
    assert "no product of the validation split has tags" in printed.err
    assert printed.out.splitlines()[-1] == f"validation: {len(rows)} rows: {len(rows)} used, 0 set aside"
    report = json.loads((tmp_path / "out" / "onnx" / "parity.json").read_text())
    assert report["changed_tags"] == 0 and report["macro_f1"] == {} and report["macro_f1_drop"] is None


def test_int8_fails_by_what_it_loses_beyond_chance():
    reference = a_split(400, 0)
    for tags in reference.tags:
        tags["uses"] = [tag for tag in tags["uses"] if tag != "rare"]
    rare = sum(len(entry["tags"]) for entry in reference.attributes) - 1
    reference.tags[7]["uses"].append("rare")
    reference.logits[:, rare], reference.logits[7, rare] = -9.0, 9.0

    def of_int8(rows, columns):
        logits = reference.logits.copy()
        logits[rows, columns] *= -1
        whole, int8 = (replace(reference, logits=each).decided(reference.attributes)
                       for each in (reference.logits, logits))
        report = parity.parity(whole, int8)
        return report, parity.failure("int8", {"model_rounding": 0.0, **report})

    assert of_int8([], 0)[1] is None
    report, reason = of_int8([7], rare)  # the only product that has the tag
    assert report["changed_tags"] == 1 and report["macro_f1_drop"] > 0.1 and reason is None
    report, reason = of_int8(range(60), slice(None))
    assert report["macro_f1_drop"] > report["macro_f1_drop_at_least"] > 0.005
    assert f"int8 loses {100 * report['macro_f1_drop']:.2f} points of macro-F1, at least" in reason


def test_the_benchmark_compares_with_eager_float32(run, capsys):
    shop, _ = run
    arguments = [str(shop / "model"), str(shop / "shop.yaml"), "--products", "32", "--rounds", "1"]
    assert benchmark_inference.main([*arguments, "--catalog.source.files.test", str(shop / "*.parquet")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["batch 1"]) == set(found["batch 32"]) == {"torch", "onnx", "onnx_int8"}
    assert found["batch 32"]["torch"]["rows_ratio"] == 1
    assert found["parity"]["onnx"]["changed_tags"] == 0
    assert 0 < found["start_seconds"]["onnx"] < 60


def test_taggers_are_timed_in_processes_of_their_own(run, monkeypatch):
    shop, _ = run
    # Would fail any tagger that was opened in this process.
    monkeypatch.setattr(inference, "OnnxTagger", None)
    monkeypatch.setattr(inference, "pipeline", None)
    monkeypatch.setattr(inference, "BATCH_SIZES", (1, 2, 8))
    taggers = {"torch": str(shop / "model"), "onnx": shop / "model" / "onnx"}
    start = time.perf_counter()
    found = inference.time_in_turns(taggers, [{"text": "red mug"}] * 5, 2, top_k=1)
    elapsed = time.perf_counter() - start
    assert set(found) == {"batch 1", "batch 2"} and set(found["batch 2"]) == set(taggers)
    assert all(0 < times["cpu_ms"] for timed in found.values() for times in timed.values())
    # Five products, timed twice.
    assert sum(2 * 5 / times["rows_per_second"] for timed in found.values() for times in timed.values()) < elapsed


def test_a_server_of_it_is_loaded_and_compared_with_the_model_alone(run, capsys):
    shop, _ = run
    arguments = [str(shop / "model" / "onnx"), str(shop / "shop.yaml"), "--products", "64", "--rounds", "1",
                 "--clients", "2", "32", "--threads", "1", "--catalog.source.files.test", str(shop / "*.parquet")]
    assert load_test.main([*arguments, "--least", "0"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["clients"]) == {"2", "32"} and found["start_seconds"] > 0
    for number, clients in found["clients"].items():
        # As many answers at a time as there are clients.
        assert 1 / 5 < clients["rows_per_second"] * clients["p50_ms"] / 1000 / int(number) < 5
        assert clients["requests"] == 64
        speed = clients["rows_per_second"] / found["bare_rows_per_second"]
        assert clients["ratio"] == pytest.approx(speed, rel=0.05)
    assert load_test.main([*arguments, "--least", "100"]) == 1
    assert load_test.main([str(shop / "nothing"), *arguments[1:]]) == 2


def test_tagging_a_catalogue_is_compared_with_the_pipeline_in_memory(run, capsys):
    shop, _ = run
    arguments = [str(shop / "model" / "onnx"), str(shop / "shop.yaml"), "--products", "50", "--rounds", "2"]
    assert benchmark_bulk.main(arguments) == 0
    speed = json.loads(capsys.readouterr().out)["speed"]
    assert speed["rows"] == 50 and set(speed["pipeline_rows_per_second"]) == {"16", "32", "64"}
    assert len(speed["ratios"]) == 2 and min(speed["ratios"]) > 0
    assert benchmark_bulk.main([*arguments, "--split", "tset"]) == 2
