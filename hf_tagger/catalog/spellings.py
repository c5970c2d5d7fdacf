"""Spellings of one tag: what differs by case, white space, ®, accents or plural alone."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

from hf_tagger.model.text import WORD, stem

_MOST_FORMS = 20  # of a word, by accents and plurals: more are noise, and every two of them are compared
_SIGNS = re.compile("[®™℠©]")


class Merge(NamedTuple):
    """A spelling that becomes another tag, and on how many products either stands."""

    spelling: str
    tag: str
    count: int
    tag_count: int

    def __str__(self) -> str:
        return f"{self.spelling} ({self.count}) → {self.tag} ({self.tag_count})"


def propose_merges(counts: Mapping[str, int], known: Iterable[str] = (),
                   together: Collection[frozenset[str]] = ()) -> list[Merge]:
    """Which of an attribute's tags are other spellings of one, those of the commonest tag first.

    The most frequent spelling is the tag; of equally frequent ones, the first by name. What differs by case, white
    space or a sign such as ® is one tag for certain. What differs by accents or plural is, unless the catalogue tells
    the two apart: they stand on one product, or bear different accents.

    Args:
        counts: {tag: products}.
        known: tags that somebody has declared: none of them is merged, and they win over others.
        together: pairs of tags that stand on one product (`lookalikes`).
    """
    known, apart = set(known), {frozenset(map(strict_key, pair)) for pair in together}
    same: dict[str, list[str]] = defaultdict(list)
    for tag in dict.fromkeys([*counts, *known]):
        same[strict_key(tag)].append(tag)
    alike: dict[str, list[str]] = defaultdict(list)
    for key, spellings in same.items():
        alike[loose_key(spellings[0])].append(key)
    merges = []
    for keys in alike.values():
        forms = {key: same[key][0] for key in keys}
        for linked in _linked(keys, forms) if len(keys) <= _MOST_FORMS else [[key] for key in keys]:
            spellings = [tag for key in linked for tag in same[key]]
            told_apart = len(known.intersection(spellings)) > 1 or any(
                frozenset(pair) in apart or _accents_differ(*pair) for pair in combinations(linked, 2))
            for group in [same[key] for key in linked] if told_apart else [spellings]:
                tag = min(group, key=lambda tag: (tag not in known, -counts.get(tag, 0), tag))
                merges += [Merge(other, tag, counts[other], counts.get(tag, 0)) for other in group
                           if other != tag and other not in known]
    return sorted(merges, key=lambda merge: (-merge.tag_count, merge.tag, -merge.count, merge.spelling))


def one_spelling_each(tags: Iterable[str]) -> list[str]:
    """The tags of a product without those that are another one for certain, the first spelling of each."""
    first: dict[str, str] = {}
    for tag in tags:
        first.setdefault(strict_key(tag), tag)
    return list(first.values())


def lookalikes(tags: Iterable[str]) -> Iterator[frozenset[str]]:
    """The pairs among the tags of a product (`one_spelling_each`) that might be one tag if they did not stand
    together."""
    alike: dict[str, list[str]] = defaultdict(list)
    for tag in tags:
        alike[loose_key(tag)].append(tag)
    for spellings in alike.values():
        yield from map(frozenset, combinations(spellings[:_MOST_FORMS + 1], 2))


@lru_cache(maxsize=65536)
def strict_key(tag: str) -> str:
    """What spellings share that are one tag for certain."""
    text = unicodedata.normalize("NFKC", _SIGNS.sub("", tag)).replace("’", "'")
    return "".join(text.lower().split()) or tag  # casefold would make one word of "Maße" and "Masse"


@lru_cache(maxsize=65536)
def loose_key(tag: str) -> str:
    """What spellings share that may be one tag, and some that are not: "Cap" and "Cape"."""
    return "".join(map(stem, _words(tag))) or tag


def _linked(keys: list[str], spelling: dict[str, str]) -> list[list[str]]:
    """The keys in groups, within which each is another one's plural, or the same without its accents."""
    groups: list[list[str]] = []
    for key in keys:
        near = [group for group in groups if any(_one_word(spelling[key], spelling[other]) for other in group)]
        groups = [group for group in groups if group not in near] + [[*sum(near, []), key]]
    return groups


def _one_word(one: str, other: str) -> bool:
    ours, theirs = _words(one), _words(other)
    if len(ours) != len(theirs):
        ours, theirs = ["".join(ours)], ["".join(theirs)]
    return all(a == b or _is_plural(a, b) or _is_plural(b, a) for a, b in zip(ours, theirs, strict=True))


def _is_plural(one: str, many: str) -> bool:
    """Of English, Spanish, French and Portuguese words. (Not of every word that `stem` makes one: cap and cape.)"""
    if not one.isalpha() or len(one) < 3:  # 501 and 501s are two pairs of jeans
        return False
    takes_es = one.endswith(("s", "x", "z", "ch", "sh", "o")) or (len(one) > 4 and one[-1] in "lnrd")
    return many == f"{one}s" or (takes_es and many == f"{one}es") or (one[-1] == "y" and many == f"{one[:-1]}ies")


def _words(tag: str) -> list[str]:
    """Words and the signs between them, in lower case, without accents and apostrophes."""
    text = re.sub("['’]", "", _bare(unicodedata.normalize("NFKC", _SIGNS.sub("", tag)).lower()))
    return [part for piece in text.split() for part in re.findall(rf"{WORD.pattern}|[^\w]+", piece)]


def _bare(text: str) -> str:
    return "".join(letter for letter, _ in _letters(text))


def _letters(text: str) -> Iterator[tuple[str, str]]:
    """(letter, its accents), of Latin and Greek letters and ё: elsewhere a mark makes another letter (か, が)."""
    for letter in unicodedata.normalize("NFC", text):
        base, marks = (parts := unicodedata.normalize("NFD", letter))[:1], parts[1:]
        yield (base, marks) if marks and (base < "\u0400" or letter in "ёЁ") else (letter, "")


def _accents_differ(one: str, other: str) -> bool:
    """Whether a letter of both bears an accent, and not the same ("bò", "bơ")."""
    return any(ours and theirs and ours != theirs
               for (_, ours), (_, theirs) in zip(_letters(one), _letters(other), strict=False))
