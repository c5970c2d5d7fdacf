"""Kernel ridge regression on remembered products."""

import math

import pytest
import torch

from hf_tagger.model.configuration_tagger import TaggerConfig
from hf_tagger.model.kernel_head import LOGIT_SCALE, ExemplarEvidence, feature_blocks
from hf_tagger.training.exemplars import fit_exemplars
from hf_tagger.training.settings import ExemplarSettings

TEXT, FINAL, STAGE, HISTOGRAM = 8, 12, 6, 10
WIDTHS = {"text": TEXT, "image": FINAL + 2 * STAGE + HISTOGRAM, "grid": 0, "histogram": HISTOGRAM}
ATTRIBUTES = [
    {"name": "type", "kind": "single", "tags": ["Shirt", "Bag", "Mug"], "none_count": 0},
    {"name": "season", "kind": "single", "tags": ["Summer", "Winter"], "none_count": 5},
    {"name": "features", "kind": "multi", "tags": ["Soft", "Striped"]},
]
BOTH, PHOTO_ONLY, TEXT_ONLY = [True, True], [False, True], [True, False]


def evidence_for(count, **options):
    settings = ExemplarSettings(count=count, dim=64, prior_adjustment=0.0, **options)
    config = TaggerConfig(
        attributes=ATTRIBUTES,
        vision_config={"model_type": "timm_wrapper", "architecture": "resnet18"},
        exemplars=count,
        exemplar_dim=settings.dim,
        exemplar_width=settings.width,
        exemplar_kernels=settings.kernels,
    )
    return ExemplarEvidence(config, feature_blocks(WIDTHS, [STAGE, STAGE])), settings


def catalogue(rows=60, seed=0):
    """Products in three clusters; type is the cluster, season is unknown for every third, none for every fifth."""
    generator = torch.Generator().manual_seed(seed)
    cluster = torch.arange(rows) % 3
    centres = torch.randn(3, TEXT + WIDTHS["image"], generator=torch.Generator().manual_seed(99)) * 3
    features = centres[cluster] + torch.randn(rows, centres.shape[1], generator=generator)
    labels = torch.zeros(rows, 7)
    labels[torch.arange(rows), cluster] = 1
    labels[:, 3] = (cluster == 0).float()
    labels[:, 4] = (cluster == 1).float()
    labels[::3, 3:5] = -100
    labels[:, 5] = (cluster == 2).float()
    return features[:, :TEXT], features[:, TEXT:], labels, cluster


def test_products_are_recognised_with_text_and_photo_and_by_photo_alone():
    evidence, settings = evidence_for(60)
    text, image, labels, _ = catalogue()
    assert fit_exemplars(evidence, ATTRIBUTES, [(text, image, labels)], settings) == {"exemplars": 60}
    text, image, _, cluster = catalogue(30, seed=1)
    for present in (BOTH, PHOTO_ONLY):
        logits = evidence(text, image, torch.tensor([present] * 30))
        assert logits.shape == (30, len(settings.kernels), 10)
        for kernel in range(len(settings.kernels)):
            assert (logits[:, kernel, :3].argmax(1) == cluster).all()
            assert ((logits[:, kernel, 5] > 0) == (cluster == 2)).all()


def test_without_a_photo_it_says_nothing():
    evidence, settings = evidence_for(60)
    text, image, labels, _ = catalogue()
    fit_exemplars(evidence, ATTRIBUTES, [(text, image, labels)], settings)
    logits = evidence(text[:2], image[:2], torch.tensor([TEXT_ONLY, BOTH]))
    assert not logits[0].any() and logits[1].any()
    assert not evidence(text[:2], None, torch.tensor([TEXT_ONLY, TEXT_ONLY])).any()


def test_the_coefficients_solve_the_ridge_system():
    evidence, settings = evidence_for(20, ridge=0.05, balance=0.0)
    text, image, labels, _ = catalogue(20)
    fit_exemplars(evidence, ATTRIBUTES, [(text, image, labels)], settings)
    kernel = evidence.kernel(evidence.kernels[0], evidence.similarities(text, image))
    assert torch.allclose(kernel.diagonal(), torch.full((20,), 1 - math.exp(-1 / 0.8)), atol=1e-4)
    target = labels[:, 0] - labels[:, 0].mean()
    expected = torch.linalg.solve(kernel + 0.05 * torch.eye(20), target)
    assert torch.allclose(evidence.coefficients[0, 0, :, 0], expected, atol=1e-3)


def test_unknown_labels_have_no_part_in_it():
    evidence, settings = evidence_for(60)
    text, image, labels, _ = catalogue()
    fit_exemplars(evidence, ATTRIBUTES, [(text, image, labels)], settings)
    unknown = labels[:, 3] == -100
    assert not evidence.coefficients[:, :, unknown][..., 3:5].any()
    assert evidence.coefficients[:, :, ~unknown][..., 3:5].any()


def test_a_none_that_never_occurs_is_never_answered():
    evidence, settings = evidence_for(60)
    text, image, labels, _ = catalogue()
    fit_exemplars(evidence, ATTRIBUTES, [(text, image, labels)], settings)
    logits = evidence(text, image, torch.tensor([BOTH] * 60))
    assert (logits[..., 7] < -10).all() and (logits[..., 8] > -LOGIT_SCALE).all()


def test_a_full_memory_keeps_the_rarest_tags():
    evidence, settings = evidence_for(10)
    text, image, labels, _ = catalogue(59)
    labels[:, :3] = torch.tensor([1.0, 0.0, 0.0])
    labels[40, :3] = torch.tensor([0.0, 0.0, 1.0])
    assert fit_exemplars(evidence, ATTRIBUTES, [(text, image, labels)], settings) == {"exemplars": 10}
    rare = evidence.block("final", image[40:41]) @ evidence.axes_final
    assert torch.isclose(evidence.keys_final, rare, atol=1e-4).all(1).any()


def test_new_tags_have_no_exemplars_and_move_no_others():
    evidence, settings = evidence_for(60)
    text, image, labels, _ = catalogue()
    fit_exemplars(evidence, ATTRIBUTES, [(text, image, labels)], settings)
    present = torch.tensor([BOTH] * 60)
    before = evidence(text, image, present)
    evidence.grow(torch.tensor([0, 1, 2, 3, 4, 5, 6, -1, 7, 8, 9]))
    after = evidence(text, image, present)
    assert torch.allclose(after[..., [0, 1, 2, 3, 4, 5, 6, 8, 9, 10]], before, atol=1e-5)
    assert not after[..., 7].any()


def test_a_block_that_does_not_exist_is_named():
    with pytest.raises(ValueError, match="no block 'colour'"):
        ExemplarSettings(kernels=[{"colour": 1.0}])


def test_an_empty_catalogue_is_no_error():
    evidence, settings = evidence_for(5)
    assert fit_exemplars(evidence, ATTRIBUTES, [], settings) == {"exemplars": 0}
    assert not evidence(None, torch.randn(2, WIDTHS["image"]), torch.tensor([PHOTO_ONLY] * 2)).any()
