"""The lexical head of an attribute with too many tags for a weight per bucket and tag."""

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional

from hf_tagger.catalog.batching.collate import TagEncoder
from hf_tagger.model.configuration_tagger import RecurrentTextConfig, TaggerConfig
from hf_tagger.model.heads import LexicalHead, candidate_attributes
from hf_tagger.model.lexical_features import LexicalFeatures
from hf_tagger.training.heads.lexical import NEVER, coded_attributes, fit_lexical_head, kept_within
from hf_tagger.training.settings import LexicalSettings
from tests.training.test_lexical import (
    ATTRIBUTES,
    CANDIDATES,
    COLOURS,
    PRODUCTS,
    USES,
    assert_it_reads_the_texts_right,
    best,
    logits_of,
    says,
    tf_idf,
)

CODES = {"colour": 96, "usage": 64}


def fitted(products=PRODUCTS, attributes=ATTRIBUTES, codes=CODES, **settings):
    """((head, what reads texts for it, which attribute each candidate is of), report)"""
    settings = LexicalSettings(**{"buckets": 2**12, "epochs": 60} | settings)
    config = TaggerConfig(
        text_config=RecurrentTextConfig(vocab_size=10, hidden_size=8), attributes=attributes, tag_codes=codes,
        lexical_buckets=settings.buckets, name_match=settings.name_match)
    head, features, encode = LexicalHead(config), LexicalFeatures(**config.lexical_features), TagEncoder(attributes)
    texts = ((item["text"], encode(item["tags"])) for item in products)
    report = fit_lexical_head(head, features, attributes, texts, settings)
    return (head, features, candidate_attributes(config.attributes)), report


@pytest.mark.parametrize("codes", [{"colour": 96}, {"colour": 96, "usage": 96}])
def test_it_reads_the_texts_right_beside_attributes_that_are_fitted_exactly(codes):
    assert_it_reads_the_texts_right(*fitted(codes=codes))


def test_the_loss_that_is_told_is_the_models_own():
    attributes = [ATTRIBUTES[0] | {"tags": COLOURS[:3]}, ATTRIBUTES[1]]
    parts, report = fitted(attributes=attributes, codes={"colour": 96, "usage": 96}, class_weight_power=0.0, epochs=3)
    with torch.no_grad():
        logits = logits_of(parts, [item["text"] for item in PRODUCTS])
    colour = torch.tensor([3 if not item["tags"]["colour"] else COLOURS.index(item["tags"]["colour"][0])
                           for item in PRODUCTS])  # fmt: skip
    usage = torch.tensor([[float(use in item["tags"]["usage"]) for use in USES] for item in PRODUCTS])
    loss = functional.cross_entropy(logits[:, [0, 1, 2, 5]], colour, reduction="sum")
    loss = loss + functional.binary_cross_entropy_with_logits(logits[:, 3:5], usage, reduction="sum")
    assert report["loss_after"] == pytest.approx(float(loss) / 96, rel=1e-4)


def test_a_weight_is_the_product_of_a_buckets_vector_and_a_tags_code():
    parts, _ = fitted(codes={"colour": 96}, name_match=False)
    head, text = parts[0], PRODUCTS[0]["text"]
    own, (coded, codes) = slice(0, head.columns.own), head.columns.of_attribute(0)
    table = head.table.weight.numpy()
    found = tf_idf(parts, [text])[0] @ table
    expected = np.zeros(8)
    expected[[4, 5, 7]] = found[own]
    expected[[0, 1, 2, 3, 6]] = codes.weight.numpy() @ found[coded]
    expected += head.bias.weight[:, 0].numpy()
    with torch.no_grad():
        np.testing.assert_allclose(logits_of(parts, [text])[0].numpy(), expected, atol=1e-4)


def test_a_tag_without_any_training_row_is_known_by_its_name_and_a_none_that_never_occurs_is_never_said():
    parts, _ = fitted([item for item in PRODUCTS if item["tags"]["colour"]], codes={"colour": 96})
    assert not parts[0].columns.codes[0].weight[COLOURS.index("Teal")].any()
    logits = says(parts, "great teal shirt")
    assert best(logits) == "Teal" and logits["no colour"] == pytest.approx(NEVER)


def test_unknown_labels_weigh_nothing_and_no_text_at_all_leaves_what_names_are_worth():
    nothing_known = [{"text": "red blue navy", "tags": {"colour": None, "usage": None}}] * 8
    parts, report = fitted(nothing_known)
    assert report["texts"] == 8 and not parts[0].table.weight.any()
    assert best(says(fitted([])[0], "red shirt")) == "Red"


def test_an_added_tag_changes_no_other_score():
    parts, _ = fitted(codes={"usage": 64}, code_width=64)
    head, reader, candidates = copy.deepcopy(parts)
    before = says(parts, "great red shirt for Sports")
    # Colour gets Olive after its four, usage Work after its two; none of each stays last.
    first = order = torch.tensor([0, 1, 2, 3, -1, 4, 5, -1, 6, 7])
    grown = torch.tensor([0] * 5 + [1] * 3 + [0, 1])
    for _ in range(2):  # and again, from what the first has left
        head.grow(order, candidates, grown)
        features = [torch.from_numpy(array) for array in reader(["great red shirt for Sports"]).values()]
        features[2:] = [torch.zeros(1, 1, dtype=torch.long), torch.zeros(1, 1)]  # names are the reader's business
        with torch.no_grad():
            after = head(*features, torch.ones(1, dtype=torch.bool), grown)[0][0]
            expected = parts[0](*features, torch.ones(1, dtype=torch.bool), parts[2])[0][0]
        torch.testing.assert_close(after[first >= 0], expected[first[first >= 0]])
        assert after[first < 0].tolist() == pytest.approx(head.bias.weight[first < 0, 0].tolist())
        order, candidates = torch.arange(10), grown
    assert before.keys() == set(CANDIDATES)


def test_only_attributes_that_exceed_the_memory_are_written_in_codes():
    attributes = [{"name": name, "kind": "single", "tags": [f"{name} {number}" for number in range(count)]}
                  for name, count in (("category", 10_000), ("colour", 46), ("type", 2_700))]  # fmt: skip
    assert coded_attributes(attributes, LexicalSettings()) == {"category": 512, "type": 512}
    assert coded_attributes(attributes[1:2], LexicalSettings()) == {}
    assert coded_attributes(attributes, LexicalSettings(memory=100)) == {}
    assert coded_attributes(attributes, LexicalSettings(buckets=0)) == {}
    said = kept_within(attributes, LexicalSettings(), {"memory_full": True})
    assert "category in codes of 512, as 10,000 tags" in said and "colour" not in said and "2 GB" in said


def test_no_more_texts_are_read_than_there_is_memory_for():
    _, report = fitted(memory=2e-5, codes={})
    assert 0 < report["texts"] < 96 and report["memory_full"]
    assert "memory_full" not in fitted(epochs=1)[1]


def test_rare_tags_of_a_large_vocabulary_are_found_more_often_than_by_the_exact_fit():
    """400 tags, most of them with few products; each has two words of its own among words that others share."""
    draw = np.random.default_rng(0)
    share = 1 / (1 + np.arange(400))
    tags = draw.choice(400, 2500, p=share / share.sum())
    attributes = [{"name": "category", "kind": "single", "tags": [f"tag {number}" for number in range(400)]}]

    def text(tag):
        own = f"w{tag}x w{tag}y".split()[draw.integers(2)]
        return " ".join(draw.permutation([own, f"g{tag % 20}", *(f"n{draw.integers(300)}" for _ in range(5))]))

    products = [{"text": text(tag), "tags": {"category": [f"tag {tag}"]}} for tag in tags]
    train, test = products[:2000], products[2000:]
    rare = np.bincount(tags[:2000], minlength=400)[tags[2000:]] < 5

    def right(codes):
        parts, _ = fitted(train, attributes, codes, name_match=False, epochs=8, iterations=20)
        with torch.no_grad():
            return logits_of(parts, [item["text"] for item in test])[:, :400].argmax(1).numpy() == tags[2000:]

    coded, exact = right({"category": 256}), right({})
    assert coded[rare].mean() > exact[rare].mean() + 0.05 and coded.mean() > exact.mean()
