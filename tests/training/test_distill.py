"""What a student starts from, what it is shown, and what its loss compares."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hf_tagger.catalog.strict import ConfigError
from hf_tagger.model.towers import TowerFeatures
from hf_tagger.training.distill import check_attributes, copy_fitting, spaced_layers, text_backbone_of
from hf_tagger.training.distill_loss import SIGHTS, DistillationLoss, TeacherOutputs, principal_axes
from hf_tagger.training.settings import DistillationSettings
from hf_tagger.training.teacher import TeacherStore, ViewCollator, outputs_of_sights, store_outputs
from tests.random_tagger import PHOTOS, TEXTS, batch, outputs, tagger
from tests.tiny_tagger import ATTRIBUTES, SIZE, photo, tiny_model, tiny_processor


@pytest.mark.parametrize("wanted, layers", [
    (None, list(range(12))), (4, [0, 4, 7, 11]), (3, [0, 6, 11]), (1, [0]), (12, list(range(12))),
])
def test_layers_are_spaced_evenly_from_the_first_to_the_last(wanted, layers):
    assert spaced_layers(wanted, 12) == layers


@pytest.mark.parametrize("wanted", [0, 13])
def test_layers_that_are_not_there_are_refused(wanted):
    with pytest.raises(ConfigError, match="distillation.text_layers"):
        spaced_layers(wanted, 12)


def test_a_student_starts_from_the_layers_that_were_chosen():
    teacher = tagger()
    backbone = text_backbone_of(teacher, tiny_processor(), [1])
    theirs = teacher.encoder.text_tower.state_dict()
    assert backbone.config.num_hidden_layers == 1 and teacher.config.text_config.num_hidden_layers == 2
    assert len({name.split(".layer.")[1].split(".")[0] for name in backbone.weights if ".layer." in name}) == 1
    for name, weight in backbone.weights.items():
        assert torch.equal(weight, theirs[name.replace(".layer.0.", ".layer.1.")]), name
    with pytest.raises(ConfigError, match="tagger_recurrent text tower has no layers"):
        text_backbone_of(tiny_model(), tiny_processor(), [])


def test_only_parts_of_the_same_shape_are_copied():
    teacher = tagger()
    student = tagger(hidden_size=8)
    assert copy_fitting(student, teacher) == ["lexical_head", "logit_fusion"]
    assert torch.equal(student.lexical_head.table.weight, teacher.lexical_head.table.weight)
    # Of as many buckets, but for other n-grams; and of other sources.
    assert copy_fitting(tagger(hidden_size=8, lexical_char_ngrams=[3]), teacher) == ["logit_fusion"]
    assert copy_fitting(tagger(hidden_size=8, name_match=False, lexical_buckets=0), teacher) == []
    twin = tagger()
    assert set(copy_fitting(twin, teacher)) == {
        "encoder.text_projection", "encoder.image_projection", "encoder.proxies", "encoder.fusion", "lexical_head",
        "logit_fusion", "tag_head"}  # fmt: skip
    assert torch.equal(twin.encoder.fusion.layers[0].weight, teacher.encoder.fusion.layers[0].weight)


def test_attributes_must_be_the_teachers():
    assert "none" in check_attributes([{"name": "colour", "kind": "single", "tags": ["Red"]}], ATTRIBUTES)
    strange = [{"name": "colour", "kind": "single", "tags": ["Teal"]}]
    assert "colour 1 (Teal ...)" in check_attributes(strange, ATTRIBUTES)
    with pytest.raises(ConfigError, match='no attribute \'color\'. Did you mean "colour"'):
        check_attributes([{"name": "color", "kind": "single", "tags": ["Red"]}], ATTRIBUTES)
    with pytest.raises(ConfigError, match="features: single here, multi in the teacher"):
        check_attributes([{"name": "features", "kind": "single", "tags": ["New"]}], ATTRIBUTES)


def test_a_teacher_is_asked_under_every_sight():
    teacher = tagger()
    with torch.no_grad():
        found = outputs_of_sights(teacher, batch())
    for place, (text, image) in enumerate(SIGHTS):
        for row, (words, photos) in enumerate(zip(TEXTS, PHOTOS, strict=True)):
            if (words and text) or (photos and image):
                alone = outputs(teacher, batch([words if text else None], [photos if image else []]))
                torch.testing.assert_close(found.logits[row, place, : alone["tag_logits"].shape[1]],
                                           alone["tag_logits"][0], rtol=1e-4, atol=1e-4)


def test_stored_answers_come_back_by_product_and_view(tmp_path):
    teacher, ids = tagger(), ["a", "b", "c", "d"]
    views = [dict(batch(TEXTS[:4], PHOTOS[:4])), dict(batch(["new mug"] * 4, PHOTOS[:4]))]
    given = [[view | {"ids": ids}, {"ids": []}] for view in views]
    store_outputs(teacher, (iter(batches) for batches in given), tmp_path, "key", True, nullcontext)
    store = TeacherStore(tmp_path)
    with torch.no_grad():
        wanted = [outputs_of_sights(teacher, view, states=True) for view in views]
    found = store.batch(["c", "a"], [0, 1])
    for name in ("logits", "pooled", "modality_pooled"):
        expected = torch.stack([getattr(wanted[0], name)[2], getattr(wanted[1], name)[0]])
        torch.testing.assert_close(getattr(found, name).float(), expected, rtol=0.01, atol=0.01)
    assert found.mask.sum(1).tolist() == [3, 2]
    states = wanted[0].states[2][wanted[0].mask[2]]
    torch.testing.assert_close(found.states[0, :3].float(), states, rtol=0.01, atol=0.01)


def test_a_view_is_the_same_in_any_batch_and_in_any_size():
    record = {"text": "red mug", "texts": ["red mug"], "tags": {}, "images": [photo(size=96)]}

    def seen(view, ids, size):
        processor = tiny_processor()
        processor.image_processor.size = {"height": size, "width": size}
        collator = ViewCollator(processor, ATTRIBUTES, view, 0, (SIZE, SIZE), drop_a_word, cut_a_corner)
        return collator([record | {"id": name} for name in ids])

    both, alone, other = seen(1, ["a", "b"], SIZE), seen(1, ["b"], SIZE), seen(2, ["b"], SIZE)
    assert torch.equal(both["pixel_values"][1], alone["pixel_values"][0])
    assert torch.equal(both["input_ids"][1], alone["input_ids"][0])
    assert not torch.equal(other["pixel_values"], alone["pixel_values"])
    # At half the size the same corner is missing, though it was drawn in pixels.
    small = seen(1, ["b"], SIZE // 2)["pixel_values"][0]
    shrunk = torch.nn.functional.avg_pool2d(alone["pixel_values"][0], 2)
    elsewhere = torch.nn.functional.avg_pool2d(other["pixel_values"][0], 2)
    assert (small - shrunk).abs().mean() < 0.3 * (small - elsewhere).abs().mean()


def drop_a_word(record):
    return record["text"].split()[torch.randint(2, ()).item()]


def cut_a_corner(pixels):
    pixels = pixels.copy()
    pixels[: int(torch.randint(SIZE, ())), : np.random.randint(SIZE)] = 0
    return pixels


def student_outputs(logits, pooled=None, present=None, states=None):
    count = len(logits)
    pooled = torch.ones(count, 2) if pooled is None else pooled
    features = TowerFeatures(present=present, text_states=states,
                             text_mask=None if states is None else torch.ones(states.shape[:2], dtype=torch.bool))
    encoded = SimpleNamespace(present=torch.ones(count, 2, dtype=torch.bool) if present is None else present,
                              pooled=pooled, modality_pooled=torch.stack([pooled, pooled], dim=1), features=features)
    return SimpleNamespace(encoder_logits=logits, encoded=encoded)


def teacher_of(logits, pooled=None, states=None):
    pooled = torch.ones(len(logits), 3, 2) if pooled is None else pooled
    mask = None if states is None else torch.ones(states.shape[:2], dtype=torch.bool)
    return TeacherOutputs(logits, pooled, pooled[:, :2], states, mask)


def test_the_loss_is_zero_where_both_say_the_same_and_divergence_elsewhere():
    logits = torch.randn(4, 9, generator=torch.Generator().manual_seed(0))
    settings = DistillationSettings("x", temperature=2.0, pooled=0.0)
    loss = DistillationLoss(ATTRIBUTES, settings)
    same = loss(student_outputs(logits), teacher_of(logits[:, None].expand(-1, 3, -1)))
    assert same.total.item() == pytest.approx(0.0, abs=1e-5) and same.count.item() == 4
    other = torch.zeros(4, 9)
    wanted, single = 0.0, [[0, 1, 6], [2, 3, 7]]
    for columns in single:
        teacher = (logits[:, columns] / 2).softmax(1)
        wanted += (teacher * (teacher.log() + np.log(3))).sum(1)
    p = (logits[:, 4:6] / 2).sigmoid()
    wanted += (p * (2 * p).log() + (1 - p) * (2 * (1 - p)).log()).sum(1)
    found = loss(student_outputs(other), teacher_of(logits[:, None].expand(-1, 3, -1)))
    assert found.total.item() == pytest.approx(4 * wanted.sum().item() / 3, rel=1e-4)


def test_a_student_is_held_to_what_the_teacher_says_by_the_same_sight():
    logits = torch.stack([torch.full((3, 9), float(place)) for place in range(3)], dim=1)
    logits[:, :, 0] += torch.tensor([0.0, 3.0, 6.0])
    present = torch.tensor([[True, True], [True, False], [False, True]])
    student = torch.stack([logits[0, place] for place in range(3)])
    loss = DistillationLoss(ATTRIBUTES, DistillationSettings("x", pooled=0.0))
    right = loss(student_outputs(student, present=present), teacher_of(logits)).total.item()
    assert right == pytest.approx(0, abs=1e-5)
    swapped = loss(student_outputs(student.flip(0), present=present), teacher_of(logits)).total.item()
    assert swapped > 0.5


def test_vectors_and_states_are_compared_at_the_students_width():
    draw = torch.Generator().manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(6, 6, generator=draw))
    plane = torch.randn(40, 2, generator=draw) @ basis[:2]
    axes = principal_axes(plane, 2)
    torch.testing.assert_close(plane @ axes @ axes.T, plane, rtol=1e-4, atol=1e-4)
    assert principal_axes(plane, 6) is None
    with pytest.raises(ValueError, match="wider"):
        principal_axes(plane, 7)
    settings = DistillationSettings("x", logits=0.0, pooled=1.0, hidden=1.0, labels=0.0)
    loss = DistillationLoss(ATTRIBUTES, settings, axes, axes)
    teacher = teacher_of(torch.zeros(3, 3, 9), plane[:3, None].expand(-1, 3, -1), plane[:12].view(3, 4, 6))
    student = student_outputs(torch.zeros(3, 9), plane[:3] @ axes, states=(plane[:12] @ axes).view(3, 4, 2))
    assert loss(student, teacher).total.item() == pytest.approx(0.0, abs=1e-4)
    turned = student_outputs(torch.zeros(3, 9), -(plane[:3] @ axes), states=torch.zeros(3, 4, 2))
    # 1 - cosine is 2, of the fused vector and of the two modalities; states of nothing are off by all of their size.
    assert loss(turned, teacher).total.item() == pytest.approx(3 * (2 + 2 + 1), rel=1e-3)


@pytest.mark.parametrize("given", [{"temperature": 0.0}, {"logits": -1.0}, {"views": 0},
                                   {"logits": 0.0, "pooled": 0.0, "labels": 0.0}])  # fmt: skip
def test_settings_that_teach_nothing_are_refused(given):
    with pytest.raises(ValueError):
        DistillationSettings("x", **given)
