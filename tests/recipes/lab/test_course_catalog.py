"""Courses are tagged by the recipe that tags clothes, without a line of code for them."""

import json
from pathlib import Path

import pytest
from transformers import pipeline

import hf_tagger  # noqa: F401
from recipes import finetune
from recipes.lab import course_catalog

pytestmark = pytest.mark.usefixtures("fresh_accelerate")

CONFIG = Path(__file__).parents[3] / "recipes" / "configs" / "courses.yaml"


def test_the_catalogue_is_the_same_every_time():
    assert list(course_catalog.courses(30)) == list(course_catalog.courses(30))
    assert list(course_catalog.courses(30)) != list(course_catalog.courses(30, seed=1))


def test_courses_are_tagged_by_the_same_recipe(tmp_path):
    assert course_catalog.main(["--output_dir", str(tmp_path), "--rows", "300"]) == 0
    arguments = {"catalog.source.path": tmp_path / "courses.csv", "output_dir": tmp_path / "out",
                 "model.text_backbone": "scratch:gru", "model.hidden_size": 32,
                 "phases": "[{train: [heads], cached_views: 1, epochs: 2}]", "training.loader.num_workers": 0}
    command = [str(CONFIG)]
    for name, value in arguments.items():
        command += [f"--{name}", str(value)]
    assert finetune.main(command) == 0
    scores = json.loads((tmp_path / "out" / "metrics.json").read_text())["test"]["all"]
    assert scores["subject/accuracy"] > 0.9 and scores["format/accuracy"] > 0.9
    tags = pipeline("product-tagging", model=str(tmp_path / "out"))(
        "Introduction to Bread Baking. You will work with ovens and doughs. We meet on video every week.")
    assert {"Cooking", "Live online", "Baking"} <= {tag["label"] for tag in tags}
