"""How complete a catalogue's lists of tags are: by products that say the same in words, but not in tags."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

from hf_tagger.catalog.attributes import AttributeSpec
from hf_tagger.model.text import WORD

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
    other way round. Numbers, case and order of words are left aside.

    `found` has {attribute: {"lists": that have been compared, "tags": in these, "repeated": of these, how many the
    other product has}}, plain data.
    """

    found: dict[str, dict[str, int]] = field(default_factory=dict)
    _rows: int = 0
    _first: dict[bytes, dict[str, frozenset[str]]] = field(default_factory=dict)  # {digest of words: lists}

    def add(self, text: str | None, lists: dict[str, list[str]]) -> None:
        """`lists`: {attribute: tags} of a product's lists that hold any."""
        self._rows += 1
        words = sorted({word for word in WORD.findall((text or "").casefold()) if word.isalpha() and len(word) > 1})
        if not lists or len(words) < FEWEST_WORDS or self._rows > MOST_ROWS:
            return
        digest = hashlib.blake2b(" ".join(words).encode(errors="surrogatepass"), digest_size=8).digest()
        mine = {name: frozenset(tags) for name, tags in lists.items()}
        first = self._first.setdefault(digest, mine)
        for name in mine.keys() & first.keys() if first is not mine else ():
            counts = self.found.setdefault(name, dict.fromkeys(("lists", "tags", "repeated"), 0))
            counts["lists"] += 2
            counts["tags"] += len(mine[name]) + len(first[name])
            counts["repeated"] += 2 * len(mine[name] & first[name])


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
