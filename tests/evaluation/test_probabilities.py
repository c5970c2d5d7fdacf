import numpy as np
import pytest
from sklearn import metrics as sk

from hf_tagger.evaluation.probabilities import calibration_bins, calibration_error, f1_at_k, log_losses
from tests.evaluation.splits import random_attribute


def probabilities(seed, kind):
    """References [300, 8] of which two tags are never trained, and probabilities [300, 6]."""
    references, _, scores = random_attribute(seed, kind)
    scores = scores + 0.05
    return references, scores / (scores.sum(1, keepdims=True) + 0.3) if kind == "single" else scores / (1 + scores)


def test_log_loss_of_a_single_attribute_equals_scikit_learn_with_none_as_a_class():
    references, scores = probabilities(0, "single")
    learned = (references != -100).any(1) & ~(references[:, 6:] == 1).any(1)
    truth = np.where((references[learned] == 1).any(1), (references[learned] == 1).argmax(1), 6)
    assert (truth == 6).any()
    wide = np.concatenate([scores[learned], 1 - scores[learned].sum(1, keepdims=True)], axis=1)
    losses, terms = log_losses(references[learned], scores[learned], "single")
    assert losses.sum() / terms.sum() == pytest.approx(sk.log_loss(truth, wide, labels=list(range(7))), rel=1e-6)


def test_log_loss_of_a_multi_attribute_equals_scikit_learn_over_the_known_entries():
    references, scores = probabilities(1, "multi")
    known = references[:, :6] != -100
    expected = sk.log_loss(references[:, :6][known], scores[known], labels=[0, 1])
    losses, terms = log_losses(references[:, :6], scores, "multi")
    assert losses.sum() / terms.sum() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_a_tag_never_learned_costs_the_most_and_an_unknown_row_nothing(kind):
    losses, terms = log_losses([[0, 0, 1], [-100, -100, -100]], [[0.6, 0.2], [0.5, 0.5]], kind)
    assert losses[0] >= 16 and terms[0] == (1 if kind == "single" else 3)
    assert losses[1] == terms[1] == 0


def test_calibration_error_of_known_cases():
    # Ten products at .8 confidence, of which six are right; two at .3 where "none" has .7 and is right.
    references = [[1, 0]] * 6 + [[0, 1]] * 4 + [[0, 0]] * 2 + [[-100, -100]]
    scores = [[0.8, 0.1]] * 10 + [[0.2, 0.1]] * 2 + [[0.9, 0.0]]
    error = calibration_error(calibration_bins(references, scores, "single").sum(0))
    assert error == pytest.approx((10 * 0.2 + 2 * 0.3) / 12)
    perfect = calibration_bins([[1, 0], [0, 1]], [[1.0, 0.0], [0.0, 1.0]], "multi").sum(0)
    assert perfect.sum(1).tolist() == [4, 2, 2] and calibration_error(perfect) == 0


def test_calibration_error_is_small_where_probabilities_are_true_and_large_where_not():
    rng = np.random.default_rng(0)
    truth = rng.random((20_000, 1))
    references = (rng.random((20_000, 1)) < truth).astype(int)
    true, false = (calibration_error(calibration_bins(references, scores, "multi").sum(0))
                   for scores in (truth, truth**3))
    assert true < 0.02 and false > 0.1


def test_f1_at_k_counts_the_first_k_of_the_known_tags():
    references = [[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0], [-100, 1, 0, 0]]
    scores = [[0.9, 0.8, 0.7, 0.1], [0.9, 0.8, 0.7, 0.1], [0.9, 0.1, 0.1, 0.1], [0.9, 0.8, 0.7, 0.1]]
    f1, measured = f1_at_k(references, scores, 2)
    assert measured.tolist() == [1, 1, 0, 1]
    assert f1 == pytest.approx([2 / 4, 2 / 3, 0, 2 / 3])
    assert f1_at_k([[1, 0, 1]], [[0.9, 0.1]], 5)[0] == pytest.approx([2 / 7]), "unlearned tags are missed"
