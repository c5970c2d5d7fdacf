"""Rows in = rows used + rows set aside, counted wherever a catalogue is read; and catalogues that nobody has tagged."""

import pytest

from hf_tagger.catalog.batching.collate import Collator
from hf_tagger.catalog.batching.loader import CatalogLoader
from hf_tagger.catalog.settings import LoaderSettings
from hf_tagger.catalog.strict import ConfigError
from tests.catalog.files import catalog, photo, products, records, shirts_schema, write_csv, write_parquet
from tests.tiny_tagger import tiny_processor

COLOURS = [{"name": "colour", "kind": "single", "tags": ["Red", "Blue", "Black"]}]


@pytest.fixture
def found(tmp_path):
    """Twenty rows: two say nothing, and three of the others have nothing but a photo that is none."""
    rows = [row | {"image": photo()} for row in products(0, 20)]
    for row in rows[:2]:
        row |= {"title": None, "image": None}
    for row in rows[5:8]:
        row |= {"title": None, "image": b"no photo"}
    return catalog(write_parquet(tmp_path / "a.parquet", rows), shirts_schema(images="image"))


def test_a_row_counts_once_however_often_it_is_read(found):
    for _ in range(2):
        list(found.records("train"))
    found.duplicates("train")
    assert found.totals() == "train: 20 rows: 18 used, 2 set aside"


@pytest.mark.parametrize("workers", [0, 2])
def test_photos_that_are_none_are_found_by_whoever_decodes_them(found, workers):
    settings = LoaderSettings(batch_size=4, shuffle_buffer=8, bucket_batches=1, num_workers=workers)
    loader = CatalogLoader(found, "train", Collator(tiny_processor(), COLOURS), settings, shuffle=True)
    for epoch in range(2):
        list(loader.epoch(epoch))
    assert found.totals() == "train: 20 rows: 15 used, 5 set aside, 3 lost their photos"


def test_what_was_read_in_part_counts_as_far_as_it_was_read(found):
    rows = found.records("train")
    for _ in range(6):
        next(rows)
    assert found.totals() == "train: 6 rows: 4 used, 2 set aside"


def test_rows_that_are_left_out_as_duplicates_are_neither_used_nor_set_aside(tmp_path):
    rows = products(0, 4) + [products(0, 1)[0] | {"id": "again"}]
    found = catalog(write_csv(tmp_path / "a.csv", rows))
    assert len(list(found.records("train", drop_duplicates=True))) == 4
    assert found.totals() == "train: 4 rows: 4 used, 0 set aside"


def test_products_without_columns_of_tags_are_read_as_untagged(tmp_path):
    path = write_csv(tmp_path / "a.csv", [{"id": row["id"], "title": row["title"]} for row in products(0, 3)])
    tagged = shirts_schema(attributes={"colour": {}, "family": {}})
    untagged = catalog(path, tagged).with_tags_if_any("train")
    assert [record["tags"] for record in records(untagged)] == [{}] * 3

    write_csv(path, products(0, 3))
    with_all = catalog(path, tagged)
    assert with_all.with_tags_if_any("train") is with_all

    write_csv(path, [{name: row[name] for name in ("id", "title", "colour")} for row in products(0, 3)])
    with pytest.raises(ConfigError, match="family"):  # misspelt, it seems
        catalog(path, tagged).with_tags_if_any("train")

    write_csv(path, [{"id": row["id"]} for row in products(0, 3)])
    with pytest.raises(ConfigError, match="title"):
        catalog(path, tagged).with_tags_if_any("train")
