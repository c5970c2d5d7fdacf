"""Workers that share a plan: each piece is claimed by one, and comes up again where that one dies."""

import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from hf_tagger.catalog.reading.pieces import PieceReader, plan
from hf_tagger.catalog.reading.source import SourceConfig
from hf_tagger.catalog.reading.stream import Catalog
from hf_tagger.catalog.schema import CatalogSchema
from hf_tagger.catalog.strict import ConfigError, build
from hf_tagger.deployment import bulk, shards
from hf_tagger.deployment.write_back import shard_rows
from tests.catalog.files import write_parquet

SCHEMA = build(CatalogSchema, {"id": "sku", "text": ["title"], "attributes": {"colour": {"kind": "single"}}},
               ).without_tags()
CLAIM = """import sys; from pathlib import Path; from hf_tagger.deployment.shards import _create
_create(Path(sys.argv[1]))"""


@pytest.fixture
def catalog(tmp_path):
    """Two files of 7 and 4 rows, one of which is no row."""
    (tmp_path / "a.csv").write_text("sku,title\n" + "".join(f'a{n},"mug\n{n}"\n' for n in range(7)))
    (tmp_path / "b.csv").write_text("sku,title\nb0,cup\nb1\nb2,cup\nb3,cup\n")
    return Catalog(SourceConfig(path=str(tmp_path / "*.csv")), SCHEMA)


def told(records):
    return [getattr(record, "reason", None) or record["id"] for record in records]


def test_pieces_hold_every_row_once_in_order_whoever_reads_them(catalog):
    pieces = plan(catalog, "train", 3)
    assert [(piece.id, piece.file, piece.first, piece.rows) for piece in pieces] == [
        ("000000", "a.csv", 0, 3), ("000001", "a.csv", 3, 3), ("000002", "a.csv", 6, 1), ("000003", "b.csv", 0, 3),
        ("000004", "b.csv", 3, 1)]  # fmt: skip
    whole = told(catalog.records("train"))
    assert len(whole) == 12  # rows, and what is wrong with one of them
    for order in (pieces, pieces[::-1], [*pieces[1::2], *pieces[::2]]):
        read = PieceReader(catalog, "train")
        found = {piece.id: told(read(piece)) for piece in order}
        assert [row for piece in pieces for row in found[piece.id]] == whole


def test_rows_of_a_split_that_is_cut_by_hash_are_those_of_the_whole(catalog):
    cut = Catalog(SourceConfig(path=catalog.source.path, fractions={"test": 0.4}), SCHEMA)
    for split in ("train", "test"):
        read = PieceReader(cut, split)
        assert [row for piece in plan(cut, split, 2) for row in told(read(piece))] == told(cut.records(split))


def test_parquet_tells_its_rows(tmp_path):
    write_parquet(tmp_path / "shop.parquet", [{"sku": str(n), "title": "mug"} for n in range(5)])
    catalog = Catalog(SourceConfig(path=str(tmp_path / "shop.parquet")), SCHEMA)
    read = PieceReader(catalog, "train")
    assert [told(read(piece)) for piece in plan(catalog, "train", 2)] == [["0", "1"], ["2", "3"], ["4"]]


def test_a_plan_is_known_by_the_files_content_not_by_their_place_and_time(catalog, tmp_path):
    before = plan(catalog, "train", 3)
    os.utime(tmp_path / "a.csv", (1, 1))
    assert shards.describe(plan(catalog, "train", 3)) == shards.describe(before)
    text = (tmp_path / "b.csv").read_text()
    (tmp_path / "b.csv").write_text(text.replace("b3,cup", "b3,pot"))
    after = plan(catalog, "train", 3)
    assert after[:3] == before[:3] and after[3] != before[3] and shards.describe(after) != shards.describe(before)
    (tmp_path / "b.csv").unlink()
    (tmp_path / "c.csv").write_text(text)
    with pytest.raises(ConfigError, match="b.csv is no longer among the files"):
        list(PieceReader(Catalog(catalog.source, SCHEMA), "train")(before[3]))


def test_a_plan_is_read_as_it_was_written(catalog, tmp_path):
    pieces = plan(catalog, "train", 3)
    shards.write_plan(tmp_path, pieces)
    assert shards.read_plan(tmp_path) == pieces and [path.name for path in tmp_path.glob("plan*")] == ["plan.json"]


def test_two_workers_in_turn_do_different_pieces_and_each_ends_when_all_are_done(catalog, tmp_path):
    pieces = plan(catalog, "train", 3)
    workers, taken = [shards.claimed(tmp_path, pieces) for _ in range(2)], []
    for turn in range(5):
        piece = next(workers[turn % 2])
        taken.append(piece.id)
        if turn:  # the first stays at work
            shards.shard_path(tmp_path, piece).touch()
    assert sorted(taken) == [piece.id for piece in pieces]
    shards.shard_path(tmp_path, pieces[0]).touch()
    assert [list(worker) for worker in workers] == [[], []]
    assert not list((tmp_path / "claims").iterdir()) and shards.done(tmp_path, pieces) == pieces


def test_what_a_dead_process_had_claimed_comes_up_again(catalog, tmp_path):
    pieces = plan(catalog, "train", 3)[:1]
    (tmp_path / "claims").mkdir()
    subprocess.run([sys.executable, "-c", CLAIM, str(tmp_path / "claims" / "000000")], check=True)
    assert next(shards.claimed(tmp_path, pieces)) == pieces[0]


@pytest.mark.parametrize("content", [json.dumps({"host": "elsewhere", "process": 1, "started": 0}), "{"])
def test_a_claim_of_another_machine_is_void_only_without_a_sign_of_life(catalog, tmp_path, content):
    claim = tmp_path / "000000"
    claim.write_text(content)
    assert not shards._take(claim)
    os.utime(claim, (time.time() - 2 * shards.VOID,) * 2)
    assert shards._take(claim) and json.loads(claim.read_text())["process"] == os.getpid()


def test_a_claim_is_kept_young_while_its_work_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "BEAT", 0.01)
    claim = tmp_path / "claim"
    claim.touch()
    os.utime(claim, (1, 1))
    with shards._kept_young(claim):
        while claim.stat().st_mtime < 2:
            time.sleep(0.01)


def test_of_many_that_claim_a_piece_at_once_one_has_it(tmp_path):
    start = threading.Barrier(8)

    def claim(number):
        won = 0
        for piece in range(200):
            start.wait()
            won += shards._take(tmp_path / str(piece))
        return won

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(claim, range(8))) == 200


def test_products_of_several_processes_come_in_the_order_of_their_rows(tmp_path):
    for rank in range(2):
        for number in range(3):
            tagged_rows = [{"id": str(row), "tags": ["a"] * (row != 9), "scores": [1.0] * (row != 9), "source": [],
                            "attribute": ["x"] * (row != 9), "error": None, "row": row, "photos": 0}
                           for row in range(1 + 8 * number + rank, 9 + 8 * number, 2)]
            bulk.write_shard(tmp_path / f"part-{rank:03}-{number:06}.parquet", tagged_rows)
    found = shard_rows(tmp_path, lambda products: (product for product in products if product["tags"]))
    assert [row["row"] for row in found] == [row for row in range(1, 25) if row != 9]
