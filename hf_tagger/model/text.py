"""Shop text as it should have been typed: mojibake repaired, HTML and invisible characters out, single spaces. And
which spellings are one word, and which known name an unknown one is nearest to.

Ships with the model, so that a product is read in the shop as it was read in training.
"""

import difflib
import html
import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

try:
    import ftfy
except ImportError:  # a saved model's folder opened where hf_tagger is not installed: mojibake then stays
    ftfy = None

WORD = re.compile(r"\w+(?:['’]\w+)?")

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# Expressions and not html.parser, which takes minutes over 40 kB of "<a <a <a" (each is searched to the end) and
# raises on "<![". Here a tag ends before the next "<", so that no character is looked at more than a few times.
_MARKUP = re.compile(r"<(?:[/!?]?[a-zA-Z][^<>]*>|!--|!\[CDATA\[)")
_TAG = re.compile(r"""<[/!?]?(?P<name>[a-zA-Z][\w:-]*+)(?:(?:[^<>"']|"[^"<]*"|'[^'<]*')*+|[^<>]*+)>""")
_COMMENT_OR_SCRIPT = re.compile(
    r"<!--.*?(?:-->|\Z)|<(script|style|template)\b[^<>]*+>.*?(?:</\1\s*>|\Z)", re.DOTALL | re.IGNORECASE
)
_CDATA = re.compile(r"<!\[CDATA\[|\]\]>")
_ENTITY = re.compile(r"&#?\w+;")
_INVISIBLE = re.compile(
    "[\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffd\ud800-\udfff]"
)
# Joiners are part of the spelling of Arabic-script and Indic words; anywhere else they only keep words from matching.
_STRAY_JOINER = re.compile("(?<![\u0600-\u0dff])[\u200c\u200d]|[\u200c\u200d](?![\u0600-\u0dff])")
_FRACTION = re.compile("(?<=[0-9])(?=[\u00bc-\u00be\u2150-\u215e])")
_TRADE_MARKS = dict.fromkeys(map(ord, "™℠"), "")
_INLINE_ELEMENTS = {"a", "abbr", "b", "em", "font", "i", "mark", "s", "small", "span", "strong", "sub", "sup", "u"}


def clean_text(text: str, max_chars: int = 2000) -> str | None:
    """`text` repaired (ftfy), without HTML, NFKC-normalised, without control and zero-width characters, with single
    spaces, cut at a word to `max_chars` characters. None where no letter or digit of any script is left."""
    # A page that came with its whole shop frame must not cost minutes: what follows never needs more than this.
    text = text[: 20 * max_chars]
    if not text.isascii() or "<" in text or "&" in text:
        text = _strip_html(repair(text))
    text = normalise(text)
    if len(text) > max_chars:
        text = _cut_at_word(text, max_chars)
    return text if any(map(str.isalnum, text)) else None


def repair(text: str) -> str:
    """`text` with wrongly decoded characters as they were meant."""
    return text if ftfy is None else ftfy.fix_text(text)


def clean_tag(tag: str) -> str | None:
    """A tag's name, repaired like a text as far as that changes no meaning: of HTML only entities are decoded, and ½
    and ™ stay. None if empty."""
    return (_clean_tag if len(tag) < 200 else _clean_tag.__wrapped__)(tag)


@lru_cache(maxsize=65536)
def _clean_tag(tag: str) -> str | None:
    if not tag.isascii() or "&" in tag:
        tag = html.unescape(repair(tag))
    return normalise(tag, "NFC") or None


def normalise(text: str, form: str = "NFKC") -> str:
    """In this Unicode form, without control and invisible characters, single spaces."""
    if not text.isascii():
        if form == "NFKC":
            # Which would make 101⁄2 of 10½, and a word of its own of Nike™.
            text = _FRACTION.sub(" ", text).translate(_TRADE_MARKS)
        text = unicodedata.normalize(form, text)
        text = _STRAY_JOINER.sub("", _INVISIBLE.sub("", text))
    if not text.isprintable():
        text = _CONTROL.sub(" ", text)
    return " ".join(text.split())


def stem(word: str) -> str:
    """What the forms of a word share: case, width (NFKC), possessive and plural taken off ("Parties" -> "party")."""
    word = unicodedata.normalize("NFKC", word).casefold().replace("’", "'").removesuffix("'s")
    for ending, replacement in (("ies", "y"), ("es", ""), ("s", "")):
        if len(word) > len(ending) + 2 and word.endswith(ending) and not word.endswith("ss"):
            return word.removesuffix(ending) + replacement
    return word.removesuffix("e") if len(word) > 3 else word


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """' Did you mean "x"?' for the known name nearest to `name`, else a list of what is known."""
    known = [str(candidate) for candidate in known]
    by_lower = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(str(name)[:100].lower(), by_lower, n=1, cutoff=0.5)
    if close:
        return f' Did you mean "{by_lower[close[0]]}"?'
    return f" Known: {', '.join(known)}." if known else ""


def _cut_at_word(text: str, max_chars: int) -> str:
    head = text[: max_chars + 1]
    space = head.rfind(" ")
    # Chinese, Japanese and Thai have no spaces to cut at.
    return head[:space] if space > max_chars // 2 else head[:max_chars]


def _strip_html(text: str) -> str:
    # Feeds escape markup once or twice over: "&lt;b&gt;Shoe&lt;/b&gt;".
    for _ in range(3):
        if _MARKUP.search(text):
            text = _COMMENT_OR_SCRIPT.sub(" ", _CDATA.sub("", text))
            text = html.unescape(_TAG.sub(_space_between_blocks, text))
        elif _ENTITY.search(text):
            text = html.unescape(text)
        else:
            break
    return text


def _space_between_blocks(tag: re.Match) -> str:
    return "" if tag["name"].lower() in _INLINE_ELEMENTS else " "
