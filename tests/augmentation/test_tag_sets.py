import numpy as np
import pytest
import torch

from hf_tagger.augmentation.tag_sets import TagSetSampler
from hf_tagger.augmentation.vectors import TaggedVectors
from hf_tagger.catalog.batching.collate import UNKNOWN
from tests.augmentation.gaussians import SLICES, world


def draw(sampler, size=2000):
    return sampler.draw(size, torch.Generator().manual_seed(0))


def test_every_tag_comes_up_alike_and_rare_ones_more_with_power():
    data = world()
    even = np.bincount(draw(TagSetSampler(data, [0, 1, 2], SLICES)).columns) / 2000
    assert even == pytest.approx([1 / 3] * 3, abs=0.04)
    rare = np.bincount(draw(TagSetSampler(data, [0, 1, 2], SLICES, power=1.0)).columns) / 2000
    assert rare == pytest.approx(np.array([1 / 60, 1 / 36, 1 / 4]) / (1 / 60 + 1 / 36 + 1 / 4), abs=0.04)


def test_the_tag_set_is_that_of_a_product_with_the_tag():
    data = world()
    drawn = draw(TagSetSampler(data, [0, 1, 2], SLICES))
    assert torch.equal(drawn.tag_labels, torch.from_numpy(data.tag_labels[drawn.rows]).float())
    assert (data.tag_labels[drawn.rows, drawn.columns] == 1).all()
    assert (data.tag_labels[drawn.others, drawn.columns] == 1).all()


def test_recombined_sets_may_be_new_but_each_pair_with_the_drawn_tag_has_occurred():
    labels = np.array([[1, 0, 1, 0, 1, 0], [1, 0, 0, 1, 0, 1], [0, 1, UNKNOWN, UNKNOWN, 1, 0]], np.int8)
    data = TaggedVectors(np.zeros((3, 2), np.float32), labels)
    sampler = TagSetSampler(data, [0, 1], [slice(0, 2), slice(2, 4), slice(4, 6)], recombine=1.0)
    drawn = draw(sampler)
    sets = {tuple(row) for row in drawn.tag_labels[torch.from_numpy(drawn.columns == 0)].int().tolist()}
    assert (1, 0, 1, 0, 0, 1) in sets and (1, 0, 0, 1, 1, 0) in sets, "never seen together before"
    assert sets <= {(1, 0, *second, *third) for second in ((1, 0), (0, 1)) for third in ((1, 0), (0, 1))}
    assert {tuple(row) for row in drawn.tag_labels[torch.from_numpy(drawn.columns == 1)].int().tolist()} == {
        tuple(labels[2])}, "a single product lends nothing, and unknown stays unknown"


def test_tags_without_products_are_passed_over():
    data = TaggedVectors(np.zeros((2, 2), np.float32), np.array([[1, 0], [1, 0]], np.int8))
    assert set(draw(TagSetSampler(data, [0, 1], [slice(0, 2)])).columns) == {0}
    with pytest.raises(ValueError, match="no product carries any of the tags"):
        TagSetSampler(data, [1], [slice(0, 2)])
