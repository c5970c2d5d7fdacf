"""The recipe on a tiny catalogue: finished, gone on with, shared by two processes, its best values trained."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import optuna
import pytest
import yaml
from accelerate.state import AcceleratorState

from hf_tagger.training.arguments import load_run
from hf_tagger.training.search_settings import check_space, load_search
from recipes import finetune, search
from tests.processes import as_started_by_hand, forks
from tests.shops import write_config

pytestmark = pytest.mark.usefixtures("fresh_accelerate")

ROOT = Path(__file__).parents[2]
SHOP = {"rows": 60, "picture_size": 0, "languages": ["en"]}
MODEL = {"text_backbone": "scratch:gru", "vision_backbone": None, "hidden_size": 16, "lexical": {"buckets": 0}}
SPACE = {"phases.0.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}, "model.fusion": ["concat", "late"]}


@pytest.fixture
def files(tmp_path):
    """(config, changes of the search -> arguments of the recipe)."""
    config = write_config(tmp_path / "config.yaml", {"synthetic": SHOP}, model=MODEL, phases=[{"epochs": 2}],
                          output_dir=str(tmp_path / "out"), training={"loader": {"num_workers": 0}})  # fmt: skip

    def arguments(**settings):
        space = tmp_path / "space.yaml"
        space.write_text(yaml.safe_dump({"space": SPACE, "sampler": "random", "trials": 2} | settings))
        return [str(config), str(space), "--output_dir", str(tmp_path / "study")]

    return tmp_path, arguments


def trials(folder):
    return json.loads((folder / "study" / "trials.json").read_text())


def test_the_best_configuration_is_one_that_finetune_takes(files, capsys):
    folder, arguments = files
    assert search.main(arguments()) == 0
    found = trials(folder)
    assert [trial["state"] for trial in found] == ["complete"] * 2 and found[0]["score"] >= found[1]["score"]
    best = folder / "study" / "best.yaml"
    assert best.read_text().startswith("# hf_tagger finetune ")
    data = yaml.safe_load(best.read_text())
    assert data["phases"][0]["learning_rate"] == found[0]["values"]["phases.0.learning_rate"]
    assert data["model"]["fusion"] == found[0]["values"]["model.fusion"]
    AcceleratorState._reset_state(True)
    assert finetune.main([str(best)]) == 0
    scores = json.loads((folder / "out" / "provenance.json").read_text())["validation"]
    assert max(entry["micro_f1"] for entry in scores) == pytest.approx(found[0]["score"], abs=1e-6)


def test_a_study_goes_on_with_other_values_and_not_with_another_space(files, capsys):
    folder, arguments = files
    assert search.main(arguments()) == 0
    first = {trial["number"]: trial for trial in trials(folder)}
    assert search.main(arguments()) == 0
    assert {trial["number"]: trial for trial in trials(folder)} == first
    assert search.main(arguments(trials=3)) == 0
    after = {trial["number"]: trial for trial in trials(folder)}
    assert len(after) == 3 and {number: after[number] for number in first} == first
    rates = {trial["values"]["phases.0.learning_rate"] for trial in after.values()}
    assert len(rates) == 3, "a resumed search must not draw its first values again"
    assert search.main(arguments(space={"model.fusion": ["concat"]})) == 2
    assert "was begun with another configuration or search space" in capsys.readouterr().err


def test_a_grid_ends_and_folds_give_a_mean_and_a_deviation(files, capsys):
    folder, arguments = files
    assert search.main(arguments(space={"model.fusion": ["concat", "late"]}, sampler="grid", trials=9, folds=2)) == 0
    found = trials(folder)
    assert sorted(trial["values"]["model.fusion"] for trial in found) == ["concat", "late"]
    assert all(len(trial["scores"]) == 2 for trial in found)
    assert " +- " in capsys.readouterr().out


def test_a_configuration_is_cross_validated_as_it_is(files):
    folder, arguments = files
    assert search.main(arguments(space={}, trials=1, folds=2)) == 0
    (trial,) = trials(folder)
    assert trial["values"] == {} and len(trial["scores"]) == 2


def test_two_processes_share_a_study_and_a_killed_one_loses_nothing(files):
    folder, arguments = files
    asked = arguments(trials=4)
    process = forks().Process(target=search_in_a_group, args=([*asked, "--processes", "2"], folder / "output"))
    process.start()
    storage, deadline = None, time.monotonic() + 120
    while time.monotonic() < deadline and process.is_alive() and not (storage and complete(storage)):
        time.sleep(0.2)
        if storage is None and (folder / "study" / "shared").exists():
            storage = optuna.storages.RDBStorage(f"sqlite:///{folder / 'study' / 'study.db'}")
    assert process.is_alive(), (folder / "output.err").read_text()[-3000:]
    os.killpg(process.pid, signal.SIGKILL)
    process.join()
    before = complete(storage)
    assert before
    assert search.main(asked) == 0
    found = {trial["number"]: trial for trial in trials(folder)}
    assert {number: found[number]["score"] for number in before} == before
    assert sum(trial["state"] in ("complete", "running") for trial in found.values()) >= 4


def search_in_a_group(arguments, output):
    """In a process of its own, to be killed with those that it starts."""
    os.setsid()
    as_started_by_hand(output)
    sys.exit(search.main(arguments))


def complete(storage):
    """{number: score} of the study's complete trials."""
    study = optuna.load_study(study_name="search", storage=storage)
    return {trial.number: trial.value for trial in study.trials if trial.state.name == "COMPLETE"}


def test_a_key_that_no_run_has_stops_before_anything_is_written(files, capsys):
    folder, arguments = files
    assert search.main(arguments(space={"training.loader.batchsize": [8, 16]})) == 2
    assert 'space.training.loader.batchsize: Unknown key "training.loader.batchsize". Did you mean "batch_size"?' in (
        capsys.readouterr().err)  # fmt: skip
    assert not (folder / "study").exists()


@pytest.mark.parametrize("path", sorted((ROOT / "recipes" / "configs" / "search").glob("*.yaml")), ids=lambda p: p.stem)
def test_a_committed_search_fits_the_configuration_that_its_first_line_names(path):
    config, space = path.read_text().splitlines()[0].removeprefix("# python recipes/search.py ").split()
    assert ROOT / space == path
    check_space(load_run(ROOT / config, [])[1], load_search(path))
