from types import SimpleNamespace

import numpy as np
import pytest
from sklearn import metrics as sk

from hf_tagger.evaluation.predict import Predictions
from hf_tagger.evaluation.results import remarks
from hf_tagger.evaluation.scoring import Scorer, draw
from tests.evaluation.splits import some_predictions


@pytest.fixture(scope="module")
def predictions():
    return some_predictions()


def test_every_shared_score_is_that_of_the_plain_metrics(predictions):
    expected = predictions.metrics()
    found = {name: value[0] for name, value in Scorer(predictions).scores().items()}
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    parts = {entry["name"]: (references, chosen) for entry, _, references, chosen, _ in predictions.parts()}
    references, chosen = parts["colour"]
    known = references[:, 0] != -100
    truth, guess = references[known], np.pad(chosen[known], ((0, 0), (0, 1)))
    assert found["colour/weighted_f1"] == pytest.approx(sk.f1_score(truth, guess, average="weighted", zero_division=0))


def test_what_is_counted_in_blocks_is_what_is_counted_at_once(predictions, monkeypatch):
    weights = draw(len(predictions.ids), 20, seed=2)
    whole = Scorer(predictions).scores(weights)
    monkeypatch.setattr("hf_tagger.evaluation.predict.ENTRIES_AT_ONCE", 70)
    for name, values in Scorer(predictions).scores(weights).items():
        assert values == pytest.approx(whole[name], nan_ok=True), name


def test_average_precision_has_no_interval_where_it_would_take_too_long(predictions, monkeypatch):
    monkeypatch.setattr("hf_tagger.evaluation.scoring.RANKED", 20 * len(predictions.ids) * 12 - 1)
    summary = Scorer(predictions).summary(20)
    assert set(summary["map"]) == {"value"} and set(summary["macro_f1"]) == {"value", "low", "high"}


def test_a_product_is_right_if_all_its_known_attributes_are(predictions):
    exact = known = 0
    parts = list(predictions.parts())
    for row in range(len(predictions.ids)):
        rights = []
        for _, tags, references, chosen, _ in parts:
            if (references[row] != -100).any():
                predicted = {tags[column] for column in np.flatnonzero(chosen[row])}
                rights.append(predicted == {tags[column] for column in np.flatnonzero(references[row] == 1)})
        known += bool(rights)
        exact += bool(rights) and all(rights)
    assert Scorer(predictions).scores()["subset_accuracy"][0] == pytest.approx(exact / known)
    assert 0.05 < exact / known < 0.95


def test_coverage_counts_known_products_that_get_a_tag(predictions):
    for entry, _, references, chosen, _ in predictions.parts():
        known = (references != -100).any(1)
        expected = chosen[known].any(1).mean()
        assert Scorer(predictions).scores()[f"{entry['name']}/coverage"][0] == pytest.approx(expected)
        assert 0.3 < expected < 1


def test_weighting_a_product_twice_is_listing_it_twice(predictions):
    scorer = Scorer(predictions)
    weights = np.random.default_rng(1).integers(0, 3, (4, len(scorer))).astype(np.uint8)
    weighted = scorer.scores(weights)
    for row, counts in enumerate(weights):
        repeated = scorer.subset(np.repeat(np.arange(len(scorer)), counts)).scores()
        for name, value in repeated.items():
            assert weighted[name][row] == pytest.approx(value[0], rel=1e-5, nan_ok=True), name


def test_intervals_hold_the_score_of_the_whole_population_about_as_often_as_they_say():
    population = Scorer(some_predictions(4000, seed=5))
    truth = population.scores(precisions=False)["micro_f1"][0]
    inside = 0
    rng = np.random.default_rng(0)
    for trial in range(60):
        sample = population.subset(rng.choice(4000, 150, replace=False))
        entry = sample.summary(200, seed=trial, precisions=False)["micro_f1"]
        assert entry["low"] < entry["value"] < entry["high"]
        inside += entry["low"] <= truth <= entry["high"]
    assert 0.85 <= inside / 60 <= 1.0


def test_an_interval_holds_its_own_score_where_many_tags_have_a_single_product():
    attribute = {"name": "kind", "kind": "single", "tags": [f"t{number}" for number in range(60)]}
    tags = [{"kind": [f"t{number}"]} for number in range(60)]
    scores = np.eye(60, dtype=np.float32)[[number if number % 2 else (number + 1) % 60 for number in range(60)]]
    summary = Scorer(Predictions([attribute], tags, tags, scores).decided([attribute])).summary(300)
    for name in ("micro_f1", "macro_f1", "map", "ece", "kind/macro_recall", "kind/average_precision"):
        entry = summary[name]
        assert 0 <= entry["low"] < entry["value"] < entry["high"] <= 1 and entry["high"] - entry["low"] < 0.5, name


def test_resampling_draws_every_product_once_on_average_and_is_repeatable():
    drawn = draw(500, 400, seed=3)
    assert drawn.mean() == pytest.approx(1, abs=0.01) and drawn.var() == pytest.approx(1, abs=0.05)
    assert (drawn == draw(500, 400, seed=3)).all() and (drawn != draw(500, 400, seed=4)).any()


def test_tags_are_grouped_by_how_often_training_saw_them(predictions):
    scorer = Scorer(predictions)
    groups = scorer.frequency()
    names = [f"{part.name}:{tag}" for part in scorer.parts for tag in part.tags]
    members = {group: {names[column] for column in np.flatnonzero(columns)} for group, columns in groups.items()}
    assert members["head"] == {"colour:a", "colour:b"}
    assert members["medium"] == {"colour:c", "colour:d", "uses:u", "uses:v", "uses:w"}
    assert members["tail"] == {"colour:e", "colour:f", "colour:z", "uses:x", "uses:y"}
    f1 = {f"{row['attribute']}:{row['tag']}": row["f1"] for row in scorer.per_tag() if row["support"]}
    for group, tags in members.items():
        assert scorer.scores()[f"{group}/macro_f1"][0] == pytest.approx(np.mean([f1[tag] for tag in tags]))


def test_tags_that_training_never_saw_are_listed_and_counted_as_misses(predictions):
    scorer = Scorer(predictions)
    unseen = scorer.unseen()
    assert unseen == {"colour": {"z": sum(tags["colour"] == ["z"] for tags in predictions.tags)},
                      "uses": {"y": sum("y" in (tags["uses"] or ()) for tags in predictions.tags)}}  # fmt: skip
    row = next(row for row in scorer.per_tag(100) if row["tag"] == "z")
    assert (row["f1"], row["recall"], row["average_precision"], row["training"]) == (0, 0, 0, 0)
    assert row["support"] == unseen["colour"]["z"]


def test_of_many_unseen_tags_the_commonest_are_named(predictions):
    scorer = SimpleNamespace(unseen=lambda: {"colour": {f"tag {number}": number for number in range(1, 2001)}})
    assert ("colour: 2000 never seen in training, so counted as missed: "
            "tag 2000 (2000), tag 1999 (1999), tag 1998 (1998), tag 1997 (1997), tag 1996 (1996), …"
            ) in remarks(predictions, scorer)


def test_per_tag_rows_add_up_to_macro_f1_and_have_intervals(predictions):
    rows = [row for row in Scorer(predictions).per_tag(200) if row["attribute"] == "colour"]
    macro = predictions.metrics()["colour/macro_f1"]
    assert np.mean([row["f1"] for row in rows if row["support"]]) == pytest.approx(macro)
    assert all(row["f1_low"] <= row["f1"] <= row["f1_high"] for row in rows)
    assert any(row["f1_low"] < row["f1_high"] for row in rows)


def test_what_nothing_can_be_measured_by_is_left_out():
    nothing = some_predictions(30)
    for tags in nothing.tags:
        tags["uses"] = None
    summary = Scorer(nothing).summary(50)
    assert "uses/accuracy" not in summary and "uses/ece" not in summary and "micro_f1" in summary
