"""Letters of a text as numbers, and words as hashes of them: what torch and the torch-free runtime must agree on."""

import re
import unicodedata

PIECE_CHARS = 16
NO_CHAR, BOUNDARY, FIRST_CHAR = 0, 1, 2
CODES = 2**15 - FIRST_CHAR
MODULUS = 2**31 - 1
RADIX = 1_000_003
LONGEST_WORD = 64
MAX_SPAN = 4
# Of the hashed features of the lexical path.
NGRAM_MULTIPLIER, BUCKET_MULTIPLIER = 1_000_003, 69_069
WORD_OFFSET = 1_000_000_007  # keeps a word apart from the piece of the same number
# Punctuation that parts words; all other (hyphens, apostrophes, dots) only stands inside them.
_PARTS_WORDS = re.compile(r"[\s/&,;:|()\[\]{}+_▁]")


def fold(text: str) -> str:
    """Without case, accents and compatibility forms."""
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
    return unicodedata.normalize("NFC", "".join(c for c in decomposed if not unicodedata.combining(c)))


def char_codes(folded: str) -> list[int]:
    """Letters and digits of folded text as numbers, `BOUNDARY` where words part."""
    codes = []
    for character in folded:
        if _PARTS_WORDS.match(character):
            codes.append(BOUNDARY)
        elif character.isalnum():
            code = FIRST_CHAR + ord(character) % CODES
            codes += [BOUNDARY, code, BOUNDARY] if _is_ideograph(character) else [code]
    return codes


def _is_ideograph(character: str) -> bool:
    return "\u3040" <= character <= "\u30ff" or "\u3400" <= character <= "\u9fff" or ord(character) >= 0x20000


def span_hash(text: str) -> int:
    """The hash that `WordReader` gives a run of words spelling `text` (0 for one without letters)."""
    letters = [code for code in char_codes(fold(text)) if code != BOUNDARY]
    s = char_codes("s")[0]
    if len(letters) > 3 and letters[-1] == s and letters[-2] != s:
        letters = letters[:-1]
    value, power = 0, 1
    for code in letters:
        value = (value + code * power) % MODULUS
        power = power * RADIX % MODULUS
    return value


LETTER_S = char_codes("s")[0]
