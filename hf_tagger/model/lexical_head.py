"""The lexical head: tags scored by the exact words of a text, beside what the text tower makes of them.

A linear model over hashed TF-IDF features, and a name match whose weights all tags of an attribute share, so that a tag
with one example profits from what was learned on the others. Both are fitted together as one convex problem per
attribute (`hf_tagger/training/lexical.py`) and stay fixed while the rest trains: learned at the pace of the encoder, a
word's weight would only move when the word comes by.
"""

import torch
from torch import nn
from torch.nn import functional
from transformers import initialization as init

from .configuration_tagger import TaggerConfig
from .lexical_features import NAME_FEATURES
from .tag_head import mean_by_attribute, regrown

# Weights of the name match until it is fitted: a text says only which names of tags stand in it.
NAME_PRIOR = (2.0, 0.5, 0.5, 1.0, 0.5, 0.5)


class LexicalHead(nn.Module):
    """Takes the sparse features of `LexicalFeatures`, and scores the C candidates of the tag head."""

    def __init__(self, config: TaggerConfig):
        super().__init__()
        self.attributes, candidates = len(config.attributes), config.num_tags + len(config.attributes)
        # A table of one bucket stands for none: no feature has a weight there.
        self.table = nn.EmbeddingBag(max(1, config.lexical_buckets), candidates, mode="sum")
        self.register_buffer("idf", torch.ones(max(1, config.lexical_buckets)))
        self.bias = nn.Embedding(candidates, 1)
        self.name_weight = nn.Embedding(self.attributes, NAME_FEATURES)
        self.register_buffer("exclusive", torch.tensor([entry["kind"] == "single" for entry in config.attributes]))

    @torch.no_grad()
    def reset(self) -> None:
        init.ones_(self.idf)
        init.zeros_(self.table.weight)
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
            logits = self.table(lexical_ids, per_sample_weights=values.to(self.table.weight.dtype)).float()
            logits = logits + self.bias.weight[:, 0]
            tag_attribute = candidate_attribute[:-self.attributes]
            features = logits.new_zeros(len(logits), len(tag_attribute) * NAME_FEATURES)
            features = features.scatter_add(1, name_ids, name_weights.float()).unflatten(1, (-1, NAME_FEATURES))
            names = (features * self.name_weight.weight[tag_attribute]).sum(-1)
            logits = logits + functional.pad(names, (0, self.attributes))
            found = features.new_zeros(len(features), self.attributes)
            found = found.index_add(1, tag_attribute, features[..., 0] + features[..., 4])
            # Of `multi` attributes nothing is said: there a tag added later must not change how others are weighed.
            return logits * has_text[:, None], (found > 0) & self.exclusive & has_text[:, None]

    @torch.no_grad()
    def grow(self, order: torch.Tensor, old_attribute: torch.Tensor, new_attribute: torch.Tensor) -> None:
        """Makes room for new candidates (see `NameHead.grow`): no word speaks for them yet but their name."""
        table = self.table.weight.new_zeros(len(self.table.weight), len(order))
        table[:, order >= 0] = self.table.weight[:, order[order >= 0]]
        self.table = nn.EmbeddingBag.from_pretrained(table, freeze=not self.table.weight.requires_grad, mode="sum")
        typical = mean_by_attribute(self.bias.weight, old_attribute)
        self.bias = regrown(self.bias, order, typical[new_attribute[order < 0]])
