"""Actors of Ray tag the pieces of a plan: whoever dies, begins or ends the run, every row is tagged once."""

import json
import os
import signal
import threading
import time

import psutil
import pyarrow.parquet as pq
import pytest
import yaml

from hf_tagger.model.pipeline_tagger import ProductTaggingPipeline
from recipes import tag_catalog
from tests.catalog.files import write_parquet
from tests.shops import SCHEMA, shop_rows
from tests.storm.victims import Victim
from tests.tiny_tagger import tiny_model, tiny_processor

ray_engine = pytest.importorskip("hf_tagger.deployment.ray_engine", reason="Ray is not installed: hf_tagger[ray]",
                                 exc_type=ImportError)
SHARDS = 160  # many: a run must not be over before it is interrupted
ACTORS = ["--engine", "ray", "--actors"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """(arguments, ids) of a catalogue of many small shards."""
    folder = tmp_path_factory.mktemp("shop")
    ProductTaggingPipeline(tiny_model().eval(), processor=tiny_processor()).save_pretrained(folder / "model")
    rows = shop_rows(0, 2 * SHARDS)
    rows[7] |= {"title": None, "image": b"no photo"}
    write_parquet(folder / "test.parquet", rows)
    config = {"catalog": {"source": {"files": {"test": str(folder / "test.parquet")}}, "schema": SCHEMA}}
    (folder / "shop.yaml").write_text(yaml.safe_dump(config))
    arguments = [str(folder / "model"), str(folder / "shop.yaml"), "--shard_rows", "2", "--batch_size", "1", "--resume"]
    return arguments, [row["sku"] for row in rows]


def tagged(folder):
    return [row["id"] for path in sorted(folder.glob("part-*.parquet")) for row in pq.read_table(path).to_pylist()]


def kill_one(folder):
    """Kills a process as it works on a piece; returns how many were done then."""
    while True:
        for claim in folder.glob("claims/*"):
            try:
                process = json.loads(claim.read_text())["process"]
            except (FileNotFoundError, ValueError):
                continue
            if psutil.pid_exists(process):
                os.kill(process, signal.SIGKILL)
                return len(list(folder.glob("part-*.parquet")))
        time.sleep(0.001)


def wait_for(shards, folder, victim):
    while len(list(folder.glob("part-*.parquet"))) < shards and victim.process.is_alive():
        time.sleep(0.001)


def test_actors_end_what_a_process_began_though_one_is_killed(shop, tmp_path, fresh_accelerate):
    arguments, ids = shop
    folder = tmp_path / "out"
    begun = Victim("tag_catalog", *arguments, "--output_dir", folder, folder=folder)
    wait_for(6, folder, begun)
    begun.process.kill()
    begun.end()
    before = {path: path.stat().st_mtime_ns for path in folder.glob("part-*.parquet")}
    assert 6 <= len(before) < SHARDS - 8
    killed = []
    killer = threading.Thread(target=lambda: killed.append(kill_one(folder)))
    killer.start()
    assert tag_catalog.main([*arguments, "--output_dir", str(folder), *ACTORS, "2"]) == 0
    killer.join()
    assert len(before) <= killed[0] < SHARDS
    assert tagged(folder) == ids
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["rows"], summary["reasons"]) == (len(ids), {"a photo or text could not be read": 1})
    assert not list(folder.glob("*.unfinished"))


def test_a_process_ends_what_actors_began_of_which_one_was_killed_and_replaced(shop, tmp_path, fresh_accelerate):
    arguments, ids = shop
    folder = tmp_path / "out"
    begun = Victim("tag_catalog", *arguments, "--output_dir", folder, *ACTORS, "1", folder=folder)
    wait_for(3, folder, begun)
    wait_for(kill_one(folder) + 2, folder, begun)
    os.kill(begun.process.pid, signal.SIGINT)
    assert begun.end() == 130 and "interrupted" in begun.errors and "Traceback" not in begun.errors
    assert 5 <= len(list(folder.glob("part-*.parquet"))) < SHARDS
    assert tag_catalog.main([*arguments, "--output_dir", str(folder)]) == 0
    assert tagged(folder) == ids


def test_what_cannot_be_is_said_before_anything_is_started(shop, capsys):
    arguments, _ = shop
    for more, message in ((["--preview", "page.html"], "not for --preview"), (["--num_cpus", "0"], "are above 0")):
        with pytest.raises(SystemExit):
            tag_catalog.main([*arguments, "--output_dir", "out", *ACTORS, "1", *more])
        assert message in capsys.readouterr().err
