"""Ways to fuse a product's text and photo: each takes both pooled vectors and the sequence of all tokens, and gives one
pooled vector and a sequence for a decoder to attend to.

`modality_pooled` is [B, 2, H] (proxies stand in for what is missing), `present` bool [B, 2], `sequence` [B, S, H] and
`mask` bool [B, S].
"""

import torch
from torch import nn

from .configuration_tagger import TaggerConfig

TEXT, IMAGE = 0, 1


class ConcatFusion(nn.Module):
    """A hidden layer over both vectors side by side: the classic of the field."""

    def __init__(self, config: TaggerConfig):
        super().__init__()
        width = config.hidden_size
        self.layers = nn.Sequential(nn.Linear(2 * width, width), nn.GELU(), nn.LayerNorm(width),
                                    nn.Dropout(config.dropout))

    def forward(self, modality_pooled, present, sequence, mask):
        return self.layers(modality_pooled.flatten(1)), sequence


class AttentionFusion(nn.Module):
    """Transformer layers over a summary token and the fused sequence; the summary is the pooled vector."""

    def __init__(self, config: TaggerConfig):
        super().__init__()
        width = config.hidden_size
        layer = nn.TransformerEncoderLayer(width, config.fusion_heads, 4 * width, config.dropout, activation="gelu",
                                           batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, config.fusion_layers, nn.LayerNorm(width),
                                            enable_nested_tensor=False)
        self.summary = nn.Linear(2 * width, width)

    def forward(self, modality_pooled, present, sequence, mask):
        summary = self.summary(modality_pooled.flatten(1))
        padding = torch.cat([torch.zeros_like(mask[:, :1]), ~mask], dim=1)
        states = self.layers(torch.cat([summary[:, None], sequence], dim=1), src_key_padding_mask=padding)
        return states[:, 0], states[:, 1:]


class LateFusion(nn.Module):
    """The mean of the vectors that are there. The logits are fused in the tag head, attribute by attribute."""

    def __init__(self, config: TaggerConfig):
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, modality_pooled, present, sequence, mask):
        weights = present.to(modality_pooled.dtype)[..., None]
        return self.dropout((modality_pooled * weights).sum(1) / weights.sum(1).clamp(min=1)), sequence


FUSIONS = {"concat": ConcatFusion, "attention": AttentionFusion, "late": LateFusion}
