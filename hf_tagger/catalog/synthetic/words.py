"""Product texts of a made-up catalogue, in the languages of `words.yaml`."""

from pathlib import Path
from types import SimpleNamespace

import yaml

BRANDS = (
    "Brelko Tavindo Quorvy Sulmara Nefrin Dunvarro Mirepo Zaltika Havdun Pelluno Corvessa Trintal Lomequi Fardena "
    "Vendrik Rubelo Kestova Jandoro Belwick Sandrova Motiga Wilmette Nordelle Galvaro"
).split()


class Language(SimpleNamespace):
    """One language's product words, as the head of `words.yaml` describes them."""

    def noun_phrase(self, category: str | None, colour: str | None, pattern: str | None) -> str:
        """For Dress, Red, Striped "rotes gestreiftes Kleid"; what is None is left unsaid."""
        noun, _, gender = (self.nouns[category] if category else self.item).partition("/")
        phrase = self.phrase.format(noun=noun, colour=_agree(self.colours[colour], gender) if colour else "",
                                    pattern=_agree(self.patterns[pattern], gender) if pattern else "")
        return " ".join(phrase.split())

    def statement(self, attribute: str, tag: str) -> str:
        """For colour, Red: "Farbe: rot"."""
        words = {"category": self.nouns, "colour": self.colours, "pattern": self.patterns}[attribute][tag]
        return self.labels[attribute].format(words.partition("/")[0].removesuffix("-"))


def _agree(word: str, gender: str) -> str:
    if word.endswith("-"):
        return word[:-1] + {"m": "er", "f": "e", "n": "es", "p": "e"}[gender]
    masculine, _, feminine = word.partition("/")
    return feminine if feminine and gender == "f" else masculine


def upper(text: str, language: str) -> str:
    """In upper case; the Turkish i keeps its dot."""
    return (text.replace("i", "İ") if language == "tr" else text).upper()


_WORDS = Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")
LANGUAGES = {code: Language(**{"gap": " "} | words) for code, words in yaml.safe_load(_WORDS).items()}
