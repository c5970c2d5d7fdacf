import math

import optuna
import pytest
from accelerate.state import AcceleratorState

from hf_tagger.catalog.strict import ConfigError, build
from hf_tagger.training import search as training_search
from hf_tagger.training.arguments import RunSettings
from hf_tagger.training.context import start_run
from hf_tagger.training.data import read_catalog
from hf_tagger.training.heads.folds import assign_folds
from hf_tagger.training.loop import Interrupted, NonFiniteLoss
from hf_tagger.training.search import HELD_OUT, HeldOutFold, Objective, open_sampler
from hf_tagger.training.search_settings import SearchSettings, check_space, load_search, trial_values, with_values
from tests.catalog.files import products, write_jsonl

MODEL = {"text_backbone": "scratch:gru", "vision_backbone": None, "hidden_size": 16, "max_length": 16,
         "lexical": {"buckets": 0, "name_match": False}}  # fmt: skip


@pytest.fixture(autouse=True)
def fresh_accelerate():
    AcceleratorState._reset_state(True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    AcceleratorState._reset_state(True)


@pytest.fixture
def data(tmp_path):
    for number, split in enumerate(("train", "validation")):
        write_jsonl(tmp_path / f"{split}.jsonl", products(60 * number, 60 * number + 60))
    files = {split: str(tmp_path / f"{split}.jsonl") for split in ("train", "validation")}
    return {
        "catalog": {"source": {"files": files}, "schema": {"id": "id", "group": "family", "text": "title",
                                                           "attributes": {"colour": {}}}},
        "output_dir": str(tmp_path / "out"), "model": MODEL, "lora": None, "phases": [{"epochs": 2}],
        "training": {"loader": {"num_workers": 0}, "metric": "colour/accuracy"},
    }  # fmt: skip


def search(**settings):
    return build(SearchSettings, settings)


def drawn(space, count=200, sampler="random"):
    settings, found = search(space=dict(space), sampler=sampler), []

    def objective(trial):
        found.append({key: values.suggest(trial, key) for key, values in settings.space.items()})
        return 0.0

    optuna.create_study(sampler=open_sampler(settings, [0])).optimize(objective, n_trials=count)
    return found


def test_values_come_from_where_the_space_says():
    found = drawn({"a": {"low": 1e-4, "high": 1e-2, "log": True}, "b": {"low": 2, "high": 6, "step": 2},
                   "c": {"low": 0.0, "high": 0.4, "step": 0.2}, "d": [None, [96, 96], "late", True]})  # fmt: skip
    assert all(1e-4 <= values["a"] <= 1e-2 for values in found)
    # Evenly on a logarithmic scale: half of them below the geometric mean.
    assert 70 <= sum(values["a"] < 1e-3 for values in found) <= 130
    assert {values["b"] for values in found} == {2, 4, 6} and all(type(values["b"]) is int for values in found)
    assert {round(values["c"], 6) for values in found} == {0.0, 0.2, 0.4}
    assert {repr(values["d"]) for values in found} == {"None", "[96, 96]", "'late'", "True"}


def test_a_grid_is_walked_completely_and_once():
    space = {"a": {"low": 1, "high": 3}, "b": {"low": 0.0, "high": 0.3, "step": 0.1}, "c": [[1], [2]]}
    found = [(values["a"], round(values["b"], 6), values["c"][0]) for values in drawn(space, 99, "grid")]
    assert len(found) == len(set(found)) == 24 and {b for _, b, _ in found} == {0.0, 0.1, 0.2, 0.3}
    with pytest.raises(ConfigError, match="space.a: a grid needs a step"):
        open_sampler(search(space={"a": {"low": 0.1, "high": 0.2}}, sampler="grid"), [0])


def test_processes_and_resumptions_draw_different_values():
    def first(entropy):
        study = optuna.create_study(sampler=open_sampler(search(space={"a": {"low": 0.0, "high": 1.0}}), entropy))
        return study.ask().suggest_float("a", 0.0, 1.0)

    assert first([0, 0, 0]) == first([0, 0, 0])
    assert len({first([0, 0, 0]), first([0, 0, 1]), first([0, 7, 0]), first([1, 0, 0])}) == 4


@pytest.mark.parametrize(("settings", "message"), [
    ({"space": {"model.dropout": 0.1}}, "space.model.dropout: expected a list of values or {low, high}, got 0.1"),
    ({"space": {"model.dropout": {"low": 0.1, "hihg": 1}}}, 'Unknown key "space.model.dropout.hihg". .*"high"'),
    ({"space": {"model.dropout": {"low": 1, "high": 1}}}, "space.model.dropout: low must be below high"),
    ({"space": {"a": {"low": 0, "high": 1, "log": True}}}, "space.a: log needs low above 0"),
    ({"space": {}, "folds": 1}, "folds: 0 .none., or at least 2"),
    ({"space": {}, "smapler": "tpe"}, 'Unknown key "smapler". Did you mean "sampler"'),
    ({}, 'Missing key "space"'),
])  # fmt: skip
def test_a_search_that_does_not_fit_is_refused(tmp_path, settings, message):
    path = tmp_path / "space.yaml"
    path.write_text(str(settings).replace("True", "true"))
    with pytest.raises(ConfigError, match=message):
        load_search(path)


def test_a_key_that_no_run_has_names_the_nearest(data):
    with pytest.raises(ConfigError, match='space.model.hiden_size: Unknown key .* Did you mean "hidden_size"'):
        check_space(data, search(space={"model.hiden_size": [16, 32]}))
    with pytest.raises(ConfigError, match="space.model.fusion: .*'cnocat'"):
        check_space(data, search(space={"model.fusion": ["concat", "cnocat"]}))
    with pytest.raises(ConfigError, match="space.phases.1.epochs: .*index below 1"):
        check_space(data, search(space={"phases.1.epochs": [1, 2]}))
    with pytest.raises(ConfigError, match="space.output_dir"):
        check_space(data, search(space={"output_dir": ["a", "b"]}))
    check_space(data, search(space={"phases.0.learning_rate": {"low": 1e-5, "high": 1e-2, "log": True}}))


def test_values_reach_the_run():
    data = with_values({"model": {"dropout": 0.1}, "phases": [{"epochs": 1}]},
                       {"model.dropout": 1e-05, "phases.0.frozen": ["a.*", "b"], "model.fusion": "late", "lora": None})
    assert data == {"model": {"dropout": 1e-5, "fusion": "late"}, "phases": [{"epochs": 1, "frozen": ["a.*", "b"]}],
                    "lora": None}  # fmt: skip


def test_a_fold_is_trained_without_what_it_is_scored_on(data):
    fold_of = {product["id"]: number // 4 % 3 for number, product in enumerate(products(0, 60))}
    found = read_catalog(start_run(build(RunSettings, data), data), HeldOutFold(fold_of, 1))
    ids = {split: {record["id"] for record in found.records(split)} for split in ("train", HELD_OUT, "validation")}
    assert ids[HELD_OUT] == {product for product, fold in fold_of.items() if fold == 1}
    assert ids["train"] == set(fold_of) - ids[HELD_OUT] and len(ids["validation"]) == 60
    assert found.vocabulary.rows["total"] == 40


def tried(objective, count, **options):
    study = optuna.create_study(direction="maximize", **options)
    study.optimize(objective, n_trials=count)
    return study.trials


def test_a_trial_is_the_mean_over_folds_with_its_deviation(data, tmp_path):
    settings = build(RunSettings, data)
    found = read_catalog(start_run(settings, data))
    fold_of = assign_folds(found.records("train"), found.vocabulary.attributes, 3, seed=0)
    space = search(space={"phases.0.learning_rate": [0.01]}, folds=3)
    (trial,) = tried(Objective(data, settings.catalog, space, tmp_path / "study", fold_of), 1)
    scores = trial.user_attrs["scores"]
    # Accuracies over the 20 products of a fold.
    assert len(scores) == 3 and [20 * score for score in scores] == pytest.approx([round(20 * each) for each in scores])
    mean = sum(scores) / 3
    assert trial.value == pytest.approx(mean)
    assert trial.user_attrs["std"] == pytest.approx(math.sqrt(sum((score - mean) ** 2 for score in scores) / 2))
    assert list(trial.intermediate_values.values())[-1] == pytest.approx(mean)
    assert trial_values(space, trial.params) == {"phases.0.learning_rate": 0.01}
    assert not list((tmp_path / "study").glob("trial-*"))


def test_a_hopeless_trial_is_stopped_between_validations(data, tmp_path):
    space = search(space={"phases.0.learning_rate": [0.01, 0.0]})
    threshold = optuna.pruners.ThresholdPruner(lower=2.0)  # no accuracy is that good
    for prune, state, validations in ((True, "PRUNED", 1), (False, "COMPLETE", 2)):
        space.prune = prune
        (trial,) = tried(Objective(data, build(RunSettings, data).catalog, space, tmp_path / "study"), 1,
                         pruner=threshold)  # fmt: skip
        assert trial.state.name == state and len(trial.intermediate_values) == validations


def test_an_interrupted_trial_is_tried_again_with_its_values(data, tmp_path, monkeypatch):
    space = search(space={"phases.0.learning_rate": [0.01, 0.02]}, sampler="grid")
    study = optuna.create_study(direction="maximize", sampler=open_sampler(space, [0]))
    objective = Objective(data, build(RunSettings, data).catalog, space, tmp_path / "study")

    def interrupt(*_):
        raise Interrupted("stopped at step 1")

    with monkeypatch.context() as patch:
        patch.setattr(training_search, "train_and_score", interrupt)
        with pytest.raises(Interrupted):
            study.optimize(objective, n_trials=1)
    study.optimize(objective)
    states = [(trial.state.name, trial.params["phases.0.learning_rate"]) for trial in study.trials]
    assert states[0][0] == "FAIL" and states[1] == ("COMPLETE", states[0][1])
    assert sorted(value for state, value in states if state == "COMPLETE") == ["0.01", "0.02"]


def test_a_trial_that_diverges_counts_as_stopped(data, tmp_path, monkeypatch):
    def diverge(*_):
        raise NonFiniteLoss("loss nan at step 3")

    monkeypatch.setattr(training_search, "train_and_score", diverge)
    space = search(space={"phases.0.learning_rate": [0.01]})
    (trial,) = tried(Objective(data, build(RunSettings, data).catalog, space, tmp_path / "study"), 1)
    assert trial.state.name == "PRUNED" and not list((tmp_path / "study").glob("trial-*"))


def test_a_metric_that_cannot_be_measured_is_an_error(data, tmp_path, monkeypatch):
    monkeypatch.setattr(training_search, "train_and_score", lambda *_: {"colour/accuracy": math.nan})
    space = search(space={"phases.0.learning_rate": [0.01]})
    with pytest.raises(ConfigError, match="training.metric: colour/accuracy cannot be measured"):
        tried(Objective(data, build(RunSettings, data).catalog, space, tmp_path / "study"), 1)
