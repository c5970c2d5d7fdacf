"""Letters and runs of words, read back from the ids of every family of tokenizers."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from hf_tagger.model.letters import BOUNDARY, FIRST_CHAR, NO_CHAR, char_codes, fold, span_hash
from hf_tagger.model.words import WordReader
from hf_tagger.training.unigram_tokenizer import train_unigram_tokenizer

TEXTS = [
    "Men's T-Shirts, navy-blue & Écru",
    "handbag / Hand Bags in the size XXL",
    "红色连衣裙 女士 M号",
    "Größe 38: Straßenschuhe aus Leder",
    "Ｆｕｌｌｗｉｄｔｈ ﬁt naïve café",
    "Синяя куртка для мальчиков",
    "a",
    "dress glass bus gas Dress",
]


def wordpiece():
    """Cased, so that folding is the reader's own work."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=200, special_tokens=special))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]")


def byte_level():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    # Enough merges to put every letter's bytes together, as the vocabularies of real models do.
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<pad>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(TEXTS * 2, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>")


TOKENIZERS = {"WordPiece": wordpiece, "SentencePiece": lambda: train_unigram_tokenizer(TEXTS, 150),
              "byte-level BPE": byte_level}  # fmt: skip


@pytest.fixture(scope="module", params=TOKENIZERS)
def tokenizer(request):
    return TOKENIZERS[request.param]()


def read(tokenizer, texts, max_span=4):
    reader = WordReader(len(tokenizer), max_span)
    reader.set_tokenizer(tokenizer)
    return reader(**tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False))


ALPHABET = {max(char_codes(letter)): letter for text in TEXTS for letter in fold(text) if letter.isalnum()}


def words(row):
    """The words of one row of `TextView.chars`."""
    found, word = [], ""
    for code in [*row.tolist(), BOUNDARY]:
        if code >= FIRST_CHAR:
            word += ALPHABET[code]
        elif code == BOUNDARY and word:
            found, word = [*found, word], ""
    return found


def letters(text):
    return [character for character in fold(text) if character.isalnum()]


def test_letters_come_back_without_case_accents_and_compatibility_forms(tokenizer):
    view = read(tokenizer, TEXTS)
    for row, text in zip(view.chars, TEXTS, strict=True):
        assert "".join(words(row)) == "".join(letters(text))
    assert words(view.chars[4]) == ["fullwidth", "fit", "naive", "cafe"]
    assert words(view.chars[2]) == ["红", "色", "连", "衣", "裙", "女", "士", "m", "号"]


def test_every_row_opens_and_closes_with_one_boundary(tokenizer):
    chars = read(tokenizer, TEXTS).chars
    for row in chars:
        row = row[row != NO_CHAR]
        assert row[-1] == BOUNDARY != row[0] or row[0] == BOUNDARY
        assert not ((row[1:] == BOUNDARY) & (row[:-1] == BOUNDARY)).any()


def test_padding_and_company_change_nothing(tokenizer):
    together = read(tokenizer, TEXTS)
    for row, text in enumerate(TEXTS):
        alone = read(tokenizer, [text])
        assert words(alone.chars[0]) == words(together.chars[row])
        size = alone.spans.shape[1]
        assert torch.equal(alone.spans[0], together.spans[row, :size])
        assert (together.spans[row, size:] == -1).all()


def spelled(tokenizer, text, name):
    return bool((read(tokenizer, [text]).spans == span_hash(name)).any())


@pytest.mark.parametrize(("text", "name"), [
    ("Men's T-Shirts", "T-shirt"),
    ("Men's T-Shirts", "Tshirts"),
    ("Men's T-Shirts", "T Shirt"),
    ("handbag", "Hand Bag"),
    ("Hand Bags", "Handbags"),
    ("navy-blue", "Navy Blue"),
    ("navy-blue & Écru", "ecru"),
    ("红色连衣裙 女士", "连衣裙"),
    ("红色连衣裙 女士", "红色"),
    ("Straßenschuhe", "Strassenschuhe"),
    ("Größe 38", "GRÖSSE"),
    ("dress", "Dress"),
    ("bus", "bus"),
    ("in the size XXL", "the Size XXL"),
])  # fmt: skip
def test_names_are_found_however_they_are_written(tokenizer, text, name):
    assert spelled(tokenizer, text, name)


@pytest.mark.parametrize(("text", "name"), [
    ("handbag", "bag"),
    ("Hand Bags", "and"),
    ("dress", "dres"),
    ("gas", "ga"),
    ("navy-blue & Écru", "blue navy"),
    ("红色连衣裙", "色红"),
    ("in the size XXL", "in size"),
])  # fmt: skip
def test_parts_of_words_and_other_orders_are_not_found(tokenizer, text, name):
    assert not spelled(tokenizer, text, name)


def test_spans_stand_where_their_words_stand(tokenizer):
    spans = read(tokenizer, ["Hand Bags in size"], max_span=3).spans[0]
    first = [span_hash(words) for words in ("hand", "hand bag", "hand bags in")]
    assert spans[0].tolist() == first
    assert spans[1].tolist() == [span_hash(words) for words in ("bags", "bags in", "bags in size")]
    assert spans[3].tolist() == [span_hash("size"), -1, -1]


def test_special_tokens_and_masked_tokens_read_as_nothing():
    tokenizer = wordpiece()
    reader = WordReader(len(tokenizer))
    reader.set_tokenizer(tokenizer)
    ids = tokenizer("[CLS] dress gas", return_tensors="pt").input_ids
    view = reader(ids, torch.ones_like(ids))
    assert words(view.chars[0]) == ["dress", "gas"] and view.pieces[0, 0] == -1
    nothing = reader(ids, torch.zeros_like(ids))
    assert words(nothing.chars[0]) == [] and (nothing.pieces == -1).all() and (nothing.spans == -1).all()


def test_pieces_that_differ_by_case_alone_are_one_feature():
    tokenizer = wordpiece()
    vocabulary = tokenizer.get_vocab()
    upper, lower = vocabulary["D"], vocabulary["d"]
    reader = WordReader(len(tokenizer))
    reader.set_tokenizer(tokenizer)
    assert reader.folds[upper] == reader.folds[lower] >= 0


def test_words_past_any_length_are_read_without_failing(tokenizer):
    text = "a" * 300 + " dress"
    assert spelled(tokenizer, text, "dress")


def test_codes_part_words_at_spaces_and_slashes_but_not_at_hyphens():
    assert char_codes("a-b")[:1] + char_codes("b")[:1] == char_codes("ab") == char_codes("a-b")
    assert char_codes("a/b") == [*char_codes("a"), BOUNDARY, *char_codes("b")]
