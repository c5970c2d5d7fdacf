"""The tokenizer of what the decoder writes: SentencePiece unigram with byte fallback, trained on a catalogue's tags."""

import string
from collections.abc import Iterable, Sequence
from itertools import islice

from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from hf_tagger.training.unigram_tokenizer import SPECIAL, train_pieces

SEPARATOR = "<sep>"  # its id follows those of SPECIAL: PAD, UNK, BOS, EOS, SEPARATOR of `configuration_tagger`
SPACE = "▁"


def train_tag_tokenizer(
    tags: Iterable[str],
    languages: Sequence[str] = (),
    attributes: Sequence[str] = (),
    vocab_size: int = 4000,
    max_tags: int = 2_000_000,
) -> PreTrainedTokenizerFast:
    """Reads `tags` once, in order, and learns at most `vocab_size` tokens from the first `max_tags`; deterministic.

    Its tokens: <pad> <unk> <s> </s> <sep>, the 256 bytes and the word pieces; then, last, a control token for each
    language ("<en>") and each attribute ("<attribute:colour>"). Any Unicode string comes back as it was from
    `decode(encode(text))`; what looks like a special token in a text is read as plain characters.

    Raises ValueError where there is no tag, or `vocab_size` is too small.
    """
    # Each word is a line of its own, written twice: SentencePiece makes no piece of letters that are always followed by
    # the same thing, such as the end of the line, or the next word of the only tag that they occur in.
    lines = (f"{word} {word}" for tag in islice(tags, max_tags) for word in tag.split())
    controls = [f"<{language}>" for language in languages] + [f"<attribute:{name}>" for name in attributes]
    try:
        pieces = train_pieces(
            lines, vocab_size - len(controls), byte_fallback=True, control_symbols=[SEPARATOR],
            # All that a byte token is spelt with: read letter by letter, no text is mistaken for a byte.
            required_chars=string.digits + string.ascii_letters + "<>",
            remove_extra_whitespaces=False, max_sentence_length=10_000)
    except (RuntimeError, OSError) as error:
        raise ValueError(f"no tag tokenizer of {vocab_size} tokens can be learned from these tags: {error}") from error
    return _fast_tokenizer([(piece.replace(SPACE, " "), score) for piece, score in pieces], controls)


def _fast_tokenizer(pieces: list[tuple[str, float]], controls: list[str]) -> PreTrainedTokenizerFast:
    lowest = min(score for _, score in pieces)
    # A byte token must never be cheaper than the letters it is spelt with.
    pieces = [(piece, 100 * lowest if piece.startswith("<0x") else score) for piece, score in pieces]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=1, byte_fallback=True))
    # A space before each word: it is then cut into the same pieces at the start of a tag and further on.
    tokenizer.normalizer = normalizers.Prepend(" ")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **SPECIAL, sep_token=SEPARATOR, additional_special_tokens=controls,
        split_special_tokens=True, clean_up_tokenization_spaces=False)
