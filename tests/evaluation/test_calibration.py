import json
from dataclasses import replace

import numpy as np
import pytest

from hf_tagger.catalog.strict import ConfigError, build
from hf_tagger.evaluation.calibration import (
    expected_f1_threshold,
    fit_calibration,
    fit_thresholds,
    store_attributes,
)
from hf_tagger.evaluation.scoring import Scorer
from hf_tagger.evaluation.settings import CalibrationSettings, ThresholdSettings
from hf_tagger.model.decisions import predicted_tags
from tests.evaluation.splits import COLOUR, USES, a_split


@pytest.fixture(scope="module")
def fitted():
    validation, test = a_split(1500, 0), a_split(3000, 1)
    attributes, report = fit_calibration(validation, CalibrationSettings())
    return test, test.decided(attributes), attributes, report


def test_temperature_and_platt_scaling_find_the_factor_and_mend_new_products(fitted):
    before, after, (colour, uses), report = fitted
    assert colour["temperature"] == pytest.approx(3, rel=0.15)
    assert uses["calibration"]["slopes"][:2] == pytest.approx([1 / 3, 1 / 3], rel=0.3)
    old, new = (Scorer(split).scores() for split in (before, after))
    for name in ("colour", "uses"):
        assert new[f"{name}/ece"][0] < 0.3 * old[f"{name}/ece"][0]
        assert new[f"{name}/log_loss"][0] < old[f"{name}/log_loss"][0]
        assert report[name]["log_loss_after"] < report[name]["log_loss_before"]


def test_of_very_many_scores_a_sample_fits_what_all_tags_share(fitted, monkeypatch):
    monkeypatch.setattr("hf_tagger.evaluation.calibration.ENTRIES", 1500)
    (colour, uses), _ = fit_calibration(a_split(1500, 0), CalibrationSettings())
    assert colour["temperature"] == pytest.approx(3, rel=0.3) and colour["temperature"] != fitted[2][0]["temperature"]
    # A tag's own fit is that of all products.
    assert uses["calibration"]["slopes"][0] == pytest.approx(fitted[2][1]["calibration"]["slopes"][0], rel=0.05)


def test_the_default_objective_leaves_a_single_attribute_its_accuracy(fitted):
    before, after, (colour, _), _ = fitted
    assert "thresholds" not in colour
    assert Scorer(after).scores()["colour/accuracy"][0] == Scorer(before).scores()["colour/accuracy"][0]


def test_maximum_f1_beats_one_half_on_rare_tags(fitted):
    before, after, (_, uses), report = fitted
    assert all(0.05 < threshold < 0.5 for threshold in uses["thresholds"])
    at_half = after.decided([COLOUR | {"temperature": 3.0}, {**uses, "thresholds": None}])
    scores = [Scorer(split).scores()["uses/macro_f1"][0] for split in (at_half, after)]
    assert scores[1] > scores[0] + 0.05
    assert report["uses"]["objective"] == "f1"
    assert report["uses"]["coverage"] == pytest.approx(after.chosen[:, 3:].any(1).mean(), abs=0.05)


@pytest.mark.parametrize("objective", ["f1", "precision", "recall"])
def test_an_attribute_that_no_product_of_validation_has_keeps_its_thresholds(objective):
    nothing = np.zeros((5, 3), dtype=int)
    for attribute in (USES, USES | {"thresholds": [0.3, 0.4, 0.5]}):
        assert fit_thresholds(attribute, nothing, np.full((5, 3), 0.9), ThresholdSettings(objective)) == (attribute, {})


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_a_precision_wanted_is_reached_on_new_products_at_the_cost_of_coverage(kind):
    name = {"single": "colour", "multi": "uses"}[kind]
    validation, test = a_split(3000, 2, 1.0), a_split(3000, 3, 1.0)
    reached, coverage = [], []
    for target in (0.6, 0.8):
        attributes, report = fit_calibration(validation, CalibrationSettings(objective="precision", target=target))
        scores = Scorer(test.decided(attributes)).scores()
        reached.append(scores[f"{name}/micro_precision"][0])
        coverage.append(report[name]["coverage"])
        assert report[name]["reached"]
    assert reached == pytest.approx([0.6, 0.8], abs=0.07) and coverage[0] > coverage[1] + 0.1


def test_a_recall_wanted_is_reached_on_new_products():
    attributes, report = fit_calibration(a_split(3000, 4), CalibrationSettings(objective="recall", target=0.9))
    scores = Scorer(a_split(3000, 5).decided(attributes)).scores()
    assert scores["uses/micro_recall"][0] == pytest.approx(0.9, abs=0.05) and report["uses"]["reached"]
    # One tag or none: what is not the likeliest cannot be recalled.
    assert not report["colour"]["reached"] and report["colour"]["coverage"] == 1


def test_an_attribute_can_have_an_objective_of_its_own():
    settings = build(CalibrationSettings, {"attributes": {"colour": {"objective": "precision", "target": 0.8}}})
    (colour, uses), report = fit_calibration(a_split(500, 6), settings)
    assert report["colour"]["objective"] == "precision" and report["uses"]["objective"] == "f1"
    assert len(colour["thresholds"]) == len(uses["thresholds"]) == 3
    settings = build(CalibrationSettings, {"attributes": {"color": {"objective": "precision"}}})
    with pytest.raises(ConfigError, match='no attribute "color". Did you mean "colour"'):
        fit_calibration(a_split(50, 6), settings)


def test_thresholds_of_tags_with_few_positives_stay_near_that_of_the_attribute():
    rng = np.random.default_rng(0)
    references = np.zeros((1000, 2), int)
    references[:500, 0] = 1
    references[:2, 1] = 1
    scores = rng.random((1000, 2)) * 0.2 + 0.7 * references  # both tags are told apart at .2 to .7
    scores[:, 1] = np.where(references[:, 1] == 1, 0.97, rng.random(1000) * 0.02)
    attribute = {"name": "x", "kind": "multi", "tags": ["often", "seldom"]}
    own, _ = fit_thresholds(attribute, references, scores, ThresholdSettings("recall", shrinkage=0))
    shrunk, found = fit_thresholds(attribute, references, scores, ThresholdSettings("recall", shrinkage=20))
    shared = found["attribute_threshold"]
    distance = [abs(entry["thresholds"][1] - shared) for entry in (own, shrunk)]
    assert distance[1] < 0.3 * distance[0]
    assert shrunk["thresholds"][0] == pytest.approx(own["thresholds"][0], abs=0.02)


def test_thresholds_for_f1_are_those_of_the_highest_f1_to_be_expected():
    rng = np.random.default_rng(0)
    probabilities = rng.beta(0.3, 2.0, 20_000)
    carried = rng.random(20_000) < probabilities
    threshold = expected_f1_threshold(probabilities)

    def f1(threshold):
        given = probabilities >= threshold
        return 2 * (given & carried).sum() / (given.sum() + carried.sum())

    assert 0.15 < threshold < 0.5
    assert f1(threshold) > max(map(f1, np.linspace(0.02, 0.98, 97))) - 0.002
    assert expected_f1_threshold(np.full(50, 0.01)) == 0.15 and expected_f1_threshold(np.ones(3)) == 0.5


def test_lists_are_decided_as_a_whole_for_f1_and_tag_by_tag_for_a_precision():
    split = a_split(400, 7)
    lists = {"used": False, "never_empty": True, "common": [[0], [1]]}
    for entry in split.attributes:
        if entry["kind"] == "multi":
            entry["lists"] = lists
    for settings in (CalibrationSettings(), CalibrationSettings("precision", 0.9)):
        fitted, report = fit_calibration(split, settings)
        (uses,) = [entry for entry in fitted if entry["kind"] == "multi"]
        assert uses["lists"] == lists | {"used": settings.objective == "f1"}
        (again,) = [entry for entry in fit_calibration(split.decided(fitted), settings)[0] if entry["kind"] == "multi"]
        assert again["lists"] == uses["lists"]


def test_rows_and_attributes_of_which_nothing_is_known_change_nothing():
    split = a_split(400, 7)
    alone, _ = fit_calibration(split, CalibrationSettings())
    half = a_split(400, 7)
    half.ids, half.tags = half.ids * 2, half.tags + [{"colour": None, "uses": None}] * 400
    half.logits = np.concatenate([half.logits, -half.logits])
    both, _ = fit_calibration(half.decided(half.attributes), CalibrationSettings())
    assert both == alone
    half.tags = [{"colour": tags["colour"], "uses": None} for tags in half.tags]
    old = USES | {"thresholds": [0.1, 0.2, 0.3]}
    (_, uses), report = fit_calibration(half.decided([COLOUR, old]), CalibrationSettings())
    assert uses == old and "uses" not in report


def test_fitting_again_starts_from_the_models_own_logits():
    split = a_split(800, 8)
    once, _ = fit_calibration(split, CalibrationSettings())
    twice, _ = fit_calibration(split.decided(once), CalibrationSettings())
    assert twice == once


def test_what_is_fitted_is_plain_json_that_decides_alike():
    split = a_split(300, 9)
    attributes, _ = fit_calibration(split, CalibrationSettings())
    loaded = json.loads(json.dumps(attributes))
    scores = split.decided(loaded).scores
    assert (predicted_tags(loaded, scores) == split.decided(attributes).chosen).all()


def test_attributes_are_stored_in_the_config_of_a_model_or_of_an_adapters_base(tmp_path):
    for name in ("model", "base", "adapter"):
        (tmp_path / name).mkdir()
    for name in ("model", "base"):
        (tmp_path / name / "config.json").write_text(json.dumps({"attributes": [COLOUR], "hidden_size": 8}))
    base = {"base_model_name_or_path": str(tmp_path / "base")}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(base))
    for name, changed in (("model", "model"), ("adapter", "base")):
        path = store_attributes(tmp_path / name, [COLOUR | {"temperature": 2.0}])
        assert path == tmp_path / changed / "config.json"
        assert json.loads(path.read_text()) == {"attributes": [COLOUR | {"temperature": 2.0}], "hidden_size": 8}
    with pytest.raises(ConfigError, match="local folder"):
        store_attributes(tmp_path / "my-shop" / "tagger", [COLOUR])


@pytest.mark.parametrize("wrong", [{"target": 0}, {"target": 1.5}, {"shrinkage": -1}, {"objective": "accuracy"}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError):
        build(CalibrationSettings, wrong)


def test_where_lists_are_partial_scores_are_of_right_tags_and_more_are_given():
    whole, test = a_split(4000, 0), a_split(3000, 1)
    random, thinned = np.random.default_rng(0), []
    for tags in whole.tags:
        thinned.append(tags | {"uses": tags["uses"] and [tag for tag in tags["uses"] if random.random() < 0.6]})
    found = {}
    for share in (None, 0.6):
        attributes = [dict(entry) for entry in whole.attributes]
        if share:
            attributes[1]["label_frequency"] = share
        partial = replace(whole, tags=thinned).decided(attributes)
        fitted, _ = fit_calibration(partial, CalibrationSettings())
        assert fitted[1].get("label_frequency") == share
        found[share] = Scorer(test.decided(fitted)).scores()
    (as_listed, as_right) = found.values()
    assert as_right["uses/ece"][0] < 0.5 * as_listed["uses/ece"][0]
    assert as_right["uses/macro_f1"][0] > as_listed["uses/macro_f1"][0] + 0.02
