import numpy as np
import pytest
import torch

from hf_tagger.augmentation.health import AugmentationStopped
from hf_tagger.augmentation.perturbations import (
    GaussianNoise,
    PseudoLabels,
    Resampling,
    ResidualTransfer,
    SameTagMixup,
)
from hf_tagger.augmentation.tag_sets import TagSetSampler
from hf_tagger.augmentation.vectors import TaggedVectors
from hf_tagger.catalog.batching.collate import UNKNOWN
from tests.augmentation.gaussians import ATTRIBUTES, SLICES, problem, world


@pytest.fixture
def data():
    return world(unlabelled=60)


def draw(source, size=300):
    return source.draw(size, torch.Generator().manual_seed(0))


def sampler(data, columns=(0, 1, 2)):
    return TagSetSampler(data, list(columns), SLICES)


def test_resampled_vectors_are_real_ones(data):
    vectors, labels = draw(Resampling(data, sampler(data)))
    real = {tuple(row) for row in data.vectors}
    assert all(tuple(row) in real for row in vectors.numpy())
    assert labels[:, :3].mean(0) == pytest.approx([1 / 3] * 3, abs=0.1)


def test_noise_has_the_asked_for_share_of_each_features_deviation(data):
    real, _ = draw(Resampling(data, sampler(data)), 4000)
    vectors, _ = draw(GaussianNoise(data, sampler(data), 0.5), 4000)
    # The same draws come first from the same generator.
    assert (vectors - real).std(0).numpy() == pytest.approx(0.5 * data.vectors.std(0), rel=0.1)


def test_mixup_stays_between_products_of_the_tag_and_forgets_what_they_differ_in():
    data = TaggedVectors(np.array([[0.0], [10.0], [99.0]], np.float32),
                         np.array([[1, 0, 0, 1, 0], [1, 0, 0, 0, 0], [0, 1, 0, 0, 0]], np.int8))
    vectors, labels = draw(SameTagMixup(data, sampler(data, [0])))
    assert ((vectors >= 0) & (vectors <= 10)).all() and vectors.std() > 1
    assert labels.unique(dim=0).tolist() == [[1, 0, 0, UNKNOWN, 0]]


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
