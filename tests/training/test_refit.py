"""Heads fitted on some rows of a real, tiny run, and what they say of the others."""

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

from hf_tagger.catalog.batching.tag_labels import TagLabels
from hf_tagger.catalog.strict import ConfigError, build
from hf_tagger.evaluation.predict import predict
from hf_tagger.evaluation.settings import Protocol
from hf_tagger.training.arguments import RunSettings
from hf_tagger.training.batches import Batches
from hf_tagger.training.context import start_run
from hf_tagger.training.data import read_catalog
from hf_tagger.training.frozen_heads import fit_kernel_head, fit_lexical_head, fit_logit_fusion
from hf_tagger.training.phases import start_training, train_phase
from hf_tagger.training.refit import HEADS, RefittedHeads, heads_only, out_of_fold_rows
from hf_tagger.training.starting_model import fit_feature_scales, starting_model

DATA = {
    "catalog": {"synthetic": {"rows": 100, "picture_size": 32, "languages": ["en"], "missing_modality": 0.3}},
    "model": {"text_backbone": "scratch:bert-tiny", "vision_backbone": "scratch:test_efficientnet", "hidden_size": 32,
              "image_size": [32, 32], "max_length": 24, "lexical": {"buckets": 512},
              "kernel": {"landmarks": 9}},
    "phases": [{"train": ["heads", "text"]}, {"train": ["heads"], "cached_views": 2, "epochs": 2, "batch_size": 16}],
    "training": {"loader": {"num_workers": 0}},
}  # fmt: skip


def test_heads_only_takes_the_first_phase_on_cached_features_and_leaves_the_rest_out():
    settings = heads_only(build(RunSettings, DATA))
    (phase,) = settings.phases
    assert (phase.cached_views, phase.epochs, phase.evaluate_every) == (2, 2, 0)
    assert settings.lora is None and settings.model.kernel.landmarks == 0
    with pytest.raises(ConfigError, match="model.fusion: attention needs token states"):
        heads_only(build(RunSettings, DATA | {"model": DATA["model"] | {"fusion": "attention"}}))
    (default,) = heads_only(build(RunSettings, DATA | {"phases": [{"epochs": 3}]})).phases
    assert default.cached_views and default.epochs == HEADS.epochs


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    AcceleratorState._reset_state(True)
    data = DATA | {"output_dir": str(tmp_path_factory.mktemp("refit"))}
    run = start_run(heads_only(build(RunSettings, data)), data)
    yield RefittedHeads.of_splits(run, read_catalog(run), ("train", "test"))
    AcceleratorState._reset_state(True)


@pytest.fixture
def train(heads):
    return np.flatnonzero(heads.split_of == "train")


def test_rows_are_the_products_of_the_splits(heads, train):
    catalog = heads.batches.data.catalog
    assert sorted(heads.ids[row] for row in train) == sorted(record["id"] for record in catalog.records("train"))
    tags = {record["id"]: record["tags"] for record in catalog.records("test")}
    test = np.flatnonzero(heads.split_of == "test")
    assert {heads.ids[row]: heads.tags[row] for row in test} == tags
    assert len(heads.ids) == len(train) + len(tags) == len(heads.tag_labels)


def test_scores_are_those_of_the_model_on_the_products_themselves(heads, train):
    heads.fit(train[:40])
    found = predict(heads.model, heads.batches.evaluation("test", Protocol()))
    rows = [heads.ids.index(product) for product in found.ids]
    assert np.abs(heads.scores(np.array(rows)) - found.scores).max() < 5e-3  # features are kept in half precision
    assert np.abs(heads.scores(np.array(rows), words=False) - found.scores).max() > 0.05


def test_a_fit_remembers_nothing_of_an_earlier_one(heads, train):
    heads.fit(train[:40])
    first = heads.scores(train)
    heads.fit(train[40:])
    assert np.abs(heads.scores(train) - first).max() > 0.05
    heads.fit(train[:40])
    assert np.array_equal(heads.scores(train), first)


def test_a_products_own_labels_do_not_move_its_out_of_fold_scores(heads, train):
    fold = np.arange(len(heads.ids)) % 2
    before = heads.out_of_fold(fold)
    kept, attributes = heads.tag_labels, heads.model.config.attributes
    other = np.where(fold[:, None] == 0, 1 - np.clip(kept[:], 0, 1), kept[:])
    heads.tag_labels = heads.plain.tag_labels = TagLabels(attributes, [other])
    after = heads.out_of_fold(fold)
    heads.tag_labels = heads.plain.tag_labels = kept
    assert np.array_equal(before[fold == 0], after[fold == 0])
    assert np.abs(before[fold == 1] - after[fold == 1]).max() > 0.05
    assert torch.is_grad_enabled()


def test_the_fusion_learns_from_products_that_the_sources_were_not_fitted_on(tmp_path):
    """Words that know every training text by heart are trusted on it, and less on texts that they have not seen."""
    AcceleratorState._reset_state(True)
    phase = {"train": ["heads"], "cached_views": 2, "epochs": 2, "batch_size": 16}
    data = DATA | {"output_dir": str(tmp_path), "phases": [phase], "lora": None,
                   "logit_fusion": {"folds": 2, "max_rows": 60}}
    settings = build(RunSettings, data)
    run = start_run(settings, data)
    catalogue = read_catalog(run)
    batches = Batches(catalogue, *starting_model(run, catalogue))
    fit_feature_scales(run, batches)
    fit_lexical_head(run, batches)
    training, model = start_training(run, batches), batches.model
    train_phase(run, training, 0, settings.phases[0])
    fit_kernel_head(run, training)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    told = out_of_fold_rows(run, training)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    # 60 of the products in four ways, as far as they have what a way shows.
    sources, labels = (torch.cat([getattr(rows, name) for rows in told]) for name in ("sources", "labels"))
    assert sum(len(rows.ids) for rows in told if not rows.hidden) == 60
    assert 60 < len(sources) <= 240 and sources.shape[1] == model.logit_fusion.sources == 3
    has_text = sources[:, 1].abs().sum(-1) > 0
    colour = slice(12, 23)
    known = (labels[:, colour].amax(1) == 1) & has_text
    heads = RefittedHeads(run, batches, training.features.plain(), training.features.masked())
    heads.fit(np.arange(len(heads.ids)))
    seen = [(rows.sources[:, 1, colour], rows.labels[:, colour])
            for rows in heads.source_rows(np.arange(len(heads.ids)))]
    said, given = (torch.cat(part) for part in zip(*seen, strict=True))
    spoken = (said.abs().sum(-1) > 0) & (given.amax(1) == 1)

    def accuracy(scores, right):
        return (scores.argmax(1) == right.argmax(1)).float().mean()

    held_out = accuracy(sources[known][:, 1, colour], labels[known][:, colour])
    assert accuracy(said[spoken], given[spoken]) > held_out + 0.1
    fit_logit_fusion(run, training)
    assert not torch.equal(model.logit_fusion.weights.weight, before["logit_fusion.weights.weight"])
    AcceleratorState._reset_state(True)
