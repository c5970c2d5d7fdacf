import numpy as np
import pytest
import torch

from hf_tagger.augmentation.perturbations import PseudoLabels, ResidualTransfer
from hf_tagger.augmentation.retrain import AugmentationStopped
from hf_tagger.augmentation.vectors import TaggedVectors
from hf_tagger.catalog.batching.collate import UNKNOWN
from tests.augmentation.gaussians import ATTRIBUTES, SLICES, draw, problem, sampler, world


@pytest.fixture
def data():
    return world(unlabelled=60)


def test_residuals_come_from_frequent_tags_and_keep_the_drawn_attribute_only():
    vectors = np.array([[0.0, 1.0], [0.0, -1.0], [50.0, 0.0]], np.float32)
    labels = np.array([[1, 0, 0, 1, 0], [1, 0, 0, 1, 0], [0, 0, 1, 1, 0]], np.int8)
    data = TaggedVectors(vectors, labels)
    made, given = draw(ResidualTransfer(data, sampler(data, [2]), SLICES, frequent=[0]))
    assert {tuple(row) for row in made.tolist()} == {(50.0, 1.0), (50.0, -1.0)}
    assert given.unique(dim=0).tolist() == [[0, 0, 1, UNKNOWN, UNKNOWN]]


def test_pseudo_labels_are_given_where_the_model_is_sure(data):
    source = PseudoLabels(data, ATTRIBUTES, SLICES, problem(data).scores, threshold=0.9)
    vectors, labels = draw(source)
    assert (labels[:, :3].sum(1) == 1).all() and (labels[:, 3:] == UNKNOWN).all(), "it knows nothing of features"
    assert torch.equal(labels[:, :3].argmax(1), vectors[:, :3].argmax(1))
    unknown = {tuple(row) for row in data.vectors[100:]}
    assert all(tuple(row) in unknown for row in vectors.numpy())


def test_nothing_to_be_sure_of_says_what_to_change():
    data = world()
    with pytest.raises(AugmentationStopped, match="no product has an unknown attribute"):
        PseudoLabels(data, ATTRIBUTES, SLICES, problem(data).scores, threshold=0.9)
