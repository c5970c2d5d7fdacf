import numpy as np
import pytest
import torch

from hf_tagger.augmentation.vectors import TaggedVectors, write_vectors
from hf_tagger.catalog.batching.collate import UNKNOWN

LABELS = np.array([[1, 0], [1, 1], [0, 0], [UNKNOWN, UNKNOWN], [UNKNOWN, 1]], np.int8)
VECTORS = np.arange(15, dtype=np.float32).reshape(5, 3)


def test_rows_are_found_by_their_tags():
    data = TaggedVectors(VECTORS, LABELS)
    assert data.counts().tolist() == [2, 2]
    assert data.rows_with(0).tolist() == [0, 1] and data.rows_with(1).tolist() == [1, 4]
    assert data.labelled().tolist() == [0, 1, 2, 4]


def test_two_different_rows_with_a_tag_where_there_are_two():
    data = TaggedVectors(VECTORS, np.array([[1, 0], [1, 0], [1, 1], [0, 0], [0, 0]], np.int8))
    draws = np.random.default_rng(0).random((2, 200))
    first, second = data.two_rows_with(np.zeros(200, int), draws)
    assert set(first) == set(second) == {0, 1, 2} and (first != second).all()
    first, second = data.two_rows_with(np.ones(200, int), draws)
    assert set(first) == set(second) == {2}
    assert data.two_rows_with(np.array([0]), np.array([[1.0], [1.0]]))[0][0] == 2, "a draw may round up to 1"


def test_vectors_are_kept_on_disk_and_come_back(tmp_path):
    parts = [(torch.from_numpy(VECTORS[rows]), torch.from_numpy(LABELS[rows]).float()) for rows in ([0, 1, 2], [3, 4])]
    data = write_vectors(tmp_path / "cache", parts)
    assert isinstance(data.vectors, np.memmap) and isinstance(data.tag_labels, np.memmap)
    vectors, labels = data.batch([1, 4])
    assert vectors.dtype == torch.float32 and vectors.tolist() == VECTORS[[1, 4]].tolist()
    assert labels.tolist() == LABELS[[1, 4]].tolist()
    assert len(write_vectors(tmp_path / "none", [])) == 0


def test_vectors_and_labels_must_be_of_the_same_products():
    with pytest.raises(ValueError, match="5 vectors with the labels of 4"):
        TaggedVectors(VECTORS, LABELS[:4])
