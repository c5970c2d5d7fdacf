"""The recipe on a made-up catalogue, with a tagger that was hardly trained, and reviewers who know better."""

import json
import re

import pytest
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from transformers import pipeline

import hf_tagger  # noqa: F401
from hf_tagger.catalog.schema import CatalogSchema
from hf_tagger.catalog.settings import CatalogSettings, open_catalog
from hf_tagger.feedback.store import FeedbackStore
from hf_tagger.feedback.verdicts import Verdict, fingerprint
from hf_tagger.training.update import Update
from recipes import finetune, update
from tests.shops import write_config

pytestmark = pytest.mark.usefixtures("fresh_accelerate")

SHOP = {"rows": 300, "picture_size": 0, "languages": ["en"], "label_noise": 0.0, "unknown": 0.0}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """(model folder, configuration, feedback store)."""
    folder = tmp_path_factory.mktemp("shop")
    config = write_config(folder / "config.yaml", {"synthetic": SHOP}, output_dir=str(folder / "model"),
                          model={"text_backbone": "scratch:gru", "vision_backbone": None, "lexical": {"buckets": 0,
                                                                                                  "name_match": False}},
                          phases=[{"train": ["heads"], "cached_views": 1, "epochs": 1, "batch_size": 32}],
                          training={"loader": {"num_workers": 0}})  # fmt: skip
    AcceleratorState._reset_state(True)
    assert finetune.main([str(config)]) == 0
    catalog = open_catalog(CatalogSettings(synthetic=SHOP), folder / "catalog")
    assert isinstance(catalog.schema, CatalogSchema)
    with FeedbackStore(folder / "feedback.db") as store:
        for number, record in enumerate(catalog.records("train")):
            if number < 60 and record["tags"]["category"]:
                tag = record["tags"]["category"][0]
                store.add([Verdict(record["id"], fingerprint(record), "category", tag, "add", "ana", "1"),
                           Verdict(record["id"], fingerprint(record), "colour", "Teal", "add", "ana", "1")])
        store.add(Verdict("P0000000-0", "changed", "category", "Mug", "reject", "ben", "1"))
        store.rule("colour", "Teal", "approve", "ana")
    return folder / "model", config, folder / "feedback.db"


def test_an_update_is_gated_kept_as_a_version_and_rolled_back(shop, capsys):
    model, config, feedback = shop
    before = (model / "config.json").read_text()
    versions = model.parent / "model.versions"
    refused = update.main([str(model), str(config), str(feedback), "--how", "calibrate", "--tolerance", "1"])
    assert refused in (0, 1) and (versions / "2").exists() == (not refused)
    # The made-up catalogue's free words, which no tag of an attribute is.
    (proposed,) = re.findall(r"(\d+) proposed tags wait", capsys.readouterr().out)
    assert int(proposed) > 0
    AcceleratorState._reset_state(True)
    assert update.main([str(model), str(config), str(feedback), "--tolerance", "1", "--propose", "0"]) == 0
    out = capsys.readouterr().out
    assert "1 stale" in out and f"{proposed} proposed tags wait" in out
    assert (model / "config.json").read_text() == before
    newest = max(int(path.name) for path in versions.iterdir() if path.name.isdecimal())
    lineage = json.loads((versions / str(newest) / "lineage.json").read_text())
    assert lineage["made_by"] == "heads" and lineage["added_tags"] == {"colour": ["Teal"]}
    assert lineage["scores"]["after"]["verdict_agreement"] >= lineage["scores"]["before"]["verdict_agreement"]
    tagger = pipeline("product-tagging", model=str(versions / "current"))
    assert "Teal" in tagger.model.config.attributes[1]["tags"]
    assert update.main([str(model), "--rollback", "1"]) == 0
    assert "Teal" not in pipeline("product-tagging", model=str(versions / "current")).model.config.attributes[1]["tags"]
    assert update.main([str(model), "--list"]) == 0
    assert "* 1  from -" in capsys.readouterr().out


def test_towers_move_when_asked_to(shop):
    model, config, feedback = shop
    versions = model.parent / "model.versions"
    assert update.main([str(model), str(config), str(feedback), "--how", "towers", "--tolerance", "1"]) == 0
    newest = max(int(path.name) for path in versions.iterdir() if path.name.isdecimal())
    parent = json.loads((versions / str(newest) / "lineage.json").read_text())["parent"]
    old, new = (load_file(versions / str(number) / "model.safetensors") for number in (parent, newest))
    moved = [name for name in old if name in new and "text_tower" in name and not old[name].equal(new[name])]
    assert moved and not any("embed" in name for name in moved)


def test_a_version_that_is_worse_is_refused_and_says_why(shop, capsys, monkeypatch):
    model, config, feedback = shop
    versions = model.parent / "model.versions"

    def ruin(self, validation):
        recalibrate(self, validation)
        stored = json.loads((self.pending / "config.json").read_text())
        for entry in stored["attributes"]:
            entry["thresholds"] = [1.0] * len(entry["tags"])
        (self.pending / "config.json").write_text(json.dumps(stored))

    recalibrate = Update.recalibrate
    monkeypatch.setattr(Update, "recalibrate", ruin)
    # The model itself is the first version, from the first call on.
    kept = sorted(versions.glob("[0-9]*")) or [versions / "1"]
    assert update.main([str(model), str(config), str(feedback), "--how", "calibrate"]) == 1
    assert "no new version: " in capsys.readouterr().out
    assert sorted(versions.glob("[0-9]*")) == kept and not (versions / "pending").exists()


def test_what_cannot_be_done_is_an_error(shop, capsys, tmp_path):
    model, config, _ = shop
    assert update.main([str(model)]) == 2
    assert update.main([str(model), str(config), str(tmp_path / "nothing.db")]) == 2
    assert "there is no feedback store" in capsys.readouterr().err
    FeedbackStore(tmp_path / "empty.db")
    assert update.main([str(model), str(config), str(tmp_path / "empty.db")]) == 1
    assert "nothing to learn" in capsys.readouterr().out
