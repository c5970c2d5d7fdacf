"""Free-form tags, the part without torch: prompts, constrained decoding, and the list of tags made of what the decoder
wrote: without repeats, known tags with their attribute, with scores. `decoder.py` and `runtime/decoder.py` add the
search itself.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .decisions import attribute_slices, fold, log_odds
from .saving import BOS, EOS, PAD, SEPARATOR, UNK, control_id, first_control_id
from .text import normalise

ROOT = 0


class TagTrie:
    """A prefix tree over the token sequences of known tags. `order` lists the tags' numbers sorted by their tokens, so
    that the tags below a node are a slice of it (`branches`).

    Args:
        sequences: token ids of each tag; of tags with equal tokens, the first one counts.

    Raises ValueError for an empty sequence.
    """

    def __init__(self, sequences: Iterable[Sequence[int]]):
        self.children: list[dict[int, int]] = [{}]
        self.first, self.below = [0], [0]
        self.tag_at: dict[int, int] = {}
        self.order: list[int] = []
        self._branches: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for number, sequence in sorted(enumerate(sequences), key=lambda item: tuple(item[1])):
            if not len(sequence):
                raise ValueError(f"tag {number} has no token")
            self._add(number, sequence)

    def _add(self, number: int, sequence: Sequence[int]) -> None:
        path, node = [ROOT], ROOT
        for token in sequence:
            child = self.children[node].get(token)
            if child is None:
                child = self.children[node][token] = len(self.children)
                self.children.append({})
                self.first.append(len(self.order))
                self.below.append(0)
            node = child
            path.append(node)
        if node not in self.tag_at:
            self.tag_at[node] = number
            self.order.append(number)
            for step in path:
                self.below[step] += 1

    def __len__(self) -> int:
        return self.below[ROOT]

    def branches(self, node: int) -> tuple[np.ndarray, np.ndarray]:
        """The tokens that continue from a node [K], and slices of `order` as (start, stop) [1 + K, 2]: of the tags
        below the node, then of those behind each token."""
        if node not in self._branches:
            nodes = [node, *self.children[node].values()]
            spans = np.array([(self.first[each], self.first[each] + self.below[each]) for each in nodes])
            self._branches[node] = np.array(list(self.children[node]), np.int64), spans
        return self._branches[node]

    def walk(self, tokens: Sequence[int]) -> list[int] | None:
        """The nodes from the root along the tokens; None if they are not in the tree."""
        path = [ROOT]
        for token in tokens:
            node = self.children[path[-1]].get(token)
            if node is None:
                return None
            path.append(node)
        return path

    def find(self, tokens: Sequence[int]) -> int | None:
        """The number of the tag with these tokens, or None."""
        path = self.walk(tokens)
        return None if path is None else self.tag_at.get(path[-1])


class TagPrior:
    """What a decoder's next token is by the probabilities of the trie's tags alone: a list whose next tag is drawn from
    those that are not yet written, and which ends with the probability that none of these applies.

    Args:
        probabilities: of the trie's tags by their numbers, for each product [B, N].
        nothing: log-probability that none of them applies [B].
        without: what a written tag takes off that [B, N]: the log-probability that it does not apply, or of a `single`
            attribute that none of its tags does, for it has no other.
    """

    LOWEST = 1e-9

    def __init__(self, trie: TagTrie, probabilities: np.ndarray, nothing: np.ndarray, without: np.ndarray):
        self.trie = trie
        self.nothing, self.without = nothing, without[:, trie.order]
        # In a float32 sum over many tags the unlikely ones would vanish.
        self.probabilities = np.maximum(probabilities[:, trie.order].astype(np.float64), self.LOWEST)
        self.sums = np.pad(self.probabilities.cumsum(1), ((0, 0), (1, 0)))

    def following(self, product: int, written: Sequence[int]) -> tuple[np.ndarray, np.ndarray, float] | None:
        """The tokens [K] that may follow a list, their probabilities [K], at least `LOWEST`, and how many tags that go
        on like this are to be expected, at most 1; None where the list's last tag has left the trie. Whole tags outside
        of it count for nothing."""
        trie, sums = self.trie, self.sums[product]
        *whole, last = split_tags(written)
        path, ends = trie.walk(last), [trie.walk(tag) for tag in whole]
        if path is None:
            return None
        used = [trie.first[end[-1]] for end in ends if end is not None and end[-1] in trie.tag_at]
        tokens, spans = trie.branches(path[-1])
        mass = sums[spans[:, 1]] - sums[spans[:, 0]]
        for place in used:
            mass -= np.where((spans[:, 0] <= place) & (place < spans[:, 1]), self.probabilities[product, place], 0.0)
        shares = mass[1:] / max(mass[0], self.LOWEST)
        complete = path[-1] in trie.tag_at
        if complete:
            used.append(trie.first[path[-1]])
        none = np.exp(min(self.nothing[product] - self.without[product, used].sum(), 0.0))
        none = min(max(none, self.LOWEST), 1 - self.LOWEST)
        if complete:
            own = self.probabilities[product, used[-1]] / max(mass[0], self.LOWEST)
            tokens = np.append(tokens, [SEPARATOR, EOS])
            shares = np.append(shares, [own * (1 - none), own * none])
        elif not written:
            tokens, shares = np.append(tokens, EOS), np.append(shares * (1 - none), none)
        return tokens, np.maximum(shares, self.LOWEST), min(mass[0], 1.0)


class TagRules:
    """Which tokens continue a list of tags: no control tokens, no empty tag, at most `max_tags` tags, and with a `trie`
    only its tags, none of them twice.

    A `prior` is joined to what the decoder says. With a trie by shallow fusion, its log-probabilities, times `WEIGHT`,
    being added: a product of experts (Hinton 2002). Without, up to half of each token's probability is the prior's, as
    long as it expects tags that are not yet written; what it does not know, and where the list ends, is the decoder's
    to say (a pointer-generator: See et al. 2017).

    Args:
        decoder: as in `TaggerConfig`.
    """

    WEIGHT, COPIED = 3.0, 0.5

    def __init__(self, decoder: dict, max_tags: int | None = None, trie: TagTrie | None = None,
                 prior: TagPrior | None = None):
        self.max_tags, self.trie, self.prior = max_tags, trie, prior
        self.never = np.zeros(decoder["vocab_size"], bool)
        self.never[[PAD, UNK, BOS]] = True
        self.never[first_control_id(decoder):] = True
        self.roots = np.ones(decoder["vocab_size"], bool)
        if trie is not None:
            self.roots[list(trie.children[ROOT])] = False

    def apply(self, logits: np.ndarray, rows: Sequence[Sequence[int]]) -> np.ndarray:
        """Logits [R, V] of the next token of R lists (without their prompts) -> the same with the prior, and -inf for
        tokens that may not follow. R is a multiple of the prior's B products: the first R / B lists are of the first
        product, and so on."""
        if self.prior is not None:
            logits, beams = logits.copy(), len(rows) // len(self.prior.nothing)
            for index, written in enumerate(rows):
                if EOS not in written:
                    self._join(logits[index], self.prior.following(index // beams, written))
        return np.where(self.banned(rows), -np.inf, logits)

    def _join(self, logits: np.ndarray, following: tuple[np.ndarray, np.ndarray, float] | None) -> None:
        """Joins the prior, in place, to the logits [V] of one list."""
        if following is None:
            return
        tokens, shares, expected = following
        if self.trie is not None:
            logits[tokens] += self.WEIGHT * np.log(shares)
        else:
            copied = self.COPIED * expected * np.where(tokens == EOS, 0.0, shares)
            powers = np.exp(logits - logits.max())
            mixed = (1 - copied.sum()) * powers / powers.sum()
            mixed[tokens] += copied
            logits[:] = np.log(np.maximum(mixed, TagPrior.LOWEST))

    def banned(self, rows: Iterable[Sequence[int]]) -> np.ndarray:
        """The tokens of B lists so far, without their prompts -> which tokens may not follow, bool [B, V]."""
        return np.stack([self._banned(row) for row in rows])

    def _banned(self, written: Sequence[int]) -> np.ndarray:
        if EOS in written:  # a finished row: what follows is overwritten with padding
            return np.zeros_like(self.never)
        tags = split_tags(written)
        *whole, last = tags
        if self.trie is None:
            banned = self.never.copy()
            if not last:
                banned[SEPARATOR] = True
                banned[EOS] = bool(whole)
            elif self.max_tags is not None and len(tags) >= self.max_tags:
                banned[SEPARATOR] = True
            return banned
        return self._banned_by_trie(whole, last)

    def _banned_by_trie(self, whole: list[list[int]], last: list[int]) -> np.ndarray:
        trie, used = self.trie, {}
        for tag in whole:
            for node in trie.walk(tag):
                used[node] = used.get(node, 0) + 1
        path = trie.walk(last)
        node = path[-1]
        if node == ROOT:
            banned = self.roots.copy()
            starts = {tag[0]: trie.children[ROOT][tag[0]] for tag in whole}
            banned[[token for token, child in starts.items() if used[child] == trie.below[child]]] = True
            banned[EOS] = bool(whole)
        else:
            banned = np.ones_like(self.never)
            allowed = [token for token, child in trie.children[node].items() if used.get(child, 0) < trie.below[child]]
            banned[allowed] = False
        if node in trie.tag_at and trie.tag_at[node] not in {trie.find(tag) for tag in whole}:
            banned[EOS] = False
            more = len(trie) > len(whole) + 1 and (self.max_tags is None or len(whole) + 1 < self.max_tags)
            banned[SEPARATOR] = not more
        return banned


def split_tags(written: Sequence[int]) -> list[list[int]]:
    """Token ids up to the end token -> the tokens of each tag; the last may be empty or unfinished."""
    tags: list[list[int]] = [[]]
    for token in written:
        if token == EOS:
            break
        if token == SEPARATOR:
            tags.append([])
        else:
            tags[-1].append(token)
    return tags


@dataclass
class WrittenTag:
    """A tag that the decoder wrote, and the mean log-probability of its tokens and of the one that ends it."""

    tokens: list[int]
    log_probability: float


class TagWriter:
    """Writes the free-form tags of products from their memory (what a decoder attends to). Subclasses implement:

        _write(memory, products, prompts, rules, generation)   the `WrittenTag`s of prompts of equal length, each about
                                                               the product in that row of the memory, under `TagRules`
        _vector(label)                                         a unit vector for a tag, to find near-duplicates
        _encode(labels), _decode(tokens)                       of the tag tokenizer, without special tokens

    Args:
        decoder, attributes: entries of the model's configuration.
    """

    def __init__(self, decoder: dict[str, Any], attributes: Sequence[dict[str, Any]]):
        self.decoder, self.attributes = decoder, attributes
        self.aliases = {fold(spelling): tag for spelling, tag in decoder["aliases"].items()}
        self.known: dict[str, list[tuple[str, str, int]]] = {}
        named = ((attribute["name"], tag) for attribute in attributes for tag in attribute["tags"])
        for column, (name, tag) in enumerate(named):
            self.known.setdefault(fold(tag), []).append((name, tag, column))
        self._tries: dict[tuple[str, ...], tuple[TagTrie, np.ndarray, np.ndarray]] = {}

    def __call__(self, memory, languages: Sequence[str | None], scores=None, attributes: Sequence[str] | None = None,
                 constrained: bool = False, max_tags: int | None = None, min_score: float | None = None,
                 asked: Sequence[Sequence[str | None]] | None = None, language: str | None = None,
                 **generation) -> list[list[dict[str, Any]]]:
        """
        Args:
            memory: of B products.
            languages: of each product; None, or one that the decoder does not know, leaves the choice to it.
            scores: closed-tag probabilities, float array [B, T]. A tag that several attributes share gets the likelier
                one; they say with the decoder what is written next, see `TagRules`.
            attributes: write the tags of these attributes only, one list for each.
            constrained: write closed tags only.
            max_tags: at most so many tags per product (and attribute).
            min_score: lowest score that is listed (default: the model's own).
            language: wanted in place of the products' own. The heads, which give tags as products of their own language
                have them, then have no say on tags that training saw in products of one other language alone.
            asked: in place of `attributes`, those of each product; None among them: all of its tags in one list.
            generation: options of the search; one sequence per product.

        Returns per product its tags, best first: {"label", "score", "attribute", "source": "generated"}, none twice.
        """
        asked = [list(dict.fromkeys(attributes or (None,)))] * len(languages) if asked is None else asked
        if generation.get("num_return_sequences", 1) != 1:
            raise ValueError("num_return_sequences must be 1: a product has one set of tags; use model.generate")
        min_score = self.decoder["min_score"] if min_score is None else min_score
        rows = [(product, attribute) for product, wanted in enumerate(asked) for attribute in wanted]
        prompts = [self._prompt(language or languages[product], attribute) for product, attribute in rows]
        found: list[list[dict]] = [[] for _ in languages]
        # The prompts of a batch have one length and one trie.
        groups: dict[tuple[int, str | None], list[int]] = {}
        for index, (prompt, (_, attribute)) in enumerate(zip(prompts, rows, strict=True)):
            groups.setdefault((len(prompt), attribute), []).append(index)
        for (_, attribute), chosen in groups.items():
            products = [rows[index][0] for index in chosen]
            heads = None if scores is None else scores[products] * self._spoken(language)
            rules = self._rules(attribute, constrained, max_tags, heads)
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

    def _spoken(self, language: str | None) -> np.ndarray:
        """1 for the closed tags that products of this language have, or of several, 0 for others, float32 [T]."""
        given = self.decoder.get("tag_languages", {}) if language else {}  # older exports have none
        return np.array([given.get(tag, language) == language for entry in self.attributes for tag in entry["tags"]],
                        np.float32)

    def _rules(self, attribute: str | None, constrained: bool, max_tags: int | None, scores) -> TagRules:
        """scores: closed-tag probabilities [B, T] of the products in question, or None."""
        names = tuple(entry["name"] for entry in self.attributes if attribute in (None, entry["name"])
                      and (constrained or entry["name"] in self.decoder["attributes"]))
        if constrained and not names:
            raise ValueError(f"constrained writes closed tags only, and {attribute} has none")
        trie, prior = None, None
        if names:
            trie, tag_of, columns = self._trie(names)
        if names and scores is not None:
            nothing, absence = self._absence(names, scores)
            probabilities = np.zeros((len(scores), tag_of.max() + 1), np.float32)
            without = np.zeros(probabilities.shape)
            # A tag that attributes share has the higher of its probabilities, and is written for all of them.
            np.maximum.at(probabilities, (slice(None), tag_of), np.asarray(scores, np.float32)[:, columns])
            np.add.at(without, (slice(None), tag_of), absence)
            prior = TagPrior(trie, probabilities, nothing, without)
        return TagRules(self.decoder, max_tags, trie if constrained else None, prior)

    def _absence(self, names: tuple[str, ...], scores) -> tuple[np.ndarray, np.ndarray]:
        """The log-probabilities that no tag of these attributes applies [B], and what each of their tags takes off
        that where it does apply [B, N]."""
        nothing, parts = np.zeros(len(scores)), []
        for entry, where in zip(self.attributes, attribute_slices(self.attributes), strict=True):
            if entry["name"] in names:
                absent = np.maximum(1 - np.asarray(scores[:, where], np.float64), TagPrior.LOWEST)
                if entry["kind"] == "single":
                    none = np.maximum(absent.sum(1, keepdims=True) - (absent.shape[1] - 1), TagPrior.LOWEST)
                    absent = none.repeat(absent.shape[1], axis=1)
                    nothing += np.log(none[:, 0])
                else:
                    nothing += np.log(absent).sum(1)
                parts.append(np.log(absent))
        return nothing, np.concatenate(parts, axis=1)

    def _trie(self, names: tuple[str, ...]) -> tuple[TagTrie, np.ndarray, np.ndarray]:
        """The trie of these attributes' closed tags, the tags' numbers in it, and their columns in [B, T]."""
        if names not in self._tries:
            named = [(tag, entry["name"]) for entry in self.attributes for tag in entry["tags"]]
            columns = [column for column, (_, name) in enumerate(named) if name in names]
            numbers: dict[str, int] = {}
            tag_of = [numbers.setdefault(named[column][0], len(numbers)) for column in columns]
            self._tries[names] = TagTrie(self._encode(list(numbers))), np.array(tag_of), np.array(columns)
        return self._tries[names]

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
        entry = {"label": label, "score": 0.0, "attribute": attribute, "source": "generated"}
        closed = None if scores is None else self.closed_score(entry, scores)
        return {**entry, "score": self.score(tag.log_probability, closed)}

    def closed_score(self, tag: dict[str, Any], scores: Sequence[float]) -> float | None:
        """The probability that the heads give a written tag, from `scores` [T]; None for one that is no closed tag."""
        known = self.known.get(fold(tag["label"]), ())
        return next((float(scores[column]) for name, _, column in known if name == tag["attribute"]), None)

    def score(self, log_probability: float, closed: float | None = None) -> float:
        """The probability that a tag is right, from its mean log-probability (its exponential if not calibrated) and,
        of a closed tag, the probability that the heads give it."""
        calibration, evidence = self.decoder["calibration"], [log_probability, 1.0]
        if calibration is None:
            return math.exp(log_probability)
        if closed is not None and self.decoder.get("closed_calibration"):
            calibration, evidence = self.decoder["closed_calibration"], [log_probability, float(log_odds(closed)), 1.0]
        return 1 / (1 + math.exp(-sum(weight * given for weight, given in zip(calibration, evidence, strict=True))))

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
        if first in self.known and second in self.known:  # two tags of the vocabulary are never merged
            return False
        return float(self._vector(first) @ self._vector(second)) >= self.decoder["merge_similarity"]


def written_tags(tokens: Sequence[int], log_probabilities: Sequence[float],
                 any_order: bool = False) -> list[WrittenTag]:
    """The tags of a row; one that the length limit cut off is left out.

    any_order: the decoder was trained on tags in random order, so that each of the n remaining tags could have come
    next: log n is added to the first token's log-probability.
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
