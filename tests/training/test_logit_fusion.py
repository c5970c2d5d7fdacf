"""How far each source is trusted, learned from products that it has not seen."""

import pytest
import torch

from hf_tagger.catalog.batching.collate import UNKNOWN
from hf_tagger.training.heads.logit_fusion import SourceRows, fit_logit_fusion, text_decides, thinned
from hf_tagger.training.settings import LogitFusionSettings
from tests.model.test_logit_fusion import ATTRIBUTES, fusion

ROWS = 300


def rows(seed=0, size=3.0, named=None, batch=100):
    """Products whose tag head is noise and whose words are right, or the other way round where a tag is not `named`
    (share of products; None: always)."""
    generator = torch.Generator().manual_seed(seed)
    made, _ = fusion()
    for _ in range(ROWS // batch):
        colour = torch.randint(0, 3, (batch,), generator=generator)
        features = torch.rand(batch, 3, generator=generator).round()
        category = torch.randint(0, 2, (batch,), generator=generator)
        right = torch.full((batch, 9), 0.0)
        for columns, place in (([0, 1, 6], colour), ([5, 8], category)):
            right[torch.arange(batch), torch.tensor(columns)[place]] = size
        right[:, 2:5] = size * (2 * features - 1)
        noise = 2 * torch.randn(batch, 9, generator=generator)
        says = torch.ones(batch, dtype=torch.bool)
        if named is not None:
            says = torch.rand(batch, generator=generator) < named
        words = torch.where(says[:, None], right, noise)
        tag_head = torch.where(says[:, None], noise, right)
        labels = torch.cat([torch.nn.functional.one_hot(colour, 3)[:, :2], features, 1 - category[:, None]], 1).float()
        state = made.features(says[:, None] & torch.tensor([True, False, True]), torch.ones(batch).bool())
        yield torch.stack([tag_head, words], dim=1), state, labels


def fitted(data, **settings):
    made, candidates = fusion()
    told = [part if isinstance(part, SourceRows) else SourceRows(*part) for part in data]
    report = fit_logit_fusion(made, ATTRIBUTES, candidates, told, LogitFusionSettings(**settings))
    return made, candidates, report


def trust(made):
    """[A, S, F]."""
    return made.weights.weight.detach().view(3, 2, 6)


def test_the_source_that_is_right_is_trusted_and_the_other_is_not():
    made, _, report = fitted(rows())
    assert report["loss_after"] < 0.6 * report["loss_before"]
    weights = trust(made)
    for attribute, state in ((0, 4), (1, 2), (2, 4)):
        assert weights[attribute, 1, state] > 3 * weights[attribute, 0, state].clamp(min=0)


def test_trust_depends_on_what_the_text_names():
    made, candidates, _ = fitted(rows(named=0.5))
    weights = trust(made)
    assert weights[0, 1, 4] > weights[0, 0, 4] and weights[0, 0, 0] > weights[0, 1, 0]
    right = total = 0
    for sources, state, labels in rows(seed=1, named=0.5):
        logits = made(sources, state, candidates)[:, [0, 1, 6]]
        known = torch.where(labels[:, :2].any(1), labels[:, :2].argmax(1), 2)
        right, total = right + int((logits.argmax(1) == known).sum()), total + len(labels)
    assert right / total > 0.95


@torch.no_grad()
def test_the_reported_loss_is_what_the_fused_logits_cost():
    made, candidates, report = fitted(rows(), class_weight_power=0.0, l2=0.0)
    sources, state, labels = (torch.cat(part) for part in zip(*rows(), strict=True))

    def loss(model):
        logits = model(sources, state, candidates)
        colour = torch.where(labels[:, :2].any(1), labels[:, :2].argmax(1), 2)
        total = torch.nn.functional.cross_entropy(logits[:, [0, 1, 6]], colour)
        total += torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 2:5], labels[:, 2:5])
        return float(total + torch.nn.functional.cross_entropy(logits[:, [5, 8]], (labels[:, 5] == 0).long())) / 3

    assert report["loss_before"] == pytest.approx(loss(fusion()[0]), rel=1e-4)
    assert report["loss_after"] == pytest.approx(loss(made), rel=1e-4)
    # At a minimum: no small step is better.
    for _ in range(5):
        moved, _ = fusion()
        moved.weights.weight.copy_(made.weights.weight + 0.02 * torch.randn_like(made.weights.weight))
        assert loss(moved) > report["loss_after"] - 1e-5


def test_states_that_never_occur_keep_their_trust():
    made, _, _ = fitted(rows())
    start = trust(fusion()[0])
    assert torch.equal(trust(made)[0, :, :4], start[0, :, :4]) and torch.equal(trust(made)[:, :, 5], start[:, :, 5])
    assert not torch.equal(trust(made)[0, :, 4], start[0, :, 4])


def test_unknown_labels_weigh_nothing():
    def halved():
        for sources, state, labels in rows():
            yield sources, state, labels.clone()
            labels = labels.clone()
            labels[:, :2] = UNKNOWN
            yield -sources, state, labels

    expected, found = (trust(fitted(data)[0])[0] for data in (rows(), halved()))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)

    def nothing_known():
        for sources, state, labels in rows():
            yield sources, state, torch.full_like(labels, UNKNOWN)

    made, _, report = fitted(nothing_known())
    assert torch.equal(trust(made), trust(fusion()[0])) and report["loss_before"] == report["loss_after"] == 0


def test_a_strong_pull_keeps_trust_equal():
    made, _, _ = fitted(rows(), l2=1e4)
    torch.testing.assert_close(trust(made), trust(fusion()[0]), atol=1e-3, rtol=0)


def test_rare_classes_count_more_with_class_weights():
    def mostly_red():
        """The tag head says red always, the words are right; nine in ten are red."""
        for sources, state, labels in rows():
            red = torch.arange(len(labels)) % 10 > 0
            labels[:, 0], labels[:, 1] = red.float(), (~red).float()
            sources[:, 0, [0, 1, 6]] = torch.tensor([3.0, 0.0, 0.0])
            sources[:, 1, [0, 1, 6]] = torch.stack([red, ~red, torch.zeros_like(red)], 1) * 0.5
            yield sources, state, labels

    even, weighed = (trust(fitted(mostly_red(), class_weight_power=power)[0])[0, :, 4] for power in (0.0, 1.0))
    assert weighed[0] < even[0], "what names the common class alone is trusted less"


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_batches_change_nothing(power):
    whole = [tuple(torch.cat(part) for part in zip(*rows(), strict=True))]
    one, many = (trust(fitted(data, class_weight_power=power)[0]) for data in (rows(), whole))
    torch.testing.assert_close(one, many, rtol=1e-3, atol=1e-3)


def test_without_products_nothing_is_fitted():
    made, _, report = fitted([])
    assert report == {} and torch.equal(trust(made), trust(fusion()[0]))


@pytest.mark.parametrize("folds", [1, -2])
def test_one_fold_leaves_nothing_to_fit_on(folds):
    with pytest.raises(ValueError, match=f"logit_fusion.folds takes 0 or at least 2, got {folds}"):
        LogitFusionSettings(folds=folds)


def test_products_without_the_words_of_their_tags_weigh_less():
    def both(**settings):
        """Of whole products the words are right, of masked ones the tag head."""
        data = [SourceRows(*part) for part in rows()]
        data += [SourceRows(sources.flip(1), state, labels, "words") for sources, state, labels in rows(seed=1)]
        return trust(fitted(data, **settings)[0])[0, :, 4]

    equal, less, whole = (both(masked_weight=weight) for weight in (1.0, 0.25, 0.0))
    assert equal[1] / equal[0] < less[1] / less[0] < whole[1] / whole[0].clamp(min=1e-6)


def test_the_text_decides_where_the_photo_confuses_by_more_than_chance():
    def seen(noise, seed):
        """Products with text and photo, whose tag head the photo confuses in the first attribute, and their texts."""
        generator = torch.Generator().manual_seed(seed)
        for number, (sources, state, labels) in enumerate(rows()):
            ids, both = [f"{number} {row}" for row in range(len(labels))], sources.clone()
            both[:, 1, [0, 1, 6]] += noise * torch.randn(len(labels), 3, generator=generator)
            yield SourceRows(both, state, labels, "", ids)
            yield SourceRows(sources, state, labels, "image", ids)

    def decided(data):
        made, candidates, _ = fitted(rows())
        return text_decides(made, ATTRIBUTES, candidates, data, LogitFusionSettings())

    first = [part for number, part in enumerate(seen(4.0, 0)) if number < 2]
    (name,) = found = decided(first)
    both, alone = found[name]
    assert name == ATTRIBUTES[0]["name"] and both > 2 * alone
    assert decided([part for number, part in enumerate(seen(0.0, 0)) if number < 2]) == {}
    assert decided(first[:1]) == decided([]) == {}, "there is nothing to compare"


def test_beyond_the_memory_products_are_left_out_in_all_views():
    def rows():
        for start in range(0, 400, 50):
            for hidden in ("", "image"):
                place = torch.arange(start, start + 50).float()
                yield SourceRows(place[:, None, None].expand(-1, 2, 4), place[:, None, None], place[:, None], hidden,
                                 [f"p{int(row)}" for row in place], [{"row": row} for row in place.tolist()])

    kept, one_in = thinned(rows())
    assert one_in == 1 and [part.hidden for part in kept] == ["", "image"] * 8
    kept, one_in = thinned(rows(), most=2 * 4 * 800 // 3)
    assert one_in == 4
    seen = [[item for part in kept if part.hidden == hidden for item in part.ids] for hidden in ("", "image")]
    assert seen[0] == seen[1] and 60 < len(seen[0]) < 140
    assert all(part.labels[:, 0].tolist() == [tags["row"] for tags in part.tags] for part in kept)
