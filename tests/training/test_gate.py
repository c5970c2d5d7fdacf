import pytest
import torch

from hf_tagger.catalog.collate import UNKNOWN
from hf_tagger.training.gate import fit_gate
from hf_tagger.training.settings import GateSettings
from tests.model.test_tag_head import ATTRIBUTES, gate

ROWS = 300


def rows(seed=0, told=3.0, named=None, batch=100):
    """Products whose encoder is noise and whose words are right, or the other way round where a tag is not `named`."""
    generator = torch.Generator().manual_seed(seed)
    made, _ = gate()
    for _ in range(ROWS // batch):
        colour = torch.randint(0, 3, (batch,), generator=generator)
        features = torch.rand(batch, 3, generator=generator).round()
        category = torch.randint(0, 2, (batch,), generator=generator)
        right = torch.full((batch, 9), 0.0)
        for columns, place in (([0, 1, 6], colour), ([5, 8], category)):
            right[torch.arange(batch), torch.tensor(columns)[place]] = told
        right[:, 2:5] = told * (2 * features - 1)
        noise = 2 * torch.randn(batch, 9, generator=generator)
        says = torch.ones(batch, dtype=torch.bool)
        if named is not None:
            says = torch.rand(batch, generator=generator) < named
        words = torch.where(says[:, None], right, noise)
        encoder = torch.where(says[:, None], noise, right)
        labels = torch.cat([torch.nn.functional.one_hot(colour, 3)[:, :2], features, 1 - category[:, None]], 1).float()
        state = made.features(says[:, None] & torch.tensor([True, False, True]), torch.ones(batch).bool())
        yield torch.stack([encoder, words], dim=1), state, labels


def fitted(data, **settings):
    made, candidates = gate()
    report = fit_gate(made, ATTRIBUTES, candidates, data, GateSettings(**settings))
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


def test_attributes_with_few_products_follow_the_others_if_so_set():
    def few():
        for evidence, state, labels in rows():
            labels[2:, :2] = UNKNOWN  # two products per batch have their colour known, of the category none
            labels[:, 5] = UNKNOWN
            yield evidence, state, labels

    apart, _, _ = fitted(few())
    shared, _, _ = fitted(few(), shared=50.0)
    features = trust(shared)[1]
    assert torch.allclose(trust(shared)[0], features, atol=0.15) and not torch.allclose(
        trust(apart)[0], trust(apart)[1], atol=0.15)
    assert torch.allclose(trust(shared)[2], features, atol=0.15)
    assert (trust(apart)[2, :, 0] == 0.75).all()  # as it started


def test_rare_tags_count_as_their_attribute_says():
    alike, _, _ = fitted(rows(), balance=0.5)
    by_name, _, _ = fitted(rows(), balance={"category": 0.5, "colour": 0.5})
    other, _, _ = fitted(rows(), balance={"category": 0.5})
    assert torch.equal(trust(alike), trust(by_name)) and not torch.equal(trust(alike)[0], trust(other)[0])


def test_trust_depends_on_what_the_text_names():
    made, candidates, _ = fitted(rows(named=0.5))
    weights = trust(made)
    assert weights[0, 1, 4] > weights[0, 0, 4] and weights[0, 0, 0] > weights[0, 1, 0]
    right = total = 0
    for evidence, state, labels in rows(seed=1, named=0.5):
        logits = made(evidence, state, candidates)[:, [0, 1, 6]]
        known = torch.where(labels[:, :2].any(1), labels[:, :2].argmax(1), 2)
        right, total = right + int((logits.argmax(1) == known).sum()), total + len(labels)
    assert right / total > 0.95


def test_states_that_never_occur_keep_their_trust():
    made, _, _ = fitted(rows())
    start = trust(gate()[0])
    assert torch.equal(trust(made)[0, :, :4], start[0, :, :4]) and torch.equal(trust(made)[:, :, 5], start[:, :, 5])


def test_unknown_labels_are_ignored():
    def halved():
        for evidence, state, labels in rows():
            evidence, labels = evidence.clone(), labels.clone()
            yield evidence, state, labels
            labels = labels.clone()
            labels[:, :2] = UNKNOWN
            yield -evidence, state, labels

    expected, found = (trust(fitted(data)[0])[0] for data in (rows(), halved()))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)

    def nothing_known():
        for evidence, state, labels in rows():
            yield evidence, state, torch.full_like(labels, UNKNOWN)

    made, _, report = fitted(nothing_known())
    assert torch.equal(trust(made), trust(gate()[0])) and report["loss_before"] == report["loss_after"] == 0


def test_a_strong_pull_keeps_trust_equal():
    made, _, _ = fitted(rows(), l2=1e4)
    torch.testing.assert_close(trust(made), trust(gate()[0]), atol=1e-3, rtol=0)


@pytest.mark.parametrize("balance", [0.0, 1.0])
def test_batches_change_nothing(balance):
    one, many = (trust(fitted(rows(batch=batch) if batch else whole(), balance=balance)[0]) for batch in (100, 0))
    torch.testing.assert_close(one, many, rtol=1e-3, atol=1e-3)


def whole():
    yield tuple(torch.cat(part) for part in zip(*rows(), strict=True))


def test_without_products_nothing_is_fitted():
    made, _, report = fitted([])
    assert report == {} and torch.equal(trust(made), trust(gate()[0]))


def test_how_far_sources_defer_depends_on_how_often_a_tag_occurs():
    attributes = [{**entry, "counts": [4] * len(entry["tags"])} for entry in ATTRIBUTES]
    made, candidates = gate()
    fit_gate(made, attributes, candidates, rows(), GateSettings(deference=12.0))
    assert made.deference.tolist() == [0.75] * 6 + [0] * 3
    fit_gate(made, attributes, candidates, rows(), GateSettings(deference=0.0))
    assert not made.deference.any()
    fit_gate(made, ATTRIBUTES, candidates, rows(), GateSettings())  # nobody counted
    assert not made.deference.any()
    with pytest.raises(ValueError, match="gate.deference is a number of products"):
        GateSettings(deference=-1.0)
