"""The joint fit of word features and names, seen through what the fitted evidence says of texts."""

import pytest
import torch
from torch.nn import functional as F

from hf_tagger.catalog.collate import UNKNOWN
from hf_tagger.model.processing_tagger import TaggerProcessor
from hf_tagger.training.augment import masked_text
from hf_tagger.training.settings import WordsSettings
from hf_tagger.training.unigram_tokenizer import train_unigram_tokenizer
from hf_tagger.training.words import NEVER, fit_words, text_batches
from tests.model.test_lexical_head import evidence

COLOURS, USES = ["Red", "Blue", "Navy", "Teal"], ["Sports", "Party"]
ATTRIBUTES = [
    {"name": "colour", "kind": "single", "tags": COLOURS},
    {"name": "usage", "kind": "multi", "tags": USES},
]
SLANG = {"Red": "crimson", "Blue": "azure", "Navy": "marine", "Teal": "teal"}


def product(number):
    """Shirts that name their colour, or say it in words of their own; none is teal, some have no colour."""
    colour = ["Red", "Blue", "Navy", None][number % 4]
    uses = [use for place, use in enumerate(USES) if number // 4 >> place & 1]
    word = "plain" if colour is None else colour if number % 3 else SLANG[colour]
    text = f"{['great', 'nice', 'new'][number % 3]} {word} shirt {' '.join(f'for {use}' for use in uses)} {number % 7}"
    return {"id": str(number), "text": text, "texts": [text],
            "tags": {"colour": [colour] if colour else [], "usage": uses}}  # fmt: skip


PRODUCTS = [product(number) for number in range(96)]


@pytest.fixture(scope="module")
def processor():
    words = " ".join([*COLOURS, *SLANG.values()])
    return TaggerProcessor(None, train_unigram_tokenizer([*(item["text"] for item in PRODUCTS), words], 200))


def fitted(processor, products=PRODUCTS, attributes=ATTRIBUTES, masked=(), buckets=2**12, names=True, **settings):
    """Evidence fitted on products and, in a second view, also on products without the words of their tags."""
    settings = WordsSettings(buckets=buckets, names=names, **settings)
    words, candidates = evidence(processor.tokenizer, attributes, lexical_buckets=buckets, name_match=names,
                                 word_views=2 if masked else 1)  # fmt: skip
    views = [[(1.0, text_batches(products, processor, attributes, batch_size=32))]]
    if masked:
        views.append([(1.0, text_batches(products, processor, attributes)),
                      (0.5, text_batches(masked, processor, attributes, masked_text))])  # fmt: skip
    return words, candidates, fit_words(words, attributes, candidates, views, settings)


def says(processor, words, candidates, text, view=0):
    """{candidate: logit} of one text."""
    tokens = processor.tokenize([text])
    names = [*COLOURS, *USES, "no colour", "no use"]
    return dict(zip(names, words(**tokens, candidate_attribute=candidates)[0][0, view].tolist(), strict=True))


def best(logits, names):
    return max(names, key=logits.get)


def test_the_fit_beats_knowing_nothing_and_reads_the_texts_right(processor):
    words, candidates, (report,) = fitted(processor)
    assert report["texts"] == 96 and report["loss_after"] < 0.3 * report["loss_before"]
    for item in PRODUCTS:
        logits = says(processor, words, candidates, item["text"])
        assert best(logits, [*COLOURS, "no colour"]) == (item["tags"]["colour"] or ["no colour"])[0]
        assert {use for use in USES if logits[use] > 0} == set(item["tags"]["usage"])
    assert not any(parameter.requires_grad for parameter in words.parameters())


@pytest.mark.parametrize("names", [True, False])
def test_what_is_minimised_is_what_the_model_computes(processor, names):
    attributes = [ATTRIBUTES[0] | {"tags": COLOURS[:3]}, ATTRIBUTES[1]]  # teal, which no row has, is set apart
    words, candidates, (report,) = fitted(processor, attributes=attributes, names=names, balance=0.0,
                                          inverse_l2=5.0)  # fmt: skip
    tokens = processor.tokenize([item["text"] for item in PRODUCTS])
    parameters = [words.lexical.weight.weight] + ([words.names.weight.weight] if names else [])
    for parameter in parameters:
        parameter.requires_grad_(True)
    logits = words(**tokens, candidate_attribute=candidates)[0][:, 0]
    colour = torch.tensor([3 if not item["tags"]["colour"] else COLOURS.index(item["tags"]["colour"][0])
                           for item in PRODUCTS])  # fmt: skip
    usage = torch.tensor([[float(use in item["tags"]["usage"]) for use in USES] for item in PRODUCTS])
    loss = F.cross_entropy(logits[:, [0, 1, 2, 5]], colour, reduction="sum")
    loss = loss + F.binary_cross_entropy_with_logits(logits[:, 3:5], usage, reduction="sum")
    loss = loss + parameters[0].square().sum() / (2 * 5.0)
    loss = loss + (parameters[-1].square().sum() * 3.0 / 2 if names else 0)
    assert report["loss_after"] == pytest.approx(float(loss.detach()) / 96, rel=1e-4)
    gradient = torch.cat([slope.flatten() for slope in torch.autograd.grad(loss, parameters)])
    assert gradient.abs().max() < 0.05  # at the minimum: at zero weights it is above 10


def test_a_tag_without_any_training_row_profits_from_what_names_are_worth(processor):
    words, candidates, _ = fitted(processor)
    logits = says(processor, words, candidates, "great teal shirt")
    assert best(logits, [*COLOURS, "no colour"]) == "Teal"
    words, candidates, _ = fitted(processor, names=False)
    logits = says(processor, words, candidates, "great teal shirt")
    assert best(logits, [*COLOURS, "no colour"]) != "Teal"


def test_unknown_labels_are_ignored(processor):
    nothing_known = [item | {"tags": {"colour": None, "usage": None}} for item in PRODUCTS[:40]]
    expected, _, _ = fitted(processor, buckets=0)
    found, _, _ = fitted(processor, PRODUCTS + nothing_known, buckets=0)
    torch.testing.assert_close(found.names.weight.weight, expected.names.weight.weight, rtol=1e-3, atol=1e-3)
    half_known = [item | {"tags": item["tags"] | {"usage": None}} for item in PRODUCTS]
    words, candidates, _ = fitted(processor, half_known)
    logits = says(processor, words, candidates, "great red shirt for Party")
    assert best(logits, COLOURS) == "Red"
    assert torch.equal(words.lexical.weight.weight[:, 4:6], torch.zeros(2**12, 2))


def test_a_none_that_never_occurs_is_never_said(processor):
    words, candidates, _ = fitted(processor, [item for item in PRODUCTS if item["tags"]["colour"]])
    assert says(processor, words, candidates, "great plain shirt")["no colour"] == pytest.approx(NEVER)


def test_the_masked_view_reads_what_is_left_of_a_text_without_its_tags_words(processor):
    words, candidates, reports = fitted(processor, masked=PRODUCTS)
    assert [report["texts"] for report in reports] == [96, 192]
    names = words.names.weight.weight.view(2, 2, -1)
    assert names[0, 1, 0] < names[0, 0, 0]
    assert best(says(processor, words, candidates, "nice marine shirt", view=1), COLOURS) == "Navy"


def test_balance_gives_rare_tags_their_say(processor):
    rare = [item for item in PRODUCTS if item["tags"]["colour"] != ["Navy"]] + PRODUCTS[2:3]

    def navy(balance):
        words, candidates, _ = fitted(processor, rare, names=False, inverse_l2=0.1, balance=balance)
        logits = says(processor, words, candidates, "nice navy shirt")
        return logits["Navy"] - logits["Red"]

    assert navy(1.0) > navy({"colour": 0.5}) > navy(0.0)


def test_texts_beyond_max_rows_are_left_out_and_no_text_at_all_changes_nothing(processor):
    _, _, (report,) = fitted(processor, max_rows=40)
    assert report["texts"] == 64  # batches of 32
    words, candidates, report = fitted(processor, [])
    assert report == [] and says(processor, words, candidates, "red")["Red"] > 0


def test_products_without_text_make_no_batch(processor):
    items = [PRODUCTS[0], PRODUCTS[1] | {"text": None, "texts": []}, PRODUCTS[2]]
    ((ids, mask, labels),) = text_batches(items, processor, ATTRIBUTES)
    assert len(ids) == len(mask) == 2 and labels.shape == (2, 6)
    (_, _, labels), = text_batches([PRODUCTS[0] | {"tags": {"colour": None, "usage": []}}], processor, ATTRIBUTES)
    assert labels.tolist() == [[UNKNOWN] * 4 + [0, 0]]
