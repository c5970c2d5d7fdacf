import math

import pytest
import torch
from timm.loss import AsymmetricLossMultiLabel
from torch.nn.functional import binary_cross_entropy_with_logits, log_softmax

from hf_tagger.training.losses import SequenceLoss, TaggingLoss
from hf_tagger.training.settings import LossSettings

COLOUR = {"name": "colour", "kind": "single", "tags": ["Black", "White", "Red"], "counts": [90, 9, 1], "none_count": 10}
USAGE = {"name": "usage", "kind": "multi", "tags": ["Sports", "Party", "Office", "Home"], "counts": [60, 30, 10, 2]}
ATTRIBUTES = [COLOUR, USAGE]


def random_batch(rows=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tag_logits = torch.randn(rows, 7, generator=generator).mul(3).requires_grad_()
    none_logits = torch.randn(rows, 2, generator=generator).requires_grad_()
    labels = torch.zeros(rows, 7)
    labels[torch.arange(rows), torch.randint(0, 3, (rows,), generator=generator)] = 1
    labels[1, :3] = 0  # none applies
    labels[:, 3:] = (torch.rand(rows, 4, generator=generator) < 0.4).float()
    labels[2, 3:] = 0
    return tag_logits, none_logits, labels


def single_loss(settings, logits, labels, attribute=COLOUR):
    """Loss of one product of one `single` attribute: logits of the tags and none, in this order."""
    tags, none = torch.tensor([logits[:-1]]), torch.tensor([logits[-1:]])
    return TaggingLoss([attribute], settings)(tags, none, torch.tensor([labels], dtype=torch.float)).total.item()


def multi_loss(settings, logits, labels):
    return TaggingLoss([USAGE], settings)(logits, torch.zeros(len(logits), 1), labels).total


def test_a_given_tag_and_none_are_classes_of_one_softmax():
    log_probabilities = log_softmax(torch.tensor([1.0, -1.0, 0.5, 2.0]), 0)
    for place, labels in ((2, [0, 0, 1]), (3, [0, 0, 0])):
        loss = single_loss(LossSettings(logit_adjustment_tau=0.0, label_smoothing=0.0), [1.0, -1.0, 0.5, 2.0], labels)
        assert loss == pytest.approx(-log_probabilities[place].item())


def test_label_smoothing_spreads_over_tags_and_none():
    log_probabilities = log_softmax(torch.tensor([1.0, -1.0, 0.5, 2.0]), 0)
    expected = -(0.8 * log_probabilities[0] + 0.2 * log_probabilities.mean())
    loss = single_loss(LossSettings(logit_adjustment_tau=0.0, label_smoothing=0.2), [1.0, -1.0, 0.5, 2.0], [1, 0, 0])
    assert loss == pytest.approx(expected.item())


@pytest.mark.parametrize("tau", [0.3, 1.0])
def test_logit_adjustment_weighs_each_tag_by_a_power_of_its_frequency(tau):
    logits, frequencies = [1.0, -1.0, 0.5, 2.0], [90, 9, 1, 10]
    weights = [n**tau * math.exp(z) for n, z in zip(frequencies, logits, strict=True)]
    for tag, labels in enumerate([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]):
        expected = -math.log(weights[tag] / sum(weights))
        settings = LossSettings(logit_adjustment_tau=tau, label_smoothing=0.0)
        assert single_loss(settings, logits, labels) == pytest.approx(expected)


def test_logit_adjustment_holds_down_a_none_that_never_occurs():
    never = COLOUR | {"none_count": 0}
    tags, none = torch.zeros(1, 3), torch.zeros(1, 1, requires_grad=True)
    for tau in (0.0, 1.0):
        loss = TaggingLoss([never], LossSettings(logit_adjustment_tau=tau))
        loss(tags, none, torch.tensor([[0.0, 1, 0]])).total.backward()
    both_gradients = none.grad.item()
    assert both_gradients > 2 * 0.25  # 0.25 from the plain loss, more from the balanced one


def test_asymmetric_loss_equals_timm():
    logits, _, labels = random_batch()
    settings = LossSettings(gamma_negative=4, gamma_positive=1, margin=0.05)
    mean_of_rows = AsymmetricLossMultiLabel(gamma_neg=4, gamma_pos=1, clip=0.05)(logits[:, 3:], labels[:, 3:])
    loss = multi_loss(settings, logits[:, 3:], labels[:, 3:])
    assert loss.item() / len(logits) == pytest.approx(mean_of_rows.item(), rel=1e-5)


def test_asymmetric_loss_without_focusing_or_margin_is_bce_even_far_out():
    logits, labels = torch.tensor([[60.0, -60.0, 3.0, -3.0]], requires_grad=True), torch.tensor([[0.0, 1.0, 1.0, 0.0]])
    loss = multi_loss(LossSettings(gamma_negative=0, margin=0.0), logits, labels)
    loss.backward()
    assert loss.item() == pytest.approx(binary_cross_entropy_with_logits(logits, labels, reduction="sum").item())
    assert logits.grad.isfinite().all() and logits.grad[0, 0] == pytest.approx(1.0)


def test_unknown_labels_have_no_loss_and_exactly_no_gradient():
    loss = TaggingLoss(ATTRIBUTES, LossSettings(logit_adjustment_tau=0.5, label_smoothing=0.1))
    tag_logits, none_logits, labels = random_batch()
    labels[0, :3] = -100  # colour unknown
    labels[3, 3:] = -100  # usage unknown
    labels[4] = -100  # everything unknown
    with torch.no_grad():
        tag_logits[4, 0], none_logits[4, 0], tag_logits[3, 5] = math.nan, math.inf, -math.inf
    result = loss(tag_logits, none_logits, labels)
    result.total.backward()
    assert result.count == 12 - 4 and result.total.isfinite()
    assert (tag_logits.grad[labels == -100] == 0).all() and (none_logits.grad[[0, 4]] == 0).all()
    assert (tag_logits.grad[1:3, :3] != 0).all() and tag_logits.grad[1, 3:].any()

    known = [(0, [USAGE], slice(3, 7), 1), (3, [COLOUR], slice(0, 3), 0)]
    partial = sum(
        TaggingLoss(attributes, loss.settings)(
            tag_logits[[row], columns], none_logits[[row]][:, [index]], labels[[row], columns]
        ).total
        for row, attributes, columns, index in known
    )
    rest = loss(tag_logits[[1, 2, 5]], none_logits[[1, 2, 5]], labels[[1, 2, 5]]).total
    assert result.total.item() == pytest.approx((partial + rest).item(), rel=1e-5)


def test_one_unknown_tag_of_a_multi_attribute_leaves_the_others():
    logits, labels = torch.randn(1, 4, requires_grad=True), torch.tensor([[1.0, -100, 0, 0]])
    loss = TaggingLoss([USAGE], LossSettings(gamma_negative=0, margin=0.0))(logits, torch.zeros(1, 1), labels)
    loss.total.backward()
    assert loss.count == 1
    assert logits.grad[0, 1] == 0 and (logits.grad[0, [0, 2, 3]] != 0).all()


def test_a_batch_with_nothing_known_gives_zero_with_a_graph():
    tag_logits, none_logits, labels = random_batch()
    result = TaggingLoss(ATTRIBUTES, LossSettings())(tag_logits, none_logits, torch.full_like(labels, -100))
    result.mean().backward()
    assert result.mean() == 0 and result.count == 0
    assert (tag_logits.grad == 0).all() and (none_logits.grad == 0).all()


def test_micro_batches_add_up_to_the_large_batch():
    loss = TaggingLoss(ATTRIBUTES, LossSettings(logit_adjustment_tau=0.5, label_smoothing=0.1))
    tag_logits, none_logits, labels = random_batch(rows=9)
    labels[[0, 1, 7], :3], labels[8] = -100, -100
    (whole,) = torch.autograd.grad(loss(tag_logits, none_logits, labels).mean(), tag_logits)
    normaliser = loss.count(labels)
    parts = [slice(0, 2), slice(2, 8), slice(8, 9)]
    for part in parts:
        (loss(tag_logits[part], none_logits[part], labels[part]).total / normaliser).backward()
    torch.testing.assert_close(tag_logits.grad, whole)
    assert sum(loss.count(labels[part]) for part in parts) == normaliser


def test_losses_are_float32_under_autocast():
    loss = TaggingLoss(ATTRIBUTES, LossSettings(logit_adjustment_tau=0.5))
    tag_logits, none_logits, labels = random_batch()
    tag_logits, none_logits = tag_logits.detach().bfloat16(), none_logits.detach().bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = loss(tag_logits, none_logits, labels).total
    assert mixed.dtype == torch.float32
    assert mixed.item() == loss(tag_logits.float(), none_logits.float(), labels).total.item()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label_smoothing": 1.0}, "loss.label_smoothing"),
        ({"logit_adjustment_tau": 1.5}, "loss.logit_adjustment_tau"),
        ({"gamma_positive": 0.5}, "loss.gamma_positive must be 0 or at least 1"),
        ({"margin": 1.0}, "loss.margin"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        LossSettings(**settings)


def test_logit_adjustment_needs_counts():
    without = [{key: COLOUR[key] for key in ("name", "kind", "tags")}]
    TaggingLoss(without, LossSettings(logit_adjustment_tau=0.0))
    with pytest.raises(ValueError, match="'colour' has no training counts"):
        TaggingLoss(without)


def test_prompts_padding_and_products_without_targets_count_nothing_in_the_decoders_loss():
    torch.manual_seed(0)
    logits = torch.randn(3, 4, 10, requires_grad=True)
    # Ids from 8 on are prompts; the second product has no targets.
    labels = torch.tensor([[8, 5, 3, -100], [-100] * 4, [9, 8, 6, 3]])
    loss = SequenceLoss(first_control_id=8)
    total, count = loss(logits, labels)
    rows, places = torch.tensor([0, 0, 2, 2]), torch.tensor([1, 2, 2, 3])
    expected = -log_softmax(logits, -1)[rows, places, torch.tensor([5, 3, 6, 3])].sum()
    torch.testing.assert_close(total, expected)
    assert int(count) == int(loss.count(labels)) == 4
    total.backward()
    touched = logits.grad.abs().sum(-1) > 0
    assert touched.nonzero().tolist() == torch.stack([rows, places], 1).tolist()


def test_a_batch_without_any_target_has_a_loss_of_zero_with_a_graph():
    logits = torch.randn(2, 3, 10, requires_grad=True)
    total, count = SequenceLoss(8, label_smoothing=0.1)(logits, torch.full((2, 3), -100))
    total.backward()
    assert float(total) == 0 and int(count) == 0 and not logits.grad.any()


def test_smoothing_of_the_decoders_loss_is_spread_over_its_vocabulary():
    logits, labels = torch.zeros(1, 1, 10), torch.tensor([[5]])
    logits[..., 5] = 4.0
    plain, smooth = (SequenceLoss(8, label_smoothing=share)(logits, labels).total for share in (0.0, 0.1))
    spread = -log_softmax(logits[0, 0], -1).mean()
    torch.testing.assert_close(smooth, 0.9 * plain + 0.1 * spread)
