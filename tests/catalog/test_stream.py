"""A catalogue as a stream: every row once, in the same order everywhere, whatever its files, splits and ranks."""

import json
import os
import pickle
import re
import shlex
import subprocess
import sys
from collections import Counter

import datasets
import fsspec
import psutil
import pyarrow as pa
import pytest
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from hf_tagger.catalog.quarantine import Refusal
from hf_tagger.catalog.reading.source import SourceConfig, catalogue_files
from hf_tagger.catalog.schema import CatalogSchema
from hf_tagger.catalog.strict import ConfigError, build, override
from hf_tagger.model.images import ImageError, load_image
from tests.catalog.files import (
    catalog,
    ids,
    photo,
    products,
    records,
    refusals,
    shirts_schema,
    write_jsonl,
    write_parquet,
)


def files_of(folder, sizes: list[int]):
    """A catalogue of as many files as there are sizes, each of so many rows."""
    start = 0
    for index, size in enumerate(sizes):
        write_jsonl(folder / f"part-{index:02d}.jsonl", products(start, start + size))
        start += size
    return catalog(folder / "part-*.jsonl")


def all_ids(count: int) -> list[str]:
    return [f"{n:05d}" for n in range(count)]


def test_a_glob_a_folder_and_a_list_are_the_same_catalogue(tmp_path):
    files_of(tmp_path, [3, 4])
    expected = all_ids(7)
    assert ids(records(catalog(f"{tmp_path}/part-*.jsonl"))) == expected
    assert ids(records(catalog(tmp_path))) == expected
    assert ids(records(catalog({"path": [f"{tmp_path}/part-01.jsonl", f"{tmp_path}/part-00.jsonl"]}))) == expected
    assert [r["file"] for r in records(catalog(tmp_path))][2:4] == ["part-00.jsonl", "part-01.jsonl"]


def test_files_anywhere_fsspec_reaches_and_their_photos_when_needed():
    shop = fsspec.filesystem("memory")
    shop.pipe("/shop/part.csv", b"id,title,colour,photo\n1,Shirt,Red,front/1.png\n2,Hat,Red,front/2.png\n")
    shop.pipe("/shop/front/1.png", photo())
    first, second = records(catalog("memory://shop/*.csv", shirts_schema(images="photo")))
    assert load_image(first["images"][0]).size == (8, 8)
    with pytest.raises(ImageError, match="2.png"):  # which is not there: only now was it looked for
        load_image(second["images"][0])


def test_a_service_that_refuses_is_told_in_one_line(monkeypatch):
    def refused(*_):
        raise RuntimeError("no credentials")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "exists", refused)
    with pytest.raises(ConfigError, match="memory://shop/a.csv cannot be reached: RuntimeError: no credentials"):
        catalogue_files(SourceConfig(path="memory://shop/a.csv"), "train")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"path": "{folder}/none-*.csv"}, "No catalogue file at .*none-.*looked from"),
        ({"path": "{folder}/notes.docx"}, r"does not tell the format.*parquet \(.parquet .pq\), csv"),
        ({"path": "{folder}/*.*"}, "mixes formats"),
        ({"path": "gopher://x/a.csv"}, "gopher"),
        ({"files": {"train": "{folder}/a.csv"}}, 'no split "test". Known: train'),
        ({"files": {"train": "{folder}/a.csv", "tests": "x"}}, 'no split "test". Did you mean "tests"'),
    ],
)
def test_what_is_not_there_is_said_with_a_remedy(tmp_path, source, message):
    (tmp_path / "a.csv").write_text("id,title,colour\n")
    (tmp_path / "b.jsonl").write_text("{}\n")
    if "docx" in str(source):
        (tmp_path / "notes.docx").write_text("")
    source = json.loads(json.dumps(source).replace("{folder}", str(tmp_path)))
    with pytest.raises(ConfigError, match=message):
        records(catalog(source), "train" if "path" in source else "test")


def test_format_can_be_said_where_the_name_does_not(tmp_path):
    (tmp_path / "export.dat").write_text("id,title,colour\n1,Shirt,Red\n")
    assert ids(records(catalog({"path": f"{tmp_path}/export.dat", "format": "csv"}))) == ["1"]


@pytest.fixture
def hub_dataset(tmp_path):
    """A dataset folder as `load_dataset` opens it, from the Hub as from the disk."""
    features = datasets.Features(
        id=datasets.Value("int32"),
        title=datasets.Value("string"),
        colour=datasets.ClassLabel(names=["Red", "Blue"]),
        photo=datasets.Image(),
    )
    for split, start in (("train", 0), ("validation", 100)):
        for part in range(2):
            numbers = range(start + 10 * part, start + 10 * part + 10)
            rows = {"id": list(numbers), "title": [f"Shirt {n}" for n in numbers], "colour": [n % 2 for n in numbers],
                    "photo": [{"bytes": b"never decoded", "path": None}] * 10}  # fmt: skip
            path = tmp_path / f"data/{split}-{part:05d}-of-00002.parquet"
            path.parent.mkdir(exist_ok=True)
            datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
    return str(tmp_path)


def test_a_hub_dataset_brings_its_splits_and_class_names(hub_dataset):
    shop = catalog({"path": hub_dataset, "format": "hub"}, shirts_schema(images="photo"))
    found = records(shop)
    assert ids(found) == [str(n) for n in range(20)]
    assert found[3]["tags"] == {"colour": ["Blue"]} and found[3]["images"][0]["bytes"] == b"never decoded"
    assert ids(records(shop, "validation")) == [str(n) for n in range(100, 120)]
    shuffled = [records(shop, shuffle_buffer=5, rank=rank, world_size=2) for rank in range(2)]
    assert sorted(int(r["id"]) for rank in shuffled for r in rank) == list(range(20))
    with pytest.raises(ConfigError, match="test"):
        records(shop, "test")
    with pytest.raises(ConfigError, match='has no column "color" .*Did you mean "colour"'):
        records(catalog({"path": hub_dataset, "format": "hub"}, shirts_schema(attributes={"color": {}})))


def test_a_hub_dataset_can_be_cut_into_splits(hub_dataset):
    shop = catalog({"path": hub_dataset, "format": "hub", "fractions": {"dev": 0.4}})
    dev, train = ids(records(shop, "dev")), ids(records(shop, "train"))
    assert dev and train and sorted(dev + train, key=int) == [str(n) for n in range(20)]


def test_given_splits_and_one_cut_from_train(tmp_path):
    write_jsonl(tmp_path / "train.jsonl", products(0, 100))
    write_jsonl(tmp_path / "test.jsonl", products(100, 120))
    files = {"train": f"{tmp_path}/train.jsonl", "test": f"{tmp_path}/test.jsonl"}
    shop = catalog({"files": files, "fractions": {"validation": 0.2}})
    assert shop.splits == ["train", "test", "validation"]
    assert ids(records(shop, "test")) == all_ids(120)[100:]
    assert sorted(ids(records(shop, "train")) + ids(records(shop, "validation"))) == all_ids(100)


def test_fractions_keep_groups_together_and_rows_where_they_are(tmp_path):
    path = write_jsonl(tmp_path / "shop.jsonl", products(0, 2000))
    source = {"path": str(path), "fractions": {"validation": 0.1, "test": 0.2}}
    schema = shirts_schema(group="family")
    family = {row["id"]: row["family"] for row in products(0, 4000)}

    def split_of_ids(source):
        shop = catalog(source, schema)
        return {i: split for split in shop.splits for i in ids(records(shop, split))}

    split_of = split_of_ids(source)
    sizes = Counter(split_of.values())
    assert sizes.total() == len(split_of) == 2000, "every row in one split"
    assert abs(sizes["validation"] - 200) < 60 and abs(sizes["test"] - 400) < 80
    families = {(family[i], split) for i, split in split_of.items()}
    assert len(families) == 500, "no family in two splits"

    write_jsonl(path, products(0, 4000)[::-1])
    grown = split_of_ids(source)
    assert {i: grown[i] for i in split_of} == split_of
    assert split_of_ids(source | {"split_seed": 1}) != grown


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({}, "needs path"),
        ({"path": "a.csv", "files": {"train": "b.csv"}}, "path or files.train"),
        ({"path": "a.csv", "fractions": {"test": 0.5, "validation": 0.5}}, "leave some rows for train"),
        ({"path": "a.csv", "delimiter": "::"}, "one character"),
        ({"path": "a.csv", "format": "docx"}, "format: Input should be 'parquet', 'csv'"),
    ],
)
def test_a_source_that_cannot_be(source, message):
    with pytest.raises(ConfigError, match=message):
        catalog(source)


@pytest.mark.parametrize("given", ['{"test": "b.csv"}', '{"train": "a.csv", "validation": "b.csv", "test": "c.csv"}'])
def test_files_on_the_command_line_over_fractions_that_were_saved_name_the_remedy(given):
    saved = {"catalog": {"source": {"path": "a.csv", "fractions": {"validation": 0.1, "test": 0.1}}}}
    arguments = ["--catalog.source.files", given]
    for _ in range(2):
        try:
            source = build(SourceConfig, override(saved, arguments)["catalog"]["source"], "catalog.source")
        except ConfigError as error:
            remedy = re.search(r"--catalog\.source\.\S+ ('.*?'|\w+)", str(error))[0]
            arguments += shlex.split(remedy)
    source = build(SourceConfig, override(saved, arguments)["catalog"]["source"])
    assert source.files == json.loads(given) and set(source.splits) == {"train", "validation", "test"}


@pytest.mark.parametrize("sizes", [[50], [20, 7, 13], [9, 9, 9, 9], [1, 0, 30, 2, 2, 2, 2, 2, 2, 2, 2, 2]])
@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
@pytest.mark.parametrize("shuffle_buffer", [0, 10])
def test_every_row_goes_to_exactly_one_rank(tmp_path, sizes, world_size, shuffle_buffer):
    shop = files_of(tmp_path, sizes)
    for epoch in range(2):
        options = {"shuffle_buffer": shuffle_buffer, "epoch": epoch, "seed": 3, "world_size": world_size}
        shares = [ids(records(shop, rank=rank, **options)) for rank in range(world_size)]
        assert sorted(sum(shares, [])) == all_ids(sum(sizes))


def test_ranks_read_whole_files_where_these_divide_evenly(tmp_path):
    shop = files_of(tmp_path, [5, 5, 5, 5])
    for rank in range(2):
        files = {r["file"] for r in records(shop, shuffle_buffer=3, rank=rank, world_size=2)}
        assert len(files) == 2


def test_ranks_share_rows_where_files_are_uneven(tmp_path):
    shop = files_of(tmp_path, [60, 2])
    assert [len(records(shop, rank=rank, world_size=2)) for rank in range(2)] == [31, 31]


def test_one_file_is_shuffled_anew_each_epoch(tmp_path):
    shop = files_of(tmp_path, [50])
    orders = [ids(records(shop, shuffle_buffer=20, seed=seed, epoch=epoch)) for seed in (0, 1) for epoch in (0, 1, 2)]
    assert len({tuple(order) for order in orders}) == 6


def test_shuffled_order_depends_on_seed_and_epoch_alone(tmp_path):
    files_of(tmp_path, [40, 40, 40])

    def order(**options):
        return ids(records(catalog(f"{tmp_path}/part-*.jsonl"), shuffle_buffer=20, **options))

    first = order(seed=1, epoch=0)
    assert first == order(seed=1, epoch=0)
    orders = [first, order(seed=1, epoch=1), order(seed=2, epoch=0), all_ids(120)]
    assert len({tuple(o) for o in orders}) == 4
    script = f"""
from tests.catalog.files import *
print(*ids(records(catalog("{tmp_path}/part-*.jsonl"), shuffle_buffer=20, seed=1, epoch=1)))
"""
    environment = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": os.getcwd()}
    output = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert output.stdout.split() == orders[1], "in another process"


def test_shuffling_mixes_the_files_from_the_start(tmp_path):
    shop = files_of(tmp_path, [100] * 12)
    found = records(shop, shuffle_buffer=10)
    first_files = {r["file"] for r in found[:50]}
    assert len(first_files) >= 4
    assert {r["file"] for r in records(shop, shuffle_buffer=10, epoch=1)[:50]} != first_files
    assert ids(records(shop)) == all_ids(1200)


def test_few_files_are_open_at_a_time(tmp_path):
    shop = files_of(tmp_path, [30] * 40)
    stream = shop.records("train", shuffle_buffer=5)
    most = 0
    for _ in stream:
        most = max(most, sum("part-" in file.path for file in psutil.Process().open_files()))
    assert 1 < most <= 4


class RowIds(IterableDataset):
    def __init__(self, shop, **options):
        self.shop, self.options = shop, options

    def __iter__(self):
        for item in self.shop.records("train", **self.options):
            yield get_worker_info().id, item["id"]


@pytest.mark.parametrize("options", [{}, {"shuffle_buffer": 10, "epoch": 2}, {"rank": 1, "world_size": 2}])
def test_each_loader_worker_sees_the_whole_stream(tmp_path, options):
    shop = files_of(tmp_path, [11, 12, 13, 14])
    expected = ids(records(shop, **options))
    loader = DataLoader(RowIds(pickle.loads(pickle.dumps(shop)), **options), batch_size=None, num_workers=2)
    seen = {0: [], 1: []}
    for worker, row_id in loader:
        seen[worker].append(row_id)
    assert seen == {0: expected, 1: expected}


def test_hub_datasets_are_whole_in_each_loader_worker_too(hub_dataset):
    shop = catalog({"path": hub_dataset, "format": "hub"})
    seen = Counter(row_id for _, row_id in DataLoader(RowIds(shop), batch_size=None, num_workers=2))
    assert seen == {str(n): 2 for n in range(20)}


def test_refusals_stand_where_their_rows_were(tmp_path):
    rows = products(0, 4)
    rows[1] |= {"title": " <br> "}
    rows[2] |= {"photo": "https://shop.example/2.jpg"}
    rows[3] |= {"title": "", "photo": "../3.jpg"}
    write_jsonl(tmp_path / "shop.jsonl", rows)
    items = list(catalog(tmp_path / "shop.jsonl", shirts_schema(images="photo")).records("train"))
    assert [(item.number, item.id, item.column, item.reason, item.fatal) if isinstance(item, Refusal) else item["id"]
            for item in items] == [
        "00000",
        (2, "00001", None, "no_content", True),
        (3, "00002", "photo", "url_refused", False),
        "00002",
        (4, "00003", "photo", "outside_root", False),
        (4, "00003", None, "no_content", True),
    ]  # fmt: skip


def test_unreadable_rows_of_a_cut_catalogue_are_refused_once(tmp_path):
    path = tmp_path / "shop.jsonl"
    path.write_text("{broken\n" * 20 + '{"id": 1, "title": "Shirt", "colour": "Red"}\n')
    shop = catalog({"path": str(path), "fractions": {"validation": 0.3, "test": 0.3}})
    assert [len(refusals(shop, split)) for split in ("train", "validation", "test")] == [20, 0, 0]


def test_dropping_duplicates_keeps_the_first_of_each_on_whatever_rank(tmp_path):
    (tmp_path / "1.png").write_bytes(photo("red"))
    (tmp_path / "copy.png").write_bytes(photo("red"))
    (tmp_path / "2.png").write_bytes(photo("blue"))
    rows = [("a", "Shirt", "1.png"), ("b", "Shirt", "2.png"), ("c", " Shirt ", "copy.png"), ("d", "Hat", "1.png"),
            ("e", "Shirt", None), ("f", "<b>Shirt</b>", None), ("g", "", "1.png")]  # fmt: skip
    write_jsonl(tmp_path / "1.jsonl", [{"id": i, "title": t, "photo": p, "colour": "Red"} for i, t, p in rows])
    write_jsonl(tmp_path / "2.jsonl", [{"id": "h", "title": "Hat", "photo": "1.png", "colour": "Blue"}])
    shop = catalog(tmp_path / "*.jsonl", shirts_schema(images="photo"))
    assert len(records(shop)) == 8
    assert ids(records(shop, drop_duplicates=True)) == ["a", "b", "d", "e", "g"]
    for world_size in (2, 3):
        shares = [
            ids(records(shop, drop_duplicates=True, rank=rank, world_size=world_size, shuffle_buffer=4))
            for rank in range(world_size)
        ]
        assert sorted(sum(shares, [])) == ["a", "b", "d", "e", "g"]


def test_same_photo_in_bytes_is_the_same_product(tmp_path):
    rows = [{"id": str(n), "title": "Shirt", "colour": "Red", "photo": {"bytes": photo(colour), "path": f"{n}.png"}}
            for n, colour in enumerate(["red", "blue", "red"])]  # fmt: skip
    write_parquet(tmp_path / "shop.parquet", rows)
    shop = catalog(tmp_path / "shop.parquet", shirts_schema(images="photo"))
    assert ids(records(shop, drop_duplicates=True)) == ["0", "1"]


def test_memory_does_not_grow_with_the_catalogue(tmp_path):
    blob = os.urandom(20_000)
    rows = [row | {"photo": {"bytes": blob + row["id"].encode()}} for row in products(0, 5000)]
    write_parquet(tmp_path / "shop.parquet", rows, row_group_size=2500, use_dictionary=False)
    del rows
    process = psutil.Process()
    stream = catalog(tmp_path / "shop.parquet", shirts_schema(images="photo")).records("train", shuffle_buffer=100)
    next(stream)
    start = most = process.memory_info().rss
    most_in_arrow = 0
    for count, _ in enumerate(stream):
        if count % 100 == 0:
            most = max(most, process.memory_info().rss)
            most_in_arrow = max(most_in_arrow, pa.total_allocated_bytes())
    assert count + 2 == 5000
    assert most - start < 50e6, "100 MB of photos went by"
    assert most_in_arrow < 35e6, "row groups of 50 MB are not read whole"


def test_real_fashion_catalogue(shared_data):
    names = ["gender", "category", "subcategory", "article_type", "colour", "usage", "season"]
    schema = shirts_schema(images="image", attributes={name: {} for name in names})
    files = {split: f"{shared_data}/fashion/{split}.parquet" for split in ("train", "validation", "test")}
    shop = catalog({"files": files}, schema)
    found = {split: records(shop, split) for split in shop.splits}
    assert {split: len(rows) for split, rows in found.items()} == {"train": 4187, "validation": 567, "test": 1228}
    assert all(row["text"] and all(row["tags"].values()) for row in found["test"])
    assert load_image(found["test"][0]["images"][0]).size == (168, 224)


def test_real_catalogue_of_pairs(shared_data):
    schema = build(CatalogSchema, {"id": "id", "text": "title", "pairs": {"names": "attributes", "values": "values",
                                                                          "discover": {}}})  # fmt: skip
    found = records(catalog(f"{shared_data}/implicit/validation.parquet", schema), shuffle_buffer=100)
    assert len(found) == 13_723
    assert all(len(row["tags"]) == 1 for row in found), "the other attributes are unknown"
