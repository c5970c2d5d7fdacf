"""How the decoder's next token is held to the shape of a tag list, and in vocabulary mode to the tags themselves."""

from collections.abc import Iterable, Sequence

import torch
from transformers import LogitsProcessor

from .configuration_tagger import BOS, EOS, PAD, SEPARATOR, UNK

ROOT = 0


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


class TagLogitsProcessor(LogitsProcessor):
    """Lets only tokens through that continue a list of tags: no control tokens, no empty tag, at most `max_tags` tags,
    and with a `trie` only its tags, none of them twice.

    Args:
        prompt_length: tokens of the prompt, the start token included.
        first_control_id: token ids from here on are controls.
        vocab_size: width of the logits.
    """

    def __init__(
        self,
        prompt_length: int,
        first_control_id: int,
        vocab_size: int,
        max_tags: int | None = None,
        trie: TagTrie | None = None,
    ):
        self.prompt_length, self.max_tags, self.trie = prompt_length, max_tags, trie
        self.never = torch.zeros(vocab_size, dtype=torch.bool)
        self.never[[PAD, UNK, BOS]] = True
        self.never[first_control_id:] = True
        self.roots = torch.ones(vocab_size, dtype=torch.bool)
        if trie is not None:
            self.roots[list(trie.children[ROOT])] = False

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        banned = torch.stack([self._banned(row) for row in input_ids[:, self.prompt_length:].tolist()])
        return scores.masked_fill(banned.to(scores.device), -torch.inf)

    def _banned(self, written: list[int]) -> torch.Tensor:
        """Which tokens may not follow, bool [V]."""
        if EOS in written:  # a finished row: what follows is overwritten with padding
            return torch.zeros_like(self.never)
        tags = split_tags(written)
        *whole, last = tags
        if self.trie is None:
            banned = self.never.clone()
            if not last:
                banned[SEPARATOR] = True
                banned[EOS] = bool(whole)
            elif self.max_tags is not None and len(tags) >= self.max_tags:
                banned[SEPARATOR] = True
            return banned
        return self._banned_by_trie(whole, last)

    def _banned_by_trie(self, whole: list[list[int]], last: list[int]) -> torch.Tensor:
        trie, used = self.trie, {}
        for tag in whole:
            for node in trie.walk(tag):
                used[node] = used.get(node, 0) + 1
        path = trie.walk(last)
        node = path[-1]
        if node == ROOT:
            banned = self.roots.clone()
            starts = {tag[0]: trie.children[ROOT][tag[0]] for tag in whole}
            banned[[token for token, child in starts.items() if used[child] == trie.below[child]]] = True
            banned[EOS] = bool(whole)
        else:
            banned = torch.ones_like(self.never)
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
