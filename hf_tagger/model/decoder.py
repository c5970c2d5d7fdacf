"""The decoder that writes free-form tags: a small BART stack that reads the fused sequence."""

import torch
from torch import nn
from torch.nn import functional
from transformers.models.bart.modeling_bart import BartDecoder
from transformers.utils import ModelOutput

from .configuration_tagger import TaggerConfig
from .generation import BOS, PAD

SUMMARIES = 3
LIKELIEST = 8  # closed tags of an attribute that the decoder is told of
MAX_PIECES = 16  # tokens of a closed tag's name that it is told by
IGNORED = -100


class DecoderMemory(nn.Module):
    """What the decoder attends to: the pooled vector and those of text and photos, what the closed head says of each
    attribute, then the fused sequence.

    The pooled vectors carry what the last token states no longer do (colour, from early stages of the vision tower).
    The closed head's likeliest tags are told by the decoder's own embeddings of their names, weighted by probability:
    it can copy them, it need not learn a second time what words and remembered products say, and a tag added by name
    is told like any other.
    """

    def __init__(self, config: TaggerConfig):
        super().__init__()
        fused, width = config.hidden_size, config.decoder["d_model"]
        self.slices = [(where.start, where.stop) for where in config.attribute_slices().values()]
        self.register_buffer("tag_pieces", torch.full((config.num_tags, MAX_PIECES), PAD))
        self.belief_projection = nn.Linear(width, width)
        self.summary_projection = nn.Sequential(nn.LayerNorm(fused), nn.Linear(fused, width))
        self.token_projection = nn.Sequential(nn.LayerNorm(fused), nn.Linear(fused, width))
        self.kinds = nn.Embedding(SUMMARIES + len(config.attributes), width)

    def forward(self, encoded, tag_scores: torch.Tensor, token_embeddings: nn.Embedding,
                names: torch.Tensor | None = None) -> ModelOutput:
        """
        Args:
            encoded: a `TaggerEncoderOutput` with its sequence [B, S, H].
            tag_scores: probabilities of the closed tags [B, T].
            token_embeddings: the decoder's.
            names: `name_vectors` of all closed tags [T, D], where they are computed once for many batches.

        Returns `last_hidden_state` [B, 3 + A + S, D] and `attention_mask`, bool [B, 3 + A + S].
        """
        summaries = self.summary_projection(torch.cat([encoded.pooled[:, None], encoded.modality_pooled], dim=1))
        beliefs = self.belief_projection(self._beliefs(tag_scores, token_embeddings, names).to(summaries.dtype))
        told = torch.cat([summaries, beliefs], dim=1) + self.kinds.weight
        tokens = self.token_projection(encoded.last_hidden_state)
        always = encoded.attention_mask.new_ones(told.shape[:2])
        return ModelOutput(
            last_hidden_state=torch.cat([told, tokens.to(told.dtype)], dim=1),
            attention_mask=torch.cat([always, encoded.attention_mask], dim=1),
        )

    def _beliefs(self, tag_scores: torch.Tensor, token_embeddings: nn.Embedding, names) -> torch.Tensor:
        """Per attribute the mean embedding of its likeliest tags' names, by their probability [B, A, D]."""
        beliefs = []
        for start, stop in self.slices:
            scores, tags = tag_scores[:, start:stop].detach().topk(min(LIKELIEST, stop - start), dim=1)
            vectors = self.name_vectors(start + tags, token_embeddings) if names is None else names[start + tags]
            # Of the size of a layer's input, whatever the scale of the embeddings.
            beliefs.append((scores[..., None] * vectors).sum(1) * token_embeddings.weight.shape[1] ** 0.5)
        return torch.stack(beliefs, dim=1)

    def name_vectors(self, tags: torch.Tensor, token_embeddings: nn.Embedding) -> torch.Tensor:
        """Closed tags by number [...] -> unit vectors [..., D]: the mean embeddings of their names' tokens."""
        pieces = self.tag_pieces[tags].flatten(0, -2)
        names = functional.embedding_bag(pieces, token_embeddings.weight, mode="mean", padding_idx=PAD)
        return functional.normalize(names.unflatten(0, tags.shape), dim=-1)


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


def name_pieces(tags: list[str], tag_tokenizer) -> torch.LongTensor:
    """Token ids of closed tags' names [T, MAX_PIECES], padded."""
    pieces = torch.full((len(tags), MAX_PIECES), PAD)
    for row, ids in zip(pieces, tag_tokenizer(tags, add_special_tokens=False)["input_ids"], strict=True):
        row[:len(ids[:MAX_PIECES])] = torch.tensor(ids[:MAX_PIECES])
    return pieces
