"""Tag heads: the pooled vector scored against every closed tag.

They score C = T + A candidates: the T tags in config order, then one "none applies" per attribute.
"""

import torch
from torch import nn
from transformers import initialization as init

from .configuration_tagger import TaggerConfig


def candidate_attributes(config: TaggerConfig) -> torch.LongTensor:
    """For each of the C candidates, the index of its attribute [C]."""
    of_tags = [index for index, attribute in enumerate(config.attributes) for _ in attribute["tags"]]
    return torch.tensor(of_tags + list(range(len(config.attributes))), dtype=torch.long)


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


class LinearHead(nn.Module):
    """A fully connected output layer: nothing is known of a tag but its training rows."""

    def __init__(self, config: TaggerConfig):
        super().__init__()
        self.output = nn.Linear(config.hidden_size, config.num_tags + len(config.attributes))

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        return self.output(pooled)


class EvidenceGate(nn.Module):
    """How much each source of evidence is trusted, per attribute and product.

    Sources (the encoder, the views of the words, the kernels of the exemplars) give log-probabilities (`single`
    attributes) or logits (`multi`); the gate adds them with weights that depend on what there is to go by: on a title
    that spells out the tag the words decide, on one that does not the photo does. There is one weight per source and
    state of the text, (a tag of this attribute is named or not) x (tags of 0, 1, more `single` attributes are named),
    plus one that is added where there is no photo. At first all sources weigh the same; the weights are fitted on
    validation data (`training.gate`).

    Of a tag with a handful of examples most sources have learned little but that it is rare. There they give way to the
    one that needs the fewest: to the words where a tag of the attribute is named, else to the first kernel of the
    exemplars (`deference`, from how often a tag occurs; see `defer`).
    """

    FEATURES = 6
    # States of the text in which a tag of the attribute is named, and in which none is.
    NAMED = slice(3, 5), slice(0, 3)

    def __init__(self, config: TaggerConfig):
        super().__init__()
        self.attributes, self.sources = len(config.attributes), 1 + config.evidence_sources
        self.weights = nn.Embedding(self.attributes, self.sources * self.FEATURES)
        self.register_buffer("single", torch.tensor([attribute["kind"] == "single" for attribute in config.attributes]))
        candidates = config.num_tags + len(config.attributes)
        self.register_buffer("deference", torch.zeros(candidates))
        # Places of the sources that others give way to, in the states of `NAMED`.
        self.references = (1 if config.word_sources else None, 1 + config.word_sources if config.exemplars else None)

    @torch.no_grad()
    def defer(self, counts: torch.Tensor, strength: float) -> None:
        """Sources give way by strength / (strength + count) for a tag that so many training products have (counts [T]).
        A tag that no product has is known by its name alone, by whichever source reads it: there all keep their say."""
        self.deference[: len(counts)] = torch.where(counts > 0, strength / (strength + counts), 0.0)

    @torch.no_grad()
    def reset(self) -> None:
        init.zeros_(self.deference)
        start = torch.full((self.sources, self.FEATURES), 1.5 / self.sources if self.sources > 1 else 1.0)
        start[:, -1] = 0.0
        init.copy_(self.weights.weight, start.flatten().expand(self.attributes, -1))

    def features(self, named: torch.Tensor, has_image: torch.Tensor) -> torch.Tensor:
        """named bool [B, A], has_image bool [B] -> [B, A, F]."""
        count = named.sum(1, keepdim=True)
        columns = [~named & (count == 0), ~named & (count == 1), ~named & (count > 1), named & (count == 1),
                   named & (count > 1), (~has_image[:, None]).expand_as(named)]
        return torch.stack(columns, dim=-1).float()

    def normalise(self, logits: torch.Tensor, candidate_attribute: torch.Tensor) -> torch.Tensor:
        """Log-probabilities within each `single` attribute, "none" included; logits of `multi` ones as they are."""
        logits = logits.float()
        index = candidate_attribute.repeat(len(logits), 1)
        highest = logits.new_full((len(logits), self.attributes), -torch.inf).scatter_reduce(1, index, logits, "amax")
        powers = (logits - highest.gather(1, index)).exp()
        total = torch.zeros_like(highest).scatter_add(1, index, powers).log() + highest
        return logits - torch.where(self.single, total, 0.0).gather(1, index)

    def told(self, evidence: torch.Tensor, features: torch.Tensor, candidate_attribute: torch.Tensor) -> torch.Tensor:
        """`normalise` for each source [B, S, C], rare tags deferred; a source that says nothing of a row (all zeros)
        stays silent."""
        silent = (evidence == 0).all(-1, keepdim=True)
        normalised = self.normalise(evidence.flatten(0, 1), candidate_attribute).unflatten(0, evidence.shape[:2])
        told = normalised = normalised.masked_fill(silent, 0.0)
        for reference, states in zip(self.references, self.NAMED, strict=True):
            if reference is not None:
                here = features[..., states].sum(-1)[:, candidate_attribute] * self.deference
                heard = ~(silent | silent[:, reference, None])
                told = told + here[:, None] * heard * (normalised[:, reference, None] - normalised)
        return told

    @torch.no_grad()
    def grow(self, order: torch.Tensor) -> None:
        """Makes room for new candidates (see `NameHead.grow`): all sources have their say on them."""
        deference = self.deference.new_zeros(len(order))
        deference[order >= 0] = self.deference[order[order >= 0]]
        self.deference = deference

    def forward(
        self, evidence: torch.Tensor, features: torch.Tensor, candidate_attribute: torch.Tensor
    ) -> torch.Tensor:
        """evidence [B, S, C], the encoder's first -> [B, C]."""
        weights = self.weights.weight.float().unflatten(1, (self.sources, -1))
        with torch.autocast(evidence.device.type, enabled=False):
            trust = torch.einsum("baf,asf->bsa", features, weights).clamp(min=0.0)
        return (trust[..., candidate_attribute] * self.told(evidence, features, candidate_attribute)).sum(1)
