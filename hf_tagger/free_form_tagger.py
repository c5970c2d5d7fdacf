"""Free-form tags: what the decoder writes of a product, cleaned of repeats, mapped onto known tags, and scored."""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LogitsProcessorList
from transformers.utils import ModelOutput

from .configuration_tagger import BOS, EOS, SEPARATOR
from .generation_tagger import TagLogitsProcessor, TagTrie
from .text_tagger import normalise


@dataclass
class WrittenTag:
    """A tag as the decoder wrote it, with the mean log-probability of its tokens and of the one that ends it."""

    tokens: list[int]
    log_probability: float


class FreeFormTagger:
    """Writes the free-form tags of products whose `memory` a `TaggerModel` has returned.

    Args:
        model, processor: of a tagger with a decoder.

    Raises ValueError where the model has no decoder.
    """

    def __init__(self, model, processor):
        model._check_decoder()
        if processor is None or processor.tag_tokenizer is None:
            raise ValueError("the model has a decoder, but its processor no tag tokenizer: load both from one folder")
        self.model, self.processor, self.config = model, processor, model.config
        self.aliases = {fold(spelling): tag for spelling, tag in self.config.decoder["aliases"].items()}
        self.known: dict[str, list[tuple[str, str, int]]] = {}
        column = 0
        for attribute in self.config.attributes:
            for tag in attribute["tags"]:
                self.known.setdefault(fold(tag), []).append((attribute["name"], tag, column))
                column += 1
        self._tries: dict[str | None, TagTrie] = {}
        self._vectors: dict[str, torch.Tensor] = {}

    def __call__(
        self,
        memory: ModelOutput,
        languages: Sequence[str | None],
        scores: torch.Tensor | None = None,
        attributes: Sequence[str] | None = None,
        constrained: bool = False,
        max_tags: int | None = None,
        min_score: float | None = None,
        **generation,
    ) -> list[list[dict[str, Any]]]:
        """
        Args:
            memory: of B products.
            languages: of each product; None, or one that the decoder does not know, leaves the choice to it.
            scores: closed-tag probabilities [B, T]: of several attributes that share a tag, the likelier one is named.
            attributes: ask for these alone, each on its own.
            constrained: write closed tags only.
            max_tags: at most so many tags per product (and attribute).
            min_score: lowest score that is listed (default: the model's own).
            generation: for `generate` (num_beams, do_sample, ...); one sequence per product.

        Returns per product its tags, best first: {"label", "score", "attribute", "source": "generated"}, none twice.
        """
        asked = [attributes or (None,)] * len(languages)
        return self.write_asked(memory, languages, asked, scores, constrained, max_tags, min_score, **generation)

    def write_asked(
        self,
        memory: ModelOutput,
        languages: Sequence[str | None],
        asked: Sequence[Sequence[str | None]],
        scores: torch.Tensor | None = None,
        constrained: bool = False,
        max_tags: int | None = None,
        min_score: float | None = None,
        **generation,
    ) -> list[list[dict[str, Any]]]:
        """The same, where each product is asked for attributes of its own (None: for all of its tags at once)."""
        if generation.get("num_return_sequences", 1) != 1:
            raise ValueError("num_return_sequences must be 1: a product has one set of tags; use model.generate")
        min_score = self.config.decoder["min_score"] if min_score is None else min_score
        rows = [(product, attribute) for product, wanted in enumerate(asked) for attribute in wanted]
        prompts = [self._prompt(languages[product], attribute) for product, attribute in rows]
        found: list[list[dict]] = [[] for _ in languages]
        # Prompts of one batch are of one length, and share one trie.
        groups: dict[tuple[int, str | None], list[int]] = {}
        for index, (prompt, (_, attribute)) in enumerate(zip(prompts, rows, strict=True)):
            groups.setdefault((len(prompt), attribute if constrained else None), []).append(index)
        for (_, attribute), chosen in groups.items():
            products = torch.tensor([rows[index][0] for index in chosen], device=memory.last_hidden_state.device)
            part = ModelOutput(last_hidden_state=memory.last_hidden_state[products],
                               attention_mask=memory.attention_mask[products])
            trie = self._trie(attribute) if constrained else None
            written = self._write(part, [prompts[index] for index in chosen], trie, max_tags, generation)
            for index, tags in zip(chosen, written, strict=True):
                product, asked = rows[index]
                found[product] += [self._entry(tag, asked, None if scores is None else scores[product])
                                   for tag in tags]
        return [self._listed(tags, min_score) for tags in found]

    def _prompt(self, language: str | None, attribute: str | None) -> list[int]:
        prompt = [BOS]
        if language in self.config.decoder["languages"]:
            prompt.append(self.config.control_id(language=language))
        if attribute is not None:
            prompt.append(self.config.control_id(attribute=attribute))
        return prompt

    def _write(self, memory, prompts, trie, max_tags, generation) -> list[list[WrittenTag]]:
        decoder, length = self.config.decoder, len(prompts[0])
        shape = TagLogitsProcessor(length, self.config.first_control_id, decoder["vocab_size"], max_tags, trie)
        options = dict(generation)
        output = self.model.generate(
            encoder_outputs=memory,
            decoder_input_ids=torch.tensor(prompts, device=memory.last_hidden_state.device),
            logits_processor=LogitsProcessorList([shape, *options.pop("logits_processor", [])]),
            return_dict_in_generate=True,
            output_logits=True,
            **options,
        )
        # Of the raw logits: what a tag's score says must not depend on which other tags were allowed.
        log_probabilities = self.model.compute_transition_scores(
            output.sequences, output.logits, getattr(output, "beam_indices", None), normalize_logits=True)
        return [_written_tags(tokens, values) for tokens, values in
                zip(output.sequences[:, length:].tolist(), log_probabilities.tolist(), strict=True)]

    def _trie(self, attribute: str | None) -> TagTrie:
        """Of one attribute's tags, or of all."""
        if attribute not in self._tries:
            entries = [entry for entry in self.config.attributes if attribute in (None, entry["name"])]
            tags = list(dict.fromkeys(tag for entry in entries for tag in entry["tags"]))
            if not tags:
                raise ValueError(f"constrained writes closed tags only, and {attribute} has none")
            self._tries[attribute] = TagTrie(self.processor.tag_tokenizer(tags, add_special_tokens=False)["input_ids"])
        return self._tries[attribute]

    def _entry(self, tag: WrittenTag, asked: str | None, scores: torch.Tensor | None) -> dict[str, Any]:
        label = normalise(self.processor.tag_tokenizer.decode(tag.tokens))
        if fold(label) not in self.known:
            label = self.aliases.get(fold(label), label)
        owners, attribute = self.known.get(fold(label), []), asked
        if owners:
            owners = [owner for owner in owners if owner[0] == asked] or owners
            owners = [owner for owner in owners if owner[1] == label] or owners
            likeliest = 0 if scores is None else int(scores[[column for _, _, column in owners]].argmax())
            attribute, label, _ = owners[likeliest]
        return {"label": label, "score": self.score(tag.log_probability), "attribute": attribute, "source": "generated"}

    def score(self, log_probability: float) -> float:
        """The probability that a tag is right, from its mean log-probability; uncalibrated, the mean probability."""
        calibration = self.config.decoder["calibration"]
        if calibration is None:
            return math.exp(log_probability)
        slope, intercept = calibration
        return 1 / (1 + math.exp(-(slope * log_probability + intercept)))

    def _listed(self, tags: list[dict], min_score: float) -> list[dict]:
        listed: list[dict] = []
        for tag in sorted(tags, key=lambda tag: -tag["score"]):
            if not fold(tag["label"]) or tag["score"] < min_score:
                continue
            if not any(self._same(tag, other) for other in listed):
                listed.append(tag)
        return listed

    def _same(self, tag: dict, other: dict) -> bool:
        first, second = fold(tag["label"]), fold(other["label"])
        if first == second:
            return True
        if first in self.known and second in self.known:  # near-duplicates of a shop's own making are two tags
            return False
        return float(self._vector(first) @ self._vector(second)) >= self.config.decoder["merge_similarity"]

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


def fold(label: str) -> str:
    """What two spellings of one tag share: NFKC, case and spaces apart."""
    return " ".join(unicodedata.normalize("NFKC", label).casefold().split())


def _written_tags(tokens: list[int], log_probabilities: list[float]) -> list[WrittenTag]:
    """The tags of a row; one that the length limit cut off is left out."""
    tags, start = [], 0
    for end, token in enumerate(tokens):
        if token in (SEPARATOR, EOS):
            if end > start:
                mean = sum(log_probabilities[start:end + 1]) / (end + 1 - start)
                tags.append(WrittenTag(tokens[start:end], mean))
            start = end + 1
        if token == EOS:
            break
    return tags
