"""Heads that score every closed tag: the tag head from the pooled vector, the lexical head from the exact words. And
logit fusion (stacking, Wolpert 1992), which joins what they and the kernel head say by weights per attribute.

All score C = T + A candidates: the T tags in config order, then one "none applies" per attribute.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional
from transformers import initialization as init

from .configuration_tagger import TaggerConfig
from .lexical_features import NAME_FEATURES

# Weights of the name match until it is fitted: a text says only which names of tags stand in it.
NAME_PRIOR = (2.0, 0.5, 0.5, 1.0, 0.5, 0.5)


def candidate_attributes(attributes: Sequence[dict]) -> torch.LongTensor:
    """For each of the C candidates, the index of its attribute [C]."""
    return torch.tensor(_attribute_of_each(attributes))


def _attribute_of_each(attributes: Sequence[dict]) -> list[int]:
    return [index for index, entry in enumerate(attributes) for _ in entry["tags"]] + list(range(len(attributes)))


def mean_by_attribute(values: torch.Tensor, attribute: torch.Tensor) -> torch.Tensor:
    """Mean rows of [C, D] per attribute [A, D], "none" left out (the last A candidates are the attributes' "none")."""
    attributes = int(attribute.max()) + 1
    tags = attribute[:-attributes]
    total = values.new_zeros(attributes, values.shape[1]).index_add(0, tags, values[:-attributes])
    return total / torch.bincount(tags, minlength=attributes)[:, None]


def regrown(table: nn.Embedding, order: torch.Tensor, new_rows: torch.Tensor) -> nn.Embedding:
    """A table whose row i is old row order[i], or the next of `new_rows` where order[i] is -1."""
    rows = table.weight.new_empty(len(order), table.embedding_dim)
    rows[order >= 0] = table.weight[order[order >= 0]]
    rows[order < 0] = new_rows.to(rows.dtype)
    return nn.Embedding.from_pretrained(rows, freeze=not table.weight.requires_grad)


def _places(groups: Sequence[Sequence[int]]) -> torch.LongTensor:
    """Where each candidate stands when the groups follow each other [C]."""
    places = {candidate: place for place, candidate in enumerate(candidate for group in groups for candidate in group)}
    return torch.tensor([places[candidate] for candidate in range(len(places))], dtype=torch.long)


class CandidateColumns(nn.Module):
    """Which columns of a head's weights belong to which candidate: one to each, in their order; but those of an
    attribute with very many tags (`config.tag_codes`) share a few hundred columns behind the others, where what is said
    of a candidate is the product with its code, which is fixed (`hf_tagger/training/heads/lexical_codes.py`)."""

    def __init__(self, config: TaggerConfig):
        super().__init__()
        widths = config.tag_codes or {}
        self.coded = [index for index, entry in enumerate(config.attributes) if entry["name"] in widths]
        groups = self._groups(_attribute_of_each(config.attributes))
        self.own = len(groups[0])
        self.codes = nn.ModuleList(nn.Embedding(len(group), widths[config.attributes[index]["name"]])
                                   for index, group in zip(self.coded, groups[1:], strict=True))
        if self.coded:  # where each candidate stands in `groups`
            self.register_buffer("order", _places(groups))

    @torch.no_grad()
    def reset(self) -> None:
        for codes in self.codes:
            init.zeros_(codes.weight)

    def _groups(self, attribute: Sequence[int]) -> list[list[int]]:
        """The candidates with columns of their own, then those of each attribute that is written in codes, from the
        attribute of each candidate [C]."""
        own = [candidate for candidate, index in enumerate(attribute) if index not in self.coded]
        return [own, *([candidate for candidate, index in enumerate(attribute) if index == mine]
                       for mine in self.coded)]

    @property
    def width(self) -> int:
        return self.own + sum(codes.embedding_dim for codes in self.codes)

    def of_attribute(self, index: int) -> tuple[slice, nn.Embedding]:
        """The columns of an attribute that is written in codes, and the codes of its tags and "none"."""
        place = self.coded.index(index)
        start = self.own + sum(codes.embedding_dim for codes in self.codes[:place])
        return slice(start, start + self.codes[place].embedding_dim), self.codes[place]

    def of_candidates(self, candidates: torch.Tensor) -> torch.Tensor:
        """The columns of candidates that have their own."""
        return self.order[candidates] if self.coded else candidates

    def decoded(self, found: torch.Tensor) -> torch.Tensor:
        """What the columns say [..., width] -> of each candidate [..., C]."""
        if not self.coded:
            return found
        parts = [found[..., :self.own]]
        for index in self.coded:
            where, codes = self.of_attribute(index)
            parts.append(found[..., where] @ codes.weight.T.to(found.dtype))
        return torch.cat(parts, dim=-1)[..., self.order]

    @torch.no_grad()
    def grown(self, weights: torch.Tensor, order: torch.Tensor, attribute: torch.Tensor) -> torch.Tensor:
        """Weights [..., width] with columns for new candidates, which are zero; before `grow`."""
        own = order[self._groups(attribute.tolist())[0]]
        grown = weights.new_zeros(*weights.shape[:-1], len(own))
        grown[..., own >= 0] = weights[..., self.of_candidates(own[own >= 0])]
        return torch.cat([grown, weights[..., self.own:]], dim=-1)

    @torch.no_grad()
    def grow(self, order: torch.Tensor, attribute: torch.Tensor) -> None:
        """Makes room for new candidates (see `NameHead.grow`), of these attributes [C']."""
        own, *coded = groups = self._groups(attribute.tolist())
        start = self.own
        for place, (group, codes) in enumerate(zip(coded, self.codes, strict=True)):
            old = torch.where(order[group] < 0, -1, self.order[order[group]] - start)
            start += codes.num_embeddings
            self.codes[place] = regrown(codes, old, codes.weight.new_zeros(int((old < 0).sum()), codes.embedding_dim))
        self.own = len(own)
        if self.coded:
            self.order = _places(groups).to(order.device)


class NameHead(nn.Module):
    """Scores a vector against an embedding of each candidate's name; an embedding row is all that a tag owns.

    Embeddings start from the text tower's encoding of "attribute: tag" (`set_names`). Sentence encoders crowd their
    outputs into a narrow cone; the mean over the names is kept apart and subtracted so that names differ by what sets
    them apart, for the first tags as for any added later.
    """

    def __init__(self, config: TaggerConfig):
        super().__init__()
        candidates = config.num_tags + len(config.attributes)
        width = config.text_config.hidden_size if config.text_config is not None else config.hidden_size
        self.query = nn.Linear(config.hidden_size, width)
        self.embeddings = nn.Embedding(candidates, width)
        self.bias = nn.Embedding(candidates, 1)
        self.register_buffer("name_mean", torch.zeros(width))

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """[..., H] -> [..., C]."""
        return self.query(pooled) @ self.embeddings.weight.T + self.bias.weight[:, 0]

    @torch.no_grad()
    def normalise(self, names: torch.Tensor) -> torch.Tensor:
        """Encodings of names [N, E] -> rows for `embeddings`, of unit length."""
        centred = names - self.name_mean
        return centred / centred.norm(dim=1, keepdim=True).clamp(min=1e-6)

    @torch.no_grad()
    def set_names(self, names: torch.Tensor) -> None:
        """Starts every candidate from the encoding of its name [C, E]."""
        self.name_mean.copy_(names.mean(0))
        self.embeddings.weight.copy_(self.normalise(names))

    @torch.no_grad()
    def grow(self, order: torch.Tensor, old_attribute: torch.Tensor, new_attribute: torch.Tensor,
             names: torch.Tensor) -> None:
        """Rebuilds the table for new candidates: `order` [C'] holds each one's old index, -1 for new tags, whose
        encodings are `names`, in order."""
        self.embeddings = regrown(self.embeddings, order, self.normalise(names))
        typical = mean_by_attribute(self.bias.weight, old_attribute)
        self.bias = regrown(self.bias, order, typical[new_attribute[order < 0]])


class LexicalHead(nn.Module):
    """Takes the sparse features of `LexicalFeatures`, and scores the C candidates of the tag head.

    A linear model over hashed TF-IDF features, and a name match whose weights all tags of an attribute share, so that a
    tag with one example profits from what was learned on the others. Both are fitted together as one convex problem per
    attribute (`hf_tagger/training/heads/lexical.py`) and stay fixed while the rest trains: learned at the encoder's
    pace, a word's weight would only move when the word comes by.

    A bucket's weights have the columns of `CandidateColumns`.
    """

    def __init__(self, config: TaggerConfig):
        super().__init__()
        self.attributes, candidates = len(config.attributes), config.num_tags + len(config.attributes)
        self.columns = CandidateColumns(config)
        # A table of one bucket stands for none: no feature has a weight there.
        self.table = nn.EmbeddingBag(max(1, config.lexical_buckets), self.columns.width, mode="sum")
        self.register_buffer("idf", torch.ones(max(1, config.lexical_buckets)))
        self.bias = nn.Embedding(candidates, 1)
        self.name_weight = nn.Embedding(self.attributes, NAME_FEATURES)
        self.register_buffer("exclusive", torch.tensor([entry["kind"] == "single" for entry in config.attributes]))

    @torch.no_grad()
    def reset(self) -> None:
        init.ones_(self.idf)
        init.zeros_(self.table.weight)
        self.columns.reset()
        init.zeros_(self.bias.weight)
        init.copy_(self.name_weight.weight, torch.tensor(NAME_PRIOR).expand(self.attributes, -1))

    def forward(
        self, lexical_ids: torch.Tensor, lexical_weights: torch.Tensor, name_ids: torch.Tensor,
        name_weights: torch.Tensor, has_text: torch.Tensor, candidate_attribute: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            lexical_ids, lexical_weights: [B, N]; name_ids, name_weights: [B, M], see `LexicalFeatures`.
            has_text: bool [B]; a row without text gets zeros.

        Returns logits [B, C], and which `single` attributes have a tag named in the text, bool [B, A].
        """
        with torch.autocast(lexical_ids.device.type, enabled=False):
            values = lexical_weights.float() * self.idf[lexical_ids]
            values = values / values.square().sum(1, keepdim=True).sqrt().clamp(min=1e-6)
            # A model in half precision has its table in it; what is added up stays float32.
            found = self.table(lexical_ids, per_sample_weights=values.to(self.table.weight.dtype)).float()
            logits = self.columns.decoded(found) + self.bias.weight[:, 0]
            tag_attribute = candidate_attribute[:-self.attributes]
            features = logits.new_zeros(logits.shape[0], len(tag_attribute) * NAME_FEATURES)
            features = features.scatter_add(1, name_ids, name_weights.float()).unflatten(1, (-1, NAME_FEATURES))
            names = (features * self.name_weight.weight[tag_attribute]).sum(-1)
            logits = logits + functional.pad(names, (0, self.attributes))
            found = features.new_zeros(features.shape[0], self.attributes)
            found = found.index_add(1, tag_attribute, features[..., 0] + features[..., 4])
            # Of `multi` attributes nothing is said: there a tag added later must not change how others are weighed.
            return logits * has_text[:, None], (found > 0) & self.exclusive & has_text[:, None]

    @torch.no_grad()
    def grow(self, order: torch.Tensor, old_attribute: torch.Tensor, new_attribute: torch.Tensor) -> None:
        """Makes room for new candidates (see `NameHead.grow`): no word speaks for them yet but their name."""
        table = self.columns.grown(self.table.weight, order, new_attribute)
        self.columns.grow(order, new_attribute)
        self.table = nn.EmbeddingBag.from_pretrained(table, freeze=not self.table.weight.requires_grad, mode="sum")
        typical = mean_by_attribute(self.bias.weight, old_attribute)
        self.bias = regrown(self.bias, order, typical[new_attribute[order < 0]])


class LogitFusion(nn.Module):
    """Sources are the tag head and, where the model has them, the lexical head and the kernel head. They give
    log-probabilities (`single` attributes) or logits (`multi`).

    How far a source is trusted depends on what there is to go by: on a title that spells the tag out the words decide,
    on one that does not the photo does. There is one weight per source and state of the text, (a tag of this attribute
    is named or not) x (tags of 0, 1, more `single` attributes are named), plus one that is added where there is no
    photo. At first all sources weigh the same; the weights are fitted by `hf_tagger/training/heads/logit_fusion.py`.
    """

    FEATURES = 6

    def __init__(self, attributes: Sequence[dict], sources: int):
        super().__init__()
        self.attributes, self.sources = len(attributes), sources
        self.weights = nn.Embedding(self.attributes, self.sources * self.FEATURES)
        self.register_buffer("single", torch.tensor([entry["kind"] == "single" for entry in attributes]))

    @torch.no_grad()
    def reset(self) -> None:
        start = torch.full((self.sources, self.FEATURES), 1.5 / self.sources if self.sources > 1 else 1.0)
        start[:, -1] = 0.0
        init.copy_(self.weights.weight, start.flatten().expand(self.attributes, -1))

    def features(self, named: torch.Tensor, has_image: torch.Tensor) -> torch.Tensor:
        """Whether a tag of each attribute is named, bool [B, A], has_image bool [B] -> [B, A, F]."""
        count = named.sum(1, keepdim=True)
        columns = [~named & (count == 0), ~named & (count == 1), ~named & (count > 1), named & (count == 1),
                   named & (count > 1), (~has_image[:, None]).expand_as(named)]
        return torch.stack(columns, dim=-1).float()

    def normalise(self, logits: torch.Tensor, candidate_attribute: torch.Tensor) -> torch.Tensor:
        """[N, C] -> log-probabilities within each `single` attribute, "none" included; logits of `multi` ones as they
        are. A row of zeros, of a source with nothing to go by, stays as it is."""
        logits = logits.float()
        rows = logits.shape[0]
        index = candidate_attribute.repeat(rows, 1)
        highest = logits.new_full((rows, self.attributes), -torch.inf).scatter_reduce(1, index, logits, "amax")
        powers = (logits - highest.gather(1, index)).exp()
        total = torch.zeros_like(highest).scatter_add(1, index, powers).log() + highest
        normalised = logits - torch.where(self.single, total, 0.0).gather(1, index)
        return normalised.masked_fill((logits == 0).all(-1, keepdim=True), 0.0)

    def forward(
        self, sources: torch.Tensor, features: torch.Tensor, candidate_attribute: torch.Tensor
    ) -> torch.Tensor:
        """Logits of the sources [B, S, C], the tag head's first, and `features` [B, A, F] -> [B, C]."""
        weights = self.weights.weight.float().unflatten(1, (self.sources, -1))
        with torch.autocast(sources.device.type, enabled=False):
            trust = torch.einsum("baf,asf->bsa", features, weights).clamp(min=0.0)
            normalised = self.normalise(sources.flatten(0, 1), candidate_attribute).unflatten(0, sources.shape[:2])
            return (trust[..., candidate_attribute] * normalised).sum(1)
