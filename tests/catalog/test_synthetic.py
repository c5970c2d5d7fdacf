import io
import random
from collections import Counter

import datasets
import numpy as np
import pytest
import yaml
from PIL import Image

from hf_tagger.catalog.formats.columns import check_columns
from hf_tagger.catalog.schema import CatalogSchema
from hf_tagger.catalog.strict import build
from hf_tagger.catalog.synthetic.pictures import COLOURS, PATTERNS, SHAPES, VISIBLE_FEATURES, draw_product
from hf_tagger.catalog.synthetic.products import SPLITS, TAGS, catalog_schema, generate, true_tags, write_catalog
from hf_tagger.catalog.synthetic.words import LANGUAGES

TINY = {"rows": 60, "picture_size": 24}


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def records(folder):
    schema = build(CatalogSchema, yaml.safe_load((folder / "schema.yaml").read_text()))
    for split in SPLITS:
        rows = datasets.load_dataset(
            "parquet", data_files={split: str(folder / f"{split}*.parquet")}, split=split, streaming=True
        ).cast_column("image", datasets.Image(decode=False))
        for number, row in enumerate(rows):
            yield split, row, schema.record(row, number, image_root=str(folder))


def test_same_arguments_give_the_same_files(tmp_path):
    write_catalog(tmp_path / "a", **TINY)
    write_catalog(tmp_path / "b", **TINY)
    write_catalog(tmp_path / "c", seed=1, **TINY)
    assert files(tmp_path / "a") == files(tmp_path / "b") != files(tmp_path / "c")


def test_shards_hold_the_rows_in_order(tmp_path):
    write_catalog(tmp_path, rows_per_shard=20, **TINY)
    assert len(files(tmp_path)) == 3 * 3 + 1
    read = [row["id"] for split, row, _ in records(tmp_path) if split == "train"]
    assert read == [row["id"] for row in generate(**TINY) if row["split"] == "train"]


def test_written_catalogue_reads_back_through_its_schema_with_all_three_kinds_of_label(tmp_path):
    write_catalog(tmp_path, rows=400, picture_size=24)
    written = {row["id"]: row for row in generate(rows=400, picture_size=24)}
    kinds = {name: Counter() for name in TAGS}
    for split, _, record in records(tmp_path):
        row = written.pop(record["id"])
        assert split == row["split"] and record["language"] == row["language"]
        assert len(record["images"]) == (row["image"] is not None)
        assert (record["text"] is None) == (row["title"] is None)
        for name, tags in record["tags"].items():
            given = row[name] if name == "features" else None if row[name] is None else [row[name]]
            assert tags == (None if given is None else [tag for tag in given if tag != "Plain"])
            kinds[name]["unknown" if tags is None else "given" if tags else "none"] += 1
            assert set(tags or []) <= set(TAGS[name])
    assert not written
    assert all(kinds[name]["given"] and kinds[name]["unknown"] for name in TAGS)
    assert kinds["pattern"]["none"] and kinds["features"]["none"]


def test_variants_of_a_product_share_split_category_and_brand():
    rows = list(generate(rows=600, picture_size=0, label_noise=0, unknown=0, junk=0, typos=0, languages=("en",)))
    shares = Counter(row["split"] for row in rows)
    assert [shares[split] for split in SPLITS] == [480, 60, 60]
    products = {}
    for row in rows:
        products.setdefault(row["product"], []).append(row)
    assert {len(variants) for variants in products.values()} == {1, 2, 3}
    for variants in products.values():
        assert len({(row["split"], row["category"]) for row in variants}) == 1
    assert any(len({row["colour"] for row in variants}) > 1 for variants in products.values())


def test_all_languages_are_written_and_only_those_asked_for():
    rows = list(generate(rows=300, picture_size=0))
    assert {row["language"] for row in rows} == set(LANGUAGES) and len(LANGUAGES) >= 6
    assert {row["language"] for row in generate(rows=50, picture_size=0, languages=("zh",))} == {"zh"}
    assert any("连衣裙" in row["title"] for row in rows)


@pytest.mark.parametrize(
    ("language", "phrase"),
    [
        ("en", "red striped dress"),
        ("de", "rotes gestreiftes Kleid"),
        ("fr", "robe rouge à rayures"),
        ("es", "vestido rojo de rayas"),
        ("tr", "kırmızı çizgili elbise"),
        ("zh", "红色条纹连衣裙"),
    ],
)
def test_words_agree(language, phrase):
    assert LANGUAGES[language].noun_phrase("Dress", "Red", "Striped") == phrase


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_tag_has_a_word_of_its_own_in_every_language(language):
    words = LANGUAGES[language]
    for attribute, table in (
        ("category", words.nouns),
        ("colour", words.colours),
        ("pattern", words.patterns),
        ("features", words.features),
    ):
        assert tuple(table) == TAGS[attribute]
        assert len(set(table.values())) == len(table)


def said(row):
    """Which of the row's single tags its English text mentions."""
    text = f"{row['title']} {row['description']}".lower()
    words = {"category": LANGUAGES["en"].nouns, "colour": LANGUAGES["en"].colours, "pattern": LANGUAGES["en"].patterns}
    return {name: words[name][row[name]].lower() in text for name in words if row[name] not in (None, "Plain")}


def test_tags_are_sometimes_left_unsaid_but_never_where_the_photo_is_missing():
    clean = {"label_noise": 0, "junk": 0, "typos": 0, "picture_size": 8, "languages": ("en",), "missing_modality": 0.3}
    rows = [row for row in generate(rows=600, **clean) if row["title"]]
    unsaid = [not mentioned for row in rows if row["image"] for mentioned in said(row).values()]
    assert 0.3 < np.mean(unsaid) < 0.5
    assert all(mentioned for row in rows if not row["image"] for mentioned in said(row).values())


def test_missing_modality_rate_takes_photo_or_text_never_both():
    rows = list(generate(rows=1000, picture_size=8, missing_modality=0.4, label_noise=0))
    no_photo, no_text = [row["image"] is None for row in rows], [row["title"] is None for row in rows]
    assert 0.15 < np.mean(no_photo) < 0.25 and 0.15 < np.mean(no_text) < 0.25
    assert not any(a and b for a, b in zip(no_photo, no_text, strict=True))
    assert all(set(row["features"] or []) <= set(VISIBLE_FEATURES) for row in rows if row["title"] is None)


def test_label_noise_changes_labels_and_nothing_else_and_spares_the_test_split():
    options = {"rows": 1000, "picture_size": 8, "unknown": 0}
    clean, noisy = list(generate(label_noise=0, **options)), list(generate(label_noise=0.2, **options))
    wrong = {split: [] for split in SPLITS}
    for a, b in zip(clean, noisy, strict=True):
        assert (a["title"], a["image"]) == (b["title"], b["image"])
        wrong[a["split"]] += [a[name] != b[name] for name in TAGS]
    assert 0.17 < np.mean(wrong["train"]) < 0.23
    assert not any(wrong["test"])


def test_long_tail_exponent_sets_how_rare_the_rare_tags_are():
    def share_of_the_commonest(exponent):
        rows = generate(rows=1000, picture_size=0, long_tail=exponent, label_noise=0)
        return Counter(row["colour"] for row in rows).most_common(1)[0][1] / 1000

    assert share_of_the_commonest(0) < 0.13 < 0.25 < share_of_the_commonest(1.5)


def test_texts_carry_html_and_typos_at_their_rates():
    dirty = list(generate(rows=200, picture_size=0, junk=1, typos=0))
    assert all("<" in row["description"] for row in dirty)
    options = {"rows": 200, "picture_size": 0, "junk": 0, "languages": ("en",)}
    pairs = zip(generate(typos=0, **options), generate(typos=1, **options), strict=True)
    assert all(a["title"] != b["title"] for a, b in pairs)


def nearest_colour(picture):
    """The palette's colour that most pixels of the product are nearest to."""
    pixels = np.asarray(picture).reshape(-1, 3).astype(int)
    pixels = pixels[np.abs(pixels - pixels[0]).sum(1) > 12]  # without the background
    distances = np.abs(pixels[:, None] - np.array(list(COLOURS.values()))).sum(2)
    near = distances.min(1) < 40
    return list(COLOURS)[np.bincount(distances.argmin(1)[near]).argmax()]


@pytest.mark.parametrize("colour", COLOURS)
def test_a_photo_shows_its_colour_under_every_pattern(colour):
    rng = random.Random(0)
    for category in SHAPES:
        for pattern in (None, *PATTERNS):
            assert nearest_colour(draw_product(category, colour, pattern, [], 96, rng)) == colour


def test_photos_show_shape_pattern_and_visible_features():
    def draw(**changes):
        product = {"category": "Mug", "colour": "Red", "pattern": None, "features": []} | changes
        return np.asarray(draw_product(**product, size=64, rng=random.Random(0))).astype(int)

    drawings = [draw(category=category) for category in SHAPES] + [draw(pattern=pattern) for pattern in PATTERNS]
    drawings += [draw(features=[feature]) for feature in VISIBLE_FEATURES]
    for place, one in enumerate(drawings):
        for other in drawings[:place]:
            assert (np.abs(one - other).sum(2) > 60).mean() > 0.02
    assert (draw(features=["Waterproof"]) == draw()).all()


def test_photos_are_jpegs_of_the_size_asked_for():
    row = next(row for row in generate(rows=20, picture_size=40) if row["image"])
    with Image.open(io.BytesIO(row["image"])) as photo:
        assert photo.format == "JPEG" and photo.size == (40, 40)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 19}, "at least 20"),
        ({"languages": ("en", "xx")}, "languages must be some of en, de"),
        ({"label_noise": 1.5}, "label_noise is a rate"),
        ({"rows_per_shard": 10}, "at least 20"),
    ],
)
def test_arguments_out_of_range_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        write_catalog(tmp_path, **options)


def test_the_schema_is_one_that_the_catalogue_reader_takes():
    columns = build(CatalogSchema, catalog_schema()).columns()
    check_columns(columns, next(generate(rows=20)), "the catalogue")


def test_true_tags_are_those_that_label_noise_and_unknown_spoil():
    options = {"rows": 600, "picture_size": 0, "label_noise": 0.2, "unknown": 0.3}
    truth, known, wrong = true_tags(**options), 0, {"test": 0, "train": 0, "validation": 0}
    for row in generate(**options):
        for name, true in truth[row["id"]].items():
            given = row[name]
            if given is not None:
                given = [tag for tag in (given if isinstance(given, list) else [given]) if tag != "Plain"]
                known += row["split"] == "train"
                wrong[row["split"]] += given != true
    assert wrong["test"] == 0 and wrong["validation"] > 0
    assert 0.17 < wrong["train"] / known < 0.23
