"""The decoder that writes free-form tags: a small BART stack that reads the fused sequence, and what it writes of a
product in any mode of generation."""

import torch
from torch import nn
from torch.nn import functional
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.models.bart.modeling_bart import BartDecoder
from transformers.utils import ModelOutput

from .configuration_tagger import TaggerConfig
from .generation import TagRules, TagWriter, WrittenTag, written_tags
from .saving import BOS, PAD

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

    def set_tags(self, config: TaggerConfig, tag_tokenizer) -> None:
        """Tells it the names of the closed tags, by their tokens."""
        tags = [tag for attribute in config.attributes for tag in attribute["tags"]]
        pieces = torch.full((len(tags), MAX_PIECES), PAD)
        for row, ids in zip(pieces, tag_tokenizer(tags, add_special_tokens=False)["input_ids"], strict=True):
            row[:len(ids[:MAX_PIECES])] = torch.tensor(ids[:MAX_PIECES])
        self.tag_pieces = pieces.to(self.tag_pieces.device)
        self.slices = [(where.start, where.stop) for where in config.attribute_slices().values()]

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

    @staticmethod
    def shift_right(labels: torch.Tensor) -> torch.Tensor:
        """Targets [B, S] -> what the decoder reads while it writes them: the start token, then all but the last."""
        shifted = labels.new_full(labels.shape, BOS)
        shifted[:, 1:] = labels[:, :-1].masked_fill(labels[:, :-1] == IGNORED, PAD)
        return shifted


class TagLogitsProcessor(LogitsProcessor):
    """`TagRules` as `generate` takes them. Lets only those tokens through that `rules` allow, with their prior added.

    Args:
        prompt_length: tokens of the prompt, the start token included.
    """

    def __init__(self, prompt_length: int, rules: TagRules):
        self.prompt_length, self.rules = prompt_length, rules

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        chosen_by = self.rules.apply(scores.float().cpu().numpy(), input_ids[:, self.prompt_length:].tolist())
        return torch.from_numpy(chosen_by).to(scores)


class FreeFormTagger(TagWriter):
    """Writes the free-form tags of products whose `memory` a `TaggerModel` has returned; further options of a call go
    to `generate` (num_beams, do_sample, ...).

    Args:
        model, processor: of a tagger with a decoder.

    Raises ValueError where the model has no decoder.
    """

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
        # Of the raw logits: what a tag's score says must not depend on which other tags were allowed.
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
        """A unit vector for a tag: the mean of its tokens' embeddings, of the text tower where there is one. Zero, like
        nothing else, for a tag with a token that the tokenizer does not know."""
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
