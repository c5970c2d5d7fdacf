"""Free-form tags: what the decoder of a `TaggerModel` writes of a product, in any mode of generation."""

import torch
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.utils import ModelOutput

from .generation import TagRules
from .tag_writing import TagWriter, WrittenTag, written_tags


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
            self._vectors[label] = torch.nn.functional.normalize(vector, dim=0)
        return self._vectors[label]
