import numpy as np
import pytest

from hf_tagger.augmentation.vectors import TaggedVectors
from hf_tagger.catalog.batching.collate import UNKNOWN
from recipes.lab.rare_tag_rivals import NOISE, GaussianNoise, Resampling, SameTagMixup
from tests.augmentation.gaussians import draw, sampler, world


@pytest.fixture
def data():
    return world(unlabelled=60)


def test_resampled_vectors_are_real_ones(data):
    vectors, labels = draw(Resampling(data, sampler(data)))
    real = {tuple(row) for row in data.vectors}
    assert all(tuple(row) in real for row in vectors.numpy())
    assert labels[:, :3].mean(0) == pytest.approx([1 / 3] * 3, abs=0.1)


def test_noise_has_the_asked_for_share_of_each_features_deviation(data):
    real, _ = draw(Resampling(data, sampler(data)), 4000)
    vectors, _ = draw(GaussianNoise(data, sampler(data)), 4000)
    # The same draws come first from the same generator.
    assert (vectors - real).std(0).numpy() == pytest.approx(NOISE * data.vectors.std(0), rel=0.1)


def test_mixup_stays_between_products_of_the_tag_and_forgets_what_they_differ_in():
    data = TaggedVectors(np.array([[0.0], [10.0], [99.0]], np.float32),
                         np.array([[1, 0, 0, 1, 0], [1, 0, 0, 0, 0], [0, 1, 0, 0, 0]], np.int8))
    vectors, labels = draw(SameTagMixup(data, sampler(data, [0])))
    assert ((vectors >= 0) & (vectors <= 10)).all() and vectors.std() > 1
    assert labels.unique(dim=0).tolist() == [[1, 0, 0, UNKNOWN, 0]]
