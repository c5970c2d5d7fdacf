"""The decoder of free-form tags, a small BART stack with cross-attention to the fused sequence, and its generation."""

import torch
from torch import nn
from torch.nn import functional
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.models.bart.modeling_bart import BartDecoder
from transformers.utils import ModelOutput

from .configuration_tagger import TaggerConfig
from .decisions import attribute_slices
from .generation import TagRules, TagWriter, WrittenTag, written_tags
from .saving import BOS, PAD

SUMMARIES = 3
LIKELIEST = 8  # closed tags per attribute in the memory
MAX_PIECES = 16  # tokens of a closed tag's name
IGNORED = -100


class DecoderMemory(nn.Module):
    """What the decoder attends to: three pooled vectors (fused, text, photos), the closed tags' scores as a vector per
    attribute, then the fused sequence.

    The pooled vectors hold what the last token states lack (colour, from early stages of the vision tower). A score
    vector is the mean of the decoder's own embeddings of the likeliest tags' names, weighted by probability: the
    decoder can copy the tags, uses what the lexical and the kernel head know, and gets a tag added by name like any
    other.
    """

    def __init__(self, config: TaggerConfig):
        super().__init__()
        fused, width = config.hidden_size, config.decoder["d_model"]
        self.slices = attribute_slices(config.attributes)
        self.register_buffer("tag_pieces", torch.full((config.num_tags, MAX_PIECES), PAD))
        self.belief_projection = nn.Linear(width, width)
        self.summary_projection = nn.Sequential(nn.LayerNorm(fused), nn.Linear(fused, width))
        self.token_projection = nn.Sequential(nn.LayerNorm(fused), nn.Linear(fused, width))
        self.kinds = nn.Embedding(SUMMARIES + len(config.attributes), width)

    def set_tags(self, config: TaggerConfig, tag_tokenizer) -> None:
        """Sets the tokens of the closed tags' names."""
        tags = [tag for attribute in config.attributes for tag in attribute["tags"]]
        pieces = torch.full((len(tags), MAX_PIECES), PAD)
        for row, ids in zip(pieces, tag_tokenizer(tags, add_special_tokens=False)["input_ids"], strict=True):
            row[:len(ids[:MAX_PIECES])] = torch.tensor(ids[:MAX_PIECES])
        self.tag_pieces = pieces.to(self.tag_pieces.device)
        self.slices = attribute_slices(config.attributes)

    def forward(self, encoded, tag_scores: torch.Tensor, token_embeddings: nn.Embedding,
                names: torch.Tensor | None = None) -> ModelOutput:
        """`last_hidden_state` [B, 3 + A + S, D] and `attention_mask`, bool [B, 3 + A + S], from a
        `TaggerEncoderOutput` with its sequence [B, S, H], probabilities of the closed tags [B, T] and the decoder's
        token embeddings; `names`: the `name_vectors` of all closed tags [T, D], if computed once for many batches."""
        summaries = self.summary_projection(torch.cat([encoded.pooled[:, None], encoded.modality_pooled], dim=1))
        tags = self.belief_projection(self._tag_vectors(tag_scores, token_embeddings, names).to(summaries.dtype))
        vectors = torch.cat([summaries, tags], dim=1) + self.kinds.weight
        tokens = self.token_projection(encoded.last_hidden_state)
        present = encoded.attention_mask.new_ones(vectors.shape[:2])
        return ModelOutput(
            last_hidden_state=torch.cat([vectors, tokens.to(vectors.dtype)], dim=1),
            attention_mask=torch.cat([present, encoded.attention_mask], dim=1),
        )

    def _tag_vectors(self, tag_scores: torch.Tensor, token_embeddings: nn.Embedding, names) -> torch.Tensor:
        """Per attribute the sum of its likeliest tags' name vectors, weighted by probability [B, A, D]."""
        found = []
        for where in self.slices:
            scores, tags = tag_scores[:, where].detach().topk(min(LIKELIEST, where.stop - where.start), dim=1)
            tags = where.start + tags
            vectors = self.name_vectors(tags, token_embeddings) if names is None else names[tags]
            # Unit vectors times sqrt(D) have the norm of a layer's input, whatever the scale of the embeddings.
            found.append((scores[..., None] * vectors).sum(1) * token_embeddings.weight.shape[1] ** 0.5)
        return torch.stack(found, dim=1)

    def name_vectors(self, tags: torch.Tensor, token_embeddings: nn.Embedding) -> torch.Tensor:
        """Closed tags by number [...] -> unit vectors [..., D]: the mean embeddings of their names' tokens."""
        pieces = self.tag_pieces[tags].flatten(0, -2)
        names = functional.embedding_bag(pieces, token_embeddings.weight, mode="mean", padding_idx=PAD)
        return functional.normalize(names.unflatten(0, tags.shape), dim=-1)


class TagDecoder(nn.Module):
    """A bare BART decoder whose output layer is its own token embeddings.

    One module, so that an adapter saves both with the same weights.
    """

    def __init__(self, config: TaggerConfig):
        super().__init__()
        self.stack = BartDecoder(config.decoder_config)

    def forward(self, input_ids, memory, attention_mask=None, cache=None, use_cache=None):
        """input_ids int64 [B, S] and a `DecoderMemory` output -> logits [B, S, V] and the cache."""
        output = self.stack(input_ids=input_ids, attention_mask=attention_mask,
                            encoder_hidden_states=memory.last_hidden_state,
                            encoder_attention_mask=memory.attention_mask, cache=cache, use_cache=use_cache)
        return functional.linear(output.last_hidden_state, self.stack.embed_tokens.weight), output.cache

    @staticmethod
    def shift_right(labels: torch.Tensor) -> torch.Tensor:
        """Targets [B, S] -> decoder inputs: the start token, then all targets but the last."""
        shifted = labels.new_full(labels.shape, BOS)
        shifted[:, 1:] = labels[:, :-1].masked_fill(labels[:, :-1] == IGNORED, PAD)
        return shifted


class TagLogitsProcessor(LogitsProcessor):
    """`TagRules.apply` as `generate` takes it; the prompt's length counts the start token."""

    def __init__(self, prompt_length: int, rules: TagRules):
        self.prompt_length, self.rules = prompt_length, rules

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        chosen_by = self.rules.apply(scores.float().cpu().numpy(), input_ids[:, self.prompt_length:].tolist())
        return torch.from_numpy(chosen_by).to(scores)


class FreeFormTagger(TagWriter):
    """Writes the free-form tags of products from the `memory` of a `TaggerModel`; further options of a call go to
    `generate` (num_beams, do_sample, …). Raises ValueError if the model has no decoder."""

    def __init__(self, model, processor):
        model._check_decoder()
        if processor is None or processor.tag_tokenizer is None:
            raise ValueError("the model has a decoder, but its processor no tag tokenizer: load both from one folder")
        self.model, self.processor, self.config = model, processor, model.config
        super().__init__(model.config.decoder, model.config.attributes)
        self._vectors: dict[str, torch.Tensor] = {}

    def _write(self, memory, products, prompts, rules, generation) -> list[list[WrittenTag]]:
        length, device = len(prompts[0]), memory.last_hidden_state.device
        products = torch.tensor(products, device=device)
        shape, options = TagLogitsProcessor(length, rules), dict(generation)
        output = self.model.generate(
            encoder_outputs=ModelOutput(last_hidden_state=memory.last_hidden_state[products],
                                        attention_mask=memory.attention_mask[products]),
            decoder_input_ids=torch.tensor(prompts, device=device),
            logits_processor=LogitsProcessorList([shape, *options.pop("logits_processor", [])]),
            return_dict_in_generate=True,
            output_logits=True,
            **options,
        )
        # Of the raw logits: a tag's score must not depend on which other tags were allowed.
        log_probabilities = self.model.compute_transition_scores(
            output.sequences, output.logits, getattr(output, "beam_indices", None), normalize_logits=True)
        return [written_tags(tokens, values, self.decoder["any_order"]) for tokens, values in
                zip(output.sequences[:, length:].tolist(), log_probabilities.tolist(), strict=True)]

    def _encode(self, labels: list[str]) -> list[list[int]]:
        return self.processor.tag_tokenizer(labels, add_special_tokens=False)["input_ids"]

    def _decode(self, tokens: list[int]) -> str:
        return self.processor.tag_tokenizer.decode(tokens)

    @torch.no_grad()
    def _vector(self, label: str) -> torch.Tensor:
        """A unit vector for a tag: the mean of its tokens' embeddings, in the text tower if there is one. Zero, and so
        similar to no tag, for a tag with an unknown token."""
        if label not in self._vectors:
            if self.processor.reads_text and self.model.get_input_embeddings() is not None:
                table, tokenizer = self.model.get_input_embeddings(), self.processor.tokenizer
            else:
                table, tokenizer = self.model.decoder.stack.embed_tokens, self.processor.tag_tokenizer
            ids = tokenizer(label, add_special_tokens=False)["input_ids"]
            known = ids and tokenizer.unk_token_id not in ids
            vector = table.weight[ids].float().mean(0) if known else torch.zeros(table.weight.shape[1])
            self._vectors[label] = functional.normalize(vector, dim=0)
        return self._vectors[label]
