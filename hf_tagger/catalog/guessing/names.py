"""What the name of a column says, and the kind of its cells where these are no tags."""

import re

from hf_tagger.catalog.guessing.attribute_guess import UNKNOWN_WORDS, Guess, shown
from hf_tagger.catalog.guessing.column_stats import ColumnStats

NAMES = {role: re.compile(words, re.IGNORECASE) for role, words in {
    "id": r"_?id|sku|handle|code|asin|ean|gtin|ref(erence)?|(product|item|article|artikel|variant)[ _.-]?(id|sku|code|"
          r"no|nr|number|nummer)|référence|referencia|codice|código|商品番号|商品コード|品番|артикул",
    "title": r".*(title|name|titel|bezeichnung|titre|nom\b|nombre|título|titolo|nome|naam|商品名|品名|タイトル|назван)"
             r".*",
    "text": r".*(desc|detail|body|beschreib|bullet|summary|content|omschrijv|beskriv|caption|説明|описан|text).*",
    "photo": r".*(image|photo|picture|\bimg|bild|foto|imagen|immagine|thumbnail|画像).*",
    "group": r".*(group|parent|family|style|modell?|master|gruppe|groupe|grupo)([ _.-]?(id|code|no|nr|sku|number))?",
    "language": r"(lang(uage)?|locale|sprache|langue|idioma|lingua|taal)([ _.-]?code)?",
    "personal": r".*(e-?mail|phone|telefon|téléphone|customer(?![-_ ]facing)|contact|(first|last)[ _]?name|"
                 r"address|kunde|birth).*|"
                r"(.*[ _])?mobile([ _]?(no|nr|number))?|(buyer|einkäufer|acheteur|responsible)([ _]name)?",
    "brand": r"(.*[ _])?(brand|vendor|manufacturer|marke|marque|marca|maker|hersteller|supplier|"
             r"lieferant|fournisseur|fabricante?|proveedor|fornitore|leverancier|produttore|fabrikant)s?([ _]name)?|"
             r"メーカー",
    # What begins a word, such as "position", may also end another one: "composition".
    "technical": r".*(price|preis|prix\b|precio|inventory|qty|quantity|menge|steuer|shipping|versand|weight|gewicht|"
                 r"status|publish|visib|enabled|availab|barcode|fulfil|download|meta: _|use[_ ]config|discount|_skus$|"
                 r"/id$|(image|thumbnail)[_ ]label|(page|custom)[_ ](layout|design)|(cross|up)[-_ ]?sells?$|"
                 r"(?<![^\W_])(stock(?!ing)|tax|active$|condition(?!er)|creat|updat|modif|date|url|link|ean|gtin|upc|mpn|"
                 r"isbn|currency|position|sort|featured|seo|meta[_ ](title|desc|key)|alt\b|websites?$|cost\b|button|"
                 r"default|allow|reviews?|sold)).*",
    "unit": r"(.*[ _(-])?(units?|uom|unité|unidad|unità)([ _)-].*)?|.*einheit",
    "amount": r"(quantity|qty|amount|menge|anzahl|quantité|cantidad|quantità|aantal)",
    "tags": r".*(tags?\b|keyword|schlagw|etiquet|étiquet|label|タグ).*",
    "variants": r".*(option|variant|variation|variaci|déclinaison).*",
    "size": r".*(size|größe|grösse|taille|talla|taglia|maat|サイズ).*",
}.items()}  # fmt: skip
_IN_PAIRS, _PATH = re.compile(r"[^:\s]+:(\S.*)"), re.compile(r"[\w@-]+(\.[\w@-]+)+")
_SAYS_NOTHING = {"name", "value", "values", "label", "path", "title", "text", "display name", "data"}
# E-mail addresses and phone numbers within a text.
PERSONAL = re.compile(r"[\w.+-]+@[\w-]+\.\w+|\+\d[\d\s()./-]{7,}\d|(?<!\d)0\d{2,4}[ /-]\d{6,}")


def is_id_name(column: str) -> bool:
    return NAMES["id"].fullmatch(column) is not None


def spoken_names(column: str) -> tuple[str, str]:
    """What a column that lies in others says, without words such as "value", and the last of it: "shop.colour.label" is
    ("shop.colour", "colour"), "details:Fit" ("Fit", "Fit"), "Vendors/Vendor/Name" ("Vendors/Vendor", "Vendor")."""
    if pair := _IN_PAIRS.fullmatch(column):
        return pair[1], pair[1]
    above, _, last = column.rpartition("/")
    if above and last.strip().lower() in _SAYS_NOTHING:
        return above, above.rpartition("/")[2].strip()
    spoken = column
    while "." in spoken and spoken.rpartition(".")[2].lower() in _SAYS_NOTHING:
        spoken = spoken.rpartition(".")[0]
    return spoken, spoken.rpartition(".")[2] if _PATH.fullmatch(spoken) else spoken


def by_kind(column: ColumnStats, name: str) -> Guess | None:
    """Of addresses, dates, numbers, units and yes or no, which are no tags. `name`: what the attribute would be
    called."""
    for kind, most in (("url", 0.5), ("date", 0.8)):
        if column.share(kind) > most:
            return Guess(column.name, "", f"{kind}s, such as {column.examples(1)[0]}")
    if NAMES["unit"].fullmatch(name):
        return Guess(column.name, "", f"units; {shown(column)}")
    if NAMES["size"].fullmatch(name):
        return None
    if column.share("bool") > 0.95:
        return Guess(column.name, "", f"yes or no; {shown(column)}")
    unsaid = sum(count for value, count in column.values.items() if value.casefold() in UNKNOWN_WORDS)
    if column.kinds["number"] + column.kinds["measure"] > 0.8 * max(1, column.filled - unsaid):
        return Guess(column.name, "", f"numbers, such as {', '.join(column.examples())}")
    return None


def by_brand(column: ColumnStats, name: str) -> Guess | None:
    if NAMES["brand"].fullmatch(name):
        return Guess(column.name, "", f"known, not seen (add it to the attributes to have it tagged); {shown(column)}")
    return None
