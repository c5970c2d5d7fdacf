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
    """A prefix tree over the token sequences of known tags.

    Args:
        sequences: token ids of each tag; tags of equal tokens count once, under the number of the first.

    Raises ValueError for an empty sequence.
    """

    def __init__(self, sequences: Iterable[Sequence[int]]):
        self.children: list[dict[int, int]] = [{}]
        self.below = [0]
        self.tag_at: dict[int, int] = {}
        for number, sequence in enumerate(sequences):
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
                self.below.append(0)
            node = child
            path.append(node)
        if node not in self.tag_at:
            self.tag_at[node] = number
            for step in path:
                self.below[step] += 1

    def __len__(self) -> int:
        return self.below[ROOT]

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


class TagRules:
    """Which tokens continue a list of tags: no control tokens, no empty tag, at most `max_tags` tags, and with a `trie`
    only its tags, none of them twice.

    Args:
        decoder: as in `TaggerConfig`.
    """

    def __init__(self, decoder: dict, max_tags: int | None = None, trie: TagTrie | None = None):
        self.max_tags, self.trie = max_tags, trie
        self.never = np.zeros(decoder["vocab_size"], bool)
        self.never[[PAD, UNK, BOS]] = True
        self.never[first_control_id(decoder):] = True
        self.roots = np.ones(decoder["vocab_size"], bool)
        if trie is not None:
            self.roots[list(trie.children[ROOT])] = False

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
