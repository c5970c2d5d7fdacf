"""Product texts of catalog.synthetic, in the languages of `synthetic_words.yaml`."""

from dataclasses import dataclass
from pathlib import Path

import yaml

BRANDS = (
    "Brelko Tavindo Quorvy Sulmara Nefrin Dunvarro Mirepo Zaltika Havdun Pelluno Corvessa Trintal Lomequi Fardena "
    "Vendrik Rubelo Kestova Jandoro Belwick Sandrova Motiga Wilmette Nordelle Galvaro"
).split()


@dataclass(frozen=True)
class Language:
    """One language's product words.

    Args:
        nouns: {category: noun}; a noun is "word" or "word/gender" with gender m, f, n or p (plural).
        item: a noun that names no category.
        colours, patterns: {tag: adjective or phrase}; where forms differ by gender, "m/f", or a German stem and "-".
        features: {tag: sentence}.
        phrase: order of "{colour}", "{pattern}" and "{noun}".
        titles: templates with "{brand}", "{model}" and "{phrase}" ("{Phrase}": first letter in upper case).
        labels: {"category" | "colour" | "pattern": sentence with "{}"}.
        openings, closings: sentences that say nothing about the tags.
        gap: what stands between sentences.
    """

    nouns: dict[str, str]
    item: str
    colours: dict[str, str]
    patterns: dict[str, str]
    features: dict[str, str]
    phrase: str
    titles: list[str]
    labels: dict[str, str]
    openings: list[str]
    closings: list[str]
    gap: str = " "

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
LANGUAGES = {code: Language(**words) for code, words in yaml.safe_load(_WORDS).items()}
