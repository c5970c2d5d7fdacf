"""Free-form tags without torch: what the decoder is asked for, and what becomes of the tags it writes: repeats out,
known tags mapped onto their attributes, scores. `free_form.py` and `runtime/decoder.py` add the writing itself.
"""

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .generation import BOS, EOS, SEPARATOR, TagPrior, TagRules, TagTrie, control_id
from .text import normalise

FREE_FORM_OPTIONS = ("free_form", "language", "constrained", "max_tags", "min_score")


@dataclass
class WrittenTag:
    """A tag as the decoder wrote it, with the mean log-probability of its tokens and of the one that ends it."""

    tokens: list[int]
    log_probability: float


class TagWriter:
    """Writes the free-form tags of products whose memory (what a decoder attends to) is given; how, a subclass says:

        _write(memory, products, prompts, rules, generation)   `WrittenTag`s of prompts of one length, each about the
                                                               product of that row of the memory, as `TagRules` let it
        _vector(label)                                         a unit vector for a tag, to find near-duplicates
        _encode(labels), _decode(tokens)                       of the tag tokenizer, without special tokens

    Args:
        decoder, attributes: entries of the model's configuration.
    """

    def __init__(self, decoder: dict[str, Any], attributes: Sequence[dict[str, Any]]):
        self.decoder, self.attributes = decoder, attributes
        self.aliases = {fold(spelling): tag for spelling, tag in decoder["aliases"].items()}
        self.known: dict[str, list[tuple[str, str, int]]] = {}
        column = 0
        for attribute in attributes:
            for tag in attribute["tags"]:
                self.known.setdefault(fold(tag), []).append((attribute["name"], tag, column))
                column += 1
        self._tries: dict[str | None, tuple[TagTrie, np.ndarray, np.ndarray]] = {}

    def __call__(
        self,
        memory,
        languages: Sequence[str | None],
        scores=None,
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
            scores: closed-tag probabilities, float array [B, T]: of several attributes that share a tag, the likelier
                one is named; `constrained` weighs them in (`closed_weight` of the decoder).
            attributes: ask for these alone, each on its own.
            constrained: write closed tags only.
            max_tags: at most so many tags per product (and attribute).
            min_score: lowest score that is listed (default: the model's own).
            generation: of the search; one sequence per product.

        Returns per product its tags, best first: {"label", "score", "attribute", "source": "generated"}, none twice.
        """
        asked = [attributes or (None,)] * len(languages)
        return self.write_asked(memory, languages, asked, scores, constrained, max_tags, min_score, **generation)

    def write_asked(
        self,
        memory,
        languages: Sequence[str | None],
        asked: Sequence[Sequence[str | None]],
        scores=None,
        constrained: bool = False,
        max_tags: int | None = None,
        min_score: float | None = None,
        **generation,
    ) -> list[list[dict[str, Any]]]:
        """The same, where each product is asked for attributes of its own (None: for all of its tags at once)."""
        if generation.get("num_return_sequences", 1) != 1:
            raise ValueError("num_return_sequences must be 1: a product has one set of tags; use model.generate")
        min_score = self.decoder["min_score"] if min_score is None else min_score
        rows = [(product, attribute) for product, wanted in enumerate(asked) for attribute in wanted]
        prompts = [self._prompt(languages[product], attribute) for product, attribute in rows]
        found: list[list[dict]] = [[] for _ in languages]
        # Prompts of one batch are of one length, and share one trie.
        groups: dict[tuple[int, str | None], list[int]] = {}
        for index, (prompt, (_, attribute)) in enumerate(zip(prompts, rows, strict=True)):
            groups.setdefault((len(prompt), attribute if constrained else None), []).append(index)
        for (_, attribute), chosen in groups.items():
            products = [rows[index][0] for index in chosen]
            rules = self._rules(attribute, constrained, max_tags, None if scores is None else scores[products])
            written = self._write(memory, products, [prompts[index] for index in chosen], rules, generation)
            for index, tags in zip(chosen, written, strict=True):
                product, attribute_asked = rows[index]
                found[product] += [self._entry(tag, attribute_asked, None if scores is None else scores[product])
                                   for tag in tags]
        return [self._listed(tags, min_score) for tags in found]

    def _prompt(self, language: str | None, attribute: str | None) -> list[int]:
        prompt = [BOS]
        if language in self.decoder["languages"]:
            prompt.append(control_id(self.decoder, language=language))
        if attribute is not None:
            prompt.append(control_id(self.decoder, attribute=attribute))
        return prompt

    def _rules(self, attribute: str | None, constrained: bool, max_tags: int | None, scores) -> TagRules:
        """scores: closed-tag probabilities [B, T] of the products that are written of, or None."""
        if not constrained:
            return TagRules(self.decoder, max_tags)
        trie, tag_of, columns = self._trie(attribute)
        weight, prior = self.decoder.get("closed_weight", 0.0), None
        if scores is not None and weight:
            closed = np.asarray(scores, np.float32)[:, columns]
            probabilities = np.zeros((len(closed), tag_of.max() + 1), np.float32)
            # Where attributes share a tag, the likelier one speaks for it.
            np.maximum.at(probabilities, (slice(None), tag_of), closed)
            prior = TagPrior(trie, probabilities, self._nothing(attribute, scores), weight)
        return TagRules(self.decoder, max_tags, trie, prior)

    def _nothing(self, attribute: str | None, scores) -> np.ndarray:
        """The probability that no tag of the attribute, or of any, applies [B]."""
        nothing, start = np.ones(len(scores)), 0
        for entry in self.attributes:
            block = np.asarray(scores[:, start:start + len(entry["tags"])], np.float64)
            start += len(entry["tags"])
            if attribute in (None, entry["name"]):
                single = entry["kind"] == "single"
                nothing = nothing * (np.maximum(1 - block.sum(1), 0) if single else (1 - block).prod(1))
        return nothing

    def _trie(self, attribute: str | None) -> tuple[TagTrie, np.ndarray, np.ndarray]:
        """Of one attribute's tags, or of all; and of its closed tags the trie's numbers and the columns in [B, T]."""
        if attribute not in self._tries:
            named = [(tag, entry["name"]) for entry in self.attributes for tag in entry["tags"]]
            columns = [column for column, (_, name) in enumerate(named) if attribute in (None, name)]
            if not columns:
                raise ValueError(f"constrained writes closed tags only, and {attribute} has none")
            numbers: dict[str, int] = {}
            tag_of = [numbers.setdefault(named[column][0], len(numbers)) for column in columns]
            self._tries[attribute] = TagTrie(self._encode(list(numbers))), np.array(tag_of), np.array(columns)
        return self._tries[attribute]

    def _entry(self, tag: WrittenTag, asked: str | None, scores) -> dict[str, Any]:
        label = normalise(self._decode(tag.tokens))
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
        calibration = self.decoder["calibration"]
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
        return float(self._vector(first) @ self._vector(second)) >= self.decoder["merge_similarity"]


def check_free_form(options: Mapping[str, Any], decoder: dict[str, Any]) -> None:
    """Raises ValueError for options of free-form tags out of range, or an attribute or language that the decoder was
    not trained on."""
    wanted = options.get("attributes") or ()
    for name in () if isinstance(wanted, str) else wanted:
        control_id(decoder, attribute=name)
    if options.get("language") is not None:
        control_id(decoder, language=options["language"])
    max_tags, min_score = options.get("max_tags"), options.get("min_score")
    if max_tags is not None and (not isinstance(max_tags, int) or max_tags < 1):
        raise ValueError(f"max_tags must be a whole number from 1, got {max_tags!r}")
    if min_score is not None and not 0 <= min_score <= 1:
        raise ValueError(f"min_score is a score between 0 and 1, got {min_score!r}")


def check_needless(options: Mapping[str, Any], further: Sequence[str] = ()) -> None:
    """Raises TypeError for an option of free-form tags, or a `further` one, that is given where none are asked for."""
    given = [name for name in (*FREE_FORM_OPTIONS[1:], *further) if options.get(name) is not None]
    if given:
        raise TypeError(f"{given[0]} is about free-form tags: it needs free_form=True")


def best_first(listed: list[dict[str, Any]], written: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The closed tags listed of a product and those written of it, by score; a written one that is among the closed
    tags is not listed again."""
    there = {fold(tag["label"]) for tag in listed}
    return sorted([*listed, *(tag for tag in written if fold(tag["label"]) not in there)],
                  key=lambda tag: -tag["score"])


def fold(label: str) -> str:
    """What two spellings of one tag share: NFKC, case and spaces apart."""
    return " ".join(unicodedata.normalize("NFKC", label).casefold().split())


def written_tags(
    tokens: Sequence[int], log_probabilities: Sequence[float], any_order: bool = False
) -> list[WrittenTag]:
    """The tags of a row; one that the length limit cut off is left out.

    any_order: each of the tags that are left could have come next, which is no doubt about the one that did: the log
    of their number is given back to its first token.
    """
    tags, start = [], 0
    for end, token in enumerate(tokens):
        if token in (SEPARATOR, EOS):
            if end > start:
                mean = sum(log_probabilities[start:end + 1]) / (end + 1 - start)
                tags.append(WrittenTag(list(tokens[start:end]), mean))
            start = end + 1
        if token == EOS:
            break
    for place, tag in enumerate(tags if any_order else ()):
        given_back = math.log(len(tags) - place) / (len(tag.tokens) + 1)
        tag.log_probability = min(0.0, tag.log_probability + given_back)
    return tags
