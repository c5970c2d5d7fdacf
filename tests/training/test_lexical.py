"""The lexical head's convex problem: its minimum as another solver finds it, and what the fitted head says of texts."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from torch.nn import functional

from hf_tagger.catalog.batching.collate import UNKNOWN, TagEncoder
from hf_tagger.model.configuration_tagger import RecurrentTextConfig, TaggerConfig
from hf_tagger.model.heads import NAME_PRIOR, LexicalHead, candidate_attributes
from hf_tagger.model.lexical_features import LexicalFeatures
from hf_tagger.training.heads.lexical import NEVER, fit_lexical_head
from hf_tagger.training.settings import LexicalSettings

COLOURS, USES = ["Red", "Blue", "Navy", "Teal"], ["Sports", "Party"]
ATTRIBUTES = [
    {"name": "colour", "kind": "single", "tags": COLOURS},
    {"name": "usage", "kind": "multi", "tags": USES},
]
CANDIDATES = [*COLOURS, *USES, "no colour", "no use"]
SLANG = {"Red": "crimson", "Blue": "azure", "Navy": "marine", "Teal": "teal"}


def product(number):
    """Shirts that name their colour, or say it in words of their own; none is teal, some have no colour."""
    colour = ["Red", "Blue", "Navy", None][number % 4]
    uses = [use for place, use in enumerate(USES) if number // 4 >> place & 1]
    word = "plain" if colour is None else colour if number % 3 else SLANG[colour]
    text = f"{['great', 'nice', 'new'][number % 3]} {word} shirt {' '.join(f'for {use}' for use in uses)} {number % 7}"
    return {"text": text, "tags": {"colour": [colour] if colour else [], "usage": uses}}


PRODUCTS = [product(number) for number in range(96)]


def fitted(products=PRODUCTS, attributes=ATTRIBUTES, **settings):
    """((head, what reads texts for it, which attribute each candidate is of), report)"""
    settings = LexicalSettings(**{"buckets": 2**12} | settings)
    config = TaggerConfig(
        text_config=RecurrentTextConfig(vocab_size=10, hidden_size=8), attributes=attributes,
        lexical_buckets=settings.buckets, lexical_char_ngrams=settings.char_ngrams, name_match=settings.name_match,
    )  # fmt: skip
    head, features, encode = LexicalHead(config), LexicalFeatures(**config.lexical_features), TagEncoder(attributes)
    head.reset()
    texts = ((item["text"], encode(item["tags"])) for item in products)
    report = fit_lexical_head(head, features, attributes, texts, settings)
    return (head, features, candidate_attributes(config.attributes)), report


def logits_of(parts, texts):
    head, reader, candidates = parts
    features = [torch.from_numpy(array) for array in reader(texts).values()]
    return head(*features, torch.ones(len(texts), dtype=torch.bool), candidates)[0]


def says(parts, text):
    """{candidate: logit} of one text."""
    with torch.no_grad():
        return dict(zip(CANDIDATES, logits_of(parts, [text])[0].tolist(), strict=True))


def best(logits, names=(*COLOURS, "no colour")):
    return max(names, key=logits.get)


def tf_idf(parts, texts):
    head, reader, _ = parts
    found = reader(texts)
    table = np.zeros((len(texts), len(head.idf)))
    for row, ids, counts in zip(table, found["lexical_ids"], found["lexical_weights"], strict=True):
        np.add.at(row, ids, counts * head.idf.numpy()[ids])
    return table / np.linalg.norm(table, axis=1, keepdims=True)


def assert_it_reads_the_texts_right(parts, report):
    assert report["texts"] == 96 and report["loss_after"] < 0.3 * report["loss_before"]
    for item in PRODUCTS:
        logits = says(parts, item["text"])
        assert best(logits) == (item["tags"]["colour"] or ["no colour"])[0]
        assert {use for use in USES if logits[use] > 0} == set(item["tags"]["usage"])
    assert not any(parameter.requires_grad for parameter in parts[0].parameters())


def test_the_fit_beats_knowing_nothing_and_reads_the_texts_right():
    assert_it_reads_the_texts_right(*fitted())


def test_a_single_attribute_is_the_multinomial_regression_of_scikit_learn():
    parts, _ = fitted(name_match=False, class_weight_power=0.0, inverse_l2=3.0, iterations=500,
                      attributes=[ATTRIBUTES[0] | {"tags": COLOURS[:3]}])
    texts = [item["text"] for item in PRODUCTS]
    truth = [(item["tags"]["colour"] or ["none"])[0] for item in PRODUCTS]
    other = LogisticRegression(C=3.0, max_iter=5000, tol=1e-8).fit(tf_idf(parts, texts), truth)
    expected = other.predict_log_proba(tf_idf(parts, texts))
    columns = [[*COLOURS[:3], "none"].index(name) for name in other.classes_]
    with torch.no_grad():
        found = logits_of(parts, texts).log_softmax(1)[:, columns]
    np.testing.assert_allclose(found.numpy(), expected, atol=5e-3)


def test_tags_of_a_multi_attribute_are_binary_regressions_of_scikit_learn():
    parts, _ = fitted(name_match=False, inverse_l2=3.0, iterations=500)
    texts = [item["text"] for item in PRODUCTS]
    for place, use in enumerate(USES, len(COLOURS)):
        truth = [use in item["tags"]["usage"] for item in PRODUCTS]
        other = LogisticRegression(C=3.0, max_iter=5000, tol=1e-8).fit(tf_idf(parts, texts), truth)
        with torch.no_grad():
            found = logits_of(parts, texts)[:, place].numpy()
        np.testing.assert_allclose(found, other.decision_function(tf_idf(parts, texts)), atol=5e-3)


def test_the_weights_of_names_are_what_scipy_finds():
    """Without words: six weights that all colours share and a bias each, classes weighed by their rarity."""
    attributes = [ATTRIBUTES[0] | {"tags": COLOURS[:3]}]
    rows = [item for item in PRODUCTS if item["tags"]["colour"] != ["Navy"]] + PRODUCTS[2:30:4]
    parts, report = fitted(rows, attributes, buckets=0, class_weight_power=1.0, name_l2=2.0, iterations=500)
    found = parts[1]([item["text"] for item in rows])
    names = np.zeros((len(rows), 3 * 6))
    for row, ids, values in zip(names, found["name_ids"], found["name_weights"], strict=True):
        np.add.at(row, ids, values)
    names = names.reshape(len(rows), 3, 6)
    truth = np.array([COLOURS.index(item["tags"]["colour"][0]) if item["tags"]["colour"] else 3 for item in rows])
    weight = 1 / np.bincount(truth)[truth]
    weight *= len(rows) / weight.sum()

    def loss(parameters):
        logits = np.pad(names @ parameters[:6], ((0, 0), (0, 1))) + parameters[6:]
        log_probability = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        return -(weight * log_probability[np.arange(len(rows)), truth]).sum() + (parameters[:6] ** 2).sum()

    expected = minimize(loss, np.zeros(10), method="BFGS", options={"gtol": 1e-6, "maxiter": 1000})
    np.testing.assert_allclose(parts[0].name_weight.weight[0].numpy(), expected.x[:6], atol=5e-3)
    bias = parts[0].bias.weight[:, 0].numpy()
    np.testing.assert_allclose(bias - bias.mean(), expected.x[6:] - expected.x[6:].mean(), atol=5e-3)
    assert report["loss_after"] == pytest.approx(expected.fun / len(rows), abs=1e-4)


@pytest.mark.parametrize("name_match", [True, False])
def test_what_is_minimised_is_what_the_model_computes(name_match):
    attributes = [ATTRIBUTES[0] | {"tags": COLOURS[:3]}, ATTRIBUTES[1]]  # teal, which no row has, is set apart
    (head, *rest), report = fitted(attributes=attributes, name_match=name_match, class_weight_power=0.0,
                                   inverse_l2=5.0)
    parameters = [head.table.weight] + ([head.name_weight.weight] if name_match else [])
    for parameter in parameters:
        parameter.requires_grad_(True)
    logits = logits_of((head, *rest), [item["text"] for item in PRODUCTS])
    colour = torch.tensor([3 if not item["tags"]["colour"] else COLOURS.index(item["tags"]["colour"][0])
                           for item in PRODUCTS])
    usage = torch.tensor([[float(use in item["tags"]["usage"]) for use in USES] for item in PRODUCTS])
    loss = functional.cross_entropy(logits[:, [0, 1, 2, 5]], colour, reduction="sum")
    loss = loss + functional.binary_cross_entropy_with_logits(logits[:, 3:5], usage, reduction="sum")
    loss = loss + parameters[0].square().sum() / (2 * 5.0)
    loss = loss + (parameters[-1].square().sum() * 3.0 / 2 if name_match else 0)
    assert report["loss_after"] == pytest.approx(float(loss.detach()) / 96, rel=1e-4)
    gradient = torch.cat([slope.flatten() for slope in torch.autograd.grad(loss, parameters)])
    assert gradient.abs().max() < 0.05  # at the minimum: at zero weights it is above 10


def test_a_tag_without_any_training_row_profits_from_what_names_are_worth():
    assert best(says(fitted()[0], "great teal shirt")) == "Teal"
    assert best(says(fitted(name_match=False)[0], "great teal shirt")) != "Teal"


def test_a_tag_without_any_training_row_is_as_rare_as_the_rarest_and_no_word_speaks_for_it():
    (head, *_), _ = fitted()
    bias = head.bias.weight[[0, 1, 2, 6], 0]  # the colours that occur, and none
    assert head.bias.weight[3, 0] == bias.min() and not head.table.weight[:, 3].any()


def test_unknown_labels_weigh_nothing():
    nothing_known = [{"text": "red blue navy", "tags": {"colour": None, "usage": None}}] * 40
    expected, _ = fitted(buckets=0)
    found, _ = fitted(PRODUCTS + nothing_known, buckets=0)
    torch.testing.assert_close(found[0].name_weight.weight, expected[0].name_weight.weight, rtol=1e-3, atol=1e-3)
    half_known = [item | {"tags": item["tags"] | {"usage": None}} for item in PRODUCTS]
    parts, _ = fitted(half_known)
    assert best(says(parts, "great red shirt for Party")) == "Red"
    assert not parts[0].table.weight[:, 4:6].any() and not parts[0].bias.weight[[4, 5, 7]].any()
    assert parts[0].name_weight.weight[1].tolist() == pytest.approx(NAME_PRIOR), "as it started"


def test_how_often_a_word_occurs_is_counted_where_labels_are_unknown_too():
    parts, _ = fitted()
    more, _ = fitted(PRODUCTS + [{"text": "crimson", "tags": {"colour": None, "usage": None}}] * 100)
    places = parts[1](["crimson"])["lexical_ids"][0]
    assert (more[0].idf[places] < parts[0].idf[places]).all()


def test_a_row_counts_for_an_attribute_only_if_all_its_tags_are_known():
    encode = TagEncoder(ATTRIBUTES)
    partly = encode(PRODUCTS[0]["tags"])
    partly[1] = UNKNOWN
    (head, features, _), _ = fitted([])
    settings = LexicalSettings(buckets=2**12)
    rows = [("red shirt", partly), ("blue shirt", encode(PRODUCTS[1]["tags"]))]
    fit_lexical_head(head, features, ATTRIBUTES, rows, settings)
    word = features.terms(["red"])[0]
    assert not head.table.weight[word, :4].any() and head.table.weight[word, 4:6].any()


def test_a_none_that_never_occurs_is_never_said():
    parts, _ = fitted([item for item in PRODUCTS if item["tags"]["colour"]])
    assert says(parts, "great plain shirt")["no colour"] == pytest.approx(NEVER)
    assert says(fitted()[0], "great plain shirt")["no colour"] > 0


def test_none_of_a_multi_attribute_is_left_alone():
    parts, _ = fitted()
    assert says(parts, "plain shirt")["no use"] == 0


def test_class_weights_give_rare_tags_their_say():
    rare = [item for item in PRODUCTS if item["tags"]["colour"] != ["Navy"]] + PRODUCTS[2:3]

    def navy(power):
        parts, _ = fitted(rare, name_match=False, inverse_l2=0.1, class_weight_power=power)
        logits = says(parts, "nice navy shirt")
        return logits["Navy"] - logits["Red"]

    assert navy(1.0) > navy(0.5) > navy(0.0)


def test_texts_beyond_max_rows_are_left_out_and_no_text_at_all_leaves_what_names_are_worth():
    parts, report = fitted(max_rows=40)
    same, _ = fitted(PRODUCTS[:40])
    assert report["texts"] == 40 and torch.equal(parts[0].table.weight, same[0].table.weight)
    parts, report = fitted([])
    assert report == {"texts": 0} and says(parts, "red")["Red"] == pytest.approx(sum(NAME_PRIOR[:3]))
    assert not any(parameter.requires_grad for parameter in parts[0].parameters())


def test_an_earlier_fit_leaves_no_trace():
    (head, features, candidates), _ = fitted([item for item in PRODUCTS if item["tags"]["colour"]])
    encode = TagEncoder(ATTRIBUTES)
    texts = [(item["text"], encode(item["tags"])) for item in PRODUCTS[3::4]]
    fit_lexical_head(head, features, ATTRIBUTES, texts, LexicalSettings(buckets=2**12))
    fresh, _ = fitted(PRODUCTS[3::4])
    for name, tensor in fresh[0].state_dict().items():
        assert torch.equal(head.state_dict()[name], tensor), name


def test_texts_without_a_word_are_no_error():
    parts, report = fitted([{"text": "!!!", "tags": item["tags"]} for item in PRODUCTS[:8]])
    assert report["texts"] == 8 and all(np.isfinite(list(says(parts, "red shirt").values())))
