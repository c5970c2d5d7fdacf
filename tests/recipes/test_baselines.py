"""All baselines and a tagger in one table, on a tiny catalogue."""

import json

import pytest
import yaml
from accelerate.state import AcceleratorState

from hf_tagger.model.pipeline_tagger import ProductTaggingPipeline
from recipes import baselines
from tests.shops import SCHEMA, shop_rows, write_splits
from tests.tiny_tagger import trained_tagger


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("baselines")
    config = {
        "catalog": {"source": {"files": write_splits(folder)}, "schema": SCHEMA},
        "model": {"text_backbone": "scratch:bert-tiny", "vision_backbone": "scratch:test_convnext",
                  "image_size": [32, 32], "hidden_size": 16},
        "training": {"loader": {"batch_size": 16, "num_workers": 0}},
    }  # fmt: skip
    (folder / "shop.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    classic = {
        "catalog": {"synthetic": {}},
        "model": {"text_backbone": "scratch:lstm", "vision_backbone": "scratch:test_resnet", "image_size": [32, 32],
                  "hidden_size": 16, "lexical": {"buckets": 0, "name_match": False}},
        "lora": None, "phases": [{"epochs": 9}], "training": {"keep_freed_memory": False},
    }  # fmt: skip
    (folder / "classic.yaml").write_text(yaml.safe_dump(classic))
    model, processor = trained_tagger()
    ProductTaggingPipeline(model, processor=processor).save_pretrained(folder / "tiny-tagger")
    AcceleratorState._reset_state(True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(baselines, "CLASSIC", folder / "classic.yaml")
        status = baselines.main([str(folder / "shop.yaml"), "--output_dir", str(folder / "out"), "--epochs", "1",
                                 "--resamples", "50", "--models", str(folder / "tiny-tagger")])  # fmt: skip
    AcceleratorState._reset_state(True)
    assert status == 0
    written = {path.parts[-3] for path in (folder / "out").glob("*/evaluation/predictions.parquet")}
    return (json.loads((folder / "out" / "baselines.json").read_text()),
            (folder / "out" / "baselines.md").read_text(), written, folder)


def test_every_method_is_scored_under_every_protocol_that_shows_it_something(table):
    methods = table[0]["methods"]
    everything = ["all", "text only", "photo only"]
    assert {name: list(results) for name, results in methods.items()} == {
        "majority": everything[:2], "rules": everything[:2], "tfidf": everything[:2], "regression": everything,
        "knn": everything, "lstm_cnn": everything, "tiny-tagger": everything}  # fmt: skip
    assert table[2] == methods.keys()
    counts = {results["all"]["products"] for results in methods.values()}
    assert counts == {len(shop_rows(200, 260))}, "all are scored on the same products"
    for name in ("rules", "tfidf", "regression", "tiny-tagger"):
        assert methods[name]["text only"]["attributes"]["category"]["accuracy"]["value"] > 0.9
    interval = methods["tfidf"]["all"]["overall"]["macro_f1"]
    assert interval["low"] <= interval["value"] <= interval["high"]


def test_frozen_features_of_a_shop_without_photos_are_those_of_its_texts(table):
    folder = table[3]
    assert baselines.main([str(folder / "shop.yaml"), "--output_dir", str(folder / "texts"), "--resamples", "0",
                           "--only", "regression", "knn", "--model.vision_backbone", "null",
                           "--catalog.schema.images", "[]"]) == 0  # fmt: skip
    methods = json.loads((folder / "texts" / "baselines.json").read_text())["methods"]
    assert {name: list(results) for name, results in methods.items()} == dict.fromkeys(
        ("regression", "knn"), ["all", "text only"])


def test_the_table_has_one_row_per_protocol_and_method(table):
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1].splitlines() if line[:1] == "|"]
    header, _, *rows = rows
    assert header == ["protocol", "method", "products", "micro-F1", "macro-F1", "mAP", "colour", "category", "features"]
    methods = ["majority", "rules", "tfidf", "regression", "knn", "lstm_cnn", "tiny-tagger"]
    assert [row[:2] for row in rows if row[0] == "text only"] == [["text only", name] for name in methods]
    assert len(rows) == 3 * 2 + 4 * 3 and all(len(row) == len(header) for row in rows)
    for protocol in ("all", "text only", "photo only"):
        assert any("**" in row[4] for row in rows if row[0] == protocol)


def test_a_wrong_key_is_said_before_anything_starts(tmp_path, capsys):
    (tmp_path / "shop.yaml").write_text("catalog: {synthetic: {rows: 40}}\n")
    assert baselines.main([str(tmp_path / "shop.yaml"), "--seeds", "1", "--output_dir", str(tmp_path / "out")]) == 2
    assert 'Unknown key "seeds". Did you mean "seed"?' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
