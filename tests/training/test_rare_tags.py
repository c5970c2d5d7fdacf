"""The augmentation phase on a tiny model and stored features; in whole runs: tests/recipes/test_finetune.py."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hf_tagger.augmentation.retrain import AugmentationStopped
from hf_tagger.augmentation.settings import AugmentationSettings
from hf_tagger.catalog.batching.collate import UNKNOWN
from hf_tagger.catalog.strict import ConfigError, build
from hf_tagger.training.features import FeatureLoader
from hf_tagger.training.rare_tags import augment_rare_tags, balanced_losses, pooled_vectors, rare_tags
from hf_tagger.training.settings import LossSettings
from tests.tiny_tagger import ATTRIBUTES, tiny_model, tiny_processor

ROWS = 120
SMALL = {"epochs": 2, "batch_size": 32, "gan": {"hidden": 16, "check_every": 10}}


@pytest.fixture
def model():
    model = tiny_model()
    counts = [[110, 10], [60, 60], [60, 5]]
    model.config.attributes = [{**entry, "counts": count, "none_count": 0}
                               for entry, count in zip(ATTRIBUTES, counts, strict=True)]
    return model


@pytest.fixture
def features(model):
    draw = np.random.default_rng(0)
    labels = np.zeros((ROWS, 6), np.float32)
    labels[:10, 1] = labels[10:, 0] = 1
    labels[::2, 2] = labels[1::2, 3] = 1
    labels[:60, 4] = labels[:5, 5] = 1
    widths = model.encoder.feature_widths
    views = {name: [draw.normal(size=(ROWS, widths[name])).astype(np.float16) for _ in range(2)]
             for name in ("text", "image")}
    return FeatureLoader(16, 0, text=views["text"], image=views["image"], present=[np.ones((ROWS, 2), bool)] * 2,
                         tag_labels=labels, ids=[str(row) for row in range(ROWS)], repeats=[1.0] * ROWS)


def phase(model, features, folder, **settings):
    return augment_rare_tags(model, tiny_processor(), features, build(AugmentationSettings, SMALL | settings),
                             LossSettings(), folder, seed=0)


@pytest.mark.parametrize("method", ["none", "residual_transfer", "semi_supervised_gan"])
def test_only_the_tag_head_changes(model, features, tmp_path, method):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    summary = phase(model, features, tmp_path, method=method)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed and all(name.startswith("tag_head.") for name in changed)
    assert summary["vectors"] == 2 * ROWS
    assert not (tmp_path / "cache").exists()


def test_generator_report_and_picture_are_saved(model, features, tmp_path):
    phase(model, features, tmp_path, method="semi_supervised_gan")
    assert {path.name for path in tmp_path.iterdir()} == {"generator.safetensors", "report.json", "vectors.png"}
    assert load_file(tmp_path / "generator.safetensors")["mean"].shape == (16,)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["losses"][-1]["step"] == 10 and report["stopped"] is None
    assert set(report["tags"]) == {"colour: Blue", "features: Handmade"}
    assert report["tags"]["colour: Blue"]["real"] == 20  # ten products in two views


def test_a_failed_gan_leaves_the_tag_head_alone(model, features, tmp_path):
    before = {name: tensor.clone() for name, tensor in model.tag_head.state_dict().items()}
    with pytest.raises(AugmentationStopped, match="diverged"):
        phase(model, features, tmp_path, method="semi_supervised_gan",
              gan={"check_every": 10, "learning_rate": 1e12})
    assert all(torch.equal(before[name], tensor) for name, tensor in model.tag_head.state_dict().items())


def test_a_critic_of_tag_sets_is_refused_with_what_to_do():
    with pytest.raises(ConfigError, match='"augmentation.critic" is no longer there: .* leave it out'):
        build(AugmentationSettings, {"critic": True}, "augmentation")


def test_of_a_large_catalogue_products_with_rare_tags_stay(model, features):
    settings = AugmentationSettings(max_rows=60)
    labels = torch.cat([labels for _, labels in pooled_vectors(model, features, settings, seed=0)])
    assert (labels[:, 1] == 1).sum() == 20 and (labels[:, 5] == 1).sum() == 10
    assert 50 < len(labels) < 120, "of 240 a quarter, and all rare ones"


def test_rare_tags_come_rarest_first(model):
    assert rare_tags(model.config.attributes, AugmentationSettings()) == {"features: Handmade": 5, "colour: Blue": 1}
    assert rare_tags(model.config.attributes, AugmentationSettings(attributes=["colour"])) == {"colour: Blue": 1}


def test_a_loss_knows_how_often_its_vectors_carry_each_tag(model):
    losses = balanced_losses(model.config.attributes, LossSettings(logit_adjustment_tau=1.0))
    logits = torch.zeros(1, 9)
    labels = torch.tensor([[0.0, 1, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN]])
    even = losses(torch.full((6,), 10.0), torch.zeros(3))(logits, labels)
    rare = losses(torch.tensor([90.0, 10, 10, 10, 10, 10]), torch.zeros(3))(logits, labels)
    assert rare > even, "a rare tag must be given more against the frequencies"
