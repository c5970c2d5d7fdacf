"""Cleans a catalogue's texts (as the pipeline does) and the names of its tags."""

import html
from functools import lru_cache

from hf_tagger.model.text import clean_text, normalise, repair

__all__ = ["clean_tag", "clean_text"]


@lru_cache(maxsize=65536)
def clean_tag(tag: str) -> str | None:
    """A tag's name, repaired like a text; of HTML only entities are decoded. None if empty."""
    return normalise(html.unescape(repair(tag))) or None
