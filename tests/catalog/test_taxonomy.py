"""Standard taxonomies, on small files of the form of Shopify's and Google's."""

import json
import time
from pathlib import Path

import pytest

from hf_tagger.catalog.quarantine import Refusal, RowError
from hf_tagger.catalog.reading.labels import Labels
from hf_tagger.catalog.schema import CatalogSchema
from hf_tagger.catalog.settings import CatalogSettings, open_catalog
from hf_tagger.catalog.strict import ConfigError, build
from hf_tagger.catalog.taxonomy import CATEGORIES, node_of, read_taxonomy
from hf_tagger.catalog.vocabulary import Vocabulary
from hf_tagger.model.configuration_tagger import TaggerConfig
from hf_tagger.model.decisions import predicted_tags
from tests.catalog.files import write_csv

SHOPIFY = """# Shopify Product Taxonomy - Categories: 2031-02
# Format: {GID} : {Ancestor name} > ... > {Category name}

gid://shopify/TaxonomyCategory/qx         : Zaubergarten
gid://shopify/TaxonomyCategory/qx-1       : Zaubergarten > Bänke & Hocker
gid://shopify/TaxonomyCategory/qx-1-1     : Zaubergarten > Bänke & Hocker > Mondbänke
gid://shopify/TaxonomyCategory/qx-1-2     : Zaubergarten > Bänke & Hocker > Zubehör
gid://shopify/TaxonomyCategory/qx-2       : Zaubergarten > Laternen
gid://shopify/TaxonomyCategory/qx-2-1     : Zaubergarten > Laternen > Zubehör
gid://shopify/TaxonomyCategory/qy         : Laternen
gid://shopify/TaxonomyCategory/qy-7       : Laternen > Doppel
gid://shopify/TaxonomyCategory/qy-8       : Laternen > Doppel
"""
GOOGLE = """# Google_Product_Taxonomy_Version: 2031-03-04
7 - Moon Garden
70 - Moon Garden > Benches
701 - Moon Garden > Benches > Rocking Benches
"""
ATTRIBUTES = {"version": "2031-02", "attributes": [
    {"id": "gid://shopify/TaxonomyAttribute/5", "name": "Farbton", "handle": "hue", "description": "", "values": [
        {"id": "gid://shopify/TaxonomyValue/51", "name": "Mondgrau", "handle": "hue__moon-grey"},
        {"id": "gid://shopify/TaxonomyValue/52", "name": "Nachtblau", "handle": "hue__night-blue"}]},
    {"id": "gid://shopify/TaxonomyAttribute/6", "name": "Bezug", "handle": "cover", "values": []}]}  # fmt: skip
PREFIX = "gid://shopify/TaxonomyCategory/"


@pytest.fixture
def files(tmp_path) -> dict[str, str]:
    contents = {"categories.txt": SHOPIFY, "google.txt": GOOGLE, "attributes.json": json.dumps(ATTRIBUTES),
                "plain.txt": "\n".join(line.partition(" - ")[2] or line for line in GOOGLE.splitlines())}  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    return {name: str(tmp_path / name) for name in contents}


@pytest.mark.parametrize(("cell", "id"), [
    ("Zaubergarten > Bänke & Hocker > Mondbänke", "qx-1-1"), ("mondbänke", "qx-1-1"), (f"{PREFIX}qx-1-1", "qx-1-1"),
    ("qx-1-1", "qx-1-1"), ("Bänke & Hocker>Zubehör", "qx-1-2"), ("ZAUBERGARTEN", "qx"), ("Laternen", "qy"),
    ("Zaubergarten > Laternen", "qx-2"), ("laternen > zubehör", "qx-2-1"), ("Laternen > Doppel (qy-7)", "qy-7"),
    (f"{PREFIX}qy-8", "qy-8"),
])  # fmt: skip
def test_a_cell_names_a_node_by_path_name_or_id(files, cell, id):
    taxonomy = read_taxonomy([files["categories.txt"]], CATEGORIES)
    node = taxonomy.find(cell)
    assert node.id == PREFIX + id and taxonomy.find(node.tag) is taxonomy.find(node.id) is node


@pytest.mark.parametrize(("cell", "reason", "detail"), [
    ("Zubehör", "ambiguous", "Zaubergarten > Bänke & Hocker > Zubehör; Zaubergarten > Laternen > Zubehör: write"),
    ("Laternen > Doppel", "ambiguous", "write the path, or its id"),
    ("Mondbank", "not_in_taxonomy", "'Mondbank' is not in Shopify categories 2031-02"),
    ("Laternen > Mondbänke", "not_in_taxonomy", "'Laternen > Mondbänke' is not in"),
    (">", "not_in_taxonomy", "'>' is not in Shopify categories"),
])  # fmt: skip
def test_what_names_no_node_is_refused_with_a_reason(files, cell, reason, detail):
    with pytest.raises(RowError, match=detail) as caught:
        read_taxonomy([files["categories.txt"]], CATEGORIES).find(cell)
    assert caught.value.reason == reason


def test_tags_are_the_shortest_names_that_tell_nodes_apart(files):
    taxonomy = read_taxonomy([files["categories.txt"]], CATEGORIES)
    assert [node.tag for node in taxonomy.nodes] == [
        "Zaubergarten", "Bänke & Hocker", "Mondbänke", "Bänke & Hocker > Zubehör", "Zaubergarten > Laternen",
        "Laternen > Zubehör", "Laternen", "Laternen > Doppel (qy-7)", "Laternen > Doppel (qy-8)"]
    assert taxonomy.line(taxonomy.find("qx-2-1")) == ["Zaubergarten", "Zaubergarten > Laternen", "Laternen > Zubehör"]


@pytest.mark.parametrize(("file", "cells"), [
    ("google.txt", ["Moon Garden > Benches > Rocking Benches", "rocking benches", "701"]),
    ("plain.txt", ["Moon Garden > Benches > Rocking Benches", "rocking benches"]),
])
def test_googles_taxonomy_with_and_without_ids(files, file, cells):
    taxonomy = read_taxonomy([files[file]], CATEGORIES)
    assert (taxonomy.name, taxonomy.version, len(taxonomy.nodes)) == ("Google", "2031-03-04", 3)
    for cell in cells:
        assert taxonomy.find(cell).tag == "Rocking Benches"
    assert taxonomy.find(cells[0]).id == ("701" if file == "google.txt" else None)


@pytest.mark.parametrize("of", ["Farbton", "farbton", "hue", "gid://shopify/TaxonomyAttribute/5"])
def test_values_of_a_shopify_attribute(files, of):
    taxonomy = read_taxonomy([files["categories.txt"], files["attributes.json"]], of)
    assert (taxonomy.of, taxonomy.version) == ("Farbton", "2031-02")
    assert [node.tag for node in taxonomy.nodes] == ["Mondgrau", "Nachtblau"]
    assert taxonomy.find("gid://shopify/TaxonomyValue/52") is taxonomy.find("nachtblau")


@pytest.mark.parametrize(("content", "of", "message"), [
    (SHOPIFY, "colour", 'there is no "colour" in .*Known: categories'),
    (json.dumps(ATTRIBUTES), "Farbon", 'there is no "Farbon" in .*Did you mean "Farbton"'),
    (SHOPIFY.replace(" : Zaubergarten\n", "\n"), CATEGORIES, r"file, line 4: wanted 'gid://… : A > B', got"),
    (GOOGLE.replace("70 - ", "70 "), CATEGORIES, r"file, line 3: wanted '17 - A > B', got '70 Moon"),
    (GOOGLE.replace(" > Benches\n", " >  > Benches\n"), CATEGORIES, "line 3: an empty name"),
    ("id,title\n1,Shirt\n", CATEGORIES, "is neither Shopify's categories.txt or attributes.json, nor Google's"),
    ("", CATEGORIES, "is neither"), ('{"products": []}', CATEGORIES, "is not Shopify's attributes.json: KeyError"),
    ('{"attributes": [{"id": 1', CATEGORIES, "is not Shopify's attributes.json"),
])  # fmt: skip
def test_a_file_that_is_none_is_named_with_the_line(tmp_path, content, of, message):
    (tmp_path / "file").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=f"taxonomy: .*{message}"):
        read_taxonomy([str(tmp_path / "file")], of)


ROWS = [
    ("1", "qx-1-1", "Mondgrau", "Bänke"), ("2", "Zaubergarten > Bänke & Hocker", "hue", ""),
    ("3", "Zaubergarten > Laternen > Zubehör", "gid://shopify/TaxonomyValue/52", ""), ("4", "Zubehör", "Nachtblau", ""),
    ("5", "Mondbank", "nachtblau", ""), ("6", "", "", ""),
]
SCHEMA = {"id": "id", "text": "title", "attributes": {
    "category": {"taxonomy": "categories", "kind": "multi"}, "hue": {"taxonomy": "Farbton"}}}  # fmt: skip


def shop(tmp_path: Path, files: dict[str, str], schema: dict = SCHEMA, **settings):
    rows = [{"id": id, "title": f"Ding {id}", "category": category, "hue": hue} for id, category, hue, _ in ROWS]
    path = write_csv(tmp_path / "shop.csv", rows)
    source = {"files": {"train": str(path), "validation": str(path)}}
    taxonomy = [files["categories.txt"], files["attributes.json"]]
    data = {"source": source, "schema": schema, "taxonomy": taxonomy} | settings
    return open_catalog(build(CatalogSettings, data, "catalog"), tmp_path)


def test_tags_are_nodes_and_imply_those_above_them(tmp_path, files):
    opened = shop(tmp_path, files)
    items = list(opened.records("train"))
    records = [item for item in items if not isinstance(item, Refusal)]
    assert [record["tags"]["category"] for record in records] == [
        ["Zaubergarten", "Bänke & Hocker", "Mondbänke"], ["Zaubergarten", "Bänke & Hocker"],
        ["Zaubergarten", "Zaubergarten > Laternen", "Laternen > Zubehör"], None, None, None]
    assert [record["tags"]["hue"] for record in records] == [
        ["Mondgrau"], None, ["Nachtblau"], ["Nachtblau"], ["Nachtblau"], None]
    assert [(item.id, item.column, item.reason, item.fatal) for item in items if isinstance(item, Refusal)] == [
        ("2", "hue", "not_in_taxonomy", False), ("4", "category", "ambiguous", False),
        ("5", "category", "not_in_taxonomy", False)]


def test_the_models_config_keeps_ids_paths_version_and_parents_for_writing_back(tmp_path, files):
    opened = shop(tmp_path, files)
    vocabulary = Vocabulary.scan(opened.records("train"), opened.schema, opened.names)
    category, hue = TaggerConfig.from_dict(TaggerConfig(attributes=vocabulary.attributes).to_dict()).attributes
    assert category["parents"] == {
        "Bänke & Hocker": "Zaubergarten", "Mondbänke": "Bänke & Hocker", "Zaubergarten > Laternen": "Zaubergarten",
        "Laternen > Zubehör": "Zaubergarten > Laternen"}  # fmt: skip
    assert (category["taxonomy"]["name"], category["taxonomy"]["version"]) == ("Shopify", "2031-02")
    assert node_of(category, "Laternen > Zubehör") == (f"{PREFIX}qx-2-1", "Zaubergarten > Laternen > Zubehör")
    assert node_of(category, "Zaubergarten") == (f"{PREFIX}qx", "Zaubergarten")
    assert node_of(hue, "Nachtblau") == ("gid://shopify/TaxonomyValue/52", "Nachtblau")
    assert node_of(hue, "Rot") is None and node_of({"name": "size", "tags": ["S"]}, "S") is None
    leaf, inner, root = (category["tags"].index(tag) for tag in ("Mondbänke", "Bänke & Hocker", "Zaubergarten"))
    scores = [[0.0] * len(category["tags"])]
    scores[0][leaf], scores[0][inner], scores[0][root] = 0.4, 0.7, 0.9
    import numpy as np

    chosen = predicted_tags([category], np.array(scores, np.float32))[0]
    assert [category["tags"][column] for column in np.flatnonzero(chosen)] == ["Zaubergarten", "Bänke & Hocker"]


@pytest.mark.parametrize(("spec", "first"), [
    ({}, ["Mondbänke"]), ({"level": 0}, ["Zaubergarten"]), ({"level": 1}, ["Bänke & Hocker"]), ({"level": 3}, None),
])
def test_a_single_attribute_takes_one_node(tmp_path, files, spec, first):
    spec = {"level": -1} | spec | {"taxonomy": "categories"}
    opened = shop(tmp_path, files, SCHEMA | {"attributes": {"category": spec, "hue": {"taxonomy": "hue"}}})
    assert next(opened.records("train"))["tags"]["category"] == first


def test_corrected_labels_name_nodes_too(tmp_path, files):
    def labels(tag):
        write_csv(tmp_path / "labels.csv", [{"id": "6", "attribute": "category", "tags": json.dumps([tag])}])
        opened = shop(tmp_path, files, labels=str(tmp_path / "labels.csv"))
        vocabulary = Vocabulary.scan(opened.records("train"), opened.schema, opened.names)
        opened.labels.check(vocabulary, opened.schema, opened.names)
        return list(opened.records("train"))[-1]["tags"]["category"]

    assert labels("qx-1-2") == ["Zaubergarten", "Bänke & Hocker", "Bänke & Hocker > Zubehör"]
    with pytest.raises(ConfigError, match="category of 6: category: 'Mondbank' is not in Shopify categories"):
        labels("Mondbank")
    assert Labels(tmp_path / "labels.csv", build(CatalogSchema, SCHEMA))


@pytest.mark.parametrize(("change", "message"), [
    ({"taxonomy": []}, "catalog: category names a taxonomy: give its file"),
    ({"schema": SCHEMA | {"attributes": {"hue": {}}}}, "no attribute names it"),
    ({"schema": SCHEMA | {"attributes": {"category": {"taxonomy": "categories"}}}}, "write kind: multi, or level: -1"),
    ({"schema": SCHEMA | {"attributes": {"hue": {"taxonomy": "hue", "level": 0}}}}, "level needs format: path, or tax"),
    ({"schema": SCHEMA | {"attributes": {"hue": {"taxonomy": "hue", "format": "path", "level": 0}}}}, "leave format"),
])
def test_settings_that_do_not_fit_say_what_to_write(tmp_path, files, change, message):
    with pytest.raises(ConfigError, match=message):
        shop(tmp_path, files, **change)


def test_a_file_that_is_not_there_is_told_before_the_catalogue_is_opened(tmp_path):
    data = {"source": {"path": "shop.csv"}, "schema": SCHEMA, "taxonomy": "nowhere.txt"}
    (tmp_path / "shop.csv").write_text("id,title,category,hue\n")
    settings = build(CatalogSettings, data | {"source": {"path": str(tmp_path / "shop.csv")}})
    with pytest.raises(ConfigError, match="catalog.taxonomy: there is no file nowhere.txt"):
        settings.check_paths()


def test_ten_thousand_nodes_open_at_once(tmp_path):
    lines = ["# Shopify Product Taxonomy - Categories: 2031-02"]
    for number in range(10_000):
        code = [str(int(digit) + 1) for digit in f"{number:04d}"]
        path = [f"Level {'-'.join(code[:depth])}" for depth in range(1, 4)] + [f"Part {number % 100}"]
        lines.append(f"{PREFIX}q-{'-'.join(code)} : {' > '.join(path)}")
    (tmp_path / "categories.txt").write_text("\n".join(lines))
    start = time.process_time()
    taxonomy = read_taxonomy([str(tmp_path / "categories.txt")], CATEGORIES)
    assert time.process_time() - start < 5
    assert len(taxonomy.nodes) == 11_110 and len({node.tag for node in taxonomy.nodes}) == 11_110
    assert taxonomy.find("q-4-3-2-1").path == "Level 4 > Level 4-3 > Level 4-3-2 > Part 10"
