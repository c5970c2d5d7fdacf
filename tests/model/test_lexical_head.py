"""The lexical head against plain numpy: TF-IDF of unit length times a table, and names with shared weights."""

import numpy as np
import pytest
import torch

from hf_tagger.model.configuration_tagger import RecurrentTextConfig, TaggerConfig
from hf_tagger.model.heads import NAME_PRIOR, LexicalHead, candidate_attributes
from hf_tagger.model.lexical_features import NAME_FEATURES, LexicalFeatures

ATTRIBUTES = [
    {"name": "colour", "kind": "single", "tags": ["Red", "Blue", "Navy Blue"]},
    {"name": "features", "kind": "multi", "tags": ["Waterproof", "Long Sleeve"]},
    {"name": "article", "kind": "single", "tags": ["Bag", "Bath and Body"]},
]
TAGS = [tag for attribute in ATTRIBUTES for tag in attribute["tags"]]
OWNER = [index for index, attribute in enumerate(ATTRIBUTES) for _ in attribute["tags"]]
TEXTS = ["red bag in navy blue", "red red red mug", "bath towel, long sleeves", "size 42", "waterproof"]
BUCKETS = 512


def lexical_head(random=True, **options):
    """(head, what reads texts for it, which attribute each candidate is of)"""
    config = TaggerConfig(text_config=RecurrentTextConfig(vocab_size=10, hidden_size=8), attributes=ATTRIBUTES,
                          **{"lexical_buckets": BUCKETS, "name_match": True} | options)
    head = LexicalHead(config)
    head.reset()
    if random:
        torch.manual_seed(0)
        for table in (head.table.weight, head.bias.weight, head.name_weight.weight):
            table.data.normal_()
        head.idf.uniform_(0.5, 2)
    return head, LexicalFeatures(**config.lexical_features), candidate_attributes(config.attributes)


@torch.no_grad()
def scores(parts, texts, has_text=None):
    head, reader, candidates = parts
    features = [torch.from_numpy(array) for array in reader(texts).values()]
    there = torch.tensor([bool(text) for text in texts]) if has_text is None else torch.tensor(has_text)
    return head(*features, there, candidates)


def expected_scores(parts, text):
    """Of one text, with a vector of all buckets and a loop over tags."""
    head, reader, _ = parts
    (ids, counts, name_ids, name_weights) = (array[0] for array in reader([text]).values())
    vector = np.zeros(len(head.idf))
    np.add.at(vector, ids, counts * head.idf.numpy()[ids])
    vector /= max(np.linalg.norm(vector), 1e-6)
    logits = vector @ head.table.weight.numpy() + head.bias.weight[:, 0].numpy()
    for place, value in zip(name_ids.tolist(), name_weights.tolist(), strict=True):
        tag, feature = divmod(place, NAME_FEATURES)
        logits[tag] += value * float(head.name_weight.weight[OWNER[tag], feature])
    return logits


@pytest.mark.parametrize("options", [{}, {"lexical_word_ngrams": 2}, {"lexical_buckets": 0}, {"name_match": False}])
def test_scores_equal_a_plain_reference(options):
    parts = lexical_head(**options)
    found, _ = scores(parts, TEXTS)
    with torch.no_grad():
        expected = np.stack([expected_scores(parts, text) for text in TEXTS])
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)
    assert len({tuple(row) for row in found.tolist()}) == (len(TEXTS) if options != {"lexical_buckets": 0} else 5)


def test_words_and_names_of_any_length_of_text_move_a_score_by_its_share():
    """TF-IDF has unit length: saying everything twice as often changes the weight of no word against another."""
    head, reader, candidates = lexical_head(name_match=False)
    head.idf.fill_(1.0)
    head.bias.weight.data.zero_()
    once, _ = scores((head, reader, candidates), ["red mug"])
    twice, _ = scores((head, reader, candidates), ["red mug red mug"])
    torch.testing.assert_close(once, twice)


def test_a_row_without_text_gets_zeros_whatever_the_bias():
    parts = lexical_head()
    found, named = scores(parts, ["red bag", None, "", "red bag"], has_text=[True, False, False, False])
    assert found[0].all() and not found[1:].any()
    assert named.tolist() == [[True, False, True]] + [[False] * 3] * 3


def test_a_text_of_which_nothing_is_known_gets_the_bias():
    parts = lexical_head()
    found, _ = scores(parts, ["!!!"])
    torch.testing.assert_close(found[0], parts[0].bias.weight[:, 0].detach())


@pytest.mark.parametrize(("text", "named"), [
    ("red", [True, False, False]),
    ("navy", [False, False, False]),  # a word of a name is no name
    ("bath", [False, False, True]),  # an alternative is
    ("waterproof, long sleeve", [False, False, False]),  # of a `multi` attribute nothing is said
    ("blue bag waterproof", [True, False, True]),
])  # fmt: skip
def test_an_attribute_is_named_where_it_takes_one_tag_and_the_text_has_a_whole_name(text, named):
    assert scores(lexical_head(), [text])[1].tolist() == [named]


def test_before_any_fit_the_named_tags_lead_and_none_is_never_named():
    found, _ = scores(lexical_head(random=False), ["red waterproof bag"])
    logits = dict(zip(TAGS, found[0].tolist(), strict=False))
    assert logits["Red"] == logits["Waterproof"] == logits["Bag"] == pytest.approx(sum(NAME_PRIOR[:3]))
    assert logits["Blue"] == 0 == found[0, len(TAGS):].abs().sum()


def test_company_and_padding_change_nothing():
    parts = lexical_head()
    together, named = scores(parts, TEXTS)
    for row, text in enumerate(TEXTS):
        alone, one = scores(parts, [text])
        torch.testing.assert_close(alone[0], together[row])
        assert torch.equal(one[0], named[row])


def test_scores_are_float32_under_autocast():
    parts = lexical_head()
    plain, _ = scores(parts, TEXTS)
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = scores(parts, TEXTS)
    assert found.dtype == torch.float32 and torch.equal(found, plain)


def test_half_precision_weights_are_read():
    head, reader, candidates = lexical_head()
    plain, _ = scores((head, reader, candidates), TEXTS)
    half, named = scores((head.bfloat16(), reader, candidates), TEXTS)
    torch.testing.assert_close(half.float(), plain, rtol=0.1, atol=0.1)
    assert named.any()


def test_new_tags_are_known_by_their_name_and_the_typical_bias_and_change_no_other_score():
    head, reader, old = lexical_head()
    before, named = scores((head, reader, old), TEXTS)
    head.requires_grad_(False)
    # A third feature "Mug" and a third article "Towel".
    order = torch.tensor([0, 1, 2, 3, 4, -1, 5, 6, -1, 7, 8, 9])
    new = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2, 0, 1, 2])
    bias = head.bias.weight[:, 0].clone()
    head.grow(order, old, new)
    grown = [entry | {"tags": [*entry["tags"], *extra]} for entry, extra in
             zip(ATTRIBUTES, ([], ["Mug"], ["Towel"]), strict=True)]
    reader.set_names(grown)
    after, named_after = scores((head, reader, new), TEXTS)
    assert torch.equal(after[:, order >= 0], before)
    assert named_after[:, :2].equal(named[:, :2]) and named_after[2, 2]
    typical = [bias[3:5].mean(), bias[5:7].mean()]  # over the tags of the attribute, its none left out
    torch.testing.assert_close(head.bias.weight[order < 0, 0], torch.stack(typical))
    weights = head.name_weight.weight
    torch.testing.assert_close(after[1, 5], typical[0] + weights[1, :3].sum())  # "red red red mug"
    torch.testing.assert_close(after[3, [5, 8]], torch.stack(typical))  # "size 42": no word speaks for them
    assert not head.table.weight.requires_grad and not head.bias.weight.requires_grad
