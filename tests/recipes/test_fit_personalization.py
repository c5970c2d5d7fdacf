"""The recipe with a tiny tagger on a made-up catalogue: planted tastes are found, and a log's gates are stored."""

import json

import pyarrow.parquet as pq
import pytest
from accelerate.state import AcceleratorState
from transformers import pipeline

import hf_tagger  # noqa: F401
from recipes import finetune, fit_personalization
from recipes.lab import simulate_shoppers
from tests.shops import write_config

pytestmark = pytest.mark.usefixtures("fresh_accelerate")

SHOP = {"rows": 400, "picture_size": 0, "languages": ["en"], "label_noise": 0.0}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A tagger that reads words, and the configuration of its catalogue."""
    folder = tmp_path_factory.mktemp("shop")
    config = write_config(folder / "catalogue.yaml", {"synthetic": SHOP}, output_dir=str(folder / "model"),
                          model={"text_backbone": "scratch:gru", "vision_backbone": None, "lexical": {"buckets": 4096}},
                          phases=[{"train": ["heads"], "cached_views": 1, "epochs": 2, "batch_size": 32}],
                          training={"loader": {"num_workers": 0}})  # fmt: skip
    AcceleratorState._reset_state(True)
    assert finetune.main([str(config)]) == 0
    return folder


def run(shop, *more):
    return fit_personalization.main([str(shop / "model"), str(shop / "catalogue.yaml"), *map(str, more)])


def test_planted_tastes_are_found_and_a_log_is_fitted_and_stored(shop, capsys):
    config = shop / "model" / "config.json"
    before = config.read_text()
    model, catalogue = str(shop / "model"), str(shop / "catalogue.yaml")
    assert simulate_shoppers.main([model, catalogue, "--shoppers", "100", "--output_dir", str(shop / "out")]) == 0
    found = json.loads((shop / "out" / "personalization.json").read_text())
    ndcg = {name: values["ndcg_at_5"] for name, values in found["test"].items()}
    assert ndcg["personal"] > ndcg["plain"] + 0.05 and ndcg["personal"] > ndcg["for another shopper"] + 0.05
    assert found["test"]["personal"]["milliseconds_per_product"] < 1
    assert config.read_text() == before, "a simulation leaves the model alone"

    log = shop / "out" / "interactions.parquet"
    assert pq.read_metadata(log).num_rows == 2000
    AcceleratorState._reset_state(True)
    assert run(shop, log, "--output_dir", shop / "fitted") == 0
    assert json.loads(config.read_text())["personalization"] == found["personalization"]
    assert (shop / "model" / "reranking.py").exists(), "its code comes with it"
    tagger = pipeline("product-tagging", model=str(shop / "model"))
    history = [{"label": "Dress", "attribute": "category"}] * 20
    place = [[tag["label"] for tag in tagger("red mug", threshold=0, user_history=told)].index("Dress")
             for told in ([], history)]
    assert place[1] < place[0]


def test_what_cannot_be_fitted_is_an_error(shop, capsys, tmp_path):
    assert run(shop, tmp_path / "nothing.parquet", "--output_dir", tmp_path) == 2
    assert "there is no file " in capsys.readouterr().err
    (tmp_path / "nothing.parquet").write_text("nothing")
    AcceleratorState._reset_state(True)
    assert run(shop, tmp_path / "nothing.parquet", "--output_dir", tmp_path) == 2
    assert "nothing.parquet': Parquet file size is 7 bytes" in capsys.readouterr().err
