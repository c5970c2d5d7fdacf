"""Tagging a catalogue that is killed and resumed, runs out of disk, or loses one of two processes."""

import json
import signal
import time

import pyarrow.parquet as pq
import pytest
import yaml

from hf_tagger.model.pipeline_tagger import ProductTaggingPipeline
from tests.catalog.files import write_parquet
from tests.shops import SCHEMA, shop_rows
from tests.storm.victims import KILLED, Victim, kill_one, pair
from tests.tiny_tagger import tiny_model, tiny_processor


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(arguments, the rows, how often a file was changed) of a run that nothing befell; one photo is broken and one row
    empty."""
    folder = tmp_path_factory.mktemp("bulk")
    ProductTaggingPipeline(tiny_model().eval(), processor=tiny_processor()).save_pretrained(folder / "model")
    rows = shop_rows(0, 48)
    rows[5] |= {"title": "red mug", "image": b"no photo"}
    rows[7] |= {"title": None, "image": None}
    write_parquet(folder / "test.parquet", rows)
    config = {"catalog": {"source": {"files": {"test": str(folder / "test.parquet")}}, "schema": SCHEMA}}
    (folder / "shop.yaml").write_text(yaml.safe_dump(config))
    arguments = [folder / "model", folder / "shop.yaml", "--shard_rows", "2", "--batch_size", "1"]
    run = Victim("tag_catalog", *arguments, "--output_dir", folder / "whole", folder=folder / "whole")
    assert run.end() == 0, run.errors
    found = read(folder / "whole")
    assert [row["id"] for row in found] == [row["sku"] for row in rows]
    assert sum(bool(row["error"]) for row in found) == 2
    return arguments, found, run.changes


def read(folder):
    return [row for path in sorted(folder.glob("part-*.parquet")) for row in pq.read_table(path).to_pylist()]


def resumed(storm, arguments, folder, whole, run=Victim):
    """What goes on to its end leaves what is there as it is, and the rows of the undisturbed run."""
    before = {path: path.stat().st_mtime_ns for path in folder.glob("part-*.parquet")}
    runs = run("tag_catalog", *arguments, "--output_dir", folder, "--resume", folder=folder)
    for each in runs if isinstance(runs, list) else [runs]:
        assert each.end() == 0, each.errors
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())
    with storm.trial("rows of catalogues tagged by resumed runs", len(whole)):
        assert read(folder) == whole
        assert json.loads((folder / "summary.json").read_text())["rows"] == len(whole)


def test_killed_at_any_moment_it_loses_no_row_and_repeats_none(whole, storm, tmp_path):
    arguments, rows, changes = whole
    for number in range(storm.rounds(2, 20)):
        folder = tmp_path / str(number)
        run = Victim("tag_catalog", *arguments, "--output_dir", folder, "--resume", folder=folder,
                     **storm.moment(changes))  # fmt: skip
        with storm.trial("tagging a catalogue, killed and resumed"):
            assert run.end() in (0, *KILLED), run.errors
            assert all(row in rows for row in read(folder))
            resumed(storm, arguments, folder, rows)


def test_what_is_there_is_gone_on_with_only_when_asked_to_and_as_it_was_begun(whole, tmp_path):
    arguments, _, changes = whole
    assert Victim("tag_catalog", *arguments, "--output_dir", tmp_path / "out", folder=tmp_path / "out",
                  change=changes // 2).end() == -signal.SIGKILL  # fmt: skip
    for more, message in (([], "add --resume"), (["--resume", "--shard_rows", "3"], "begun with another shard_rows")):
        run = Victim("tag_catalog", *arguments, "--output_dir", tmp_path / "out", *more, folder=tmp_path / "out")
        assert run.end() == 2 and message in run.errors


def test_on_a_full_disk_it_ends_in_one_line_and_goes_on_when_there_is_room(whole, storm, tmp_path):
    arguments, rows, changes = whole
    for number in range(storm.rounds(1, 10)):
        folder = tmp_path / str(number)
        full = {"change": storm.random.randint(1, changes - 10), "file_bytes": storm.random.randint(0, 1500)}
        run = Victim("tag_catalog", *arguments, "--output_dir", folder, folder=folder, **full)
        with storm.trial("tagging a catalogue, disk full"):
            assert run.end() == 2 and "Traceback" not in run.errors and "the disk is full" in run.errors, run.errors
            assert all(row in rows for row in read(folder))
            resumed(storm, arguments, folder, rows)


def test_where_one_of_two_processes_dies_the_other_does_its_share(whole, storm, tmp_path):
    arguments, rows, changes = whole
    for number in range(storm.rounds(1, 6)):
        folder = tmp_path / str(number)
        runs = pair("tag_catalog", *arguments, "--output_dir", folder, "--resume", folder=folder)
        with storm.trial("tagging a catalogue by two processes, one killed"):
            # Later than the plan, for which the second waits.
            other = kill_one(runs, storm.random.randint(changes // 8, changes // 3), 1 - number % 2)
            assert other.end(60) not in KILLED
            if number % 2 == 0:
                assert read(folder) == rows and (folder / "summary.json").exists(), other.errors
            resumed(storm, arguments, folder, rows, pair)


@pytest.mark.parametrize(("first", "then"), [(pair, 1), (Victim, 3)])
def test_killed_at_a_third_it_goes_on_with_another_number_of_workers(whole, storm, tmp_path, first, then):
    arguments, rows, changes = whole
    folder = tmp_path / "out"
    given = ["tag_catalog", *arguments, "--output_dir", folder, "--resume"]
    runs = first(*given, folder=folder)
    runs = runs if isinstance(runs, list) else [runs]
    while len(list(folder.glob("part-*.parquet"))) < 7 and any(run.process.is_alive() for run in runs):
        time.sleep(0.002)
    for run in runs:
        run.process.kill()
        run.end()
    before = read(folder)
    assert 7 <= len(before) // 2 < 24 and all(row in rows for row in before)
    with storm.trial("tagging a catalogue, gone on with by another number of workers"):
        # Each starts by itself: they know of each other by the folder alone.
        workers = [Victim(*given, folder=tmp_path / "out" if number == 0 else tmp_path / f"{number}")
                   for number in range(then)]
        assert [worker.end() for worker in workers] == [0] * then, [worker.errors for worker in workers]
        assert read(folder) == rows
        assert sorted(row["id"] for row in read(folder)) == sorted({row["id"] for row in rows})
        assert not list(folder.glob("*.unfinished")) and not (folder / "claims").exists()
