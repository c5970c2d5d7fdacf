"""A run on frozen towers within its minutes."""

import json

import pytest

from hf_tagger.training.batches import Batches
from hf_tagger.training.budget import Sample, fit_to_budget
from hf_tagger.training.data import read_catalog
from hf_tagger.training.starting_model import starting_model
from tests.catalog.files import products, write_jsonl
from tests.training.test_data import a_run

pytestmark = pytest.mark.usefixtures("fresh_accelerate")

MODEL = {"text_backbone": "scratch:bert-tiny", "max_length": 8, "hidden_size": 16, "kernel": {"landmarks": 0}}
HEADS = {"name": "heads", "train": ["heads"], "cached_views": 1}


@pytest.fixture
def shop(tmp_path):
    rows = products(0, 3000)
    for row in rows[-7:]:
        row["colour"] = "Teal"
    write_jsonl(tmp_path / "train.jsonl", rows)
    for number, split in enumerate(("validation", "test"), 1):
        write_jsonl(tmp_path / f"{split}.jsonl", products(5000 * number, 5000 * number + 60))
    return tmp_path


def looked_at(folder, **settings):
    """{split: ids that the towers get to see}, and the run."""
    run = a_run(folder, **{"model": MODEL, "phases": [HEADS]} | settings)
    data = read_catalog(run)
    batches = Batches(data, *starting_model(run, data))
    fit_to_budget(run, batches)
    return {split: {record["id"] for record in data.records(split)} for split in ("train", "validation", "test")}, run


def test_with_time_enough_all_products_are_looked_at(shop, capsys):
    assert {split: len(ids) for split, ids in looked_at(shop)[0].items()} == {
        "train": 3000, "validation": 60, "test": 60}
    said = capsys.readouterr().out
    assert "products a second" in said and "budget of" not in said


def test_without_it_a_sample_is_which_has_every_rare_tag_and_is_the_same_again(shop, capsys):
    seen, run = looked_at(shop, budget=1e-6)
    assert 1900 < len(seen["train"]) < 2100 and len(seen["validation"]) == len(seen["test"]) == 60
    assert {f"{number:05d}" for number in range(2993, 3000)} <= seen["train"]
    assert "the encoders look at 67% of train" in capsys.readouterr().out
    assert json.loads((run.checkpoints / "samples.json").read_text())["train"] == pytest.approx(2 / 3, abs=1e-3)
    assert looked_at(shop, budget=1e-6)[0] == seen


@pytest.mark.parametrize("changes", [{"budget": None}, {"phases": [{"name": "all"}]}])
def test_no_limit_and_towers_that_move_read_everything(shop, changes, capsys):
    assert len(looked_at(shop, **{"budget": 1e-6} | changes)[0]["train"]) == 3000
    assert "products a second" not in capsys.readouterr().out


def test_a_sample_has_its_share_of_the_products():
    records = [{"id": f"é{number}", "tags": {"colour": ["Teal"] if number < 9 else None}} for number in range(4000)]
    kept = [number for number, record in enumerate(records) if Sample(0.25)(record)]
    assert 900 < len(kept) < 1100
    rare = [number for number, record in enumerate(records) if Sample(0.25, frozenset({("colour", "Teal")}))(record)]
    assert set(rare) == set(kept) | set(range(9))
