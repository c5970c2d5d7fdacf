"""Exact words count: tag evidence read straight from `input_ids`, beside what the text tower makes of them.

An encoder averages a product's words away; a linear model over the words themselves knows rare tags better.
`LexicalPath` is that linear model over hashed word pieces and letter n-grams. `NameMatch` asks how a tag's own name
stands in the text, with weights that all tags of an attribute share, so that a tag with one example profits from what
was learned on the others. Both are fitted together as one convex problem (`training.lexical`): then the shared weights
explain what names explain and the table learns the exceptions. They score the C = T + A candidates of the tag heads,
need no second processor, and travel with the model.
"""

import re

import torch
from torch import nn
from transformers import initialization as init

from .configuration_tagger import TaggerConfig
from .letters import (
    BOUNDARY,
    BUCKET_MULTIPLIER,
    FIRST_CHAR,
    MODULUS,
    NGRAM_MULTIPLIER,
    NO_CHAR,
    WORD_OFFSET,
    span_hash,
)
from .tag_head import mean_by_attribute, regrown
from .words import TextView, WordReader

# Words that join the parts of a name ("Bath and Body") and say nothing of their own.
_CONNECTORS = {"and", "of", "the", "und", "et", "y", "e", "ve", "och", "en", "de", "des", "la"}
_ALTERNATIVES = re.compile(r"\s+(?:and|or|und|oder|et|ou|y|o|e|ve|och)\s+|\s*[&/,]\s*")


class WordEvidence(nn.Module):
    """What the words of a text say of each candidate, lexical path plus name match, in V views (`word_views`)."""

    def __init__(self, config: TaggerConfig):
        super().__init__()
        self.attributes, self.views = len(config.attributes), config.word_views
        self.reader = WordReader(config.text_config.vocab_size)
        self.lexical = LexicalPath(config) if config.lexical_buckets else None
        self.names = NameMatch(config) if config.name_match else None

    @torch.no_grad()
    def reset(self) -> None:
        """Before it is fitted, a text says only what names of tags stand in it."""
        init.constant_(self.reader.folds, -1)
        init.zeros_(self.reader.piece_chars)
        if self.lexical is not None:
            init.ones_(self.lexical.idf)
            init.zeros_(self.lexical.weight.weight)
            init.zeros_(self.lexical.bias.weight)
        if self.names is not None:
            self.names.reset()

    def set_tokenizer(self, tokenizer, attributes: list[dict]) -> None:
        """Reads the tokenizer's vocabulary and the tags' names."""
        self.reader.set_tokenizer(tokenizer)
        if self.names is not None:
            self.names.set_names(attributes)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, candidate_attribute: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Evidence [B, V, C], zero for a row without text, and which attributes have a tag named, bool [B, A]."""
        with torch.autocast(input_ids.device.type, enabled=False):
            return self._evidence(input_ids, attention_mask, candidate_attribute)

    def _evidence(self, input_ids, attention_mask, candidate_attribute):
        view = self.reader(input_ids, attention_mask)
        evidence = torch.zeros(len(input_ids), self.views, len(candidate_attribute), device=input_ids.device)
        named = torch.zeros(len(input_ids), self.attributes, dtype=torch.bool, device=input_ids.device)
        if self.lexical is not None:
            evidence = evidence + self.lexical(view)
        if self.names is not None:
            features = self.names.features(view, candidate_attribute)
            evidence = evidence + self.names.score(features, candidate_attribute)
            named = self.names.named(features, candidate_attribute)
        return evidence * attention_mask.bool().any(1)[:, None, None], named

    @torch.no_grad()
    def grow(
        self, order: torch.Tensor, old_attribute: torch.Tensor, new_attribute: torch.Tensor, attributes: list[dict]
    ) -> None:
        """Makes room for new candidates (see `NameHead.grow`): no word speaks for them yet but their name."""
        if self.lexical is not None:
            self.lexical.grow(order, old_attribute, new_attribute)
        if self.names is not None:
            self.names.grow(order, attributes)


class LexicalPath(nn.Module):
    """TF-IDF over hashed features of the text -> linear scores. Features are single case-folded pieces, the letter
    n-grams inside words, and runs of whole words.

    It is frozen while the encoder trains: learned jointly at the encoder's pace it starves, since a word's weight only
    moves when the word comes by.
    """

    def __init__(self, config: TaggerConfig):
        super().__init__()
        self.char_ngrams, self.word_ngrams = tuple(config.lexical_char_ngrams), config.lexical_word_ngrams
        self.buckets, self.views = config.lexical_buckets, config.word_views
        candidates = config.num_tags + len(config.attributes)
        self.weight = nn.Embedding(self.buckets, self.views * candidates)
        self.bias = nn.Embedding(candidates, self.views)
        self.register_buffer("idf", torch.ones(self.buckets))

    def ngrams(self, view: TextView) -> tuple[torch.Tensor, torch.Tensor]:
        """Hash buckets int64 [B, N] of all features of each row, and which of them are real, bool [B, N]."""
        codes, real = [view.pieces + 1], [view.pieces >= 0]
        for order in self.char_ngrams:
            length = view.chars.shape[1] - order + 1
            if length <= 0:
                continue
            code = torch.full_like(view.chars[:, :length], order)
            inside = torch.ones_like(code, dtype=torch.bool)
            for offset in range(order):
                window = view.chars[:, offset : offset + length]
                # A polynomial hash modulo a Mersenne prime stays inside int64 and needs no bit operations to export.
                code = (code * NGRAM_MULTIPLIER + window + 1) % MODULUS
                inside &= window != NO_CHAR
                if 0 < offset < order - 1:
                    inside &= window >= FIRST_CHAR
            codes.append(code)
            real.append(inside & (view.chars[:, 1 : length + 1] != BOUNDARY))
        if self.word_ngrams:
            runs = view.spans[..., : self.word_ngrams].flatten(1)
            codes.append((runs + WORD_OFFSET) % MODULUS)
            real.append(runs >= 0)
        return torch.cat(codes, dim=1) * BUCKET_MULTIPLIER % MODULUS % self.buckets, torch.cat(real, dim=1)

    def features(self, view: TextView) -> tuple[torch.Tensor, torch.Tensor]:
        """Sparse TF-IDF rows of unit length: buckets int64 [B, N] and values float [B, N], zero for padding.

        Term frequency is damped to 1 + log(count) and shared by a bucket's occurrences, so values of one bucket add up.
        """
        buckets, real = self.ngrams(view)
        weight = real.to(self.idf.dtype)
        count = weight.new_zeros(len(buckets), self.buckets).scatter_add(1, buckets, weight).gather(1, buckets)
        count = count.clamp(min=1)
        term = (1 + count.log()) * self.idf[buckets] * weight
        length = (term.square() / count).sum(-1, keepdim=True).sqrt()
        return buckets, term / count / length.clamp(min=1e-6)

    def forward(self, view: TextView) -> torch.Tensor:
        """[B, V, C]."""
        buckets, values = self.features(view)
        evidence = torch.einsum("bnc,bn->bc", self.weight(buckets), values)
        return evidence.unflatten(1, (self.views, -1)) + self.bias.weight.T

    @torch.no_grad()
    def grow(self, order: torch.Tensor, old_attribute: torch.Tensor, new_attribute: torch.Tensor) -> None:
        old = self.weight.weight.unflatten(1, (self.views, -1))
        columns = old.new_zeros(self.buckets, self.views, len(order))
        columns[..., order >= 0] = old[..., order[order >= 0]]
        self.weight = nn.Embedding.from_pretrained(columns.flatten(1), freeze=not self.weight.weight.requires_grad)
        typical = mean_by_attribute(self.bias.weight, old_attribute)
        self.bias = regrown(self.bias, order, typical[new_attribute[order < 0]])


class NameMatch(nn.Module):
    """How each tag's name stands in the text, as K = 6 features with weights shared by all tags of an attribute.

    A name is found where some words in a row, written as one and without a final plural "s", spell it: "T-shirt" in
    "Tshirts", "Hand Bag" in "Handbags". Features: 0 found, and of a `single` attribute not inside a longer name of it;
    1 the last one of its attribute; 2 the first one; 3 not found: the share of its words that stand there, rare words
    counting more; 4 not found: one of its alternatives ("X and Y") does; 5 not found: its last word does.
    """

    FEATURES = 6
    PRIOR = (2.0, 0.5, 0.5, 1.0, 0.5, 0.5)

    def __init__(self, config: TaggerConfig):
        super().__init__()
        tags, self.attributes, self.views = config.num_tags, len(config.attributes), config.word_views
        self.weight = nn.Embedding(self.attributes, self.views * self.FEATURES)
        single = [attribute["kind"] == "single" for attribute in config.attributes]
        self.register_buffer("exclusive", torch.tensor(single))
        words, parts = config.max_name_words, 2
        self.register_buffer("names", torch.full((tags,), -1))
        self.register_buffer("words", torch.full((tags, words), -1))
        self.register_buffer("word_weights", torch.zeros(tags, words))
        self.register_buffer("last_words", torch.full((tags,), -1))
        self.register_buffer("parts", torch.full((tags, parts), -1))

    @torch.no_grad()
    def reset(self) -> None:
        init.copy_(self.weight.weight, torch.tensor(self.PRIOR * self.views).expand(self.attributes, -1))
        for table in (self.names, self.words, self.last_words, self.parts):
            init.constant_(table, -1)
        init.zeros_(self.word_weights)

    @torch.no_grad()
    def set_names(self, attributes: list[dict], only: torch.Tensor | None = None) -> None:
        """Spells the tags' names; with `only`, bool [T], those of new tags, the others staying as they were weighed."""
        row = 0
        for attribute in attributes:
            split = [_content_words(tag) for tag in attribute["tags"]]
            frequency: dict[int, int] = {}
            for words in split:
                for word in set(words):
                    frequency[word] = frequency.get(word, 0) + 1
            for tag, words in zip(attribute["tags"], split, strict=True):
                if only is None or only[row]:
                    self._spell(row, tag, words, frequency, len(split))
                row += 1

    def _spell(self, row: int, tag: str, words: list[int], frequency: dict[int, int], names: int) -> None:
        self.names[row] = span_hash(tag) or -1
        if len(words) < 2:
            return
        words = words[: self.words.shape[1]]
        weights = torch.tensor([(names + 1) / frequency[word] for word in words]).log()
        self.words[row, : len(words)] = torch.tensor(words)
        self.word_weights[row, : len(words)] = weights / weights.sum().clamp(min=1e-6)
        self.last_words[row] = words[-1]
        alternatives = [span_hash(part) or -1 for part in _ALTERNATIVES.split(tag)]
        if len(alternatives) > 1:
            alternatives = alternatives[: self.parts.shape[1]]
            self.parts[row, : len(alternatives)] = torch.tensor(alternatives)

    def features(self, view: TextView, candidate_attribute: torch.Tensor) -> torch.Tensor:
        """[B, T, K]."""
        spans = view.spans
        attribute = candidate_attribute[: len(self.names)]
        flat = spans.flatten(1)
        found = (spans[:, None] == self.names[:, None, None]) & (self.names >= 0)[:, None, None]
        inside = self._inside_longer(found, attribute)
        outer = found & ~inside[:, attribute]
        any_outer = outer.flatten(2).any(-1)
        start = torch.arange(spans.shape[1], device=spans.device)[:, None].expand(spans.shape[1:])
        end = start + torch.arange(spans.shape[2], device=spans.device)
        last = torch.where(outer, end, -1).flatten(2).amax(-1)
        first = torch.where(outer, start, spans.shape[1]).flatten(2).amin(-1)
        of_attribute = attribute.repeat(len(spans), 1)
        latest = last.new_full((len(spans), self.attributes), -1).scatter_reduce(1, of_attribute, last, "amax")
        earliest = first.new_full((len(spans), self.attributes), spans.shape[1]).scatter_reduce(
            1, of_attribute, first, "amin")
        exclusive = self.exclusive[attribute]
        is_last = any_outer & ((last == latest[:, attribute]) | ~exclusive)
        is_first = any_outer & ((first == earliest[:, attribute]) | ~exclusive)
        missing = ~found.flatten(2).any(-1)
        words = (flat[:, None, None] == self.words[..., None]).any(-1) & (self.words >= 0)
        share = (words * self.word_weights).sum(-1) * missing
        part = ((flat[:, None, None] == self.parts[..., None]).any(-1) & (self.parts >= 0)).any(-1) & missing
        head = (flat[:, None] == self.last_words[:, None]).any(-1) & (self.last_words >= 0) & missing
        flags = torch.stack([any_outer, is_last, is_first, part, head], dim=-1).to(share.dtype)
        return torch.cat([flags[..., :3], share[..., None], flags[..., 3:]], dim=-1)

    def _inside_longer(self, found: torch.Tensor, attribute: torch.Tensor) -> torch.Tensor:
        """Where a run of words lies inside a longer one that spells another tag of an exclusive attribute:
        found [B, T, W, K] -> [B, A, W, K]."""
        batch, _, words, spans = found.shape
        spelled = found.new_zeros(batch, self.attributes, words, spans, dtype=torch.int32)
        spelled = spelled.index_add(1, attribute, found.int()).bool() & self.exclusive[:, None, None]
        inside = torch.zeros_like(spelled)
        for length in range(spans - 1):
            for longer in range(length + 1, spans):
                # A longer run starting up to (longer - length) words earlier covers this one.
                for back in range(min(longer - length, words - 1) + 1):
                    covering = spelled[..., longer]
                    covering = nn.functional.pad(covering, (back, 0))[..., :words] if back else covering
                    inside[..., length] |= covering
        return inside

    def score(self, features: torch.Tensor, candidate_attribute: torch.Tensor) -> torch.Tensor:
        """`features` [B, T, K] -> [B, V, C]; "none" candidates have no name."""
        weights = self.weight.weight[candidate_attribute[: len(self.names)]].unflatten(1, (self.views, -1))
        return nn.functional.pad(torch.einsum("btk,tvk->bvt", features, weights), (0, self.attributes))

    def named(self, features: torch.Tensor, candidate_attribute: torch.Tensor) -> torch.Tensor:
        """Whether any tag of each `single` attribute is found, or one of its alternatives, bool [B, A]. Of `multi` ones
        nothing is said: there a tag added later must not change how the others are weighed."""
        index = candidate_attribute[: len(self.names)].repeat(len(features), 1)
        either = features[..., 0] + features[..., 4]
        found = features.new_zeros(len(features), self.attributes).scatter_add(1, index, either) > 0
        return found & self.exclusive

    @torch.no_grad()
    def grow(self, order: torch.Tensor, attributes: list[dict]) -> None:
        tags = order[: len(order) - self.attributes]
        new = tags < 0
        for name, empty in (("names", -1), ("words", -1), ("word_weights", 0.0), ("last_words", -1), ("parts", -1)):
            table = getattr(self, name)
            grown = table.new_full((len(tags), *table.shape[1:]), empty)
            grown[~new] = table[tags[~new]]
            setattr(self, name, grown)
        self.set_names(attributes, only=new)


def _content_words(name: str) -> list[int]:
    words = [word for word in re.split(r"[\s/&,;:|()_]+", name) if word and word.casefold() not in _CONNECTORS]
    return [hashed for word in words if (hashed := span_hash(word))]
