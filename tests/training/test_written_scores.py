import math
import random

import pytest

from hf_tagger.evaluation.writing import Written
from hf_tagger.training.heads.written_scores import fit_written_scores


def overconfident(products=400):
    """Tags whose chance of being right is half of what the decoder says."""
    draw, written = random.Random(0), Written()
    for _ in range(products):
        said = [draw.uniform(0.05, 1.0) for _ in range(3)]
        written.tags.append([{"label": f"t{place}", "score": value} for place, value in enumerate(said)])
        right = [f"T{place}" for place, value in enumerate(said) if draw.random() < value / 2]
        written.references.append(right or ["x"])
        written.closed.append([])
        written.closed_scores.append([None] * 3)
    return written


def test_calibrated_scores_are_the_rates_at_which_tags_are_right():
    fitted = fit_written_scores([overconfident()])
    slope, intercept = fitted["calibration"]
    for said in (0.3, 0.6, 0.9):
        assert 1 / (1 + math.exp(-(slope * math.log(said) + intercept))) == pytest.approx(said / 2, abs=0.06)


def test_the_lowest_listed_score_is_where_f1_is_highest():
    tags = [{"label": label, "score": score} for label, score in (("a", 0.9), ("b", 0.2), ("c", 0.1))]
    written = Written(tags=[tags] * 9, references=[["a"]] * 9, closed=[[]] * 9, closed_scores=[[None] * 3] * 9)
    fitted = fit_written_scores([written])
    slope, intercept = fitted["calibration"]
    low, high = (1 / (1 + math.exp(-(slope * math.log(said) + intercept))) for said in (0.2, 0.9))
    assert low < fitted["min_score"] <= high


def test_with_nothing_right_or_nothing_wrong_there_is_nothing_to_fit():
    written = {"tags": [[{"label": "a", "score": 0.5}]], "closed": [[]], "closed_scores": [[None]]}
    assert fit_written_scores([Written(**written, references=[["a"]])]) == {}
    assert fit_written_scores([Written(**written, references=[["b"]])]) == {}
    assert fit_written_scores([]) == {}


def test_of_closed_tags_the_heads_know_more_and_what_they_choose_is_listed_anyway():
    # The decoder is as sure of all of them; the heads know which closed tag is right, and choose it. Of the new tags
    # one in ten is right: too few to be listed beside.
    labels = ("right", "wrong", "new")
    tags = [{"label": label, "score": 0.5} for label in labels]
    references = [["right", "new"] if row % 10 == 0 else ["right"] for row in range(100)]
    written = Written(tags=[tags] * 100, references=references, closed=[tags[:1]] * 100,
                      closed_scores=[[0.9, 0.1, None]] * 100)
    fitted = fit_written_scores([written])

    def score(closed):
        weights, given = fitted["calibration"], (math.log(0.5), 1.0)
        if closed is not None:
            weights, given = fitted["closed_calibration"], (math.log(0.5), math.log(closed / (1 - closed)), 1.0)
        return 1 / (1 + math.exp(-sum(weight * value for weight, value in zip(weights, given, strict=True))))

    assert score(0.9) > 0.95 and score(0.1) < 0.05 and score(None) == pytest.approx(0.1, abs=0.02)
    assert fitted["min_score"] > score(None)


def test_a_tag_that_is_rather_right_than_wrong_is_listed_though_none_on_validation_was():
    tags = [{"label": "wrong", "score": 0.5}, {"label": "right", "score": 0.4}]
    written = Written(tags=[tags] * 50, references=[["right"]] * 50, closed=[tags[1:]] * 50,
                      closed_scores=[[None, 0.9]] * 50)
    assert fit_written_scores([written])["min_score"] == 0.5
