"""The kernel head against plain numpy: blocks, cosines, kernels, modes. Its fit: tests/training/test_kernel.py."""

import numpy as np
import pytest
import torch

from hf_tagger.model.configuration_tagger import RecurrentTextConfig, TaggerConfig
from hf_tagger.model.kernel_head import LOGIT_SCALE, KernelHead, feature_blocks, in_mode, kernel_modes

TEXT, FINAL, STAGE, GRID, HISTOGRAM = 8, 12, 6, 4, 10
WIDTHS = {"text": TEXT, "image": FINAL + 3 * STAGE + GRID + HISTOGRAM, "grid": GRID, "histogram": HISTOGRAM}
STAGES = [STAGE, STAGE, STAGE]
ATTRIBUTES = [
    {"name": "type", "kind": "single", "tags": ["Shirt", "Bag", "Mug"]},
    {"name": "features", "kind": "multi", "tags": ["Soft", "Striped"]},
]
WEIGHTS = {"text": 1.0, "final": 0.5, "late": 2.0, "grid": 0.3}
BOTH, PHOTO_ONLY, TEXT_ONLY = [True, True], [False, True], [True, False]
ATTRIBUTE_OF = [0, 0, 0, 1, 1, 0, 1]  # of each candidate
WIDTH, COUNT, DIM = 0.7, 5, 6


def config(text=True, image=True, weights=WEIGHTS):
    return TaggerConfig(
        attributes=ATTRIBUTES,
        text_config=RecurrentTextConfig(vocab_size=10, hidden_size=TEXT) if text else None,
        vision_config={"model_type": "timm_wrapper", "architecture": "resnet18"} if image else None,
        kernel_landmarks=COUNT, kernel_dim=DIM, kernel_width=WIDTH, kernel_weights=weights,
    )  # fmt: skip


def kernel_head(text=True, image=True, weights=WEIGHTS):
    """With random landmarks and coefficients."""
    widths = WIDTHS | ({} if text else {"text": 0}) | ({} if image else {"image": 0})
    head = KernelHead(config(text, image, weights), feature_blocks(widths, STAGES))
    torch.manual_seed(0)
    for name, buffer in head.named_buffers():
        if buffer.is_floating_point():
            buffer.normal_()
            if name.startswith("std_"):
                buffer.abs_().add_(0.5)
    return head


def products(rows=4):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(rows, TEXT, generator=generator), torch.randn(rows, WIDTHS["image"], generator=generator)


def expected_logits(head, text, image, mode):
    """Of one product in one mode: loops over landmarks and blocks."""
    table = {name: buffer.double().numpy() for name, buffer in head.named_buffers()}
    reads = {"both": ("text", "image"), "image": ("image",), "text": ("text",)}[mode]
    coefficients = table[f"coefficients_{mode}"]
    answers = np.zeros(coefficients.shape[1])
    for landmark, row in enumerate(coefficients):
        similarity = total = 0.0
        start = {"text": 0, "image": 0}
        for name, weight in head.weights.items():
            modality, columns = head.blocks[name]
            if modality not in reads:
                continue
            block = (text if modality == "text" else image)[columns]
            block = np.clip((block - table[f"mean_{name}"]) / table[f"std_{name}"], -4, 4)
            block = weight * block / np.linalg.norm(block) @ table[f"axes_{name}"]
            key = table[f"keys_{modality}"][landmark % COUNT if modality == "image" else landmark]
            similarity += block @ key[start[modality]: start[modality] + len(block)]
            start[modality] += len(block)
            total += weight**2
        answers += (np.exp(similarity / total / WIDTH) - 1) / np.exp(1 / WIDTH) * row
    return LOGIT_SCALE * (answers + table["offset"])


@pytest.mark.parametrize(("text", "image", "present", "mode"), [
    (True, True, BOTH, "both"),
    (True, True, PHOTO_ONLY, "image"),
    (False, True, PHOTO_ONLY, "image"),
    (True, False, TEXT_ONLY, "text"),
])  # fmt: skip
def test_logits_equal_a_plain_reference(text, image, present, mode):
    head = kernel_head(text, image)
    texts, images = products()
    found = head(texts if text else None, images if image else None, torch.tensor([present] * 4))
    expected = [expected_logits(head, one, other, mode) for one, other in
                zip(texts.double().numpy(), images.double().numpy(), strict=True)]
    np.testing.assert_allclose(found.numpy(), np.stack(expected), rtol=1e-3, atol=1e-3)


def test_blocks_cover_every_feature_once_in_the_order_of_the_towers():
    blocks = feature_blocks(WIDTHS, STAGES)
    assert list(blocks) == ["text", "final", "early", "late", "grid", "histogram"]
    columns = [column for modality, where in blocks.values() if modality == "image"
               for column in range(where.start, where.stop)]
    assert columns == list(range(WIDTHS["image"])) and blocks["text"] == ("text", slice(0, TEXT))
    assert blocks["early"][1] == slice(FINAL, FINAL + 2 * STAGE), "of three stages, the first two are early"


def test_what_the_towers_do_not_give_is_no_block():
    plain = {"text": 0, "image": FINAL, "grid": 0, "histogram": 0}
    assert feature_blocks(plain, []) == {"final": ("image", slice(0, FINAL))}
    assert feature_blocks(plain | {"text": TEXT, "image": 0}, []) == {"text": ("text", slice(0, TEXT))}


@pytest.mark.parametrize(("text", "image", "modes"), [
    (True, True, ["both", "image"]), (False, True, ["image"]), (True, False, ["text"]),
])  # fmt: skip
def test_a_model_answers_in_the_modes_of_its_towers(text, image, modes):
    assert kernel_modes(config(text, image)) == modes
    assert [name.removeprefix("coefficients_") for name, _ in kernel_head(text, image).named_buffers()
            if name.startswith("coefficients_")] == modes


def test_each_product_is_in_one_mode():
    present = torch.tensor([BOTH, PHOTO_ONLY, TEXT_ONLY, [False, False]])
    assert [in_mode(present, mode).tolist() for mode in ("both", "image", "text")] == [
        [True, False, False, False], [False, True, False, False], [False, False, True, False]]


def test_products_of_all_modes_in_one_batch_score_as_alone_and_without_a_photo_zero():
    head = kernel_head()
    text, image = products()
    present = torch.tensor([BOTH, PHOTO_ONLY, TEXT_ONLY, [False, False]])
    together = head(text, image, present)
    torch.testing.assert_close(together[:1], head(text[:1], image[:1], present[:1]))
    torch.testing.assert_close(together[1:2], head(None, image[1:2], present[1:2]))
    assert together[:2].abs().min() > 0 and not together[2:].any()
    assert not head(text, None, torch.tensor([TEXT_ONLY] * 4)).any()


def test_what_stands_in_for_an_absent_text_does_not_matter():
    head = kernel_head()
    text, image = products()
    present = torch.tensor([PHOTO_ONLY] * 4)
    assert torch.equal(head(text, image, present), head(100 * text, image, present))


def test_a_product_like_no_landmark_gets_the_offset():
    """The kernel has no constant part: similarity 0 adds nothing."""
    head = kernel_head()
    for name, buffer in head.named_buffers():
        if name.startswith("keys_"):
            buffer.zero_()
    found = head(*products(), torch.tensor([BOTH] * 4))
    torch.testing.assert_close(found, (LOGIT_SCALE * head.offset).expand(4, -1))


def test_autocast_is_left_out():
    head, present = kernel_head(), torch.tensor([BOTH] * 4)
    text, image = products()
    plain = head(text, image, present)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(head(text, image, present), plain)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_a_head_in_half_precision_computes_in_single(half):
    head, present = kernel_head(), torch.tensor([BOTH] * 4)
    text, image = products()
    expected = head(text, image, present)
    for features in ((text, image), (text.to(half), image.to(half))):
        found = head.to(half)(*features, present)
        assert found.dtype == torch.float32
        assert (found - expected).norm() < 0.05 * expected.norm()


def test_new_tags_have_no_landmark_and_the_typical_offset_and_move_no_other_score():
    head, present = kernel_head(), torch.tensor([BOTH, PHOTO_ONLY, BOTH, PHOTO_ONLY])
    text, image = products()
    before = head(text, image, present)
    order = torch.tensor([0, 1, 2, -1, 3, 4, -1, 5, 6])
    offset = head.offset
    head.grow(order, torch.tensor(ATTRIBUTE_OF), torch.tensor([0, 0, 0, 0, 1, 1, 1, 0, 1]))
    after = head(text, image, present)
    torch.testing.assert_close(after[:, order >= 0], before)
    typical = torch.stack([offset[:3].mean(), offset[3:5].mean()])  # of the tags, each attribute's none left out
    torch.testing.assert_close(after[:, order < 0], (LOGIT_SCALE * typical).expand(4, -1))


@pytest.mark.parametrize("weights", [{}, {"colour": 1.0}, {"grid": 1.0}, {"text": 0.0}])
def test_weights_of_no_block_of_the_model_are_refused(weights):
    widths = WIDTHS | {"grid": 0}
    with pytest.raises(ValueError, match=r"kernel_weights must weigh some of this model's blocks of features \(text, "):
        KernelHead(config(weights=weights), feature_blocks(widths, STAGES))


def test_blocks_that_the_model_does_not_have_are_left_out():
    assert kernel_head(image=False).weights == {"text": 1.0}
