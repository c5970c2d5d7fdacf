"""Which language a product text is in: by its script, and by the small words of languages that share the Latin one.

A rough count for a whole catalogue, not a verdict on one title: what has no such word stays undetermined.
"""

import re
from collections import Counter
from collections.abc import Iterable

_WORDS = {
    "en": "the and with for of in this your from is our on",
    "de": "und mit für der die das aus von ist ein eine im zum nicht",
    "fr": "et avec pour les des une du dans est sur aux vous en le la",
    "es": "y con para los las una del en es su el la por más",
    "it": "e con per il di da un una della nel è gli le in",
    "nl": "en met voor van het een de is op uit ook deze",
    "pt": "e com para os as uma do da em é seu não na no",
    "pl": "i z do na w jest dla oraz ze się nie to",
    "sv": "och med för av en ett är på som till i det",
    "da": "og med til af en et er på som i det fra",
    "no": "og med til av en et er på som i det fra",
    "fi": "ja on se joka myös kanssa sekä ei tai",
    "cs": "a s pro na je se z do v ze jako",
    "hu": "és a az egy is nem hogy van vagy",
    "ro": "și cu pentru din de la este o un în",
    "tr": "ve ile için bir bu çok olarak da",
    "id": "dan dengan untuk yang di dari ini pada",
    "vi": "và với cho của là các trong được có",
}
_SMALL_WORDS = {language: frozenset(words.split()) for language, words in _WORDS.items()}
_LATIN_WORD = re.compile(r"[^\W\d_]+")
# Kana before Chinese characters, which Japanese uses, too.
_SCRIPTS = [(language, re.compile(f"[{characters}]")) for language, characters in (
    ("ja", "\u3040-\u30ff\uff66-\uff9f"), ("ko", "\uac00-\ud7af\u1100-\u11ff"), ("zh", "\u4e00-\u9fff"),
    ("uk", "іїєґІЇЄҐ"), ("ru", "\u0400-\u04ff"), ("el", "\u0370-\u03ff"), ("ar", "\u0600-\u06ff"),
    ("he", "\u0590-\u05ff"), ("th", "\u0e00-\u0e7f"), ("hi", "\u0900-\u097f"))]  # fmt: skip


def language_of(text: str) -> str | None:
    """The likeliest language; None where nothing tells."""
    letters = sum(map(str.isalpha, text))
    for language, script in _SCRIPTS:
        if len(script.findall(text)) > letters * (0.02 if language == "uk" else 0.2):
            return language
    words = _LATIN_WORD.findall(text.lower())
    hits = {language: sum(word in small for word in words) for language, small in _SMALL_WORDS.items()}
    first, second = sorted(hits, key=hits.get, reverse=True)[:2]
    return first if hits[first] > max(1, hits[second]) else None


def count_languages(texts: Iterable[str]) -> Counter[str | None]:
    """{language, or None where nothing tells: texts}, commonest first."""
    return Counter(dict(Counter(map(language_of, texts)).most_common()))
