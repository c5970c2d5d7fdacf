import json

import ablate
import pytest
import yaml

from tests.catalog.files import write_parquet
from tests.processes import run_recipe
from tests.shops import SCHEMA, shop_rows

HEADS = [{"name": "heads", "train": ["heads"], "cached_views": 2, "epochs": 2, "batch_size": 16}]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    files = {"train": shop_rows(0, 60), "validation": shop_rows(60, 80), "test": shop_rows(80, 100)}
    catalog = {"source": {"files": {split: str(write_parquet(folder / f"{split}.parquet", rows))
                                    for split, rows in files.items()}}, "schema": SCHEMA}
    model = {"text_backbone": "scratch:lstm", "vision_backbone": "scratch:test_resnet", "image_size": [32, 32],
             "hidden_size": 16, "max_length": 12, "lexical": {"buckets": 256}, "kernel": {"landmarks": 20, "dim": 8}}
    data = {"catalog": catalog, "lora": None, "model": model, "phases": HEADS,
            "training": {"text_augmentation": {"label_masking": 0.5}}}
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


def test_every_mechanism_is_taken_away_and_what_is_there_is_not_computed_again(config, tmp_path, capsys, monkeypatch):
    arguments = [str(config), "--output_dir", str(tmp_path)]
    run_recipe("lab.ablate", *arguments, "--seeds", "0", "--processes", "2")  # forks, which what has trained cannot
    found = json.loads((tmp_path / "ablation.json").read_text())["tiny"]["0"]
    assert set(found) == {ablate.ALL, ablate.RIVAL, *ablate.SOURCES, *ablate.MECHANISMS, "states of the text",
                          "products out of fold"}
    ways = {"whole", "masked", "no text", "no photo"}
    assert all(set(part) == ways for without in found.values() for part in without.values())
    # Titles name the tags: without the lexical head that is no longer seen.
    assert found[ablate.ALL]["test"]["no photo"] > found["lexical_head"]["test"]["no photo"]
    page = (tmp_path / "ablation.md").read_text()
    assert "## tiny, seed 0" in page and "| lexical head |" in page

    monkeypatch.setattr(ablate, "look", None)  # would fail any look at the catalogue
    capsys.readouterr()
    assert ablate.main([*arguments, "--seeds", "0"]) == 0
    assert "## tiny, seed 0" in capsys.readouterr().out


def test_towers_that_move_are_refused(config, tmp_path, capsys):
    assert ablate.main([str(config), "--output_dir", str(tmp_path), "--phases", "[{epochs: 1}]"]) == 2
    assert "ablations need frozen towers" in capsys.readouterr().err
