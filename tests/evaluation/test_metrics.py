import numpy as np
import pytest
from sklearn import metrics as sk

from hf_tagger.evaluation.metrics import (
    TagMetrics,
    average_precisions,
    averaged,
    count_tags,
    score_attributes,
)
from tests.evaluation.splits import random_attribute


def padded(array, columns):
    return np.pad(array, ((0, 0), (0, columns - array.shape[1])))


@pytest.mark.parametrize("kind", ["single", "multi"])
@pytest.mark.parametrize("seed", range(3))
def test_precision_recall_and_f1_equal_scikit_learn(kind, seed):
    references, predictions, scores = random_attribute(seed, kind)
    wide = padded(predictions, references.shape[1])
    known = references != -100
    # scikit-learn knows no unknown entries: an unknown one neither given nor predicted counts nowhere
    truth, guess = np.where(known, references, 0), np.where(known, wide, 0)
    present = np.flatnonzero(truth.sum(0))
    ours = TagMetrics().compute(references=references, predictions=predictions, scores=scores)
    for average in ("micro", "macro"):
        labels = present if average == "macro" else None
        expected = sk.precision_recall_fscore_support(truth, guess, average=average, labels=labels, zero_division=0)
        for name, value in zip(("precision", "recall", "f1"), expected[:3], strict=True):
            assert ours[f"{average}_{name}"] == pytest.approx(value), f"{average}_{name}"


@pytest.mark.parametrize("seed", range(3))
def test_accuracy_of_a_single_attribute_equals_scikit_learn_over_the_known_rows(seed):
    references, predictions, scores = random_attribute(seed, "single")
    known = references[:, 0] != -100
    truth, guess = references[known], padded(predictions, references.shape[1])[known]
    expected = sk.accuracy_score(truth, guess)
    assert 0.2 < expected < 0.9
    found = TagMetrics().compute(references=references, predictions=predictions, scores=scores)
    assert found["accuracy"] == pytest.approx(expected)


def test_accuracy_of_a_multi_attribute_ignores_unknown_entries_within_a_row():
    references = [[1, 0, -100], [1, -100, 0], [-100, -100, -100]]
    predictions = [[1, 0, 1], [1, 0, 1], [1, 1, 1]]
    assert count_tags(references, predictions).accuracy() == 0.5


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_average_precision_equals_scikit_learn_with_ties_and_unknown_rows(kind):
    references, predictions, scores = random_attribute(7, kind, never_trained=0)
    ours = average_precisions(references, scores)
    assert np.isnan(ours[3])
    for column in (0, 1, 2, 4, 5):
        known = references[:, column] != -100
        assert ours[column] == pytest.approx(
            sk.average_precision_score(references[known, column], scores[known, column])
        )
    found = TagMetrics().compute(references=references, predictions=predictions, scores=scores)
    assert found["average_precision"] == pytest.approx(np.nanmean(ours))


def test_a_tag_the_model_never_learned_counts_as_missed():
    references, predictions, scores = [[1, 0], [0, 1]], [[1], [0]], [[0.9], [0.1]]
    counts = count_tags(references, predictions)
    assert counts.tags[2].tolist() == [0, 1]
    assert averaged(counts.tags)["macro_recall"] == 0.5
    assert counts.accuracy() == 0.5
    assert average_precisions(references, scores).tolist() == [1.0, 0.0]
    assert average_precisions(references, [[0.9, -np.inf], [0.1, -np.inf]]).tolist() == [1.0, 0.0]


def test_counting_in_row_chunks_changes_nothing(monkeypatch):
    references, predictions, _ = random_attribute(2, "multi")
    whole = count_tags(references, predictions)
    monkeypatch.setattr("hf_tagger.evaluation.metrics.ROWS_AT_ONCE", 64)
    chunked = count_tags(references, predictions)
    assert averaged(chunked.tags) == averaged(whole.tags) and chunked.accuracy() == whole.accuracy()


def test_the_catalogue_summary_pools_every_attribute():
    colour, usage = random_attribute(3, "single"), random_attribute(4, "multi")
    summary = score_attributes({"colour": ("single", *colour), "usage": ("multi", *usage)})
    truths, guesses, precisions = [], [], []
    for references, predictions, scores in (colour, usage):
        known = references != -100
        truths.append(np.where(known, references, 0))
        guesses.append(np.where(known, padded(predictions, references.shape[1]), 0))
        precisions.append(average_precisions(references, scores))
    truth, guess = np.hstack(truths), np.hstack(guesses)
    present = np.flatnonzero(truth.sum(0))
    assert summary["micro_f1"] == pytest.approx(sk.f1_score(truth, guess, average="micro", zero_division=0))
    macro = sk.f1_score(truth, guess, average="macro", labels=present, zero_division=0)
    assert summary["macro_f1"] == pytest.approx(macro)
    assert summary["map"] == pytest.approx(np.nanmean(np.concatenate(precisions)))
    alone = TagMetrics().compute(**dict(zip(("references", "predictions", "scores"), colour, strict=True)))
    assert {name: summary[f"colour/{name}"] for name in alone} == alone
    assert {"usage/accuracy", "usage/macro_precision", "usage/micro_recall", "usage/average_precision"} <= set(summary)


def test_an_attribute_without_a_known_row_is_nan_and_leaves_the_overall_scores_alone():
    colour = random_attribute(3, "single")
    nothing = np.full((300, 2), -100), np.zeros((300, 2), int), np.zeros((300, 2))
    summary = score_attributes({"colour": ("single", *colour), "fit": ("multi", *nothing)})
    assert np.isnan([summary["fit/accuracy"], summary["fit/macro_f1"], summary["fit/average_precision"]]).all()
    alone = score_attributes({"colour": ("single", *colour)})
    assert {name: summary[name] for name in ("micro_f1", "macro_f1", "map")} == {
        name: alone[name] for name in ("micro_f1", "macro_f1", "map")
    }


@pytest.mark.parametrize(
    ("references", "predictions", "scores", "message"),
    [
        ([[1, 0]], [[1, 1]], [[0.5, 0.5]], "'colour': row 0 has several tags predicted"),
        ([[1, 2]], [[1, 0]], [[0.5, 0.5]], r"references\[0, 1\] is 2"),
        ([[1, 0]], [[0.5, 0]], [[0.5, 0.5]], r"predictions\[0, 0\] is 0.5"),
        ([[1, 0]], [[1, 0, 0]], [[0.5, 0.5]], "predictions has 3 columns but references only 2"),
        ([[1, 0]], [[1, 0], [0, 0]], [[0.5, 0.5]], "one row per product"),
        ([[1, 0]], [[1, 0]], [[np.nan, 0.5]], "NaN"),
    ],
)
def test_malformed_inputs_are_named(references, predictions, scores, message):
    with pytest.raises(ValueError, match=message):
        score_attributes({"colour": ("single", references, predictions, scores)})
