"""The decoder that writes free-form tags: a small BART stack that reads the fused sequence."""

import torch
from torch import nn
from torch.nn import functional
from transformers.models.bart.modeling_bart import BartDecoder
from transformers.utils import ModelOutput

from .configuration_tagger import BOS, PAD, TaggerConfig

SUMMARIES = 3
IGNORED = -100


class DecoderMemory(nn.Module):
    """What the decoder attends to: the pooled vector and those of text and photos, then the fused sequence.

    The pooled vectors carry what the last token states no longer do (colour, from early stages of the vision tower).
    """

    def __init__(self, config: TaggerConfig):
        super().__init__()
        fused, width = config.hidden_size, config.decoder["d_model"]
        self.summary_projection = nn.Sequential(nn.LayerNorm(fused), nn.Linear(fused, width))
        self.token_projection = nn.Sequential(nn.LayerNorm(fused), nn.Linear(fused, width))
        self.kinds = nn.Embedding(SUMMARIES, width)

    def forward(self, encoded) -> ModelOutput:
        """A `TaggerEncoderOutput` with its sequence -> `last_hidden_state` [B, 3 + S, D], `attention_mask` bool
        [B, 3 + S]."""
        summaries = torch.cat([encoded.pooled[:, None], encoded.modality_pooled], dim=1)
        summaries = self.summary_projection(summaries) + self.kinds.weight
        tokens = self.token_projection(encoded.last_hidden_state)
        always = encoded.attention_mask.new_ones(len(summaries), SUMMARIES)
        return ModelOutput(
            last_hidden_state=torch.cat([summaries, tokens.to(summaries.dtype)], dim=1),
            attention_mask=torch.cat([always, encoded.attention_mask], dim=1),
        )


class TagDecoder(nn.Module):
    """A bare BART decoder whose output layer is its own token embeddings.

    One module, so that an adapter saves it whole and output and input embeddings cannot part.
    """

    def __init__(self, config: TaggerConfig):
        super().__init__()
        self.stack = BartDecoder(config.decoder_config)

    def forward(self, input_ids, memory, attention_mask=None, cache=None, use_cache=None):
        """input_ids int64 [B, S] and a `DecoderMemory` output -> logits [B, S, V] and the cache."""
        output = self.stack(
            input_ids=input_ids,
            attention_mask=attention_mask,
            encoder_hidden_states=memory.last_hidden_state,
            encoder_attention_mask=memory.attention_mask,
            cache=cache,
            use_cache=use_cache,
        )
        return functional.linear(output.last_hidden_state, self.stack.embed_tokens.weight), output.cache


def shift_right(labels: torch.Tensor) -> torch.Tensor:
    """Targets [B, S] -> what the decoder reads while it writes them: the start token, then all but the last."""
    shifted = labels.new_full(labels.shape, BOS)
    shifted[:, 1:] = labels[:, :-1].masked_fill(labels[:, :-1] == IGNORED, PAD)
    return shifted
