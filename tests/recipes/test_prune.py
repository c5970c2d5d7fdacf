"""The recipe on a tiny model: what is left opens by itself, recovers by training, and says what it costs."""

import json

import pytest
from transformers import pipeline

from hf_tagger.model.modeling_tagger import TaggerModel
from recipes import finetune, prune
from tests.catalog.files import write_parquet
from tests.recipes.titles import catalogue, rows
from tests.shops import write_config

pytestmark = pytest.mark.usefixtures("own_precision")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    write_parquet(folder / "labelled.parquet", list(rows(72)))
    write_parquet(folder / "validation.parquet", list(rows(36)))
    config = write_config(
        folder / "config.yaml", catalogue(folder, "labelled"),
        model={"text_backbone": "scratch:bert-tiny", "vision_backbone": None, "lexical": {"buckets": 256}},
        phases=[{"train": ["heads", "text"], "epochs": 2, "evaluate_every": 0}], training={"checkpoint_steps": 0},
    )
    assert finetune.main([str(config), "--output_dir", str(folder / "model")]) == 0
    return folder, config


def pruned(shop, out, capsys, *arguments):
    folder, config = shop
    status = prune.main([str(folder / "model"), str(config), "--output_dir", str(out), "--products", "32", *arguments])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_the_pruned_and_recovered_model_opens_by_itself(shop, tmp_path, capsys):
    status, printed, _ = pruned(shop, tmp_path / "out", capsys, "--layers", "1", "--heads", "1", "--neurons", "64",
                                "--epochs", "1")
    assert status == 0 and "macro-F1, all" in printed
    found = json.loads((tmp_path / "out" / "pruning.json").read_text())
    assert found["before"]["parameters"] > found["pruned"]["parameters"] == found["recovered"]["parameters"]
    assert found["recovered"]["text"] == {"num_hidden_layers": 1, "intermediate_size": 64, "heads": 1}
    assert set(found["text_tower_ms"]["batch 32"]) == {"before", "pruned"}
    model = TaggerModel.from_pretrained(tmp_path / "out")
    assert model.config.text_heads == 1 and model.config.text_config.num_hidden_layers == 1
    tags = pipeline("product-tagging", model=str(tmp_path / "out"))("red mug")
    assert {tag["label"] for tag in tags} == {"Red", "Mug"}


def test_what_cannot_be_kept_is_said(shop, tmp_path, capsys):
    status, _, errors = pruned(shop, tmp_path / "out", capsys, "--layers", "7")
    assert status == 2 and "keep from 1 to 2, not 7" in errors
    assert not (tmp_path / "out" / "model.safetensors").exists()
