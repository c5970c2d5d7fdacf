"""Products that repeat an earlier one exactly: same text, same photos."""

import hashlib
import os
from array import array
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from hf_tagger.catalog.quarantine import Refusal
from hf_tagger.catalog.schema import Record


def content_digest(record: Record) -> int:
    """A 64-bit hash of a record's text and photos: of the content of local photos (a copy under another name has the
    same hash) and of the names of others."""
    digest = hashlib.blake2b((record["text"] or "").encode(errors="surrogatepass"), digest_size=8)
    for image in record["images"]:
        digest.update(b"\0")
        digest.update(_photo(image))
    return int.from_bytes(digest.digest(), "big")


def count_repeats(digests: Iterable[int]) -> int:
    """How many of the digests equal an earlier one."""
    values = np.fromiter(digests, dtype=np.uint64)
    return len(values) - len(np.unique(values))


def find_duplicates(records: Callable[[], Iterable[Record | Refusal]]) -> frozenset[tuple[str, int]]:
    """(file, number) of every record that repeats an earlier one. Memory: 8 bytes per record; `records()` is iterated
    twice if there are any duplicates."""
    digests = array("Q", (content_digest(item) for item in records() if not isinstance(item, Refusal)))
    values = np.frombuffer(digests, dtype=np.uint64)
    first = np.zeros(len(values), dtype=bool)
    first[np.unique(values, return_index=True)[1]] = True
    if first.all():
        return frozenset()
    found = (item for item in records() if not isinstance(item, Refusal))
    return frozenset((item["file"], item["number"]) for item, keep in zip(found, first, strict=True) if not keep)


def _photo(image: Any) -> bytes:
    if isinstance(image, dict):
        image = image.get("bytes") or image.get("path")
    if isinstance(image, bytes):
        return image
    if isinstance(image, str) and os.path.isfile(image):
        with open(image, "rb") as file:
            return file.read()
    return str(getattr(image, "url", image)).encode(errors="surrogatepass")
