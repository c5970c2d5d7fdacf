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
    return written


def test_calibrated_scores_are_the_rates_at_which_tags_are_right():
    fitted = fit_written_scores([overconfident()])
    slope, intercept = fitted["calibration"]
    for said in (0.3, 0.6, 0.9):
        assert 1 / (1 + math.exp(-(slope * math.log(said) + intercept))) == pytest.approx(said / 2, abs=0.06)


def test_the_lowest_listed_score_is_where_f1_is_highest():
    tags = [{"label": label, "score": score} for label, score in (("a", 0.9), ("b", 0.2), ("c", 0.1))]
    written = Written(tags=[tags] * 9, references=[["a"]] * 9)
    fitted = fit_written_scores([written])
    slope, intercept = fitted["calibration"]
    low, high = (1 / (1 + math.exp(-(slope * math.log(said) + intercept))) for said in (0.2, 0.9))
    assert low < fitted["min_score"] <= high


def test_with_nothing_right_or_nothing_wrong_there_is_nothing_to_fit():
    tags = [[{"label": "a", "score": 0.5}]]
    assert fit_written_scores([Written(tags=tags, references=[["a"]])]) == {}
    assert fit_written_scores([Written(tags=tags, references=[["b"]])]) == {}
    assert fit_written_scores([]) == {}
