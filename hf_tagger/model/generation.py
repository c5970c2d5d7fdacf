"""What the decoder's tokens mean and which of them may follow, without torch: the controls that it is asked with, the
shape of a tag list, and in vocabulary mode the tags themselves."""

from collections.abc import Iterable, Sequence

import numpy as np

# The first ids of every tag tokenizer; the controls (languages, attributes) are its last.
PAD, UNK, BOS, EOS, SEPARATOR = range(5)
ROOT = 0


def first_control_id(decoder: dict) -> int:
    """Token ids from here on are controls: they are asked with, never written. `decoder`: as in `TaggerConfig`."""
    return decoder["vocab_size"] - len(decoder["attributes"]) - len(decoder["languages"])


def control_id(decoder: dict, language: str | None = None, attribute: str | None = None) -> int:
    """The token that asks the decoder for a language, or for an attribute.

    Raises ValueError for one that it was not trained on, listing those it was.
    """
    kind, name = ("language", language) if attribute is None else ("attribute", attribute)
    known = decoder[f"{kind}s"]
    if name not in known:
        listed = ", ".join(known) or "none"
        raise ValueError(f"the decoder was not trained on the {kind} {name!r}; it knows: {listed}")
    first = first_control_id(decoder) + (0 if kind == "language" else len(decoder["languages"]))
    return first + known.index(name)


class TagTrie:
    """A prefix tree over the token sequences of known tags. `order` lists their numbers as their tokens sort; those
    below a node stand side by side in it (`branches`).

    Args:
        sequences: token ids of each tag; tags of equal tokens count once, under the number of the first.

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
        """The tokens that lead on from a node [K], and where in `order` the tags below the node itself, its own first,
        and below each of those tokens start and stop [1 + K, 2]."""
        if node not in self._branches:
            nodes = [node, *self.children[node].values()]
            spans = np.array([(self.first[each], self.first[each] + self.below[each]) for each in nodes])
            self._branches[node] = np.array(list(self.children[node]), np.int64), spans
        return self._branches[node]

    def walk(self, tokens: Sequence[int]) -> list[int] | None:
        """The nodes from the root along the tokens; None where they leave the tree."""
        path = [ROOT]
        for token in tokens:
            node = self.children[path[-1]].get(token)
            if node is None:
                return None
            path.append(node)
        return path

    def find(self, tokens: Sequence[int]) -> int | None:
        """The number of the tag that these are the tokens of, or None."""
        path = self.walk(tokens)
        return None if path is None else self.tag_at.get(path[-1])


class TagPrior:
    """What is believed of the tags of a trie, said token by token: the log of the share of a node's probability that
    lies behind each of its tokens, tags that are written already left out. Over the tokens of a tag these add up to the
    log of its share among all that could be written; added to a decoder's logits they make of the two a product of
    experts (Hinton 2002).

    Args:
        probabilities: of the trie's tags by their numbers, for each product [B, N].
        nothing: probability that none of them applies [B].
        weight: of the prior beside the decoder.
    """

    LOWEST = 1e-9

    def __init__(self, trie: TagTrie, probabilities: np.ndarray, nothing: np.ndarray, weight: float = 1.0):
        self.trie, self.weight = trie, weight
        self.nothing = np.clip(nothing.astype(np.float64), self.LOWEST, 1 - self.LOWEST)
        # A float32 sum over many tags would lose the unlikely ones.
        self.probabilities = np.maximum(probabilities[:, trie.order].astype(np.float64), self.LOWEST)
        self.sums = np.pad(self.probabilities.cumsum(1), ((0, 0), (1, 0)))

    def add(self, scores: np.ndarray, rows: Sequence[Sequence[int]]) -> None:
        """Adds the prior, times its weight, to the logits [R, V] of what follows R lists, in place. R is a multiple of
        B: so many lists in a row are of one product."""
        beams = len(rows) // len(self.sums)
        for index, written in enumerate(rows):
            if EOS not in written:
                self._add(scores[index], index // beams, written)

    def _add(self, scores: np.ndarray, product: int, written: Sequence[int]) -> None:
        trie, sums = self.trie, self.sums[product]
        *whole, last = split_tags(written)
        used = [trie.first[trie.walk(tag)[-1]] for tag in whole]
        node = trie.walk(last)[-1]
        tokens, spans = trie.branches(node)
        mass = sums[spans[:, 1]] - sums[spans[:, 0]]
        for place in used:
            mass -= np.where((spans[:, 0] <= place) & (place < spans[:, 1]), self.probabilities[product, place], 0.0)
        shares = self.weight * np.log(np.maximum(mass, self.LOWEST) / max(mass[0], self.LOWEST))
        scores[tokens] += shares[1:]
        if not written:
            scores[tokens] += self.weight * np.log(1 - self.nothing[product])
            scores[EOS] += self.weight * np.log(self.nothing[product])
        if node in trie.tag_at:
            own = self.probabilities[product, trie.first[node]]
            scores[[EOS, SEPARATOR]] += self.weight * np.log(own / max(mass[0], self.LOWEST))


class TagRules:
    """Which tokens continue a list of tags: no control tokens, no empty tag, at most `max_tags` tags, and with a `trie`
    only its tags, none of them twice.

    Args:
        decoder: as in `TaggerConfig`.
        prior: what is believed of the trie's tags beforehand; it moves the logits of `apply`.
    """

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
        """Logits [B, V] of what follows B lists, prompts left out -> what to choose by: the prior added, -inf for what
        may not follow."""
        if self.prior is not None:
            logits = logits.copy()
            self.prior.add(logits, rows)
        return np.where(self.banned(rows), -np.inf, logits)

    def banned(self, rows: Iterable[Sequence[int]]) -> np.ndarray:
        """What B lists hold so far, prompts left out -> which tokens may not follow, bool [B, V]."""
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
