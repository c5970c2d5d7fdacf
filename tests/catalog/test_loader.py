"""Batches of a streamed catalogue. Its rows are read from real files; photos and texts go through a real processor."""

import gzip
from collections import Counter

import pytest
import torch

from hf_tagger.catalog.batching.collate import Collator
from hf_tagger.catalog.batching.loader import CatalogLoader
from hf_tagger.catalog.reading.readers import CatalogError
from hf_tagger.catalog.settings import LoaderSettings
from hf_tagger.training.augment import image_augmenter, text_augmenter
from hf_tagger.training.settings import ImageAugmentation, TextAugmentation
from tests.catalog.files import catalog, photo, shirts_schema, write_jsonl, write_parquet
from tests.tiny_tagger import tiny_processor

COLOURS = [{"name": "colour", "kind": "single", "tags": ["Red", "Blue", "Black"]}]


def shirts(count):
    """Texts of 1 to 12 words; every third shirt has a photo, every fifth no colour."""
    return [
        {"id": f"{n:03d}", "title": " ".join(["red", "blue", "new"][: 1 + n % 3] * (1 + n % 4)),
         "colour": ["Red", "Blue", "Black", "Red", None][n % 5], "image": photo("red") if n % 3 == 0 else None}
        for n in range(count)
    ]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    for part in range(3):
        write_parquet(tmp_path / f"part{part}.parquet", shirts(61)[part * 20 : part * 20 + (20 if part < 2 else 21)])
    return tmp_path


def loader(folder, batch_size=8, shuffle=True, num_workers=0, shuffle_buffer=16, bucket_batches=2, augment=False,
           **options):
    """Over the folder's parquet files, with random augmentation if so wished."""
    source = catalog(folder if folder.suffix else folder / "*.parquet", shirts_schema(images="image"))
    augmenters = ()
    if augment:
        augmenters = (text_augmenter(TextAugmentation(word_dropout=0.3, typos=0.2)),
                      image_augmenter(ImageAugmentation(crop=1.0, noise=0.5)))  # fmt: skip
    settings = LoaderSettings(batch_size, shuffle_buffer, bucket_batches, num_workers)
    return CatalogLoader(source, "train", Collator(tiny_processor(), COLOURS, *augmenters), settings,
                         shuffle=shuffle, **options)  # fmt: skip


def ids(batches):
    return [batch["ids"] for batch in batches]


def flat(batches):
    return [product for batch in batches for product in batch["ids"]]


def assert_same(found, expected):
    found, expected = list(found), list(expected)
    assert ids(found) == ids(expected)
    for left, right in zip(found, expected, strict=True):
        assert left.keys() == right.keys()
        for name, value in right.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(left[name], value), name


def test_an_epoch_has_every_row_once_in_an_order_of_its_own(folder):
    batches = loader(folder)
    first, second = flat(batches.epoch(0)), flat(batches.epoch(1))
    assert sorted(first) == sorted(second) == [f"{n:03d}" for n in range(61)]
    assert first != second and first != sorted(first)
    assert flat(loader(folder).epoch(0)) == first != flat(loader(folder, seed=1).epoch(0))
    assert [len(batch) for batch in ids(batches.epoch(0))].count(8) == 7


def test_without_shuffling_and_buckets_the_catalogue_keeps_its_order(folder):
    assert flat(loader(folder, shuffle=False, bucket_batches=1).epoch()) == [f"{n:03d}" for n in range(61)]


def test_the_number_of_workers_changes_nothing(folder):
    expected = list(loader(folder, augment=True).epoch(3))
    assert any("pixel_values" in batch for batch in expected)
    for workers in (1, 2):
        assert_same(loader(folder, augment=True, num_workers=workers).epoch(3), expected)


@pytest.mark.parametrize("workers", [0, 2])
def test_skipped_batches_are_exactly_the_first_ones(folder, workers):
    expected = list(loader(folder, augment=True).epoch(1))
    for skipped in (1, 3, len(expected), 50):
        rest = loader(folder, augment=True, num_workers=workers).epoch(1, skipped)
        assert_same(rest, expected[skipped:])


def test_reading_batches_leaves_the_random_state_of_training_alone(folder):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    for skipped in (0, 2):
        list(loader(folder, augment=True).epoch(0, skipped))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("world_size", [2, 3])
def test_every_row_goes_to_one_rank(folder, world_size):
    parts = [flat(loader(folder, rank=rank, world_size=world_size).epoch()) for rank in range(world_size)]
    assert sorted(sum(parts, [])) == [f"{n:03d}" for n in range(61)]
    assert all(parts)


def test_length_buckets_reduce_padding(tmp_path):
    rows = [{"id": str(n), "title": " ".join(["red"] * (1 + 7 * n % 15)), "colour": "Red"} for n in range(128)]
    path = write_jsonl(tmp_path / "shirts.jsonl", [row | {"image": None} for row in rows])

    def padding(bucket_batches):
        batches = loader(path, bucket_batches=bucket_batches).epoch()
        return sum(int((batch["attention_mask"] == 0).sum()) for batch in batches if batch["ids"])

    assert padding(8) < 0.25 * padding(1)


def test_rare_tags_are_repeated_as_often_as_their_factor_says(folder):
    batches = loader(folder, repeat_factors={"colour": {"Black": 3.0, "Blue": 1.5}})
    counts = Counter()
    for epoch in range(20):
        counts.update(flat(batches.epoch(epoch)))
    per_colour = {None: [], "Red": [], "Blue": [], "Black": []}
    for row in shirts(61):
        per_colour[row["colour"]].append(counts[row["id"]])
    assert set(per_colour["Red"]) == set(per_colour[None]) == {20} and set(per_colour["Black"]) == {60}
    assert 1.35 < sum(per_colour["Blue"]) / len(per_colour["Blue"]) / 20 < 1.65
    assert batches.repeat_factor({"colour": ["Black"]}) == 3 and batches.repeat_factor({"colour": None}) == 1
    assert flat(batches.epoch(1)) == flat(batches.epoch(1))


@pytest.mark.parametrize("workers", [0, 2])
def test_refused_rows_and_photos_travel_with_the_batches_once_per_epoch(tmp_path, workers):
    rows = shirts(30)
    rows[3]["image"] = b"no photo"
    rows[4] |= {"title": None, "image": None}
    rows[5] |= {"title": "", "image": b"no photo"}
    path = write_parquet(tmp_path / "shirts.parquet", rows)
    batches = list(loader(path, num_workers=workers).epoch())
    refused = sorted((refusal.id, refusal.reason, refusal.fatal) for batch in batches for refusal in batch["refusals"])
    assert refused == [("003", "unreadable", False), ("004", "no_content", True), ("005", "unreadable", True)]
    assert sorted(flat(batches)) == sorted({f"{n:03d}" for n in range(30)} - {"004", "005"})
    numbers = {refusal.number for batch in batches for refusal in batch["refusals"]}
    assert numbers == {4, 5, 6}


def test_rows_refused_after_the_last_batch_are_reported_too(tmp_path):
    rows = shirts(17)
    rows[16] |= {"title": None, "image": None}
    path = write_parquet(tmp_path / "shirts.parquet", rows)
    batches = list(loader(path, shuffle=False).epoch())
    assert ids(batches)[-1] == [] and [refusal.id for refusal in batches[-1]["refusals"]] == ["016"]


def test_duplicates_are_left_out_on_request(tmp_path):
    rows = [{"id": str(n), "title": f"red {n // 2}", "colour": "Red", "image": None} for n in range(10)]
    path = write_jsonl(tmp_path / "shirts.jsonl", rows)
    assert sorted(flat(loader(path, drop_duplicates=True, num_workers=1).epoch())) == ["0", "2", "4", "6", "8"]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_file_that_cannot_be_read_to_its_end_is_one_line_from_a_worker_too(tmp_path, num_workers):
    rows = "".join(f'{{"id": "{n}", "title": "red shirt", "colour": "Red", "image": null}}\n' for n in range(2000))
    (tmp_path / "half.jsonl.gz").write_bytes(gzip.compress(rows.encode())[:-500])
    with pytest.raises(CatalogError) as error:
        list(loader(tmp_path / "half.jsonl.gz", num_workers=num_workers).epoch())
    assert "\n" not in str(error.value) and "half.jsonl.gz cannot be read as jsonl" in str(error.value)
