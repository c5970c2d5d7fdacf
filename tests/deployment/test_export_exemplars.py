"""Exemplars in the graph's order: the model's logits, from fewer rows."""

import pytest
import torch

from hf_tagger.deployment.export_exemplars import DistinctExemplars
from hf_tagger.training.exemplars import fit_exemplars
from tests.training.test_exemplars import ATTRIBUTES, catalogue, evidence_for


@pytest.mark.parametrize("copies", [1, 2, 3])
def test_what_exemplars_share_is_kept_once(copies):
    text, image, labels, _ = catalogue(20)
    # Every photo with as many titles, and one product twice.
    texts = torch.cat([text + copy for copy in range(copies)] + [text[:1]])
    images = torch.cat([image] * copies + [image[:1]])
    evidence, settings = evidence_for(100)
    fit_exemplars(evidence, ATTRIBUTES, [(texts, images, torch.cat([labels] * copies + [labels[:1]]))], settings)
    distinct = DistinctExemplars(evidence)
    assert distinct.texts.keys.shape[1] == 20 * copies
    assert distinct.photos.keys.shape[1] == {1: 20, 2: 20, 3: 40}[copies]
    text, image, _, _ = catalogue(6, seed=1)
    present = torch.tensor([[True, True], [False, True], [True, False]] * 2)
    wanted = evidence(text, image, present)
    got = distinct(text, image, torch.tensor([0, 3]), torch.tensor([1, 4]))
    torch.testing.assert_close(got, wanted, atol=1e-3, rtol=1e-3)
    assert wanted[[0, 1, 3, 4]].abs().amax() > 1
