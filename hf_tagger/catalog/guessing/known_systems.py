"""Columns of a system whose export is known."""

import itertools
from collections import Counter

from hf_tagger.catalog.guessing.attribute_guess import Guess, attribute_guess, shown, sizes, spec_keys
from hf_tagger.catalog.guessing.column_stats import ColumnStats, Survey
from hf_tagger.catalog.guessing.names import NAMES, by_brand, by_kind
from hf_tagger.catalog.profiles import Pattern, Profile, pattern_regex
from hf_tagger.catalog.strict import ConfigError, did_you_mean


def system_texts(system: Profile, names: dict[str, str], stats: list[ColumnStats],
           locale: str | None) -> tuple[dict[str, Guess], set[str]]:
    """({column: guess} of the columns that are the system's texts, the locales that are not read): of the channels of a
    locale the one in most products, and of the locales (None: those without) all of them, the one in most products
    first."""
    found: dict[tuple[str, str | None], ColumnStats] = {}
    for name in filter(names.get, system.text):
        templates = [pattern_regex(template + of) for template in system.templates(name)
                     for of in ("", *[":{locale}"] * (system.rows.store_view is not None))]
        for column in stats:
            match = next(filter(None, (template.fullmatch(column.name) for template in templates)), None)
            key = match and (name, match.groupdict().get("locale"))
            if key and (key not in found or column.filled > found[key].filled):
                found[key] = column
    filled = Counter()
    for (_, spoken), column in found.items():
        filled[spoken] += column.filled
    if locale is not None and locale not in filled:
        raise ConfigError(f"no text is in the locale {locale!r}.{did_you_mean(locale, [*filter(None, filled)])}")
    order = [spoken for spoken, _ in filled.most_common() if locale in (None, spoken) or spoken is None]
    places = {key: place for place, key in enumerate(itertools.product(system.text, order))}
    # What a store view has is read in place of the product's own.
    found = {key: column for key, column in found.items() if locale is None or key[1] or (key[0], locale) not in found}
    texts = {column.name: Guess(column.name, "text", f"{system.title}: {sizes(column)}", place=places[key],
                                locale=key[1]) for key, column in found.items() if key in places}
    return texts, {spoken for spoken in filled if spoken not in order}


def by_profile(column: ColumnStats, system: Profile, names: dict[str, str], survey: Survey) -> Guess | None:
    if any(pattern_regex(own).fullmatch(column.name.rpartition(":")[2]) for own in system.own):
        return Guess(column.name, "", "the shop system's own")
    name = next((name for name, spelt in names.items() if spelt == column.name), None)
    first = column.name.partition(":")[0]
    if name is None and first not in system.patterns and {first, first.partition(".")[0]} & set(names.values()):
        return Guess(column.name, "", "part of a column that is read as a whole")
    if name is not None:
        if name == system.id:
            without = survey.looked_at - column.filled
            return Guess(column.name, "id", f"{system.title}: {column.distinct:,} different ones", warnings=[
                f"{without:,} products without one are known by their rows"] if without else [])
        if name in system.images:
            return Guess(column.name, "photo", f"{system.title}: photos of {column.filled:,} products")
        if name == system.group:
            return Guess(column.name, "group", f"{system.title}: {column.distinct:,} groups")
        if name == system.language:
            return Guess(column.name, "language", shown(column))
        if name in system.attributes:
            plain = None if {name, "*"} & set(system.codes) else by_kind(column, name)
            return plain or attribute_guess(column, spec_keys(system.attributes[name]), survey, name)
        if any(_belongs_to(column.name, pattern, names) for pattern in system.patterns.values()):
            return Guess(column.name, "", "read under the attributes' own names")
        return Guess(column.name, "", "the shop system's own")
    for text in system.text:
        if any(pattern_regex(one).fullmatch(column.name) for one in system.templates(text) if "{" in one):
            return Guess(column.name, "", f"{text} in another language or channel")
    key, colon, option = column.name.partition(":")
    if colon and key in system.patterns:
        if column.share("code") > 0.9 and column.distinct > 0.9 * column.filled > 4:
            return Guess(column.name, "", f"codes, one each; {shown(column)}")
        if column.share("bool") > 0.95 and any(value.casefold().startswith("use config") for value in column.values):
            return Guess(column.name, "", f"a setting of the shop; {shown(column)}")
        if NAMES["amount"].fullmatch(option):
            return Guess(column.name, "", f"how many a buyer takes; {shown(column)}")
        # Options are what a buyer chooses.
        plain = None if key == "option" else by_kind(column, option) or by_brand(column, option)
        return plain or attribute_guess(column, {"kind": "multi"}, survey, option)
    for pattern in system.patterns.values():
        if pattern.column and (match := pattern_regex(pattern.column).fullmatch(column.name)):
            name = match["name"].strip("{}")
            return by_kind(column, name) or attribute_guess(column, spec_keys(pattern.attribute), survey, name)
        if _belongs_to(column.name, pattern, names):
            return Guess(column.name, "", "read under the attributes' own names")
    return None


def _belongs_to(column: str, pattern: Pattern, names: dict[str, str]) -> bool:
    templates = [*pattern.name, *pattern.value] if not pattern.items else []
    return column in (names.get(pattern.pairs), names.get(pattern.items)) or any(
        pattern_regex(template).fullmatch(column) for template in templates)
