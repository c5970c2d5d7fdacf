"""A run on frozen towers within its minutes."""

import json

import pytest

from hf_tagger.training.batches import Batches
from hf_tagger.training.budget import Sample, fit_to_budget, lexical_sample
from hf_tagger.training.checkpoint import save_checkpoint
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
    plan = json.loads((run.checkpoints / "budget.json").read_text())
    assert plan["shares"]["train"] == pytest.approx(2 / 3, abs=1e-3) and plan["steps"] == {}
    assert looked_at(shop, budget=1e-6)[0] == seen


@pytest.mark.parametrize("changes", [{"budget": None}, {"budget": "auto", "phases": [{"name": "all"}]}])
def test_no_limit_reads_everything(shop, changes, capsys):
    seen, run = looked_at(shop, **changes)
    assert len(seen["train"]) == 3000 and not any(phase.max_steps for phase in run.settings.phases)
    assert "products a second" not in capsys.readouterr().out


def test_phases_that_move_towers_take_fewer_steps_and_the_same_when_resumed(shop, capsys, monkeypatch):
    monkeypatch.setattr("hf_tagger.training.budget.seconds_per_product", lambda run, batches: 0.001)
    phases = [HEADS, {"name": "towers", "epochs": 4, "batch_size": 30}, {"name": "short", "max_steps": 2}]
    seen, run = looked_at(shop, budget=1.0, phases=phases)
    # Of 36 s less what has passed, a quarter for each phase that moves: 37 steps of 30 products at 8 ms.
    assert 30 <= run.settings.phases[1].max_steps <= 37 and run.settings.phases[2].max_steps == 2
    assert len(seen["train"]) == 3000
    assert f"phase 2, towers, ends after {run.settings.phases[1].max_steps} steps" in capsys.readouterr().out
    monkeypatch.setattr("hf_tagger.training.budget.affordable", None)
    save_checkpoint(run.checkpoints, 1, {}, {})
    again = a_run(shop, resume=True, model=MODEL, budget=1.0, phases=phases)
    data = read_catalog(again)
    fit_to_budget(again, Batches(data, *starting_model(again, data)))
    assert again.settings.phases[1].max_steps == run.settings.phases[1].max_steps


def test_a_sample_has_its_share_of_the_products():
    records = [{"id": f"é{number}", "tags": {"colour": ["Teal"] if number < 9 else None}} for number in range(4000)]
    kept = [number for number, record in enumerate(records) if Sample(0.25)(record)]
    assert 900 < len(kept) < 1100
    rare = [number for number, record in enumerate(records) if Sample(0.25, frozenset({("colour", "Teal")}))(record)]
    assert set(rare) == set(kept) | set(range(9))


def test_the_lexical_head_reads_what_it_has_time_for(shop, capsys):
    run = a_run(shop, model=MODEL, phases=[HEADS], budget=0.001)
    data = read_catalog(run)
    read = lexical_sample(run, data)
    kept = {record["id"] for record in data.records("train") if read(record)}
    assert 1900 < len(kept) < 2100 and {f"{number:05d}" for number in range(2993, 3000)} <= kept
    assert "the lexical head reads 67% of train" in capsys.readouterr().out
    run.settings.budget = 20.0
    assert all(map(lexical_sample(run, data), data.records("train"))) and "lexical" not in capsys.readouterr().out
