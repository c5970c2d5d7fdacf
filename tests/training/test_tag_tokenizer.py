import random

import pytest
from transformers import AutoTokenizer

from hf_tagger.model.saving import BOS, EOS, PAD, SEPARATOR, UNK
from hf_tagger.training.tag_tokenizer import train_tag_tokenizer

TAGS = ["Sports Shoes", "Shoes", "T-shirt", "Rotes Kleid", "连衣裙", "棉", "حذاء"] * 20
ODD = ["", " ", "  x ", "▁", "a▁b", "<0x41>", "<sep>", "<en> x", "<attribute:colour>", "\n\t", "é🙂", "e\u0301", "\x00",
       "ﬁ", "\u2028", "\U0010ffff"]  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    return train_tag_tokenizer(TAGS, ["en", "zh"], ["colour"], vocab_size=500)


def back(tokenizer, text):
    return tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_any_unicode_string_round_trips_also_after_saving(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    draw = random.Random(0)
    ranges = [(32, 127), (0, 0xD800), (0xE000, 0x110000)]
    texts = ["".join(chr(draw.randrange(*draw.choice(ranges))) for _ in range(draw.randint(1, 8))) for _ in range(500)]
    for tokens in (tokenizer, AutoTokenizer.from_pretrained(tmp_path)):
        assert [text for text in [*TAGS, *ODD, *texts] if back(tokens, text) != text] == []


def test_special_tokens_come_first_and_controls_last(tokenizer):
    names = ["<pad>", "<unk>", "<s>", "</s>", "<sep>"]
    assert tokenizer.convert_tokens_to_ids(names) == [PAD, UNK, BOS, EOS, SEPARATOR]
    controls = tokenizer.convert_tokens_to_ids(["<en>", "<zh>", "<attribute:colour>"])
    assert controls == list(range(len(tokenizer) - 3, len(tokenizer))) and len(tokenizer) <= 500


def test_frequent_words_are_single_tokens_wherever_they_stand(tokenizer):
    shoes = tokenizer.tokenize("Shoes")
    assert len(shoes) < 5 and tokenizer.tokenize("Sports Shoes")[-len(shoes):] == shoes


def test_training_is_deterministic_and_reads_its_tags_once():
    vocabularies = [train_tag_tokenizer(iter(TAGS), ["en"], [], 500).get_vocab() for _ in range(2)]
    assert vocabularies[0] == vocabularies[1]


def test_without_tags_or_with_too_small_a_vocabulary_it_says_so():
    with pytest.raises(ValueError, match="no tag tokenizer of 500 tokens"):
        train_tag_tokenizer([], vocab_size=500)
    with pytest.raises(ValueError, match="no tag tokenizer of 100 tokens"):
        train_tag_tokenizer(TAGS, vocab_size=100)


def test_words_that_one_thing_always_follows_are_one_token():
    tags = ["Dress", "Contrast Trim", "Star Print", "robe beige", "robe"] * 20
    tokenizer = train_tag_tokenizer(tags, vocab_size=500)
    assert [len(tokenizer.tokenize(tag)) for tag in tags[:5]] == [1, 2, 2, 2, 1]
