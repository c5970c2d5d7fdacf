import evaluate
import pytest

from hf_tagger.evaluation.free_form import FreeFormMetrics, present_absent_scores, score_free_form, set_scores

PREDICTIONS = [["Red", "mug", "RED"], ["blue", "a", "b", "c", "d", "Kleid"], []]
REFERENCES = [["red", "Coffee mug"], ["Ｂｌｕｅ", "kleid"], []]
GIVEN = {"predictions": PREDICTIONS, "references": REFERENCES}


def test_set_scores_count_every_tag_once_whatever_its_spelling():
    # Written: red, mug; blue, a, b, c, d, kleid. Right: red, blue, kleid. True: 4.
    scores = set_scores(PREDICTIONS, REFERENCES)
    assert scores["precision@M"] == pytest.approx(3 / 8) and scores["recall@M"] == pytest.approx(3 / 4)
    assert scores["f1@M"] == pytest.approx(6 / 12)
    # The first five of the second product leave Kleid out.
    assert scores["precision@5"] == pytest.approx(2 / 7) and scores["f1@5"] == pytest.approx(4 / 11)
    assert scores["exact_match"] == pytest.approx(1 / 3)
    assert set_scores([["b", "A"]], [["a", "B"]])["exact_match"] == 1.0


def test_nothing_written_where_nothing_is_true_is_right():
    assert set_scores([[]], [[]])["f1@M"] == 1.0
    assert set_scores([["a"]], [[]])["f1@M"] == 0.0


def test_present_and_absent_tags_are_scored_apart():
    texts = ["A RED, round mug", "something blue", ""]
    scores = present_absent_scores(PREDICTIONS, REFERENCES, texts)
    # Present: red, mug | blue written; red | blue true. Absent: a, b, c, d, kleid written; coffee mug | kleid true.
    assert scores["present/f1@M"] == pytest.approx(2 * 2 / (3 + 2)) and scores["present/recall@M"] == 1.0
    assert scores["absent/f1@M"] == pytest.approx(2 * 1 / (5 + 2)) and scores["absent/recall@M"] == 0.5
    assert present_absent_scores([["棉"]], [["棉"]], ["纯棉衬衫"])["present/f1@M"] == 1.0
    assert present_absent_scores([["red"]], [["red"]], ["hundred"])["absent/f1@M"] == 1.0


def test_duplicates_and_strangers():
    metric = FreeFormMetrics()
    assert isinstance(metric, evaluate.Metric)
    scores = metric.compute(**GIVEN, texts=["", "", ""], vocabulary=["Red", "Blue", "Kleid"])
    assert scores["duplicate_rate"] == pytest.approx(1 / 9)
    assert scores["out_of_vocabulary_rate"] == pytest.approx(5 / 9)
    nothing = metric.compute(predictions=[[]], references=[[]], texts=[""])
    assert nothing["duplicate_rate"] == nothing["out_of_vocabulary_rate"] == 0.0


def test_a_split_is_scored_by_language_too():
    scores = score_free_form(PREDICTIONS, REFERENCES, ["", None, ""], ["en", "de", None], ["Red"])
    assert scores["en/f1@M"] == 0.5 and scores["de/f1@M"] == pytest.approx(4 / 8) and "duplicate_rate" in scores
    with pytest.raises(ValueError, match="no product"):
        score_free_form([], [], [], [])
