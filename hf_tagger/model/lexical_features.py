"""Exact words count: sparse features of a product's text, read off the text itself, in numpy.

A text tower averages a product's words away and sees no more than its window; these features know every word of the
whole text. Two kinds: hashed words and letter n-grams (Weinberger et al. 2009, arXiv 0902.2206), and how the name of
each closed tag stands in the text. The processor computes them once; training, the model and the exported graph take
them as ids and weights.
"""

import re
import unicodedata
import zlib
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from .text import stem

# Punctuation that parts words; all other (hyphens, apostrophes, dots) only stands inside them.
_PARTS_WORDS = re.compile(r"[\s/&,;:|()\[\]{}+_]+")
_NOT_IN_WORDS = re.compile(r"\W")
# Nothing parts the words of Chinese and Japanese: each sign counts as one.
_IDEOGRAPH = re.compile(r"([\u3040-\u30ff\u3400-\u9fff\U00020000-\U0003ffff])")
# Words that join the parts of a name ("Bath and Body") and say nothing of their own.
_CONNECTORS = {"and", "of", "the", "und", "et", "y", "e", "ve", "och", "en", "de", "des", "la"}
_ALTERNATIVES = re.compile(r"\s+(?:and|or|und|oder|et|ou|y|o|e|ve|och)\s+|\s*[&/,]\s*")
LONGEST_WORD = 64
# Words in a row that are looked up as one name ("T shirt", "hand bags").
LONGEST_RUN = 4
# Words whose features are kept: a catalogue repeats them.
CACHED_WORDS = 200_000
# What is known of a tag's name in a text, see `LexicalFeatures.name_matches`.
NAME_FEATURES = 6
ID_KEYS, WEIGHT_KEYS = ("lexical_ids", "name_ids"), ("lexical_weights", "name_weights")


def fold(text: str) -> str:
    """Without case, accents and compatibility forms."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
    return unicodedata.normalize("NFC", "".join(c for c in decomposed if not unicodedata.combining(c)))


def words_of(text: str) -> list[str]:
    """The folded words of a text, letters and digits only: "T-Shirts, blue" -> ["tshirts", "blue"]."""
    text = fold(text)
    if not text.isascii():
        text = _IDEOGRAPH.sub(r" \1 ", text)
    words = (_NOT_IN_WORDS.sub("", part)[:LONGEST_WORD] for part in _PARTS_WORDS.split(text))
    return [word for word in words if word]


def spelling(name: str) -> str:
    """What two spellings of one name have in common: "T-Shirts" and "tshirt" are "tshirt"."""
    return stem("".join(words_of(name)))


class LexicalFeatures:
    """
    Args:
        buckets: size of the table that words and n-grams are hashed into; 0: no such features.
        char_ngrams: lengths of the letter n-grams inside words; a word's ends count as a letter.
        word_ngrams: longest run of words that is a feature of its own, at least 1.
        attributes: whose tags' names are looked for, and their "aliases" as a whole, as in `TaggerConfig`; empty:
            none.
    """

    def __init__(self, buckets: int, char_ngrams: Sequence[int] = (3, 4, 5), word_ngrams: int = 1,
                 attributes: Sequence[dict] = ()):
        self.buckets, self.char_ngrams, self.word_ngrams = buckets, tuple(char_ngrams), word_ngrams
        self._of_word: dict[str, list[int]] = {}
        self.set_names(attributes)

    def set_names(self, attributes: Sequence[dict]) -> None:
        """Takes these attributes' tags for the names to look for."""
        self.attribute_of_tag: list[int] = []
        self.exclusive = [attribute["kind"] == "single" for attribute in attributes]
        # From a spelling to the tags that it names, in whole, as an alternative, by a word or by their last word.
        self._named, self._alternative, self._word, self._last_word = (defaultdict(list) for _ in range(4))
        for index, attribute in enumerate(attributes):
            place = {}
            for name in attribute["tags"]:
                place[name] = len(self.attribute_of_tag)
                self._add_name(place[name], name)
                self.attribute_of_tag.append(index)
            for other, name in (attribute.get("aliases") or {}).items():
                # A code of digits would be found in every measure.
                if name in place and any(map(str.isalpha, other)):
                    self._add_spelling(place[name], other)

    def _add_name(self, tag: int, name: str) -> None:
        self._add_spelling(tag, name)
        words = [stem(word) for word in words_of(name) if word not in _CONNECTORS]
        if len(words) < 2:
            return
        for word, count in Counter(words).items():
            self._word[word].append((tag, count / len(words)))
        self._last_word[words[-1]].append(tag)
        parts = [spelling(part) for part in _ALTERNATIVES.split(name)]
        for part in parts if len(parts) > 1 else ():
            self._alternative[part].append(tag)

    def _add_spelling(self, tag: int, name: str) -> None:
        if (whole := spelling(name)) and tag not in self._named[whole]:
            self._named[whole].append(tag)

    def __call__(self, texts: Sequence[str | None]) -> dict[str, np.ndarray]:
        """`lexical_ids` int64 and `lexical_weights` float32 [B, N] (damped term frequencies), `name_ids` int64 and
        `name_weights` float32 [B, M] (tag x `NAME_FEATURES` + feature); both padded with id 0 of weight 0."""
        read = [words_of(text) if text else [] for text in texts]
        terms = [self.terms(words) for words in read]
        names = [self.name_matches(words) for words in read]
        return {"lexical_ids": _padded([ids for ids, _ in terms], np.int64),
                "lexical_weights": _padded([weights for _, weights in terms], np.float32),
                "name_ids": _padded([list(found) for found in names], np.int64),
                "name_weights": _padded([list(found.values()) for found in names], np.float32)}

    def terms(self, words: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Buckets [N], each once, and their damped term frequencies 1 + log(count) [N]."""
        if not self.buckets:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        hashed = [bucket for word in words for bucket in self._hashed(word)]
        for length in range(2, self.word_ngrams + 1):
            hashed += [self._bucket("run", " ".join(words[start:start + length]))
                       for start in range(len(words) - length + 1)]
        ids, counts = np.unique(np.array(hashed, np.int64), return_counts=True)
        return ids, 1 + np.log(counts, dtype=np.float32)

    def _hashed(self, word: str) -> list[int]:
        found = self._of_word.get(word)
        if found is None:
            if len(self._of_word) >= CACHED_WORDS:
                self._of_word.clear()
            ended = f" {word} "
            found = [self._bucket("word", word)]
            found += [self._bucket("letters", ended[start:start + length]) for length in self.char_ngrams
                      for start in range(len(ended) - length + 1)]
            self._of_word[word] = found
        return found

    def _bucket(self, kind: str, feature: str) -> int:
        return zlib.crc32(f"{kind} {feature}".encode(errors="surrogatepass")) % self.buckets

    def name_matches(self, words: list[str]) -> dict[int, float]:
        """{tag x `NAME_FEATURES` + feature: value} of the tags whose names stand in the text, in whole or in part.

        A name is found where some words in a row, written as one and in singular or plural, spell it. Features: 0
        found, and of a `single` attribute not inside a longer name of it; 1 the last one of its attribute; 2 the first
        one; 3 not found: the share of its words that stand there; 4 not found: one of its alternatives ("X and Y")
        does; 5 not found: its last word does.
        """
        if not self.attribute_of_tag:
            return {}
        runs = [(start, start + length, stem("".join(words[start:start + length])))
                for length in range(1, LONGEST_RUN + 1) for start in range(len(words) - length + 1)]
        matches = [(start, end, tag) for start, end, run in runs for tag in self._named.get(run, ())]
        found = {tag for _, _, tag in matches}
        values: dict[int, float] = defaultdict(float)
        # Where the longest name of an attribute ends that starts at a word.
        ends: dict[tuple[int, int], int] = {}
        for start, end, tag in matches:
            key = self.attribute_of_tag[tag], start
            ends[key] = max(ends.get(key, 0), end)
        whole = [(start, end, tag) for start, end, tag in matches if not self._inside_longer(start, end, tag, ends)]
        last: dict[int, int] = defaultdict(int)
        first: dict[int, int] = defaultdict(lambda: len(words))
        for start, end, tag in whole:
            key = self._rivals(tag)
            last[key], first[key] = max(last[key], end), min(first[key], start)
        for start, end, tag in whole:
            values[tag * NAME_FEATURES] = 1.0
            if end == last[self._rivals(tag)]:
                values[tag * NAME_FEATURES + 1] = 1.0
            if start == first[self._rivals(tag)]:
                values[tag * NAME_FEATURES + 2] = 1.0
        for run in {run for _, _, run in runs}:
            for tag, share in self._word.get(run, ()):
                if tag not in found:
                    values[tag * NAME_FEATURES + 3] += share
            for feature, tags in ((4, self._alternative), (5, self._last_word)):
                for tag in tags.get(run, ()):
                    if tag not in found:
                        values[tag * NAME_FEATURES + feature] = 1.0
        return values

    def _rivals(self, tag: int) -> int:
        """Names that compete for being the first and the last one: an attribute's if it takes one tag, else each."""
        attribute = self.attribute_of_tag[tag]
        return -1 - attribute if self.exclusive[attribute] else tag

    def _inside_longer(self, start: int, end: int, tag: int, ends: dict[tuple[int, int], int]) -> bool:
        attribute = self.attribute_of_tag[tag]
        # A run has few words: one that covers this starts close by.
        starts = range(start - LONGEST_RUN + 1, start + 1) if self.exclusive[attribute] else ()
        return any((last := ends.get((attribute, first), 0)) >= end and last - first > end - start for first in starts)


def _padded(rows: Sequence[Sequence], dtype) -> np.ndarray:
    width = max(1, max(map(len, rows), default=0))
    table = np.zeros((len(rows), width), dtype)
    for row, values in zip(table, rows, strict=True):
        row[:len(values)] = values
    return table


def inverse_document_frequency(documents: np.ndarray, rows: int) -> np.ndarray:
    """log((1 + rows) / (1 + documents)) + 1 of the number of texts that each bucket occurs in."""
    return np.log((1 + rows) / (1 + documents)).astype(np.float32) + 1


__all__ = ["NAME_FEATURES", "LexicalFeatures", "fold", "spelling", "words_of"]
