import pytest
import torch

from hf_tagger.model.configuration_tagger import RecurrentTextConfig, TaggerConfig
from hf_tagger.model.heads import EvidenceGate, LinearHead, NameHead, candidate_attributes

ATTRIBUTES = [
    {"name": "colour", "kind": "single", "tags": ["Red", "Blue"]},
    {"name": "features", "kind": "multi", "tags": ["Waterproof", "Handmade", "New"]},
    {"name": "category", "kind": "single", "tags": ["Mug"]},
]
COLOUR, CATEGORY, FEATURES = [0, 1, 6], [5, 8], [2, 3, 4]


def config(vision_config=None, **options):
    text = RecurrentTextConfig(vocab_size=10, hidden_size=12)
    return TaggerConfig(attributes=ATTRIBUTES, text_config=text, vision_config=vision_config, hidden_size=8, **options)


def gate(**options):
    settings = config(lexical_buckets=16, **options)
    made = EvidenceGate(settings)
    made.reset()
    return made, candidate_attributes(settings)


def features(made, named=(False, False, False), has_image=True):
    return made.features(torch.tensor([named]), torch.tensor([has_image]))


def test_candidates_are_the_tags_and_then_a_none_of_each_attribute():
    assert candidate_attributes(config()).tolist() == [0, 0, 1, 1, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("head", [NameHead, LinearHead])
def test_heads_score_every_candidate_of_any_shape_of_vectors(head):
    scores = head(config())(torch.randn(4, 2, 8))
    assert scores.shape == (4, 2, 9)


def test_names_start_as_centred_unit_vectors_so_that_alike_encodings_still_differ():
    head = NameHead(config())
    names = torch.randn(9, 12) * 0.01 + 5
    head.set_names(names)
    rows = head.embeddings.weight
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(9))
    assert (torch.nn.functional.cosine_similarity(names[:1], names[1:]) > 0.999).all()
    assert (torch.nn.functional.cosine_similarity(rows[:1], rows[1:]) < 0.9).all()
    torch.testing.assert_close(head.normalise(names), rows.detach())


def test_single_attributes_become_log_probabilities_with_their_none_and_multi_ones_stay_logits():
    made, candidates = gate()
    logits = 5 * torch.randn(4, 9)
    told = made.normalise(logits, candidates)
    for columns in (COLOUR, CATEGORY):
        torch.testing.assert_close(told[:, columns], logits[:, columns].log_softmax(-1))
    torch.testing.assert_close(told[:, FEATURES], logits[:, FEATURES])


def test_logits_of_any_size_stay_finite():
    made, candidates = gate()
    logits = torch.tensor([[3e4, -3e4, 0, 0, 0, -3e4, 0, 0, 3e4], [-1e4] * 9])
    assert made.normalise(logits, candidates).isfinite().all()
    half = made.normalise(logits.bfloat16(), candidates)
    assert half.dtype == torch.float32


def test_at_first_all_sources_weigh_the_same_whatever_the_text():
    made, candidates = gate(word_views=2)
    evidence = torch.randn(1, 3, 9)
    expected = made.told(evidence, features(made), candidates).sum(1)
    for named in ((False,) * 3, (True, False, True)):
        for has_image in (True, False):
            found = made(evidence, features(made, named, has_image), candidates)
            torch.testing.assert_close(found / found.abs().sum(), expected / expected.abs().sum())
    alone = EvidenceGate(config())
    alone.reset()
    torch.testing.assert_close(alone(evidence[:, :1], features(alone), candidates), expected * 0 + alone.told(
        evidence[:, :1], features(alone), candidates)[:, 0])  # fmt: skip


def test_a_silent_source_says_nothing_at_all():
    made, candidates = gate()
    evidence = torch.randn(2, 2, 9)
    evidence[0, 1] = 0
    told = made.told(evidence, features(made).expand(2, -1, -1), candidates)
    assert not told[0, 1].any() and told[1, 1].all()


def test_of_rare_tags_the_words_speak_for_all_where_one_is_named_and_else_the_exemplars():
    settings = config(lexical_buckets=16, vision_config={"model_type": "timm_wrapper", "architecture": "resnet18"},
                      exemplars=5, exemplar_kernels=[{"final": 1.0}, {"early": 1.0}])
    made, candidates = EvidenceGate(settings), candidate_attributes(settings)
    made.reset()
    evidence = torch.randn(1, 4, 9)  # encoder, words, two kernels
    known = made.told(evidence, features(made), candidates)
    made.defer(torch.tensor([2.0, 6.0, 2.0, 2.0, 2.0, 0.0]), 2.0)
    found = made.told(evidence, features(made, (True, False, False)), candidates)
    torch.testing.assert_close(found[:, :, 0], (known[:, :, 0] + known[:, 1:2, 0]) / 2)  # colours: one is named
    torch.testing.assert_close(found[:, :, 1], 0.75 * known[:, :, 1] + 0.25 * known[:, 1:2, 1])
    torch.testing.assert_close(found[:, :, FEATURES], (known[:, :, FEATURES] + known[:, 2:3, FEATURES]) / 2)
    for kept in (5, 6, 7, 8):  # a tag without products, and none of each attribute
        torch.testing.assert_close(found[:, :, kept], known[:, :, kept])
    evidence[0, 2:] = 0  # no photo, and no words below: silent sources neither speak for others nor speak
    silent = made.told(evidence, features(made, has_image=False), candidates)
    assert not silent[0, 2:].any()
    torch.testing.assert_close(silent[0, :2], made.normalise(evidence[0, :2], candidates))


def test_new_tags_leave_the_say_of_all_sources_as_it_was():
    made, candidates = gate()
    made.defer(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), 1.0)
    made.grow(torch.tensor([0, 1, -1, 2, 3, 4, 5, -1, 6, 7, 8]))
    expected = [1 / 2, 1 / 3, 0, 1 / 4, 1 / 5, 1 / 6, 1 / 7, 0, 0, 0, 0]
    torch.testing.assert_close(made.deference, torch.tensor(expected))


@pytest.mark.parametrize(("named", "has_image", "states"), [
    ((False, False, False), True, [0, 0, 0]),
    ((True, False, False), True, [3, 1, 1]),
    ((True, False, True), True, [4, 2, 4]),
    ((True, False, True), False, [4, 2, 4]),
])  # fmt: skip
def test_features_are_the_state_of_the_text_and_whether_there_is_a_photo(named, has_image, states):
    made, _ = gate()
    found = features(made, named, has_image)[0]
    assert found.shape == (3, EvidenceGate.FEATURES)
    assert found[:, :5].argmax(1).tolist() == states and (found[:, :5].sum(1) == 1).all()
    assert (found[:, 5] == (not has_image)).all()


def test_weights_count_in_their_own_state_and_never_turn_evidence_around():
    made, candidates = gate()
    weights = made.weights.weight.data.view(3, 2, 6)
    weights.zero_()
    weights[0, 1, 3] = 2.0  # colour, words, a colour and nothing else is named
    weights[1, 0, :] = -1.0
    evidence = torch.randn(1, 2, 9)
    told = made.told(evidence, features(made), candidates)[0]
    found = made(evidence, features(made, (True, False, False)), candidates)[0]
    torch.testing.assert_close(found[COLOUR], 2 * told[1, COLOUR])
    assert not found[FEATURES].any() and not found[CATEGORY].any()
    assert not made(evidence, features(made, (False, False, True)), candidates)[0, COLOUR].any()


def test_new_tags_get_rows_and_the_old_ones_keep_theirs():
    head = NameHead(config())
    head.set_names(torch.randn(9, 12))
    head.bias.weight.data.copy_(torch.arange(9.0)[:, None])
    old, before = candidate_attributes(config()), head.embeddings.weight.clone()
    order = torch.tensor([0, 1, -1, 2, 3, 4, 5, -1, 6, 7, 8])
    names = torch.randn(2, 12)
    new = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 0, 1, 2])
    head.grow(order, old, new, names)
    assert torch.equal(head.embeddings.weight[order >= 0], before)
    torch.testing.assert_close(head.embeddings.weight[order < 0], head.normalise(names))
    # Typical of the attribute: the mean over its tags, without its none.
    assert head.bias.weight[:, 0].tolist() == [0, 1, 0.5, 2, 3, 4, 5, 5, 6, 7, 8]
    assert head(torch.randn(1, 8)).shape == (1, 11)
