"""How complete a catalogue's lists of tags are: by products that say the same in words, but not in tags."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from hf_tagger.catalog.attributes import AttributeSpec

WORDS = re.compile(r"[^\W\d_]{2,}")
FEWEST_WORDS = 2
MOST_ROWS = 100_000  # the first ones: a bound of memory and time
# From fewer tags on products with the words of another, nothing is concluded.
ENOUGH = 200
# Lists of about one tag each are choices: two products differ there because they differ.
LIST_LENGTH = 1.5
COMPLETE, LEAST = 0.85, 0.5
ASSUMED = 0.7  # where lists are said to be partial, and no products tell how partial


@dataclass
class Repeats:
    """Counts, product by product, how many of its tags the first product with the same words has as well, and the
    other way round. Numbers, case and order of words are left aside."""

    lists: dict[str, int] = field(default_factory=dict)  # {attribute: lists that have been compared}
    tags: dict[str, int] = field(default_factory=dict)  # tags in these
    repeated: dict[str, int] = field(default_factory=dict)  # of these, how many the other product has
    _rows: int = 0
    _first: dict[bytes, dict[str, frozenset[str]]] = field(default_factory=dict)  # {digest of words: tags}

    def add(self, text: str | None, tags: dict[str, list[str] | None], attributes: Iterable[str]) -> None:
        mine = {name: frozenset(tags[name]) for name in attributes if tags.get(name)}
        self._rows += 1
        if not mine or self._rows > MOST_ROWS:
            return
        words = sorted(set(WORDS.findall((text or "").casefold())))
        if len(words) < FEWEST_WORDS:
            return
        digest = hashlib.blake2b(" ".join(words).encode(errors="surrogatepass"), digest_size=8).digest()
        first = self._first.setdefault(digest, mine)
        if first is mine:
            return
        for name in mine.keys() & first.keys():
            for counts, number in ((self.lists, 2), (self.tags, len(mine[name]) + len(first[name])),
                                   (self.repeated, 2 * len(mine[name] & first[name]))):
                counts[name] = counts.get(name, 0) + number

    def found(self) -> dict[str, dict[str, int]]:
        """{attribute: {"lists", "tags", "repeated"}} as plain data."""
        return {name: {"lists": self.lists[name], "tags": self.tags[name], "repeated": self.repeated[name]}
                for name in sorted(self.lists)}


def label_frequency(spec: AttributeSpec, counts: dict[str, Any] | None) -> tuple[float, str]:
    """The share of a product's right tags that its list holds, 1 where lists are taken to be complete, and why.

    The share is that of a product's tags which another with the same words has as well: of two lists, each of which
    holds a right tag with probability c independently of the other, that is c.

    Args:
        spec: of a `multi` attribute; counts: what `Repeats` found of it.
    """
    compared = counts is not None and counts["tags"] >= ENOUGH
    share, said = 1.0, "too few products have the words of another to tell"
    if compared:
        share = max(counts["repeated"] / counts["tags"], LEAST)
        said = (f"of {counts['tags']:,} tags of products that have the words of another, "
                f"{counts['repeated'] / counts['tags']:.0%} are on the other, too")
    if spec.absent == "no":
        return 1.0, "absent: no"
    if spec.absent == "unknown":
        return (min(share, COMPLETE), said) if compared else (ASSUMED, said)
    if compared and counts["tags"] < LIST_LENGTH * counts["lists"]:
        return 1.0, f"{said}, but lists hold about one tag: a choice"
    return (share, said) if share < COMPLETE else (1.0, said)
