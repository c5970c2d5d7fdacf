"""The decoder of an exported tagger through onnxruntime: free-form tags by greedy search, without torch.

Two graphs: `memory.onnx` makes of what the towers said the keys and values that each layer of the decoder attends to,
once per product; `decoder.onnx` takes one token of each list further, and gives the logits of the next and the keys and
values of all so far.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_tagger.model.generation import TagRules, TagWriter, WrittenTag, written_tags
from hf_tagger.model.products import check_count
from hf_tagger.model.saving import EOS, PAD

MEMORY, DECODER, TAG_TOKENIZER = "memory.onnx", "decoder.onnx", "tag_tokenizer.json"
# What the first graph gives beside the logits where there is a decoder, states of the towers that it has.
STATES = ("pooled", "modality_pooled", "text_states", "image_states")
# Options of `generate`: those that a greedy search takes and the values that mean one, and some that mean another.
GREEDY = {"max_new_tokens": None, "num_beams": 1, "do_sample": False, "num_return_sequences": 1}
SEARCH_OPTIONS = (*GREEDY, "temperature", "top_p", "min_p", "typical_p", "num_beam_groups", "length_penalty",
                  "repetition_penalty", "no_repeat_ngram_size", "early_stopping")  # fmt: skip


class OnnxWriter(TagWriter):
    """Writes what `FreeFormTagger` writes in float32 with its default search, the greedy one.

    Args:
        description: `tagger.json` of the folder; open_session: a graph's path -> its onnxruntime session.
        tag_tokenizer, text_tokenizer: `tokenizers.Tokenizer`s; the latter None for a tagger of photos alone.
    """

    def __init__(self, folder: Path, description: dict[str, Any], open_session: Callable, tag_tokenizer,
                 text_tokenizer=None):
        super().__init__(description["decoder"], description["attributes"])
        self.memory, self.step = open_session(folder / MEMORY), open_session(folder / DECODER)
        self.tag_tokenizer = tag_tokenizer
        self.table = _Table(folder, description["label_vectors"])
        self.label_tokenizer = {"text": text_tokenizer, "tags": tag_tokenizer}[description["label_vectors"]["tokens"]]
        self._vectors: dict[str, np.ndarray] = {}

    def remember(self, feed: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray],
                 scores: np.ndarray) -> dict[str, np.ndarray]:
        """What the decoder attends to: `memory_mask` bool [B, S], and keys and values [B, heads, S, D / heads] of each
        layer; from inputs and outputs (`STATES`) of the first graph and probabilities of the closed tags [B, T]."""
        present = feed["present"]
        inputs = {"pooled": outputs["pooled"], "modality_pooled": outputs["modality_pooled"], "present": present,
                  "tag_scores": scores}
        if "text_states" in outputs:
            rows, states = feed["text_rows"], outputs["text_states"]
            inputs["text_states"] = _spread(states, (rows,), (len(present), *states.shape[1:]))
            inputs["text_mask"] = _spread(feed["attention_mask"] > 0, (rows,), (len(present), states.shape[1]))
        if "image_states" in outputs:
            rows, states = feed["photo_rows"], outputs["image_states"]
            columns = np.arange(len(rows)) - np.searchsorted(rows, rows)
            photos = (len(present), columns.max(initial=0) + 1)
            there = _spread(np.ones(len(rows), bool), (rows, columns), photos)
            spread = _spread(states, (rows, columns), (*photos, *states.shape[1:]))
            inputs["image_states"] = spread.reshape(len(present), -1, states.shape[2])
            inputs["image_mask"] = there.repeat(states.shape[1], axis=1)
        return dict(zip(_names(self.memory.get_outputs()), self.memory.run(None, inputs), strict=True))

    def _write(self, memory, products, prompts, rules, generation) -> list[list[WrittenTag]]:
        check_greedy(generation)
        room = self.decoder["max_length"] - len(prompts[0])
        steps = min(generation.get("max_new_tokens") or room, room)
        memory = {name: array[products] for name, array in memory.items()}
        tokens, log_probabilities = self._search(memory, np.array(prompts), rules, steps)
        return [written_tags(*row, self.decoder["any_order"])
                for row in zip(tokens.tolist(), log_probabilities.tolist(), strict=True)]

    def _search(self, memory, prompts: np.ndarray, rules: TagRules, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens int64 [B, S] after the prompts [B, P], PAD after the end, and their log-probabilities, of the raw
        logits: what a tag's score says must not depend on which other tags were allowed."""
        rows, decoder = len(prompts), self.decoder
        empty = np.zeros((rows, decoder["heads"], 0, decoder["d_model"] // decoder["heads"]), np.float32)
        names = _names(self.step.get_outputs())[1:]
        past = dict.fromkeys(names, empty)
        for token in prompts.T[:-1]:
            _, past = self._next(token, memory, past, names)
        token, written, values = prompts[:, -1], np.zeros((rows, 0), np.int64), []
        for _ in range(steps):
            logits, past = self._next(token, memory, past, names)
            token = rules.apply(logits, written.tolist()).argmax(1)
            best = logits.max(1, keepdims=True)
            total = best[:, 0] + np.log(np.exp(logits - best).sum(1))
            values.append(logits[np.arange(rows), token] - total)
            token = np.where((written == EOS).any(1), PAD, token)
            written = np.concatenate([written, token[:, None]], axis=1)
            if (written == EOS).any(1).all():
                break
        return written, np.stack(values, axis=1)

    def _next(self, token, memory, past, names) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        feed = {f"past_{name}": array for name, array in past.items()}
        logits, *past = self.step.run(None, {"token": token, **memory, **feed})
        return logits, dict(zip(names, past, strict=True))

    def _encode(self, labels: list[str]) -> list[list[int]]:
        return [encoded.ids for encoded in self.tag_tokenizer.encode_batch(labels, add_special_tokens=False)]

    def _decode(self, tokens: list[int]) -> str:
        return self.tag_tokenizer.decode(tokens, skip_special_tokens=False)

    def _vector(self, label: str) -> np.ndarray:
        """As `FreeFormTagger._vector`."""
        if label not in self._vectors:
            self._vectors[label] = self.table.mean(self.label_tokenizer.encode(label, add_special_tokens=False).ids)
        return self._vectors[label]


class _Table:
    """Token embeddings read from where a graph keeps them, as float32 or int8, so that they are held only once."""

    def __init__(self, folder: Path, place: dict[str, Any]):
        self.rows = np.memmap(folder / place["file"], place["dtype"], "r", place["offset"], tuple(place["shape"]))
        scale, self.unknown = place["scale"], place["unk_id"]
        self.zero_point = place.get("zero_point", 0)  # of tables that an earlier hf_tagger brought to int8
        if isinstance(scale, dict):
            scale = np.memmap(folder / place["file"], np.float32, "r", scale["offset"], (len(self.rows), 1))
        self.scales = np.broadcast_to(scale, (len(self.rows), 1))

    def mean(self, ids: Sequence[int]) -> np.ndarray:
        """The mean of the rows, of length 1; zero where there is no token or an unknown one."""
        if not ids or self.unknown in ids:
            return np.zeros(self.rows.shape[1], np.float32)
        mean = ((self.rows[ids].astype(np.float32) - self.zero_point) * self.scales[ids]).mean(0, dtype=np.float32)
        return mean / max(float(np.sqrt(mean @ mean)), 1e-12)


def check_greedy(generation: Mapping[str, Any]) -> None:
    """Raises ValueError for an option of any search but the greedy one, or a `max_new_tokens` that is no number."""
    for name, value in generation.items():
        if name == "max_new_tokens":
            check_count(name, value)
        elif name not in GREEDY or value not in (None, GREEDY[name]):
            raise ValueError(f"an exported tagger writes free-form tags by greedy search only: {name} needs the torch "
                             'pipeline, pipeline("product-tagging", model=...) without backend')


def _spread(values: np.ndarray, places: tuple, shape: tuple[int, ...]) -> np.ndarray:
    spread = np.zeros(shape, values.dtype)
    spread[places] = values
    return spread


def _names(values) -> list[str]:
    return [value.name for value in values]
