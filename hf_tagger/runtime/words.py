"""`WordEvidence` without torch: the same numbers from the same tables, text by text.

The tensor code (`words.py`, `lexical_head.py`) compares every run of words with every tag at once, as training
wants it. Of one text few runs spell anything, so that looking them up is quicker; numpy is all it takes.
"""

from collections import defaultdict

import numpy as np

from hf_tagger.model.letters import (
    BOUNDARY,
    BUCKET_MULTIPLIER,
    FIRST_CHAR,
    LETTER_S,
    LONGEST_WORD,
    MAX_SPAN,
    MODULUS,
    NGRAM_MULTIPLIER,
    NO_CHAR,
    RADIX,
    WORD_OFFSET,
)


class WordsRuntime:
    """
    Args:
        tables: the tensors of a `WordEvidence`, by their names in it, and "candidate_attribute" [C].
        char_ngrams, word_ngrams, views: `lexical_char_ngrams`, `lexical_word_ngrams` and `word_views` of the model's
            configuration.
    """

    def __init__(self, tables: dict[str, np.ndarray], char_ngrams: list[int], views: int, word_ngrams: int = 0):
        self.tables, self.char_ngrams, self.word_ngrams, self.views = tables, char_ngrams, word_ngrams, views
        self.folds, self.piece_chars = tables["reader.folds"], tables["reader.piece_chars"]
        self.attribute = tables["candidate_attribute"]
        self.powers = np.array([pow(RADIX, exponent, MODULUS) for exponent in range(LONGEST_WORD)])
        # Hashes of names, and of their words, alternatives and last words -> the tags, of words also their places.
        self.tags_named: dict[int, list[int]] = defaultdict(list)
        self.tags_with_word: dict[int, list[tuple[int, int]]] = defaultdict(list)
        self.tags_with_part: dict[int, list[int]] = defaultdict(list)
        self.tags_ending_in: dict[int, list[int]] = defaultdict(list)
        self.attributes = int(self.attribute.max()) + 1
        self.tag_attribute = self.attribute[: len(self.attribute) - self.attributes]
        if "names.names" in tables:
            self.exclusive = tables["names.exclusive"]
            self.shared = ~self.exclusive[self.tag_attribute]
            weights = tables["names.weight.weight"][self.tag_attribute]
            self.name_weights = weights.reshape(len(weights), self.views, -1)
            for tag, name in enumerate(tables["names.names"].tolist()):
                self.tags_named[name].append(tag)
                for place, word in enumerate(tables["names.words"][tag].tolist()):
                    self.tags_with_word[word].append((tag, place))
                for part in tables["names.parts"][tag].tolist():
                    self.tags_with_part[part].append(tag)
                self.tags_ending_in[int(tables["names.last_words"][tag])].append(tag)
            for places in (self.tags_named, self.tags_with_word, self.tags_with_part, self.tags_ending_in):
                places.pop(-1, None)

    def __call__(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """int64 [B, L] twice -> evidence float32 [B, V, C] and which attributes have a tag named, bool [B, A]; nothing
        for a row that attends to nothing."""
        evidence = np.zeros((len(input_ids), self.views, len(self.attribute)), np.float32)
        named = np.zeros((len(input_ids), self.attributes), bool)
        for row, (ids, mask) in enumerate(zip(input_ids, attention_mask, strict=True)):
            ids = ids[mask.astype(bool)]
            if len(ids):
                self._read(ids, evidence[row], named[row])
        return evidence, named

    def _read(self, ids: np.ndarray, evidence: np.ndarray, named: np.ndarray) -> None:
        chars = self._chars(ids)
        spans = self._spans(chars)
        if "lexical.weight.weight" in self.tables:
            evidence += self._lexical(self.folds[ids].astype(np.int64), chars, spans)
        if "names.names" in self.tables:
            features = self._name_features(spans)
            evidence[:, : len(features)] += np.einsum("tk,tvk->vt", features, self.name_weights)
            either = (features[:, 0] + features[:, 4]) > 0
            named[self.tag_attribute[either]] = True
            named &= self.exclusive

    def _chars(self, ids: np.ndarray) -> np.ndarray:
        """Letters of the text [S], one `BOUNDARY` before each word and after the last."""
        chars = self.piece_chars[ids].astype(np.int64).ravel()
        chars = np.concatenate([[BOUNDARY], chars[chars != NO_CHAR], [BOUNDARY]])
        following = np.append(chars[1:], NO_CHAR)
        return chars[(chars != BOUNDARY) | (following != BOUNDARY)]

    def _lexical(self, pieces: np.ndarray, chars: np.ndarray, spans: list[list[int]]) -> np.ndarray:
        codes = [pieces[pieces >= 0] + 1]
        for order in self.char_ngrams:
            if len(chars) < order:
                continue
            windows = np.lib.stride_tricks.sliding_window_view(chars, order)
            # Letters all through, but for a boundary at either end.
            inside = (windows[:, 1:-1] >= FIRST_CHAR).all(1) & (windows[:, 1] != BOUNDARY)
            windows = windows[inside]
            code = np.full(len(windows), order, np.int64)
            for offset in range(order):
                code = (code * NGRAM_MULTIPLIER + windows[:, offset] + 1) % MODULUS
            codes.append(code)
        runs = [run + WORD_OFFSET for starting in spans for run in starting[: self.word_ngrams]]
        codes.append(np.array(runs, np.int64) % MODULUS)
        table, idf = self.tables["lexical.weight.weight"], self.tables["lexical.idf"]
        buckets, counts = np.unique(np.concatenate(codes) * BUCKET_MULTIPLIER % MODULUS % len(idf), return_counts=True)
        term = (1 + np.log(counts.astype(np.float32))) * idf[buckets]
        length = max(float(np.sqrt((term * term).sum())), 1e-6)
        found = (term / np.float32(length)) @ table[buckets]
        return found.reshape(self.views, -1) + self.tables["lexical.bias.weight"].T

    def _spans(self, chars: np.ndarray) -> list[list[int]]:
        """Hashes of the runs of 1 to `MAX_SPAN` words that start at each word."""
        starts = np.flatnonzero(chars == BOUNDARY)
        lengths = np.diff(np.append(starts, len(chars))) - 1
        position = np.arange(len(chars)) - np.repeat(starts, lengths + 1) - 1
        values = chars * self.powers[position.clip(0, LONGEST_WORD - 1)] * (chars != BOUNDARY)
        following, previous = np.append(chars[1:], NO_CHAR), np.insert(chars[:-1], 0, NO_CHAR)
        plural = (chars == LETTER_S) & (following < FIRST_CHAR) & (previous != LETTER_S)
        whole = np.add.reduceat(values, starts) % MODULUS
        stem = (whole - np.add.reduceat(values * plural, starts)) % MODULUS
        ends_in_s = np.add.reduceat(plural, starts) > 0
        words = [word for word in zip(whole.tolist(), stem.tolist(), ends_in_s.tolist(), lengths.tolist(), strict=True)
                 if word[3]]
        spans = []
        for first in range(len(words)):
            prefix, prefix_length, runs = 0, 0, []
            for word, stemmed, final_s, length in words[first : first + MAX_SPAN]:
                shift = pow(RADIX, min(prefix_length, LONGEST_WORD * MAX_SPAN - 1), MODULUS)
                dropped = final_s and prefix_length + length > 3
                runs.append((prefix + (stemmed if dropped else word) * shift) % MODULUS)
                prefix, prefix_length = (prefix + word * shift) % MODULUS, prefix_length + length
            spans.append(runs)
        return spans

    def _name_features(self, spans: list[list[int]]) -> np.ndarray:
        """float32 [T, 6], see `NameMatch`."""
        word_weights, exclusive = self.tables["names.word_weights"], self.exclusive
        matches = [(tag, first, extra) for first, runs in enumerate(spans) for extra, run in enumerate(runs)
                   for tag in self.tags_named.get(run, ())]
        covered = {(self.tag_attribute[tag], first + later, shorter) for tag, first, extra in matches
                   if exclusive[self.tag_attribute[tag]]
                   for shorter in range(extra) for later in range(extra - shorter + 1)}
        features = np.zeros((len(self.tag_attribute), 6), np.float32)
        found = np.zeros(len(features), bool)
        last, first_place = np.full(len(features), -1), np.full(len(features), len(spans))
        for tag, first, extra in matches:
            found[tag] = True
            if (self.tag_attribute[tag], first, extra) not in covered:
                features[tag, 0] = 1
                last[tag] = max(last[tag], first + extra)
                first_place[tag] = min(first_place[tag], first)
        latest, earliest = np.full(self.attributes, -1), np.full(self.attributes, len(spans))
        np.maximum.at(latest, self.tag_attribute, last)
        np.minimum.at(earliest, self.tag_attribute, first_place)
        features[:, 1] = features[:, 0] * ((last == latest[self.tag_attribute]) | self.shared)
        features[:, 2] = features[:, 0] * ((first_place == earliest[self.tag_attribute]) | self.shared)
        for run in {run for runs in spans for run in runs}:
            for tag, place in self.tags_with_word.get(run, ()):
                features[tag, 3] += word_weights[tag, place]
            features[self.tags_with_part.get(run, ()), 4] = 1
            features[self.tags_ending_in.get(run, ()), 5] = 1
        features[found, 3:] = 0
        return features
