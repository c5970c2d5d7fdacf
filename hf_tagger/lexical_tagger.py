"""Exact words count: tag evidence read straight from `input_ids`, beside what the text tower makes of them.

An encoder averages a product's words away; a linear model over the words themselves knows rare tags better.
`LexicalPath` is that linear model over hashed n-grams, `NameMatch` asks whether a tag's own name stands in the text.
Both score the C = T + A candidates of the tag heads, need no second processor, and travel with the model.
"""

import unicodedata

import torch
from torch import nn
from transformers import initialization as init

from .configuration_tagger import TaggerConfig
from .heads_tagger import mean_by_attribute, regrown

NO_TOKEN = -1
_MODULUS = 2**31 - 1


def fold_vocabulary(tokenizer) -> torch.LongTensor:
    """For each token id, the id that stands for all tokens that differ from it by case or compatibility forms only;
    -1 for special tokens. [vocabulary size of the tokenizer]"""
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    first: dict[str, int] = {}
    folds = torch.full((len(tokens),), NO_TOKEN, dtype=torch.long)
    special = set(tokenizer.all_special_ids)
    for index, token in enumerate(tokens):
        if token is not None and index not in special:
            folds[index] = first.setdefault(unicodedata.normalize("NFKC", token).casefold(), index)
    return folds


class WordEvidence(nn.Module):
    """What the words say of each candidate: lexical path and name match, each with a weight per attribute."""

    def __init__(self, config: TaggerConfig):
        super().__init__()
        self.config = config
        self.register_buffer("folds", torch.arange(config.text_config.vocab_size, dtype=torch.int32))
        attributes = len(config.attributes)
        self.lexical = LexicalPath(config) if config.lexical_buckets else None
        self.lexical_scale = nn.Embedding(attributes, 1) if config.lexical_buckets else None
        self.names = NameMatch(config) if config.name_match else None
        self.name_bonus = nn.Embedding(attributes, 1) if config.name_match else None

    @torch.no_grad()
    def reset(self) -> None:
        """An unfitted path says nothing."""
        init.copy_(self.folds, torch.arange(len(self.folds), dtype=torch.int32))
        if self.lexical is not None:
            init.ones_(self.lexical.idf)
            init.zeros_(self.lexical.weight.weight)
            init.zeros_(self.lexical.bias.weight)
            init.ones_(self.lexical_scale.weight)
        if self.names is not None:
            init.constant_(self.names.tokens, NO_TOKEN)
            init.ones_(self.name_bonus.weight)

    def set_tokenizer(self, tokenizer, attributes: list[dict]) -> None:
        """Reads the tokenizer: which tokens count as one, and how the tags' names are spelt in tokens."""
        folds = fold_vocabulary(tokenizer)[: len(self.folds)]
        self.folds[: len(folds)] = folds.to(self.folds.dtype)
        if self.names is not None:
            self.names.set_names([tag for attribute in attributes for tag in attribute["tags"]], tokenizer, self.folds)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor,
                candidate_attribute: torch.Tensor) -> torch.Tensor:
        """[B, L] -> [B, C]; a row without text gets zeros."""
        tokens = self.folds[input_ids].long().masked_fill(~attention_mask.bool(), NO_TOKEN)
        evidence = 0.0
        if self.lexical is not None:
            evidence = evidence + self.lexical_scale.weight[candidate_attribute, 0] * self.lexical(tokens)
        if self.names is not None:
            evidence = evidence + self.name_bonus.weight[candidate_attribute, 0] * self.names(tokens)
        return evidence * attention_mask.bool().any(1, keepdim=True)

    @torch.no_grad()
    def grow(self, order: torch.Tensor, old_attribute: torch.Tensor, new_attribute: torch.Tensor) -> None:
        """Makes room for new candidates (see `NameHead.grow`): no word speaks for them yet but their name."""
        if self.lexical is not None:
            self.lexical.grow(order, old_attribute, new_attribute)
        if self.names is not None:
            self.names.grow(int((order < 0).sum()))


class LexicalPath(nn.Module):
    """TF-IDF over hashed n-grams of the text tower's tokens -> linear scores.

    Fitted on its own as a convex problem and frozen while the encoder trains: learned jointly at the encoder's pace it
    starves, since a word's weight only moves when the word comes by.
    """

    def __init__(self, config: TaggerConfig):
        super().__init__()
        self.ngrams = tuple(config.lexical_ngrams)
        self.buckets = config.lexical_buckets
        candidates = config.num_tags + len(config.attributes)
        self.weight = nn.Embedding(self.buckets, candidates)
        self.bias = nn.Embedding(candidates, 1)
        self.register_buffer("idf", torch.ones(self.buckets))

    def ngram_buckets(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Folded tokens [B, L] (-1 where there is none) -> hash buckets int64 [B, N] of all n-grams of each row, and
        which of them are real, bool [B, N]."""
        all_buckets, all_real = [], []
        for order in self.ngrams:
            length = tokens.shape[1] - order + 1
            if length <= 0:
                continue
            code = torch.full_like(tokens[:, :length], order)
            real = torch.ones_like(code, dtype=torch.bool)
            for offset in range(order):
                window = tokens[:, offset:offset + length]
                # A polynomial hash modulo a Mersenne prime stays inside int64 and needs no bit operations to export.
                code = (code * 1_000_003 + window + 1) % _MODULUS
                real = real & (window != NO_TOKEN)
            all_buckets.append((code * 69_069 + 7) % _MODULUS % self.buckets)
            all_real.append(real)
        return torch.cat(all_buckets, dim=1), torch.cat(all_real, dim=1)

    def features(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Sparse TF-IDF rows of unit length: buckets int64 [B, N] and values float [B, N], zero for padding.

        Term frequency is damped to 1 + log(count) and shared by a bucket's occurrences, so values of one bucket add up.
        """
        buckets, real = self.ngram_buckets(tokens)
        same = (buckets[:, :, None] == buckets[:, None, :]) & real[:, None, :]
        count = same.sum(-1).clamp(min=1).to(self.idf.dtype)
        term = (1 + count.log()) * self.idf[buckets] * real
        length = (term.square() / count).sum(-1, keepdim=True).sqrt()
        return buckets, term / count / length.clamp(min=1e-6)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """[B, L] -> [B, C]."""
        buckets, values = self.features(tokens)
        return (self.weight(buckets) * values[..., None]).sum(1) + self.bias.weight[:, 0]

    @torch.no_grad()
    def grow(self, order: torch.Tensor, old_attribute: torch.Tensor, new_attribute: torch.Tensor) -> None:
        columns = self.weight.weight.new_zeros(self.buckets, len(order))
        columns[:, order >= 0] = self.weight.weight[:, order[order >= 0]]
        self.weight = nn.Embedding.from_pretrained(columns, freeze=not self.weight.weight.requires_grad)
        typical = mean_by_attribute(self.bias.weight, old_attribute)
        self.bias = regrown(self.bias, order, typical[new_attribute[order < 0]])


class NameMatch(nn.Module):
    """1 where a tag's name stands in the text, token by token and whatever the case; else 0."""

    def __init__(self, config: TaggerConfig):
        super().__init__()
        self.register_buffer("tokens", torch.full((config.num_tags, config.max_name_tokens), NO_TOKEN))
        self.attributes = len(config.attributes)

    def set_names(self, names: list[str], tokenizer, folds: torch.Tensor) -> None:
        """Names longer than `max_name_tokens` are never found."""
        self.tokens.fill_(NO_TOKEN)
        for row, ids in enumerate(tokenizer(names, add_special_tokens=False)["input_ids"]):
            if len(ids) <= self.tokens.shape[1]:
                self.tokens[row, : len(ids)] = folds[torch.tensor(ids)].long()

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        """Folded tokens [B, L] (-1 where there is none) -> [B, C]."""
        width, length = self.tokens.shape[1], text.shape[1]
        padded = nn.functional.pad(text, (0, width - 1), value=NO_TOKEN)
        here = torch.ones(text.shape[0], len(self.tokens), length, dtype=torch.bool, device=text.device)
        for offset in range(width):
            wanted = self.tokens[None, :, offset, None]
            here &= (wanted == NO_TOKEN) | (wanted == padded[:, None, offset:offset + length])
        found = here.any(-1) & (self.tokens[:, 0] != NO_TOKEN)
        return nn.functional.pad(found.float(), (0, self.attributes))

    def grow(self, more: int) -> None:
        """Room for more names; `set_names` fills it."""
        self.tokens = nn.functional.pad(self.tokens, (0, 0, 0, more), value=NO_TOKEN)
