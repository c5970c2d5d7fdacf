"""Both contests for rare tags on a made-up catalogue, small enough for a test."""

import json
from functools import partial

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from hf_tagger.catalog.synthetic.products import catalog_schema, write_catalog
from recipes.lab import benchmark_rare_tags, benchmark_rare_tags_full

pytestmark = pytest.mark.usefixtures("fresh_accelerate")

GAN = {"check_every": 2, "hidden": 8, "min_diversity": 0}
METHODS = ["plain cross-entropy", "pseudo-labels", "conditional GAN", "conditional GAN + balanced softmax"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """(folder, config, protocol): two frequent colours and a rare one of a catalogue."""
    folder = tmp_path_factory.mktemp("shop")
    write_catalog(folder, rows=400, picture_size=32, languages=["en"], missing_modality=0.0)
    files = {split: str(folder / f"{split}-*.parquet") for split in ("train", "validation", "test")}
    config = {
        "catalog": {"source": {"files": files}, "schema": catalog_schema()}, "lora": None,
        "model": {"text_backbone": "scratch:bert-tiny", "vision_backbone": "scratch:test_convnext",
                  "image_size": [32, 32], "hidden_size": 16, "vision_stages": [0, 1], "colour_histogram": True},
        "phases": [{"name": "heads", "train": ["heads"], "cached_views": 1, "epochs": 1, "batch_size": 32}],
        "augmentation": {"min_examples": 10, "epochs": 1, "gan": GAN},
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    rows = {split: [row for path in sorted(folder.glob(f"{split}-*.parquet"))
                    for row in pq.read_table(path, columns=["id", "colour"]).to_pylist()]
            for split in ("train", "test")}  # fmt: skip
    numbers = {"Black": (20, "head"), "White": (12, "medium"), "Red": (4, "tail")}
    classes, train, test = {}, [], []
    for colour, (number, group) in numbers.items():
        labelled = [row["id"] for row in rows["train"] if row["colour"] == colour][:number]
        scored = [row["id"] for row in rows["test"] if row["colour"] == colour]
        assert len(labelled) == number and scored, "the made-up catalogue has changed"
        classes[colour] = {"train": number, "test": len(scored), "group": group}
        train, test = train + labelled, test + scored
    (folder / "long_tail.json").write_text(json.dumps({"classes": classes, "train": train, "test": test}))
    return folder, folder / "config.yaml", folder / "long_tail.json"


@pytest.fixture(scope="module", autouse=True)
def small_gans():
    with pytest.MonkeyPatch.context() as patch:
        for method in METHODS[2:]:
            settings = benchmark_rare_tags.METHODS[method] | {"gan": GAN}
            patch.setitem(benchmark_rare_tags.METHODS, method, settings)
        patch.setattr(benchmark_rare_tags, "train_gan", partial(benchmark_rare_tags.train_gan, steps=4))
        yield


def contest(shop, output, *arguments):
    _, config, long_tail = shop
    return benchmark_rare_tags.main([str(config), str(long_tail), "--attribute", "colour", "--text", "title",
                                     "--output_dir", str(output), "--seeds", "2", "--epochs", "20", "--width", "16",
                                     *arguments])  # fmt: skip


@pytest.fixture(scope="module")
def held(shop, tmp_path_factory):
    output = tmp_path_factory.mktemp("output")
    assert contest(shop, output, "--methods", *METHODS) == 0
    return output


def test_the_contest_scores_every_method_with_every_seed(held):
    report = json.loads((held / "rare_tags.json").read_text())
    assert list(report["results"]) == METHODS and all(len(runs) == 2 for runs in report["results"].values())
    plain = report["results"]["plain cross-entropy"]
    assert plain[0]["test"]["all"] == pytest.approx(np.mean([plain[0]["test"][name] for name in
                                                             ("head", "medium", "tail")]))
    assert plain[0]["test"]["all"] > 0.5, "colours are easy: the histogram tells them"
    assert report["seconds"]["all"] > report["seconds"]["features"] > 0


def test_table_and_plot_are_written(held):
    lines = (held / "rare_tags.md").read_text().splitlines()
    assert len(lines) == 2 + len(METHODS) and lines[2].startswith("| plain cross-entropy | ")
    assert all(line.count("|") == lines[0].count("|") for line in lines)
    assert np.asarray(Image.open(held / "rare_tags.png").convert("RGB")).std() > 0


def test_labels_of_the_unlabelled_rest_are_hidden(shop, held):
    _, _, long_tail = shop
    options, _ = benchmark_rare_tags.parse(["x", str(long_tail), "--attribute", "colour", "--output_dir", str(held)])
    contest = benchmark_rare_tags.prepare(None, options, json.loads(long_tail.read_text()))
    assert contest.train.counts().tolist() == [20, 12, 4]
    assert len(contest.train.labelled()) == 36 and len(contest.train) > 236


def test_the_same_features_give_the_same_figures(shop, held, tmp_path):
    (tmp_path / "features.npz").write_bytes((held / "features.npz").read_bytes())
    assert contest(shop, tmp_path, "--methods", METHODS[0]) == 0
    first, second = (json.loads((folder / "rare_tags.json").read_text())["results"] for folder in (held, tmp_path))
    assert first[METHODS[0]] == second[METHODS[0]]


def test_mistakes_are_told_before_anything_is_read(shop, tmp_path, capsys):
    assert contest(shop, tmp_path, "--methods", "conditional gam") == 2
    assert "Did you mean \"conditional GAN\"" in capsys.readouterr().err
    assert contest(shop, tmp_path, "--attribute", "color") == 2
    assert "Did you mean \"colour\"" in capsys.readouterr().err


def test_the_full_task_is_scored_with_and_without(shop, tmp_path):
    _, config, _ = shop
    methods = ["as trained", "balanced softmax", "semi-supervised GAN"]
    arguments = [str(config), "--output_dir", str(tmp_path), "--seeds", "2", "--methods", *methods]
    assert benchmark_rare_tags_full.main(arguments) == 0
    results = json.loads((tmp_path / "full_task.json").read_text())["results"]
    assert len(results) == 2 and list(results[0]) == methods
    scores = results[0]["as trained"]
    assert {name.split("/")[0] for name in scores} == {"category", "colour", "pattern", "features"}
    assert all(results[0][method] != scores for method in methods[1:])
    assert results[0]["as trained"] != results[1]["as trained"], "seeds differ"
    assert "| colour/all | " in (tmp_path / "full_task.md").read_text()
