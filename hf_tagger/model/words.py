"""Words and letters recovered from `input_ids`, whatever pieces the tokenizer cuts a text into."""

from dataclasses import dataclass

import torch
from torch import nn

from .letters import (
    BOUNDARY,
    FIRST_CHAR,
    LETTER_S,
    LONGEST_WORD,
    MAX_SPAN,
    MODULUS,
    NO_CHAR,
    PIECE_CHARS,
    RADIX,
    char_codes,
    fold,
)


@dataclass
class TextView:
    """
    Args:
        pieces: case-folded token ids [B, L], -1 where there is none.
        chars: letters and digits as numbers [B, S], `BOUNDARY` around every word, `NO_CHAR` at the end.
        spans: hashes of runs of 1 to K words written as one, a final plural "s" dropped [B, W, K]; -1: no such run.
    """

    pieces: torch.LongTensor
    chars: torch.LongTensor
    spans: torch.LongTensor


class WordReader(nn.Module):
    """Reads token ids back into letters by a table over the vocabulary, then hashes words and runs of words.

    Letters are compared without case, accents and compatibility forms; ideographs count as words of one letter, since
    nothing else parts them. Everything is tensor arithmetic, so that it exports with the model.
    """

    def __init__(self, vocab_size: int, max_span: int = MAX_SPAN):
        super().__init__()
        self.max_span = max_span
        self.register_buffer("folds", torch.full((vocab_size,), -1, dtype=torch.int32))
        self.register_buffer("piece_chars", torch.zeros(vocab_size, PIECE_CHARS, dtype=torch.int16))

    def set_tokenizer(self, tokenizer) -> None:
        """Fills the tables; special tokens read as nothing."""
        tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        texts = [text for text in _piece_texts(tokenizer, tokens)]
        first: dict[str, int] = {}
        folds = torch.full_like(self.folds, -1)
        chars = torch.zeros_like(self.piece_chars)
        for index, text in enumerate(texts[: len(folds)]):
            if text is None:
                continue
            folded = fold(text)
            folds[index] = first.setdefault(folded, index)
            codes = char_codes(folded)[:PIECE_CHARS]
            chars[index, : len(codes)] = torch.tensor(codes, dtype=torch.int16)
        self.folds.copy_(folds)
        self.piece_chars.copy_(chars)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> TextView:
        attended = attention_mask.bool()
        pieces = self.folds[input_ids].long().masked_fill(~attended, -1)
        chars = self.piece_chars[input_ids].long() * attended[..., None]
        # Byte-level tokenizers write no space before a text's first word.
        chars = nn.functional.pad(chars.flatten(1), (1, 1), value=BOUNDARY)
        chars = _compact(chars)
        # Of several boundaries in a row the last one stays: it opens a word, or ends the text.
        following = nn.functional.pad(chars[:, 1:], (0, 1))
        chars = _compact(chars.masked_fill((chars == BOUNDARY) & (following == BOUNDARY), NO_CHAR))
        return TextView(pieces, chars, self._spans(chars))

    def _spans(self, chars: torch.Tensor) -> torch.Tensor:
        letters = chars >= FIRST_CHAR
        boundaries = chars == BOUNDARY
        word = boundaries.long().cumsum(1) - 1
        count = max(int(word.max()), 1)
        # The position of a letter in its word: letters so far, less those before the word's boundary.
        so_far = letters.long().cumsum(1)
        before = so_far.masked_fill(~boundaries, 0).cummax(1).values
        position = (so_far - before - 1).clamp(0, LONGEST_WORD - 1)
        powers = _powers(LONGEST_WORD, chars.device)
        values = chars * powers[position] * letters
        word = word.clamp(0, count - 1)
        zeros = chars.new_zeros(chars.shape[0], count)
        whole = zeros.scatter_add(1, word, values) % MODULUS
        length = zeros.scatter_add(1, word, letters.long())
        plural = _plural_ending(chars)
        final_s = zeros.scatter_add(1, word, plural.long()).bool()
        stem = (whole - zeros.scatter_add(1, word, values * plural)) % MODULUS
        spans = []
        prefix, prefix_length = torch.zeros_like(whole), torch.zeros_like(length)
        long_powers = _powers(LONGEST_WORD * self.max_span, chars.device)
        for extra in range(self.max_span):
            last, last_length = _shift(whole, extra), _shift(length, extra)
            total = prefix_length + last_length
            drop = _shift(final_s, extra) & (total > 3)
            end = torch.where(drop, _shift(stem, extra), last)
            shift = long_powers[prefix_length.clamp(max=len(long_powers) - 1)]
            spans.append(((prefix + end * shift) % MODULUS).masked_fill(last_length == 0, -1))
            prefix, prefix_length = (prefix + last * shift) % MODULUS, total
        return torch.stack(spans, dim=2)


def _piece_texts(tokenizer, tokens: list[str | None]) -> list[str | None]:
    """Each token as text, with a leading space where it opens a word; None for special tokens."""
    special = set(tokenizer.all_special_ids)
    marks = {mark: sum(token is not None and token.startswith(mark) for token in tokens) for mark in ("▁", "Ġ", "##")}
    style = max(marks, key=marks.get)
    texts: list[str | None] = []
    for index, token in enumerate(tokens):
        if token is None or index in special:
            texts.append(None)
        elif style == "##":
            texts.append(token[2:] if token.startswith("##") else " " + token)
        elif style == "Ġ":
            texts.append(tokenizer.convert_tokens_to_string([token]))
        else:
            texts.append(token.replace("▁", " "))
    return texts


def _plural_ending(chars: torch.Tensor) -> torch.Tensor:
    """True at an "s" that ends its word and does not follow another "s"."""
    following = nn.functional.pad(chars[:, 1:], (0, 1))
    previous = nn.functional.pad(chars[:, :-1], (1, 0))
    return (chars == LETTER_S) & (following < FIRST_CHAR) & (previous != LETTER_S)


def _powers(count: int, device) -> torch.Tensor:
    values = [1]
    for _ in range(count - 1):
        values.append(values[-1] * RADIX % MODULUS)
    return torch.tensor(values, device=device)


def _shift(values: torch.Tensor, by: int) -> torch.Tensor:
    """values[:, i + by] at place i, zero past the end."""
    return nn.functional.pad(values[:, by:], (0, by)) if by < values.shape[1] else torch.zeros_like(values)


def _compact(chars: torch.Tensor) -> torch.Tensor:
    """Moves the characters of each row to its front, in order, and cuts the columns that no row needs."""
    real = chars != NO_CHAR
    place = real.long().cumsum(1) - 1
    width = int(place.max()) + 1
    # What is not real is written to one column past the end, which is cut off again.
    target = torch.where(real, place, width)
    return chars.new_zeros(chars.shape[0], width + 1).scatter(1, target, chars)[:, :width]
