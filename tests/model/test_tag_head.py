import torch

from hf_tagger.model.configuration_tagger import RecurrentTextConfig, TaggerConfig
from hf_tagger.model.heads import NameHead, candidate_attributes

ATTRIBUTES = [
    {"name": "colour", "kind": "single", "tags": ["Red", "Blue"]},
    {"name": "features", "kind": "multi", "tags": ["Waterproof", "Handmade", "New"]},
    {"name": "category", "kind": "single", "tags": ["Mug"]},
]


def config():
    text = RecurrentTextConfig(vocab_size=10, hidden_size=12)
    return TaggerConfig(attributes=ATTRIBUTES, text_config=text, hidden_size=8)


def test_candidates_are_the_tags_and_then_a_none_of_each_attribute():
    assert candidate_attributes(config().attributes).tolist() == [0, 0, 1, 1, 1, 2, 0, 1, 2]


def test_every_candidate_is_scored_for_any_shape_of_vectors():
    scores = NameHead(config())(torch.randn(4, 2, 8))
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


def test_new_tags_get_rows_and_the_old_ones_keep_theirs():
    head = NameHead(config())
    head.set_names(torch.randn(9, 12))
    head.bias.weight.data.copy_(torch.arange(9.0)[:, None])
    old, before = candidate_attributes(config().attributes), head.embeddings.weight.clone()
    order = torch.tensor([0, 1, -1, 2, 3, 4, 5, -1, 6, 7, 8])
    names = torch.randn(2, 12)
    new = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 0, 1, 2])
    head.grow(order, old, new, names)
    assert torch.equal(head.embeddings.weight[order >= 0], before)
    torch.testing.assert_close(head.embeddings.weight[order < 0], head.normalise(names))
    # Typical of the attribute: the mean over its tags, without its none.
    assert head.bias.weight[:, 0].tolist() == [0, 1, 0.5, 2, 3, 4, 5, 5, 6, 7, 8]
    assert head(torch.randn(1, 8)).shape == (1, 11)
