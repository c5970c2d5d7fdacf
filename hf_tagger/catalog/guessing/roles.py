"""What each column of a catalogue is for, guessed from its name and from what its cells look like."""

import itertools
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from hf_tagger.catalog.attributes import AttributeSpec, TagReader
from hf_tagger.catalog.guessing.column_stats import ColumnStats, Survey
from hf_tagger.catalog.guessing.nodes import FILES, nodes, whose_ids
from hf_tagger.catalog.profiles import Pattern, Profile, pattern_regex
from hf_tagger.catalog.quarantine import RowError
from hf_tagger.catalog.spellings import Merge, propose_merges
from hf_tagger.catalog.strict import ConfigError, did_you_mean
from hf_tagger.catalog.taxonomy import CATEGORIES, Taxonomy

_NAMES = {role: re.compile(words, re.IGNORECASE) for role, words in {
    "id": r"_?id|sku|handle|code|asin|ean|gtin|ref(erence)?|(product|item|article|artikel|variant)[ _.-]?(id|sku|code|"
          r"no|nr|number|nummer)|référence|referencia|codice|código|商品番号|商品コード|品番|артикул",
    "title": r".*(title|name|titel|bezeichnung|titre|nom\b|nombre|título|titolo|nome|naam|商品名|品名|タイトル|назван)"
             r".*",
    "text": r".*(desc|detail|body|beschreib|bullet|summary|content|omschrijv|beskriv|caption|説明|описан|text).*",
    "photo": r".*(image|photo|picture|\bimg|bild|foto|imagen|immagine|thumbnail|画像).*",
    "group": r".*(group|parent|family|style|modell?|master|gruppe|groupe|grupo)([ _.-]?(id|code|no|nr|sku|number))?",
    "language": r"(lang(uage)?|locale|sprache|langue|idioma|lingua|taal)([ _.-]?code)?",
    "personal": r".*(e-?mail|phone|telefon|téléphone|customer|contact|(first|last)[ _]?name|address|kunde|birth).*|"
                r"(.*[ _])?mobile([ _]?(no|nr|number))?",
    "brand": r"(.*[ _])?(brand|vendor|manufacturer|marke|marque|marca|maker|hersteller|supplier|"
             r"lieferant|fournisseur|fabricante?|proveedor|fornitore|leverancier|produttore|fabrikant)s?([ _]name)?|"
             r"メーカー",
    "technical": r".*(price|cost\b|preis|prix\b|precio|stock|inventory|qty|quantity|menge|\btax|steuer|shipping|"
                 r"versand|weight|gewicht|status|publish|visib|\bactive|enabled|availab|condition|creat|updat|modif|\bdate|url|"
                 r"link|barcode|\bean|gtin|upc|\bmpn|isbn|currency|position|\bsort|taxable|fulfil|featured|download|"
                 r"meta: _|\bseo|meta[_ ](title|desc|key)|\balt\b|label$|website|layout|design|sells?$|_skus$|button|"
                 r"default|use[_ ]config|allow|rating|reviews?|discount|sold).*",
    "tags": r".*(tags?\b|keyword|schlagw|etiquet|étiquet|label|タグ).*",
    "variants": r".*(option|variant|variation|variaci|déclinaison).*",
    "size": r".*(size|größe|grösse|taille|talla|taglia|maat|サイズ).*",
}.items()}  # fmt: skip
_UNKNOWN_WORDS = {"n/a", "na", "unknown", "null", "nan", "-", "--", "?", "tbd", "k.a.", "keine angabe", "unbekannt",
                  "inconnu", "desconocido", "not specified", "unspecified"}
_NONE_WORDS = {"none", "no", "keine", "ohne", "aucun", "ninguno", "nessuno", "geen", "not applicable", "なし"}
_OPTION = re.compile(r"(?:^|[;,|/\n])\s*(?:\[\w+\])?[^\W\d][^:=;,|/\n]{0,30}[:=]\s*[^;,|/\s]")
_MIN_COUNT, _MOST_ALIASES, _FEW_PRODUCTS, _FEW_TEXTS = 3, 200, 60, 20


@dataclass
class Guess:
    """
    Args:
        role: "id", "text", "photo", "group", "language", "attribute", "taxonomy" (an attribute that needs a file),
            "personal", or "" for what is left out.
        why: what was seen.
        name, spec, tags: of an attribute: its name, the keys of its `AttributeSpec`, and its tags with their rows.
        merges: spellings that are another tag.
        place, locale: of a text among the texts of a product; the locale that its column names.
    """

    column: str
    role: str
    why: str
    coverage: float = 0.0
    warnings: list[str] = field(default_factory=list)
    name: str | None = None
    spec: dict[str, Any] = field(default_factory=dict)
    tags: Counter[str] = field(default_factory=Counter)
    merges: list[Merge] = field(default_factory=list)
    place: int = 0
    locale: str | None = None


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
        texts, others = _texts(system, names, stats, locale)
        for column in stats:
            foreign = not others.isdisjoint(re.split("[-.]", column.name))
            guess = Guess(column.name, "", f"not in {locale}") if foreign else texts.get(column.name) or _by_profile(
                column, system, names, survey)
            if guess is not None:
                guesses[column.name] = guess
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
    _leave_out_repeated(guesses)
    _name_attributes([guess for guess in guesses.values() if guess.role in ("attribute", "taxonomy")])
    if system is None:
        _order_texts(guesses)
    for column in stats:
        guesses[column.name].coverage = column.filled / max(1, survey.looked_at)
    return [guesses[column.name] for column in stats]


def _texts(system: Profile, names: dict[str, str], stats: list[ColumnStats],
           locale: str | None) -> tuple[dict[str, Guess], set[str]]:
    """({column: guess} of the columns that are the system's texts, the locales that are not read): of the channels of a
    locale the one in most products, and of the locales (None: those without) all of them, the one in most products
    first."""
    found: dict[tuple[str, str | None], ColumnStats] = {}
    for name in filter(names.get, system.text):
        templates = [pattern_regex(template) for template in system.templates(name)]
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
    texts = {column.name: Guess(column.name, "text", f"{system.title}: {_sizes(column)}", place=places[key],
                                locale=key[1]) for key, column in found.items() if key in places}
    return texts, {spoken for spoken in filled if spoken not in order}


def is_id_name(column: str) -> bool:
    return _NAMES["id"].fullmatch(column) is not None


def _by_profile(column: ColumnStats, system: Profile, names: dict[str, str], survey: Survey) -> Guess | None:
    if any(pattern_regex(own).fullmatch(column.name.rpartition(":")[2]) for own in system.own):
        return Guess(column.name, "", "the shop system's own")
    name = next((name for name, spelt in names.items() if spelt == column.name), None)
    if name is None and column.name.partition(".")[0] in names.values():
        return Guess(column.name, "", "part of a column that is read as a whole")
    if name is not None:
        if name == system.id:
            return Guess(column.name, "id", f"{system.title}: {column.distinct:,} different ones")
        if name in system.images:
            return Guess(column.name, "photo", f"{system.title}: photos of {column.filled:,} products")
        if name == system.group:
            return Guess(column.name, "group", f"{system.title}: {column.distinct:,} groups")
        if name == system.language:
            return Guess(column.name, "language", _shown(column))
        if name in system.attributes:
            return _attribute(column, _keys(system.attributes[name]), survey, name)
        return Guess(column.name, "", "the shop system's own")
    for text in system.text:
        if any(pattern_regex(one).fullmatch(column.name) for one in system.templates(text) if "{" in one):
            return Guess(column.name, "", f"{text} in another language or channel")
    key, colon, option = column.name.partition(":")
    if colon and key in system.patterns:
        if column.share("code") > 0.9 and column.distinct > 0.9 * column.filled > 4:
            return Guess(column.name, "", f"codes, one each; {_shown(column)}")
        if column.share("bool") > 0.95 and any(value.casefold().startswith("use config") for value in column.values):
            return Guess(column.name, "", f"a setting of the shop; {_shown(column)}")
        plain = None if key == "option" else _by_kind(column, option)  # options are what a buyer chooses
        return plain or _attribute(column, {"kind": "multi"}, survey, option)
    for pattern in system.patterns.values():
        if pattern.column and (match := pattern_regex(pattern.column).fullmatch(column.name)):
            return _by_kind(column, match["name"]) or _attribute(column, _keys(pattern.attribute), survey, match["name"])
        if _belongs_to(column.name, pattern, names):
            return Guess(column.name, "", "read under the attributes' own names")
    return None


def _belongs_to(column: str, pattern: Pattern, names: dict[str, str]) -> bool:
    templates = [*pattern.name, *pattern.value] if not pattern.items else []
    return column in (names.get(pattern.pairs), names.get(pattern.items)) or any(
        pattern_regex(template).fullmatch(column) for template in templates)


def _keys(spec: AttributeSpec) -> dict[str, Any]:
    """The keys of a profile's specification that differ from their defaults."""
    default = AttributeSpec()
    keys = {key: value for key, value in vars(spec).items() if value != getattr(default, key) and key != "column"}
    if keys.get("delimiter") == {"delimited": ",", "path": ">"}.get(spec.format, ""):
        del keys["delimiter"]
    return keys


def _by_taxonomy(column: ColumnStats, survey: Survey, taxonomy: Taxonomy | None, names: dict[str, str]) -> Guess | None:
    name = next((name for name, spelt in names.items() if spelt == column.name), column.name)
    spec, found = {"taxonomy": CATEGORIES, "kind": "multi"}, taxonomy and nodes(column, taxonomy)
    if found:
        guess = _attribute(column, spec, survey, name, found[0])
        guess.why = f"{taxonomy.title}: {guess.why}"
        if found[1]:
            guess.warnings.append(f"{found[1].total():,} cells name no node of {taxonomy.title}, such as "
                                  f"{next(iter(found[1]))!r}")
        return guess
    if column.distinct < 2 or (system := whose_ids(column)) is None:
        return None
    why = f"{column.distinct:,} ids of {system}'s taxonomy; {_shown(column)}"
    return Guess(column.name, "taxonomy", why, name=name.strip().lower(), spec=spec, warnings=[
        f"ids of {system}'s taxonomy: download {FILES[system]}, and run init again with --taxonomy FILE"])


def _find_id(stats: list[ColumnStats], survey: Survey, guesses: dict[str, Guess]) -> None:
    """The column that tells all products apart, one with the name of an id first; others that do are left out."""
    codes = [column for column in stats if column.filled == survey.looked_at == column.distinct and not column.lists
             and column.longest <= 120 and (column.mean_words < 1.2 or _NAMES["id"].fullmatch(column.name))
             and not column.share("image") and not column.share("email") > 0.5]
    codes = [column for column in codes if _NAMES["id"].fullmatch(column.name) or column.share("code") > 0.9]
    named = [column for column in codes if _NAMES["id"].fullmatch(column.name)]
    near = [column for column in stats if _NAMES["id"].fullmatch(column.name) and not column.lists
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
    name, coverage = column.name, column.filled / max(1, survey.looked_at)
    for kind, what in (("email", "e-mail addresses"), ("phone", "phone numbers")):
        if column.share(kind) > 0.2:
            return Guess(name, "personal", f"{what} in {column.share(kind):.0%} of the cells",
                         warnings=[f"personal data ({what}): not read"])
    if _NAMES["personal"].fullmatch(name) and not _NAMES["technical"].fullmatch(name):
        return Guess(name, "personal", f"by its name; {_shown(column)}", warnings=["personal data: not read"])
    if attributes_only and column.share("image") > 0.5:
        return Guess(name, "", f"photos that are no product's own by the system's profile; {_shown(column)}")
    if not attributes_only:
        if column.share("image") > 0.5 or (_NAMES["photo"].fullmatch(name) and column.share("url") > 0.5):
            example = (column.photos or column.texts or ["bytes"])[0]
            return Guess(name, "photo", f"{column.filled:,} cells are photos, such as {example}")
        if _NAMES["language"].fullmatch(name) and column.share("language") > 0.9 and column.distinct < 100:
            return Guess(name, "language", _shown(column))
    if plain := _by_kind(column, name):
        return plain
    if _NAMES["brand"].fullmatch(name):
        return Guess(name, "", f"known, not seen (add it to the attributes to have it tagged); {_shown(column)}")
    if _NAMES["technical"].fullmatch(name):
        return Guess(name, "", f"by its name; {_shown(column)}")
    is_size = _NAMES["size"].fullmatch(name)
    if column.distinct == 1:
        return Guess(name, "", f"always {column.examples(1)[0]}")
    unique = column.distinct / column.filled
    delimiter = max(",;|", key=lambda delimiter: column.split_cells[delimiter])
    if _NAMES["tags"].fullmatch(name) and column.split_cells[delimiter] > 0.5 * column.filled:
        return _attribute(column, {"kind": "multi", "format": "delimited"} | (
            {"delimiter": delimiter} if delimiter != "," else {}), survey, name)
    if _NAMES["variants"].fullmatch(name) and _with_options(column, 1):
        return Guess(name, "", f"options and their values (add it to text to have it read); {_shown(column)}")
    if not attributes_only:
        is_code = column.mean_words < 2 and column.share("code") > 0.5
        if _NAMES["group"].fullmatch(name) and is_code and 1 < column.distinct < 0.95 * column.filled:
            return Guess(name, "group", f"{column.distinct:,} groups of {column.filled / column.distinct:.1f} rows")
        named = _NAMES["title"].fullmatch(name) or _NAMES["text"].fullmatch(name)
        worded = column.mean_words >= 3 or column.mean_characters >= 25
        # Variants share their descriptions.
        shared = _NAMES["text"].fullmatch(name) and column.mean_words >= 6 and column.distinct > _FEW_TEXTS
        if column.share("list") < 0.5 and (shared or (unique > 0.4 and (worded or (named and unique > 0.6)))):
            return Guess(name, "text", _sizes(column), place=0 if _NAMES["title"].fullmatch(name) else 1)
        if _with_options(column, 2):
            return Guess(name, "text", f"options with their values; {_shown(column)}", place=2)
    if column.share("code") > 0.9 and unique > 0.1 and not is_size:
        return Guess(name, "", f"codes, {1 / unique:.1f} rows each (a group, if these are variants); {_shown(column)}")
    guess = _attribute(column, _format(column), survey, name)
    tagged = guess.tags.total()
    repeated = sum(count for count in guess.tags.values() if count > 1)
    words = sum(tag.count(" ") + 1 for tag in guess.tags) / max(1, len(guess.tags))
    if len(guess.tags) > 1 and repeated > 0.5 * tagged and words <= 5 and coverage >= 0.005:
        return guess
    return Guess(name, "", f"too many different ones for tags, too short for text: {_shown(column)}")


def _by_kind(column: ColumnStats, name: str) -> Guess | None:
    """Of addresses, dates, numbers and yes or no, which are no tags. `name`: what the attribute would be called."""
    for kind, most in (("url", 0.5), ("date", 0.8)):
        if column.share(kind) > most:
            return Guess(column.name, "", f"{kind}s, such as {column.examples(1)[0]}")
    if _NAMES["size"].fullmatch(name):
        return None
    if column.share("bool") > 0.95:
        return Guess(column.name, "", f"yes or no; {_shown(column)}")
    if column.share("number") > 0.8:
        return Guess(column.name, "", f"numbers, such as {', '.join(column.examples())}")
    return None


def _with_options(column: ColumnStats, least: int) -> bool:
    """Whether most cells are texts that name so many options with their values: "Size: S, M; Colour: red"."""
    named = sum(len(_OPTION.findall(text)) >= least for text in column.texts)
    return named > 0.5 * len(column.texts) and column.share("list") < 0.5


def _format(column: ColumnStats) -> dict[str, Any]:
    """The keys of an `AttributeSpec` by which the cells are split."""
    if column.lists > column.filled / 2:
        items = column.pieces.get("list", Counter())
        delimiter = next((by for by in (">>", ">", "»") if sum(by in item for item in items) > len(items) / 2), None)
        if delimiter:
            return {"kind": "multi", "format": "path"} | ({"delimiter": delimiter} if delimiter != ">" else {})
        return {"kind": "multi", "format": "list"}
    for delimiter in (">>", ">", "»", "/", "|"):
        enough = 0.2 if delimiter in (">>", ">", "»") else 0.5
        if column.split_cells[delimiter] > enough * column.filled and _is_hierarchy(column, delimiter):
            several = next((by for by in (",", ";", "|") if by != delimiter and _tells_paths_apart(
                column, by, delimiter)), None)
            return {"kind": "multi", "format": "path"} | ({"delimiter": delimiter} if delimiter != ">" else {}) | (
                {"paths": several} if several else {})
    whole = len(column.values)
    for delimiter in (",", ";", "|", "/"):
        pieces = column.pieces.get(delimiter, Counter())
        plain = sum(1 for value in column.values if delimiter not in value)
        words = sum(piece.count(" ") + 1 for piece in pieces) / max(1, len(pieces))
        known = sum(1 for piece in pieces if pieces[piece] > 1 or piece in column.values)
        if delimiter == "/" and len(pieces) > whole:  # no piece comes back beside another one
            continue
        if column.split_cells[delimiter] > 0.02 * column.filled and words <= 3 and known > 0.5 * len(pieces) and (
                len(pieces.keys() | {value for value in column.values if delimiter not in value}) < 0.8 * whole
                or plain < 0.5 * whole):
            return {"kind": "multi", "format": "delimited"} | ({"delimiter": delimiter} if delimiter != "," else {})
    return {"kind": "single"}


def _is_hierarchy(column: ColumnStats, delimiter: str) -> bool:
    """Whether what stands first is rarely found second, and what stands second mostly below one first."""
    parents: dict[str, set[str]] = defaultdict(set)
    firsts = set()
    for value in column.values:
        for path in re.split("[,;]", value) if delimiter != "|" else [value]:
            nodes = [node.strip() for node in path.split(delimiter)]
            firsts.add(nodes[0])
            if len(nodes) > 1:
                parents[nodes[1]].add(nodes[0])
    if not parents:
        return False
    alone = sum(len(above) == 1 for above in parents.values()) / len(parents)
    if delimiter == "/" and len(parents) <= len(firsts):  # "Spring/Summer", "Autumn/Winter": nothing branches
        return False
    return alone > 0.6 and len(firsts & parents.keys()) <= 0.2 * len(firsts)


def _tells_paths_apart(column: ColumnStats, by: str, delimiter: str) -> bool:
    """Whether most of what this character parts is a path, or the first node of one, by itself."""
    firsts = {value.split(by)[0].split(delimiter)[0].strip() for value in column.values}
    parts = [part for value in column.values if by in value for part in value.split(by)[1:]]
    whole = sum(delimiter in part or part.strip() in firsts for part in parts)
    return bool(parts) and whole > 0.6 * len(parts)


def _attribute(column: ColumnStats, spec: dict[str, Any], survey: Survey, name: str,
               nodes: Counter[str] | None = None) -> Guess:
    spec = dict(spec)
    folded = {value.casefold(): value for value in [*column.values, *column.pieces.get("list", ())]}
    unknown = [folded[word] for word in sorted(_UNKNOWN_WORDS & folded.keys())]
    none = [folded[word] for word in sorted(_NONE_WORDS & folded.keys())]
    if unknown:
        spec["unknown_values"] = unknown
    if none:
        spec["none_values"] = none
    tags = _count_tags(column, spec) if nodes is None else nodes
    shown = ", ".join(f"{tag} ({count:,})" for tag, count in tags.most_common(3))
    guess = Guess(column.name, "attribute", f"{len(tags):,} tags: {shown}", name=name.strip().lower(), spec=spec,
                  tags=tags)
    if len(tags) < 2:
        guess.role, guess.why = "", f"always {next(iter(tags), '')}" if tags else "no tags"
        return guess
    if survey.looked_at >= _FEW_PRODUCTS and (tags.most_common(1)[0][1] < _MIN_COUNT + 2 or sum(
            count >= _MIN_COUNT for count in tags.values()) < 2):
        guess.role, guess.why = "", f"too few products have one of its tags: {shown}"
        return guess
    guess.merges = propose_merges(tags) if nodes is None else []
    if len(guess.merges) > _MOST_ALIASES:
        guess.warnings.append(f"{len(guess.merges):,} spellings are another tag; {_MOST_ALIASES} of them are aliases")
        guess.merges = guess.merges[:_MOST_ALIASES]
    elif guess.merges:
        first = guess.merges[0].tag
        spelt = [first, *(merge.spelling for merge in guess.merges if merge.tag == first)]
        several = len(guess.merges) > 1
        more = f"{len(guess.merges)} spellings are other tags" if several else "one spelling is another tag"
        guess.warnings.append(f"{more} ({', '.join(map(repr, spelt))})")
    if guess.merges:
        spec["aliases"] = {merge.spelling: merge.tag for merge in guess.merges}
    rare = sum(count < _MIN_COUNT for count in tags.values())
    if rare and len(tags) - rare > 1:
        spec["min_count"] = _MIN_COUNT
        guess.warnings.append(f"{rare:,} of {len(tags):,} tags stand on fewer than {_MIN_COUNT} products")
    return guess


def _count_tags(column: ColumnStats, spec: dict[str, Any]) -> Counter[str]:
    reader = TagReader(column.name, AttributeSpec(**spec | {"kind": "multi"} if "level" not in spec else spec))
    counts: Counter[str] = Counter()
    cells = column.pieces["list"] if column.lists > column.filled / 2 else column.values
    for cell, count in cells.items():
        try:
            tags = reader.read([cell] if cells is not column.values else cell)
        except RowError:
            continue
        for tag in tags or ():
            counts[tag] += count
    return counts


def _leave_out_repeated(guesses: dict[str, Guess]) -> None:
    """Of attributes that have the same tags on as many products, the one that the system's rows name (a buyer reads an
    option's "Navy Blue", and of the metafield that it is linked to "navy-blue"), else the first."""
    known: dict[tuple, Guess] = {}
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
            if _NAMES["title"].fullmatch(guess.column) and guess.role in ("", "attribute"):
                guess.role, guess.why = "text", "by its name"
                return


def _sizes(column: ColumnStats) -> str:
    html = f", HTML in {column.share('html'):.0%}" if column.html else ""
    return f"{column.mean_words:.0f} words on average{html}"


def _shown(column: ColumnStats) -> str:
    return f"such as {', '.join(text[:40] for text in column.examples())}"
