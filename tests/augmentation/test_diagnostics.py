
import numpy as np
import pytest
import torch
from PIL import Image

from hf_tagger.augmentation.diagnostics import compare, picture, precision_recall
from hf_tagger.augmentation.vectors import TaggedVectors
from tests.augmentation.gaussians import world

REAL = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))


def test_distances_are_those_to_the_nearest_real_vector_but_itself():
    data = TaggedVectors(np.array([[0.0], [1.0], [5.0], [9.0]]), np.array([[1, 0], [1, 0], [1, 0], [0, 1]], np.int8))
    made, labels = torch.tensor([[1.0], [3.0], [8.0]]), torch.tensor([[1.0, 0], [1, 0], [0, 1]])
    report = compare(data, {"many": 0, "one": 1}, made, labels)
    assert report["many"]["real_distance"] == 2.0 and report["many"]["synthetic_distance"] == 1.0
    assert report["one"] == {"real": 1, "synthetic": 1, "synthetic_distance": 1.0}


def test_vectors_of_the_same_distribution_have_precision_and_recall():
    again = torch.randn(300, 4, generator=torch.Generator().manual_seed(1))
    precision, recall = precision_recall(REAL, again)
    assert precision > 0.7 and recall > 0.7


def test_vectors_elsewhere_have_no_precision_and_copies_of_one_no_recall():
    assert precision_recall(REAL, REAL + 100) == (0.0, 0.0)
    precision, recall = precision_recall(REAL, REAL[:1].repeat(50, 1))
    assert precision == 1.0 and recall < 0.01


def test_too_few_vectors_are_an_error():
    with pytest.raises(ValueError, match="need more than 3 vectors"):
        precision_recall(REAL, REAL[:3])


def test_tags_are_compared_one_by_one():
    data = world()
    copies, labels = data.batch(data.rows_with(1))
    report = compare(data, {"colour: Red": 1, "colour: Sage": 2}, copies, labels)
    assert set(report) == {"colour: Red"}, "nothing was made for Sage"
    red = report["colour: Red"]
    assert red["real"] == red["synthetic"] == 36
    assert red["synthetic_distance"] == pytest.approx(0, abs=1e-3) and red["real_distance"] > 0.1
    assert red["precision"] == red["recall"] == 1.0


def test_the_picture_is_a_png_that_shows_synthetic_vectors(tmp_path):
    data = world()
    vectors, labels = data.batch(np.arange(100))
    tags = {"colour: Sage": 2, "colour: Red": 1}
    for name, made in (("with", vectors), ("without", vectors[:0])):
        picture(tmp_path / f"{name}.png", data, tags, made, labels[: len(made)])
    images = [np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("with", "without")]
    assert images[0].shape == images[1].shape and (images[0] != images[1]).any()
