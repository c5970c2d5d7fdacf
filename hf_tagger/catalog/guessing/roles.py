"""What each column of a catalogue is for, guessed from its name and from what its cells look like."""

import re
from collections import Counter

from hf_tagger.catalog.guessing.attribute_guess import Guess, attribute_guess, cell_format, shown, sizes
from hf_tagger.catalog.guessing.column_stats import ColumnStats, Survey
from hf_tagger.catalog.guessing.known_systems import by_profile, system_texts
from hf_tagger.catalog.guessing.names import NAMES, PERSONAL, by_brand, by_kind, spoken_names
from hf_tagger.catalog.guessing.nodes import FILES, nodes, whose_ids
from hf_tagger.catalog.profiles import Profile
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.catalog.taxonomy import CATEGORIES, Taxonomy

_OPTION = re.compile(r"(?:^|[;,|/\n])\s*(?:\[\w+\])?[^\W\d][^:=;,|/\n]{0,30}[:=]\s*[^;,|/\s]")
_FEW_TEXTS = 20


def guess_columns(survey: Survey, system: Profile | None = None, names: dict[str, str] | None = None,
                  taxonomy: Taxonomy | None = None, locale: str | None = None) -> list[Guess]:
    """A guess for each column, in the file's order. `names`: as `Profile.columns` gives them. `locale`: whose texts are
    read (None: of all).

    Raises ConfigError for a locale that no text has.
    """
    names = dict(names or {})
    stats = [column for column in survey.columns.values() if column.filled]
    guesses: dict[str, Guess] = {}
    if system is not None:
        texts, others = system_texts(system, names, stats, locale)
        for column in stats:
            personal = None if column.name in names.values() else _personal(column)
            foreign = not others.isdisjoint(re.split("[-.:]", column.name))
            guess = Guess(column.name, "", f"not in {locale}") if foreign else texts.get(column.name) or by_profile(
                column, system, names, survey)
            if guess is not None:
                guesses[column.name] = personal if personal and guess.role in ("attribute", "") and (
                    guess.why != "the shop system's own") else guess
    else:
        if locale is not None:
            raise ConfigError("a locale is for an export whose columns name several (name-en_US)")
        _find_id(stats, survey, guesses)
    for column in stats:
        known = guesses.get(column.name)
        if (known is None or known.role in ("", "attribute")) and (
                guess := _by_taxonomy(column, survey, taxonomy, names)):
            guesses[column.name] = guess
        elif known is None:
            guesses[column.name] = _by_content(column, survey, attributes_only=system is not None)
    _leave_out_references(guesses, survey)
    _leave_out_repeated(guesses, survey)
    _name_attributes([guess for guess in guesses.values() if guess.role in ("attribute", "taxonomy")])
    if system is None:
        _order_texts(guesses)
    for column in stats:
        guesses[column.name].coverage = column.filled / max(1, survey.looked_at)
    return [guesses[column.name] for column in stats]


def _by_taxonomy(column: ColumnStats, survey: Survey, taxonomy: Taxonomy | None, names: dict[str, str]) -> Guess | None:
    name = next((name for name, spelt in names.items() if spelt == column.name), column.name)
    spec, found = {"taxonomy": CATEGORIES, "kind": "multi"}, taxonomy and nodes(column, taxonomy)
    if found:
        guess = attribute_guess(column, spec, survey, name, found[0])
        guess.why = f"{taxonomy.title}: {guess.why}"
        if found[1]:
            guess.warnings.append(f"{found[1].total():,} cells name no node of {taxonomy.title}, such as "
                                  f"{next(iter(found[1]))!r}")
        return guess
    if column.distinct < 2 or (system := whose_ids(column)) is None:
        return None
    why = f"{column.distinct:,} ids of {system}'s taxonomy; {shown(column)}"
    return Guess(column.name, "taxonomy", why, name=name.strip().lower(), spec=spec, warnings=[
        f"ids of {system}'s taxonomy: download {FILES[system]}, and run init again with --taxonomy FILE"])


def _find_id(stats: list[ColumnStats], survey: Survey, guesses: dict[str, Guess]) -> None:
    """The column that tells all products apart, one with the name of an id first; others that do are left out."""
    codes = [column for column in stats if column.filled == survey.looked_at == column.distinct and not column.lists
             and column.longest <= 120 and (column.mean_words < 1.2 or NAMES["id"].fullmatch(column.name))
             and not column.share("image") and not column.share("email") > 0.5]
    codes = [column for column in codes if NAMES["id"].fullmatch(column.name) or column.share("code") > 0.9]
    named = [column for column in codes if NAMES["id"].fullmatch(column.name)]
    near = [column for column in stats if NAMES["id"].fullmatch(column.name) and not column.lists
            and column.filled > 0.9 * survey.looked_at and column.distinct > 0.5 * column.filled]
    for best in (named or codes or near)[:1]:
        guess = guesses[best.name] = Guess(best.name, "id", f"{best.distinct:,} different ones on {best.filled:,} rows")
        if best.distinct < survey.looked_at:
            guess.warnings.append(f"{survey.looked_at - best.distinct:,} rows without an id of their own")
        for column in codes:
            if column is not best:
                same = column.hashes == best.hashes
                guesses[column.name] = Guess(column.name, "", "tells products apart, as the id does", warnings=[
                    f"repeats the id ({best.name})"] if same else [])


def _by_content(column: ColumnStats, survey: Survey, attributes_only: bool) -> Guess:
    name, coverage, (spoken, short) = column.name, column.filled / max(1, survey.looked_at), spoken_names(column.name)
    last = name.rpartition(".")[2]
    if personal := _personal(column):
        return personal
    if attributes_only and column.share("image") > 0.5:
        return Guess(name, "", f"photos that are no product's own by the system's profile; {shown(column)}")
    if not attributes_only:
        if column.share("image") > 0.5 or (NAMES["photo"].fullmatch(name) and column.share("url") > 0.5):
            example = (column.photos or column.texts or ["bytes"])[0]
            return Guess(name, "photo", f"{column.filled:,} cells are photos, such as {example}")
        if NAMES["language"].fullmatch(last) and column.share("language") > 0.9 and not column.lists and (
                column.distinct < 100):
            return Guess(name, "language", shown(column))
    if plain := by_kind(column, short):
        return plain
    if brand := by_brand(column, short):
        return brand
    if NAMES["technical"].fullmatch(spoken):
        return Guess(name, "", f"by its name; {shown(column)}")
    is_size = NAMES["size"].fullmatch(short)
    if column.distinct == 1:
        return Guess(name, "", f"always {column.examples(1)[0]}")
    unique = column.distinct / column.filled
    delimiter = max(",;|", key=lambda delimiter: column.split_cells[delimiter])
    if NAMES["tags"].fullmatch(short) and column.split_cells[delimiter] > 0.5 * column.filled:
        return attribute_guess(column, {"kind": "multi", "format": "delimited"} | (
            {"delimiter": delimiter} if delimiter != "," else {}), survey, short)
    if NAMES["variants"].fullmatch(short) and _with_options(column, 1):
        return Guess(name, "", f"options and their values (add it to text to have it read); {shown(column)}")
    if not attributes_only:
        is_code = column.mean_words < 2 and column.share("code") > 0.5
        if NAMES["group"].fullmatch(last) and is_code and 1 < column.distinct < 0.95 * column.filled:
            return Guess(name, "group", f"{column.distinct:,} groups of {column.filled / column.distinct:.1f} rows")
    if column.share("hash") > 0.5:
        return Guess(name, "", f"ids without names; {shown(column)}")
    if not attributes_only:
        title = NAMES["title"].fullmatch(last) or NAMES["title"].fullmatch(short)
        named = title or NAMES["text"].fullmatch(spoken)
        worded = column.mean_words >= 3 or column.mean_characters >= 25
        # Variants share their descriptions.
        shared = NAMES["text"].fullmatch(spoken) and column.mean_words >= 6 and column.distinct > _FEW_TEXTS
        if column.several < 0.5 * column.filled and (shared or (unique > 0.4 and (worded or (named and unique > 0.6)))):
            return Guess(name, "text", sizes(column), place=0 if title else 1)
        if _with_options(column, 2):
            return Guess(name, "text", f"options with their values; {shown(column)}", place=2)
    if column.share("code") > 0.9 and unique > 0.1 and not is_size:
        return Guess(name, "", f"codes, {1 / unique:.1f} rows each (a group, if these are variants); {shown(column)}")
    guess = attribute_guess(column, cell_format(column), survey, short)
    tagged = guess.tags.total()
    repeated = sum(count for count in guess.tags.values() if count > 1)
    if len(guess.tags) > 1 and repeated > 0.5 * tagged and coverage >= 0.005:
        return guess
    return Guess(name, "", f"too many different ones for tags, too short for text: {shown(column)}")


def _personal(column: ColumnStats) -> Guess | None:
    spoken = spoken_names(column.name)[0]
    for kind, what in (("email", "e-mail addresses"), ("phone", "phone numbers")):
        if column.share(kind) > 0.2:
            return Guess(column.name, "personal", f"{what} in {column.share(kind):.0%} of the cells",
                         warnings=[f"personal data ({what}): not read"])
    if NAMES["personal"].fullmatch(spoken) and not NAMES["technical"].fullmatch(spoken):
        return Guess(column.name, "personal", "by its name", warnings=["personal data: not read"])
    held = sum(PERSONAL.search(text) is not None for text in column.texts)
    if held > 0.2 * len(column.texts) and not (NAMES["title"].fullmatch(spoken) or NAMES["text"].fullmatch(spoken)):
        return Guess(column.name, "personal", f"e-mail addresses or phone numbers in {held / len(column.texts):.0%} of "
                                              "the cells", warnings=["personal data: not read"])
    return None


def _with_options(column: ColumnStats, least: int) -> bool:
    """Whether most cells are texts that name so many options with their values: "Size: S, M; Colour: red"."""
    named = sum(len(_OPTION.findall(text)) >= least for text in column.texts)
    return named > 0.5 * len(column.texts) and column.share("list") < 0.5


def _leave_out_references(guesses: dict[str, Guess], survey: Survey) -> None:
    """Attributes whose tags are other products' ids (numbers left aside: sizes may be numbers of products, too)."""
    ids = {value for guess in guesses.values() if guess.role == "id" or "as the id does" in guess.why
           for value in survey.columns[guess.column].values if not value.isdigit()}
    for guess in guesses.values():
        if guess.role == "attribute" and sum(tag in ids for tag in guess.tags) > 0.5 * len(guess.tags):
            guess.role, guess.why, guess.warnings = "", f"ids of products; such as {next(iter(guess.tags))}", []


def _leave_out_repeated(guesses: dict[str, Guess], survey: Survey) -> None:
    """Of texts, or photos, that are the same in each product, the first one. Of attributes that have the same tags on
    as many products, the one that the system's rows name (a buyer reads an option's "Navy Blue", and of the metafield
    that it is linked to "navy-blue"), else the first."""
    known: dict[tuple, Guess] = {}
    for guess in guesses.values():
        if guess.role in ("text", "photo") and (cells := survey.columns[guess.column].hashes):
            first = known.setdefault((guess.role, cells.tobytes()), guess)
            if first is not guess:
                guess.role, guess.why, guess.warnings = "", f"the same as {first.column}", []
    for guess in sorted(guesses.values(), key=lambda guess: ":" not in guess.column):
        if guess.role == "attribute":
            counts = Counter()
            for tag, count in guess.tags.items():
                counts["".join(filter(str.isalnum, tag.casefold()))] += count
            first = known.setdefault(tuple(sorted(counts.items())), guess)
            if first is not guess:
                guess.role, guess.why, guess.warnings = "", f"the same tags as {first.column}", []


def _name_attributes(guesses: list[Guess]) -> None:
    """Names that no other attribute has."""
    taken: set[str] = set()
    for guess in guesses:
        name, number = guess.name or guess.column, 2
        while name in taken:
            name, number = f"{guess.name} {number}", number + 1
        taken.add(name)
        guess.name = name


def _order_texts(guesses: dict[str, Guess]) -> None:
    """Where no column is a text, the one with the name of a title is, whatever it looks like."""
    if not any(guess.role in ("text", "photo") for guess in guesses.values()):
        for guess in guesses.values():
            if NAMES["title"].fullmatch(guess.column) and guess.role in ("", "attribute"):
                guess.role, guess.why = "text", "by its name"
                return
