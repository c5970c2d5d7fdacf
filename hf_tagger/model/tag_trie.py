"""Known tags as a prefix tree of their tokens, and what is to be expected of a list of them, token by token."""

from collections.abc import Iterable, Sequence

import numpy as np

from .saving import EOS, SEPARATOR

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
        nothing: probability that none of them applies [B].
        without: factors of `nothing` that go once a tag is written [B, N]: the probability that it does not apply, or
            of a `single` attribute that none of its tags does, for it has no other.
    """

    LOWEST = 1e-9

    def __init__(self, trie: TagTrie, probabilities: np.ndarray, nothing: np.ndarray, without: np.ndarray):
        self.trie = trie
        self.nothing = np.maximum(nothing.astype(np.float64), self.LOWEST)
        # In a float32 sum over many tags the unlikely ones would vanish.
        self.probabilities = np.maximum(probabilities[:, trie.order].astype(np.float64), self.LOWEST)
        self.without = np.maximum(without[:, trie.order].astype(np.float64), self.LOWEST)
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
        none = min(max(self.nothing[product] / self.without[product, used].prod(), self.LOWEST), 1 - self.LOWEST)
        if complete:
            own = self.probabilities[product, used[-1]] / max(mass[0], self.LOWEST)
            tokens = np.append(tokens, [SEPARATOR, EOS])
            shares = np.append(shares, [own * (1 - none), own * none])
        elif not written:
            tokens, shares = np.append(tokens, EOS), np.append(shares * (1 - none), none)
        return tokens, np.maximum(shares, self.LOWEST), min(mass[0], 1.0)


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
