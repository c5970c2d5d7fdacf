"""The words' evidence without torch: the numbers of the tensors' code, on words that test every rule of it."""

import numpy as np
import torch

from hf_tagger.model.configuration_tagger import RecurrentTextConfig, TaggerConfig
from hf_tagger.model.lexical_head import WordEvidence
from hf_tagger.model.tag_head import candidate_attributes
from hf_tagger.runtime.words import WordsRuntime
from hf_tagger.training.unigram_tokenizer import train_unigram_tokenizer

ATTRIBUTES = [
    {"name": "type", "kind": "single", "tags": ["Bag", "Hand Bag", "Hand Bag Strap", "T-shirt", "Bath and Body"]},
    {"name": "colour", "kind": "single", "tags": ["Red", "Dark Red", "Grün", "红"]},
    {"name": "style", "kind": "multi", "tags": ["Hand", "Hand Bag", "Dress / Skirt"]},
]
TEXTS = ["Red hand bags with dark red straps", "handbag strap handbag", "Tshirts, T-SHIRT; t shirt", "body lotion",
         "bath", "dress, skirts and a hand", "GRÜN grun gruen 红 包 红色", "ss s press", "!!!", "", "a" * 90 + " bag",
         "bag bag red bag"]  # fmt: skip


def test_evidence_and_named_attributes_are_those_of_the_model():
    torch.manual_seed(0)
    tokenizer = train_unigram_tokenizer([text for text in TEXTS if text] * 3, vocab_size=90)
    config = TaggerConfig(attributes=ATTRIBUTES, text_config=RecurrentTextConfig(vocab_size=len(tokenizer)),
                          lexical_buckets=256, lexical_char_ngrams=[3, 4, 5], lexical_word_ngrams=2,
                          name_match=True, word_views=2)
    words = WordEvidence(config)
    words.reset()
    words.set_tokenizer(tokenizer, ATTRIBUTES)
    for table in (words.lexical.weight.weight, words.lexical.bias.weight, words.names.weight.weight):
        table.data.normal_()
    words.lexical.idf.uniform_(0.5, 2)
    attribute = candidate_attributes(config)
    tokens = tokenizer(TEXTS, padding=True, return_tensors="pt")
    mask = tokens["attention_mask"] * torch.tensor([bool(text) for text in TEXTS])[:, None]
    with torch.no_grad():
        evidence, named = words(tokens["input_ids"], mask, attribute)
    tables = {name: table.numpy() for name, table in words.state_dict().items()}
    runtime = WordsRuntime(tables | {"candidate_attribute": attribute.numpy()}, [3, 4, 5], 2, word_ngrams=2)
    found, found_named = runtime(tokens["input_ids"].numpy(), mask.numpy())
    np.testing.assert_allclose(found, evidence.numpy(), atol=2e-5)
    np.testing.assert_array_equal(found_named, named.numpy())
    assert named.any(0)[:2].all() and not named[TEXTS.index("!!!")].any()
