"""Kernel ridge regression on training products, against direct solutions in numpy."""

import numpy as np
import pytest
import torch

from hf_tagger.catalog.batching.collate import UNKNOWN
from hf_tagger.catalog.batching.tag_labels import TagLabels
from hf_tagger.model.configuration_tagger import RecurrentTextConfig, TaggerConfig
from hf_tagger.model.kernel_head import LOGIT_SCALE, KernelHead, feature_blocks
from hf_tagger.training.heads.kernel import KernelRows, column_groups, fit_kernel_head, targets_of, weights_of
from hf_tagger.training.settings import KernelSettings

TEXT, FINAL, STAGE, HISTOGRAM = 8, 12, 6, 10
WIDTHS = {"text": TEXT, "image": FINAL + 2 * STAGE + HISTOGRAM, "grid": 0, "histogram": HISTOGRAM}
ATTRIBUTES = [
    {"name": "type", "kind": "single", "tags": ["Shirt", "Bag", "Mug"]},
    {"name": "season", "kind": "single", "tags": ["Summer", "Winter"]},
    {"name": "features", "kind": "multi", "tags": ["Soft", "Striped"]},
]
TYPES, SEASONS, FEATURES, NONES = [0, 1, 2], [3, 4], [5, 6], [7, 8, 9]
BOTH, PHOTO_ONLY, TEXT_ONLY = [True, True], [False, True], [True, False]
WEIGHTS = {"text": 1.0, "final": 0.7, "histogram": 0.4}


def catalogue(rows=60, seed=0):
    """Products in three clusters, seen in text and photo; type is the cluster, season unknown for every third, none
    for every cluster-2 product that is left. Every fourth has no word but those of its tags."""
    generator = torch.Generator().manual_seed(seed)
    cluster = torch.arange(rows) % 3
    centres = torch.randn(3, TEXT + WIDTHS["image"], generator=torch.Generator().manual_seed(99)) * 3
    features = centres[cluster] + torch.randn(rows, centres.shape[1], generator=generator)
    masked = 0.5 * features[:, :TEXT] + torch.randn(rows, TEXT, generator=generator)
    labels = torch.zeros(rows, 7)
    labels[torch.arange(rows), cluster] = 1
    labels[:, 3], labels[:, 4] = (cluster == 0).float(), (cluster == 1).float()
    labels[torch.arange(rows) % 3 == torch.arange(rows) // 3 % 3, 3:5] = UNKNOWN
    labels[:, 5] = (cluster == 2).float()
    return KernelRows(features[:, :TEXT], masked, torch.arange(rows) % 4 > 0, features[:, TEXT:], labels), cluster


def fitted(rows, count=60, text=True, image=True, codes=None, **options):
    """(head, settings, report)"""
    settings = KernelSettings(**{"landmarks": count, "dim": 64, "logit_adjustment_tau": 0.0} | options)
    config = TaggerConfig(
        attributes=ATTRIBUTES,
        text_config=RecurrentTextConfig(vocab_size=10, hidden_size=TEXT) if text else None,
        vision_config={"model_type": "timm_wrapper", "architecture": "resnet18"} if image else None,
        kernel_landmarks=count, kernel_dim=settings.dim, kernel_width=settings.width, kernel_weights=settings.weights,
        tag_codes=codes)  # fmt: skip
    widths = WIDTHS | ({} if text else {"text": 0}) | ({} if image else {"image": 0})
    head = KernelHead(config, feature_blocks(widths, [STAGE, STAGE]))
    report = fit_kernel_head(head, ATTRIBUTES, rows, settings)
    return head, settings, report


def without(rows, *names):
    return KernelRows(**{name: None if name in names else value for name, value in vars(rows).items()})


def answers(head, rows, present):
    return head(rows.text, rows.image, torch.tensor([present] * len(rows.labels)))


def similarities(head, kernel, rows, mode, masked_query=False):
    """Plain cosines of all products with all products, and in a second half of the columns with what is left of them
    without the words of their tags [N, N or 2N]."""
    parts, total = [], 0.0
    for name, weight in kernel.items():
        modality, columns = head.blocks[name]
        if modality == "text" and mode == "image":
            continue

        def unit(features, scale):
            block = features[:, columns].double().numpy()  # noqa: B023
            scale = scale[:, columns].double().numpy()  # noqa: B023
            block = np.clip((block - scale.mean(0)) / scale.std(0), -4, 4)
            return block / np.linalg.norm(block, axis=1, keepdims=True)

        if modality == "image":
            query = keys = unit(rows.image, rows.image)
            keys = keys if mode == "image" else np.concatenate([keys, keys])
        else:
            query = unit(rows.masked if masked_query else rows.text, rows.text)
            keys = np.concatenate([unit(rows.text, rows.text), unit(rows.masked, rows.text)])
        parts.append(weight**2 * query @ keys.T)
        total += weight**2
    return sum(parts) / total


def gram(head, kernel, rows, mode, width):
    """Kernel of all that is solved for with itself: products, and where there is text the masked ones."""
    def kernel_of(similarity):
        return (np.exp(similarity / width) - 1) / np.exp(1 / width)

    if mode == "image":
        return kernel_of(similarities(head, kernel, rows, mode))
    both = np.concatenate([similarities(head, kernel, rows, mode),
                           similarities(head, kernel, rows, mode, masked_query=True)])
    kept = np.concatenate([np.ones(len(rows.labels), bool), rows.has_masked.numpy()])
    return kernel_of(both[kept][:, kept])


def solved(matrix, rows, column, ridge, mode):
    """Direct solution of one tag's ridge system, and its mean; products weigh the same."""
    labels = rows.labels[:, column].double().numpy()
    known = labels != UNKNOWN
    mean = labels[known].mean()
    if mode == "both":
        labels = np.concatenate([labels, labels[rows.has_masked.numpy()]])
        known = labels != UNKNOWN
    system = matrix[known][:, known] + ridge * np.eye(known.sum())
    return np.linalg.solve(system, labels[known] - mean), known, mean


@pytest.mark.parametrize("column", [0, 3, 5])
@pytest.mark.parametrize(("mode", "present"), [("both", BOTH), ("image", PHOTO_ONLY)])
def test_scores_of_the_landmarks_are_those_of_the_direct_solution(column, mode, present):
    rows, _ = catalogue()
    head, settings, report = fitted(rows, weights=WEIGHTS, class_weight_power=0.0, ridge=0.05)
    assert report["landmarks"] == 60
    matrix = gram(head, WEIGHTS, rows, mode, settings.width)
    coefficients, known, mean = solved(matrix, rows, column, 0.05, mode)
    expected = LOGIT_SCALE * (matrix[:60, known] @ coefficients + mean - (0.5 if column in FEATURES else 0))
    np.testing.assert_allclose(answers(head, rows, present)[:, column].numpy(), expected, atol=2e-2)
    assert np.ptp(expected) > 3


def test_a_model_without_photos_and_one_without_texts_solve_the_same_system():
    rows, _ = catalogue()
    kernel = {"text": 1.0}
    head, settings, _ = fitted(without(rows, "image"), image=False, weights=kernel, class_weight_power=0.0)
    assert head.modes == ["text"]
    matrix = gram(head, kernel, rows, "both", settings.width)
    coefficients, known, mean = solved(matrix, rows, 0, settings.ridge, "both")
    expected = LOGIT_SCALE * (matrix[:60, known] @ coefficients + mean)
    found = head(rows.text, None, torch.tensor([TEXT_ONLY] * 60))[:, 0]
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-2)

    kernel = {"final": 1.0, "late": 0.5}
    head, settings, _ = fitted(without(rows, "text", "masked", "has_masked"), text=False, weights=kernel,
                               class_weight_power=0.0)
    assert head.modes == ["image"]
    matrix = gram(head, kernel, rows, "image", settings.width)
    coefficients, known, mean = solved(matrix, rows, 0, settings.ridge, "image")
    found = head(None, rows.image, torch.tensor([PHOTO_ONLY] * 60))[:, 0]
    np.testing.assert_allclose(found.numpy(), LOGIT_SCALE * (matrix[:, known] @ coefficients + mean), atol=2e-2)


def test_new_products_are_recognised_with_text_and_photo_and_by_photo_alone():
    head, _, _ = fitted(catalogue()[0])
    rows, cluster = catalogue(30, seed=1)
    for present in (BOTH, PHOTO_ONLY):
        logits = answers(head, rows, present)
        assert (logits[:, TYPES].argmax(1) == cluster).all()
        assert ((logits[:, 5] > 0) == (cluster == 2)).all() and (logits[:, 6] < 0).all()


def test_the_photo_counts_in_a_text_that_does_not_name_its_tags():
    """The words alone would explain every training product: the masked view makes the photo count beside them."""
    rows, cluster = catalogue()
    rows.text[:] = 4 * torch.eye(3, TEXT)[cluster]
    rows.masked[:] = torch.randn(60, TEXT, generator=torch.Generator().manual_seed(5))
    head, _, _ = fitted(rows)
    new, cluster = catalogue(30, seed=1)
    new.text[:] = torch.randn(30, TEXT, generator=torch.Generator().manual_seed(6))
    assert (answers(head, new, BOTH)[:, TYPES].argmax(1) == cluster).float().mean() > 0.9


def test_unknown_labels_have_no_part_in_it():
    rows, _ = catalogue()
    head, _, _ = fitted(rows)
    unknown = torch.cat([rows.labels[:, 3] == UNKNOWN, (rows.labels[:, 3] == UNKNOWN) & rows.has_masked])
    for season in (*SEASONS, NONES[1]):
        assert not head.coefficients_both[unknown][:, season].any()
        assert head.coefficients_both[:60][~unknown[:60]][:, season].any()


def test_a_product_whose_text_is_all_tags_has_no_masked_view():
    rows, _ = catalogue()
    head, _, _ = fitted(rows)
    masked = head.coefficients_both[60:]
    assert not masked[~rows.has_masked].any() and masked[rows.has_masked].any(1).all()


def test_a_none_that_never_occurs_is_never_answered():
    rows, _ = catalogue()
    logits = answers(fitted(rows)[0], rows, BOTH)
    assert (logits[:, NONES[0]] < -10).all() and (logits[:, NONES[1]] > -LOGIT_SCALE).all()


def test_of_more_products_than_landmarks_those_with_the_rarest_tags_are_kept():
    rows, _ = catalogue(59)
    rows.labels[:, :3] = torch.tensor([1.0, 0.0, 0.0])
    rows.labels[40, :3] = torch.tensor([0.0, 0.0, 1.0])
    rows.labels[12, :3] = torch.tensor([0.0, 1.0, 0.0])
    head, _, report = fitted(rows, count=10)
    assert report["landmarks"] == 10
    for rare in (40, 12):
        key = head.query("image", rows.image[rare:rare + 1])
        assert torch.isclose(head.keys_image, key, atol=1e-4).all(1).any()
    assert (answers(head, rows, BOTH)[[40, 12]][:, TYPES].argmax(1) == torch.tensor([2, 1])).all()


def test_scales_and_axes_are_of_all_products_not_of_the_landmarks_alone():
    rows, _ = catalogue()
    few, _, _ = fitted(rows, count=10)
    every, _, _ = fitted(rows)
    torch.testing.assert_close(few.mean_final, every.mean_final)
    torch.testing.assert_close(few.std_text, every.std_text)
    assert not torch.equal(few.mean_final, torch.zeros(FINAL))


def test_fewer_products_than_landmarks_leave_places_that_say_nothing():
    rows, _ = catalogue(20)
    exact, _, _ = fitted(rows, count=20)
    roomy, _, report = fitted(rows, count=50)
    assert report["landmarks"] == 20
    torch.testing.assert_close(answers(roomy, rows, BOTH), answers(exact, rows, BOTH), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(answers(roomy, rows, PHOTO_ONLY), answers(exact, rows, PHOTO_ONLY), rtol=1e-3,
                               atol=1e-3)


def test_common_tags_lose_what_the_prior_adjustment_takes():
    rows, _ = catalogue()
    rows.labels[:, :3] = torch.tensor([1.0, 0.0, 0.0])
    rows.labels[:6, :3] = torch.tensor([0.0, 1.0, 0.0])
    plain, _, _ = fitted(rows)
    adjusted, _, _ = fitted(rows, logit_adjustment_tau=0.5)
    taken = answers(plain, rows, BOTH) - answers(adjusted, rows, BOTH)
    for tag, share in ((0, 0.9), (1, 0.1)):
        torch.testing.assert_close(taken[:, tag], torch.full((60,), 0.5 * np.log(share)), rtol=1e-3, atol=1e-3)
    assert not taken[:, FEATURES].any()


def test_rare_tags_weigh_more_and_the_ridge_less():
    labels = torch.zeros(10, 7)
    labels[:8, 0] = labels[8:, 1] = 1
    labels[:, 3:5] = UNKNOWN
    candidates, weights = targets_of(labels, ATTRIBUTES), weights_of(labels, ATTRIBUTES, 1.0)
    # Type: 1/8 and 1/2, on average 1; season: unknown; features: all alike.
    common, rare = (1 / 8) / 0.2, (1 / 2) / 0.2
    torch.testing.assert_close(weights, torch.tensor([(common + 1) / 2] * 8 + [(rare + 1) / 2] * 2))
    assert candidates[0].tolist() == [1, 0, 0, -1, -1, 0, 0, 0, -1, 1]
    torch.testing.assert_close(weights_of(labels, ATTRIBUTES, 0.0), torch.ones(10))


def test_columns_known_for_the_same_rows_are_solved_together():
    known = torch.tensor([[True, True, False, False], [True, False, True, False], [True, True, False, False]])
    groups = {tuple(columns.tolist()): rows.tolist() for columns, rows in column_groups(known)}
    assert groups == {(0,): [0, 1, 2], (1,): [0, 2], (2,): [1]}
    assert [columns.tolist() for columns, _ in column_groups(torch.ones(3, 4, dtype=torch.bool))] == [[0, 1, 2, 3]]


def test_an_attribute_in_codes_is_answered_as_without_up_to_what_its_codes_have_in_common():
    rows, _ = catalogue()
    whole, _, _ = fitted(rows)
    coded, _, _ = fitted(rows, codes={"type": 4000})
    assert coded.coefficients_both.shape[1] == 10 - 4 + 4000
    with torch.no_grad():
        expected, found = answers(whole, rows, BOTH), answers(coded, rows, BOTH)
    torch.testing.assert_close(found[:, [3, 4, 5, 6, 8, 9]], expected[:, [3, 4, 5, 6, 8, 9]], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found[:, [0, 1, 2, 7]], expected[:, [0, 1, 2, 7]], rtol=0, atol=0.3)
    assert torch.equal(found[:, :3].argmax(1), expected[:, :3].argmax(1))
    order = torch.tensor([0, 1, 2, -1, *range(3, 10)])
    grown = torch.tensor([0] * 4 + [1] * 2 + [2] * 2 + [0, 1, 2])
    coded.grow(order, torch.tensor([0] * 3 + [1] * 2 + [2] * 2 + [0, 1, 2]), grown)
    with torch.no_grad():
        torch.testing.assert_close(answers(coded, rows, BOTH)[:, order >= 0], found)


def test_labels_kept_as_the_tags_that_are_given_are_fitted_alike():
    rows, _ = catalogue()
    kept = KernelRows(**vars(rows) | {"labels": TagLabels(ATTRIBUTES, [rows.labels.numpy()])})
    left, right = fitted(rows)[0].state_dict(), fitted(kept)[0].state_dict()
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_a_second_fit_remembers_nothing_of_the_first():
    rows, _ = catalogue(20)
    head, settings, _ = fitted(catalogue(60, seed=7)[0])
    fit_kernel_head(head, ATTRIBUTES, rows, settings)
    fresh, _, _ = fitted(rows)
    for name, tensor in fresh.state_dict().items():
        assert torch.equal(head.state_dict()[name], tensor), name


def test_a_block_that_does_not_exist_is_named():
    with pytest.raises(ValueError, match="no block 'colour'"):
        KernelSettings(weights={"colour": 1.0})


def test_an_empty_catalogue_is_no_error():
    rows, _ = catalogue(0)
    head, _, report = fitted(rows, count=5)
    assert report == {"landmarks": 0}
    assert not head(None, torch.randn(2, WIDTHS["image"]), torch.tensor([PHOTO_ONLY] * 2)).any()


def test_a_single_product_with_constant_features_is_no_error():
    rows, _ = catalogue(1)
    head, _, report = fitted(rows, count=5)
    assert report["landmarks"] == 1 and answers(head, rows, BOTH).isfinite().all()
