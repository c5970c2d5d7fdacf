"""Labels of many products say what the array says that they were made of."""

import numpy as np
import pytest

from hf_tagger.catalog.batching.collate import UNKNOWN
from hf_tagger.catalog.batching.tag_labels import TagLabels, in_blocks

ATTRIBUTES = [{"name": "colour", "kind": "single", "tags": list("abc")},
              {"name": "use", "kind": "multi", "tags": list("de")}]
ARRAY = np.array([
    [0, 1, 0, 0, 1],
    [UNKNOWN] * 3 + [1, 1],
    [UNKNOWN] * 5,
    [0, 0, 0, 0, 0],
    [1, UNKNOWN, 0, UNKNOWN, 1],  # known in part
], np.float32)  # fmt: skip


@pytest.fixture
def labels():
    return TagLabels(ATTRIBUTES, in_blocks(ARRAY, size=2))


def test_every_way_of_reading_gives_the_rows(labels):
    assert labels.shape == ARRAY.shape and len(labels) == 5
    np.testing.assert_array_equal(labels[:], ARRAY)
    for rows in ([4, 0, 0], np.array([3]), slice(1, 3), np.array([True, False, False, True, True]), np.zeros(0, int)):
        np.testing.assert_array_equal(labels[rows], ARRAY[rows])
    np.testing.assert_array_equal(labels[4], ARRAY[4])
    np.testing.assert_array_equal(np.stack(list(labels)), ARRAY)


def test_an_attribute_is_known_where_all_its_tags_are(labels):
    assert labels.known(0).tolist() == [True, False, False, True, False]
    assert labels.known(1).tolist() == [True, True, False, True, False]


def test_given_tags_are_listed_by_row(labels):
    place, column = labels.given(1, np.array([4, 3, 1]))
    assert (place.tolist(), column.tolist()) == ([0, 2, 2], [1, 0, 1])
    assert labels.given(0, np.array([0]))[1].tolist() == [1]


def test_parts_are_joined_in_order(labels):
    joined = TagLabels.joined(ATTRIBUTES, [labels, TagLabels(ATTRIBUTES), labels])
    np.testing.assert_array_equal(joined[:], np.concatenate([ARRAY, ARRAY]))


def test_a_part_is_read_like_the_whole(labels):
    rows = np.array([4, 1, 1])
    part = labels.of_rows(rows)
    np.testing.assert_array_equal(part[:], ARRAY[rows])
    assert part.known(1).tolist() == [False, True, True] and len(labels.of_rows(np.zeros(0, int))) == 0


def test_memory_grows_with_given_tags_not_with_the_vocabulary():
    wide = [{"name": "category", "kind": "single", "tags": [str(number) for number in range(10_000)]}]
    rows = np.zeros((600, 10_000), np.float32)
    rows[np.arange(600), np.arange(600)] = 1
    labels = TagLabels(wide, in_blocks(rows))
    np.testing.assert_array_equal(labels[np.arange(600)], rows)
    assert sum(array.nbytes for array in (labels.unknown, labels.ends, labels.column, labels.value)) < 30 * 600
