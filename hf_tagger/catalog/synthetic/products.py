"""A catalogue made up from nothing, the same for the same arguments.

It is the quickstart's catalogue and the tests' fixture. Scores on it show that the software works, and nothing about
any real catalogue: they never stand in for a real result.

The photos are drawings whose shape, colour and pattern are the tags; the texts come from templates in six languages,
with HTML, typos and tags left unsaid, so that neither modality alone is enough. Attributes: category, colour and
pattern (single), features (multi; three of its tags can be seen, three only be read).
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from hf_tagger.catalog.strict import build
from hf_tagger.catalog.synthetic.pictures import COLOURS, PATTERNS, SHAPES, VISIBLE_FEATURES, draw_product, encode_jpeg
from hf_tagger.catalog.synthetic.words import BRANDS, LANGUAGES, upper

TAGS = {
    "category": tuple(SHAPES),
    "colour": tuple(COLOURS),
    "pattern": PATTERNS,
    "features": (*VISIBLE_FEATURES, "Waterproof", "Handmade", "Recycled"),
}
SPLITS = ("train", "validation", "test")
# Products have 1, 2, 3, 1, 2, 3 … variants: (product, variant) of six rows in a row.
_VARIANTS = ((0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2))


@dataclass(frozen=True)
class SyntheticOptions:
    rows: int = 2000  # products in all three splits together, at least 20
    languages: tuple[str, ...] = tuple(LANGUAGES)  # of the texts
    long_tail: float = 0.8  # tag number k occurs in proportion to 1 / k ** long_tail
    label_noise: float = 0.02  # rate of wrong tags per attribute, in train and validation; test has none
    missing_modality: float = 0.1  # rate of rows that lack their photo or, as often, their text
    unknown: float = 0.05  # rate of attributes about which a row says nothing
    unsaid: float = 0.4  # rate of tags that the text does not mention; a row without a photo mentions all of them
    junk: float = 0.2  # rate of descriptions with HTML and of titles in capitals, with emoji or broken characters
    typos: float = 0.1  # rate of titles with a typing error
    picture_size: int = 128  # pixels of each side of the photos; 0 for a catalogue without photos
    seed: int = 0  # another seed, another catalogue
    rows_per_shard: int = 1000  # of all splits together, from which one file of each split is made; at least 20

    def __post_init__(self):
        for name in ("rows", "rows_per_shard"):
            if getattr(self, name) < 20:
                raise ValueError(f"{name} must be at least 20 so that every split has some, got {getattr(self, name)}")
        unknown = [language for language in self.languages if language not in LANGUAGES]
        if unknown or not self.languages:
            raise ValueError(f"languages must be some of {', '.join(LANGUAGES)}, got {list(self.languages)}")
        for name in ("label_noise", "missing_modality", "unknown", "unsaid", "junk", "typos"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a rate between 0 and 1, got {getattr(self, name)}")


def generate(**options) -> Iterator[dict]:
    """Rows of the catalogue that `SyntheticOptions(**options)` describes.

    Each row: `id`, `product` (shared by its colour variants), `split`, `language`, `title`, `description` (None where
    the text is missing), `image` (JPEG bytes or None), `keywords` (what a shopper would type, in the text's language;
    None without a text), and per attribute its tag ("Plain" where no pattern applies), a list for `features`; None is
    unknown.
    """
    options = SyntheticOptions(**options)
    return (_row(number, options) for number in range(options.rows))


def true_tags(**options) -> dict[str, dict[str, list[str]]]:
    """{product id: {attribute: its tags}} before `label_noise` and `unknown` are applied, as records have tags."""
    rows = generate(**options | {"label_noise": 0.0, "unknown": 0.0})
    return {row["id"]: {name: row[name] if name == "features" else [row[name]] if row[name] != "Plain" else []
                        for name in TAGS} for row in rows}


def catalog_schema() -> dict:
    """The schema, as plain data, of what `write_catalog` writes."""
    return {
        "id": "id",
        "group": "product",
        "text": ["title", "description"],
        "language_column": "language",
        "images": ["image"],
        "attributes": {
            "category": {"kind": "single"},
            "colour": {"kind": "single"},
            "pattern": {"kind": "single", "none_values": ["Plain"]},
            "features": {"kind": "multi", "format": "list"},
        },
        "free_form": {"columns": {"keywords": {"format": "list"}}, "attributes": "all"},
    }


def check_options(options: dict) -> None:
    """Raises ConfigError, naming the nearest known one, for an option that `write_catalog` does not take."""
    build(SyntheticOptions, options, "catalog.synthetic")


def write_catalog(folder, **options) -> Path:
    """Writes train, validation and test (8 : 1 : 1, a product's variants in one split) and `schema.yaml` into `folder`:
    parquet shards such as train-00000-of-00002.parquet with the photos inside. Returns the folder's path.

    Raises ValueError for an option (of `SyntheticOptions`) out of range.
    """
    from datasets import Features, Image, List, Value  # seconds, which `check_options` must not take

    settings = SyntheticOptions(**options)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "schema.yaml").write_text(yaml.safe_dump(catalog_schema(), sort_keys=False), encoding="utf-8")
    columns = dict.fromkeys(("id", "product", "language", "title", "description", *TAGS), Value("string"))
    columns |= {"image": Image(), "features": List(Value("string")), "keywords": List(Value("string"))}
    schema, shards = Features(columns).arrow_schema, max(1, settings.rows // settings.rows_per_shard)
    for shard in range(shards):
        rows = [_row(number, settings) for number in range(shard * settings.rows // shards,
                                                           (shard + 1) * settings.rows // shards)]
        for row in rows:
            row["image"] = row["image"] and {"bytes": row["image"], "path": f"{row['id']}.jpg"}
        for split in SPLITS:
            table = pa.Table.from_pylist([row for row in rows if row["split"] == split], schema)
            path = folder / f"{split}-{shard:05d}-of-{shards:05d}.parquet"
            pq.write_table(table, path, row_group_size=500, compression="zstd")
    return folder


def _row(number, options):
    product, variant = number // 6 * 3 + _VARIANTS[number % 6][0], _VARIANTS[number % 6][1]
    shared = random.Random(f"product {options.seed} {product}")
    rng = random.Random(f"row {options.seed} {number}")
    split = {8: "validation", 9: "test"}.get(product % 10, "train")

    lost = rng.random() / options.missing_modality if options.missing_modality else 1
    has_photo, has_text = options.picture_size > 0 and not lost < 0.5, not 0.5 <= lost < 1
    has_text = has_text or not has_photo
    tags = {
        "category": _draw(shared, "category", options),
        "colour": _draw(rng, "colour", options),
        "pattern": _draw(rng, "pattern", options) if rng.random() < 0.7 else None,
        "features": _draw_features(rng, has_text, options),
    }
    row = {"id": f"P{product:07d}-{variant}", "product": f"P{product:07d}", "split": split}
    row |= {"language": None, "title": None, "description": None, "image": None, "keywords": None}
    if has_text:
        row["language"] = rng.choice(options.languages)
        row["title"], row["description"] = _texts(tags, row["language"], has_photo, shared, rng, options)
        row["keywords"] = _keywords(tags, LANGUAGES[row["language"]])
    if has_photo:
        row["image"] = encode_jpeg(draw_product(**tags, size=options.picture_size, rng=rng))
    for name, given in tags.items():
        if split != "test" and rng.random() < options.label_noise:
            given = _mislabel(name, given, rng)
        row[name] = None if rng.random() < options.unknown else "Plain" if given is None else given
    return row


def _draw(rng, attribute, options):
    tags = TAGS[attribute]
    return rng.choices(tags, [rank**-options.long_tail for rank in range(1, len(tags) + 1)])[0]


def _draw_features(rng, has_text, options):
    drawn = {_draw(rng, "features", options) for _ in range(rng.choice((0, 1, 1, 2)))}
    # Where there is no text, only what can be seen.
    return [tag for tag in TAGS["features"] if tag in drawn and (has_text or tag in VISIBLE_FEATURES)]


def _mislabel(attribute, given, rng):
    wrong = rng.choice([tag for tag in TAGS[attribute] if tag != given])
    if attribute == "features":
        return [tag for tag in TAGS[attribute] if (tag in given) != (tag == wrong)]
    return wrong


def _texts(tags, code, has_photo, shared, rng, options):
    """Title and description. A tag that is mentioned stands in the title or in a statement of the description."""
    language = LANGUAGES[code]
    in_title, sentences = {}, [shared.choice(language.openings)]
    for name in ("category", "colour", "pattern"):
        in_title[name] = None
        if tags[name] is not None and not (has_photo and rng.random() < options.unsaid):
            if rng.random() < 0.6:
                in_title[name] = tags[name]
            else:
                sentences.append(language.statement(name, tags[name]))
    for tag in tags["features"]:
        if tag not in VISIBLE_FEATURES or not has_photo or rng.random() >= options.unsaid:
            sentences.append(language.features[tag])
    sentences.append(rng.choice(language.closings))

    phrase = language.noun_phrase(**in_title)
    title = rng.choice(language.titles).format(
        brand=shared.choice(BRANDS), model=f"{shared.choice('ABDKMRTX')}{shared.randint(10, 999)}", phrase=phrase,
        Phrase=upper(phrase[0], code) + phrase[1:])
    if rng.random() < options.typos:
        title = _mistype(title, rng)
    if rng.random() < options.junk:
        title = _spoil(title, code, rng)
    description = _mark_up(sentences, rng) if rng.random() < options.junk else language.gap.join(sentences)
    return title, description


def _keywords(tags, language):
    """What a shopper would type: the noun alone, and with the colour and the pattern."""
    said = [(None, None), (tags["colour"], None), (None, tags["pattern"])]
    phrases = [language.noun_phrase(tags["category"], colour, pattern) for colour, pattern in said]
    return list(dict.fromkeys(phrases))


def _mistype(title, rng):
    """Swap, drop or double a letter of one longer word."""
    words = title.split(" ")
    place = rng.choice([place for place, word in enumerate(words) if len(word) > 4])
    word, at = words[place], rng.randint(1, len(words[place]) - 3)
    first, second = word[at], word[at + 1]
    wrong = rng.choice((second if first == second else second + first, second, first * 2 + second))
    words[place] = word[:at] + wrong + word[at + 2 :]
    return " ".join(words)


def _spoil(title, code, rng):
    return rng.choice((upper(title, code), f"{title} !!!", f"★ {title}  ★", title.replace(" ", "\u00a0 "),
                       title.encode("utf-8").decode("latin-1")))


def _mark_up(sentences, rng):
    items = "".join(f"<li>{sentence}</li>" for sentence in sentences)
    return rng.choice((
        f"<ul>{items}</ul>",
        f"<p><b>{sentences[0]}</b></p><p>{'<br/>'.join(sentences[1:])}</p>",
        f'<div style="color:#333">{"&nbsp; ".join(sentences)}</div>',
        "\r\n\r\n".join(sentences) + "<script>track('view');</script>",
    ))
