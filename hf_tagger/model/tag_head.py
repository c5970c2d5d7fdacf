"""Tag heads: the pooled vector scored against every closed tag.

They score C = T + A candidates: the T tags in config order, then one "none applies" per attribute.
"""

import torch
from torch import nn

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
