"""What AutoGluon is given, and what its answers become. AutoGluon is not installed where tests run: a stand-in opens
encoders, texts and photos as it does, and answers by a word of the text."""

import json
import stat
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

from hf_tagger.catalog.settings import open_catalog
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.training.arguments import load_run
from recipes.lab import benchmark_suite, peer
from tests.catalog.files import write_parquet
from tests.shops import SCHEMA, shop_rows
from tests.tiny_tagger import WORDS, tiny_processor

STAND_IN = '''
import json, pathlib
import pandas
from torch.utils.tensorboard import SummaryWriter

class MultiModalPredictor:
    def __init__(self, label, problem_type, path, **options):
        self.path = path

    def fit(self, train_data, tuning_data, **options):
        self.classes = sorted(set(train_data["label"]) | set(tuning_data["label"]))
        writer = SummaryWriter(self.path)
        for step, accuracy in enumerate((0.4, 0.8)):
            writer.add_scalar("train_loss", 1.0, step)
            writer.add_scalar("val_accuracy", accuracy, step, walltime=1e9 + step)
        writer.close()
        if pathlib.Path(self.path).parent.name == "colour":  # the one that tests look at
            self.look(train_data, **options)

    def look(self, train_data, time_limit, seed, column_types, hyperparameters):
        import timm
        from PIL import Image
        from transformers import AutoModel, AutoTokenizer
        tower = AutoModel.from_pretrained(hyperparameters["model.hf_text.checkpoint_name"])
        tokens = AutoTokenizer.from_pretrained(hyperparameters["model.hf_text.checkpoint_name"])(["red mug"])
        vision = pathlib.Path(hyperparameters["model.timm_image.checkpoint_name"])
        about = json.loads((vision / "config.json").read_text())
        net = timm.create_model(about["architecture"], checkpoint_path=str(vision / "pytorch_model.bin"), num_classes=0)
        pathlib.Path(self.path, "seen.json").write_text(json.dumps({
            "tokens": tokens["input_ids"], "word": tower.get_input_embeddings().weight[2].tolist(),
            "stem": float(sum(each.sum() for each in net.parameters())), "features": about["num_features"],
            "hyperparameters": hyperparameters, "columns": list(train_data), "time_limit": time_limit, "seed": seed,
            "labels": sorted(set(train_data["label"])), "column_types": column_types,
            "sizes": sorted({Image.open(path).size for path in train_data["image"].dropna()})}))

    def predict_proba(self, frame, as_pandas=True, realtime=False):
        found = [[9.0 if name.lower() in text else 1.0 for name in self.classes] for text in frame["text"]]
        return pandas.DataFrame(found, columns=self.classes).apply(lambda row: row / row.sum(), axis=1)
'''  # fmt: skip


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("environment")
    package = folder / "packages" / "autogluon"
    package.mkdir(parents=True)
    (package / "multimodal.py").write_text(STAND_IN)
    about = folder / "packages" / "autogluon_multimodal-1.6.3.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: autogluon.multimodal\nVersion: 1.6.3\n")
    python = folder / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{folder / "packages"}" exec "{sys.executable}" "$@"\n')
    python.chmod(python.stat().st_mode | stat.S_IEXEC)
    return folder


@pytest.fixture(scope="module")
def trained(environment, tmp_path_factory):
    """(settings, attributes, their runs, scores, folder) of the stand-in on a tiny shop."""
    folder = tmp_path_factory.mktemp("peer")
    for split, (start, stop) in {"train": (0, 120), "validation": (120, 160), "test": (160, 220)}.items():
        write_parquet(folder / f"{split}.parquet", shop_rows(start, stop))
    torch.manual_seed(0)
    size = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    BertModel(BertConfig(vocab_size=len(WORDS), **size)).save_pretrained(folder / "bert")
    tiny_processor().tokenizer.save_pretrained(folder / "bert")
    save_file(timm.create_model("test_convnext", num_classes=0).state_dict(), folder / "vision.safetensors")
    files = {split: str(folder / f"{split}.parquet") for split in ("train", "validation", "test")}
    model = {"text_backbone": str(folder / "bert"), "vision_backbone": "timm:test_convnext", "text_prefix": "new ",
             "vision_weights": str(folder / "vision.safetensors"), "image_size": [32, 18], "max_length": 16}
    (folder / "shop.yaml").write_text(yaml.safe_dump({
        "catalog": {"source": {"files": files}, "schema": SCHEMA}, "model": model, "seed": 4}))  # fmt: skip
    settings, _ = load_run(folder / "shop.yaml", [])
    catalog = open_catalog(settings.catalog, folder / "catalog")
    attributes = [{"name": "colour", "kind": "single", "tags": ["Blue", "Red"]},
                  {"name": "category", "kind": "single", "tags": ["Dress", "Mug"]}]
    checkpoints, python = peer.write_checkpoints(settings, folder), peer.environment(environment)
    runs = [peer.train(entry, catalog, settings, checkpoints, 7.2, python, folder) for entry in attributes]
    return settings, attributes, runs, peer.score(runs, attributes, settings, folder), folder


def test_the_peer_gets_the_same_products_encoders_and_sizes(trained):
    _, _, _, _, folder = trained
    seen = json.loads((folder / "colour" / "predictor" / "seen.json").read_text())
    bert = BertModel.from_pretrained(folder / "bert")
    assert seen["word"] == pytest.approx(bert.get_input_embeddings().weight[2].tolist())
    assert seen["tokens"] == tiny_processor().tokenizer(["red mug"])["input_ids"]
    weights = load_file(folder / "vision.safetensors")
    assert seen["stem"] == pytest.approx(float(sum(each.sum() for each in weights.values())), rel=1e-4)
    assert seen["features"] == timm.create_model("test_convnext", num_classes=0).num_features
    assert seen["hyperparameters"]["model.hf_text.max_text_len"] == 16
    assert seen["hyperparameters"]["model.timm_image.image_size"] == 24, "as many pixels as 32 x 18"
    assert seen["hyperparameters"]["model.names"] == ["hf_text", "timm_image", "fusion_mlp"]
    assert (seen["time_limit"], seen["seed"], seen["labels"]) == (7, 4, ["Blue", "Red"])
    assert seen["column_types"] == {"text": "text", "image": "image_path"} and seen["sizes"] == [[32, 32]]


def test_products_without_a_known_label_are_only_tagged_and_photos_are_the_catalogue_s_own(trained):
    settings, _, (colour, category), _, folder = trained
    rows = {split: shop_rows(*between) for split, between in
            {"train": (0, 120), "validation": (120, 160), "test": (160, 220)}.items()}
    tables = {split: pq.read_table(folder / "colour" / f"{split}.parquet").to_pylist() for split in rows}
    known = [row for row in rows["train"] if row["colour"] in ("Red", "Blue")]
    assert [row["label"] for row in tables["train"]] == [row["colour"] for row in known] == colour["labels"]["train"]
    assert len(known) < len(rows["train"]) and len(tables["test"]) == len(rows["test"])
    assert any(row["label"] is None for row in tables["test"])
    assert [row["text"] for row in tables["train"]] == ["new " + (row["title"] or "") for row in known]
    for row, written in zip(known, tables["train"], strict=True):
        if row["image"] is None:
            assert written["image"] is None
        else:
            with open(written["image"], "rb") as file:
                assert file.read() == row["image"], "also after other attributes were written"
    assert len(category["products"]["train"].ids) == sum(row["category"] is not None for row in rows["train"])


def test_its_answers_are_scored_as_a_tagger_s(trained):
    settings, attributes, runs, scores, folder = trained
    assert list(scores) == ["all"] and scores["all"]["products"] == len(shop_rows(160, 220))
    named = [row for row in shop_rows(160, 220) if row["category"]]
    right = [row["title"] is not None or row["category"] == "Dress" for row in named]
    accuracy = scores["all"]["attributes"]["category"]["accuracy"]
    assert accuracy["value"] == pytest.approx(np.mean(right), abs=1e-4) and accuracy["low"] < accuracy["value"]
    rows = pq.read_table(folder / "evaluation" / "predictions.parquet").to_pylist()
    assert rows[1]["colour.predicted"] == rows[1]["colour.given"] == ["Blue"]
    speed = peer.their_speed(runs[0]["result"], bar=0.6)
    assert speed["useful_seconds"] == runs[0]["result"]["validation_accuracy"][1][0]
    assert peer.their_speed(runs[0]["result"], bar=0.9)["useful_seconds"] is None
    assert speed["latency"]["batch 1"]["autogluon"].keys() == {"p50_ms", "cpu_ms"} and runs[0]["result"]["steps"] == 2
    assert speed["rows_per_second"] == pytest.approx(runs[0]["result"]["rows_seen"] / speed["model_seconds"])


def test_what_is_there_is_not_trained_again(trained):
    settings, attributes, runs, scores, folder = trained
    catalog = open_catalog(settings.catalog, folder / "catalog")
    again = peer.train(attributes[0], catalog, settings, {}, 7.2, "no such python", folder)
    assert again["result"] == runs[0]["result"]
    assert peer.score([again, runs[1]], attributes, settings, folder) == scores


def test_known_without_a_tag_is_a_class_of_its_own_and_unknown_tags_are_not_learned():
    attribute = {"name": "colour", "kind": "single", "tags": ["Blue", "Red"]}
    assert [peer.label_of(given, attribute) for given in (["Red"], [], None, ["Teal"])] == ["Red", "(none)", None, None]
    logits = peer.logits_of(attribute, ["(none)", "Red"], [[0.25, 0.75], [1.0, 0.0]])
    assert np.exp(logits).round(6).tolist() == [[0, 0.75, 0.25], [0, 0, 1]]


def test_attributes_that_it_cannot_learn_are_named():
    attributes = [{"name": name, "kind": kind, "tags": [], "thresholds": [0.4]} for name, kind in
                  (("colour", "single"), ("category", "single"), ("features", "multi"))]  # fmt: skip
    assert [entry["name"] for entry in peer.learnable(attributes, [])] == ["colour", "category"]
    assert peer.learnable(attributes, ["category"]) == [{"name": "category", "kind": "single", "tags": []}]
    with pytest.raises(ConfigError, match="cannot learn features, color: with one tag per product there are colour, c"):
        peer.learnable(attributes, ["colour", "features", "color"])


def test_a_peer_needs_an_environment_of_its_own(capsys):
    assert benchmark_suite.main(["shop.yaml", "--peer", "autogluon"]) == 2
    assert "--environment FOLDER" in capsys.readouterr().err
