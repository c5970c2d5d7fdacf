"""Tagging from and into an object store: S3's own protocol, spoken by moto on this machine."""

import json
import os
import signal
import time

import pytest
import yaml
from accelerate.state import AcceleratorState

from hf_tagger.deployment import shards, storage
from hf_tagger.deployment.bulk import read_shard
from hf_tagger.model.pipeline_tagger import ProductTaggingPipeline
from recipes import tag_catalog
from tests.catalog.files import write_parquet
from tests.shops import SCHEMA, shop_rows
from tests.storm.victims import Victim
from tests.tiny_tagger import tiny_model, tiny_processor

for name in ("moto.server", "s3fs", "upath"):
    pytest.importorskip(name, reason=f"{name.partition('.')[0]} is not installed: hf_tagger[test-stores]")


@pytest.fixture(scope="module")
def bucket():
    """(the URL of a bucket, the environment that opens it)"""
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_DEFAULT_REGION": "us-east-1",
                   "AWS_ACCESS_KEY_ID": "ana", "AWS_SECRET_ACCESS_KEY": "x"}
    with pytest.MonkeyPatch.context() as patch:
        for key, value in environment.items():
            patch.setenv(key, value)
        s3fs.S3FileSystem().mkdir("shop")
        yield "s3://shop", environment
    server.stop()


@pytest.fixture(scope="module")
def shop(bucket, tmp_path_factory):
    """(arguments, the rows that a run on a disk gives): model, catalogue and photos lie in the bucket."""
    url, _ = bucket
    folder = tmp_path_factory.mktemp("shop")
    ProductTaggingPipeline(tiny_model().eval(), processor=tiny_processor()).save_pretrained(folder / "model")
    rows = shop_rows(0, 48)
    (folder / "photos").mkdir()
    for row in rows:
        if row["image"] is not None:
            (folder / "photos" / f"{row['sku']}.jpg").write_bytes(row["image"])
            row["image"] = f"photos/{row['sku']}.jpg"
    rows[5]["image"] = "photos/gone.jpg"
    write_parquet(folder / "test.parquet", rows)
    storage.open_folder(url).fs.put(f"{folder}/", f"{url}/shop/", recursive=True)
    places = {"local": str(folder), "remote": f"{url}/shop"}
    for place, where in places.items():
        config = {"catalog": {"source": {"files": {"test": f"{where}/test.parquet"}}, "schema": SCHEMA}}
        (folder / f"{place}.yaml").write_text(yaml.safe_dump(config))
    more = ["--shard_rows", "2", "--batch_size", "1"]
    AcceleratorState._reset_state(True)
    assert tag_catalog.main([f"{folder}/model", f"{folder}/local.yaml", "--output_dir", f"{folder}/out", *more]) == 0
    wanted = tagged(folder / "out")
    assert [row["id"] for row in wanted] == [row["sku"] for row in rows]
    assert [bool(row["error"]) for row in wanted].count(True) == 1
    return [f"{url}/shop/model", f"{folder}/remote.yaml", *more, "--resume"], wanted


def tagged(folder):
    return [row | {"error": bool(row["error"])} for path in sorted(folder.glob("part-*.parquet"))
            for row in read_shard(path).to_pylist()]


def test_killed_at_a_third_it_goes_on_in_a_bucket_with_two_workers(bucket, shop, tmp_path):
    (url, environment), (arguments, wanted) = bucket, shop
    folder = storage.open_folder(f"{url}/tags")

    def run(name):
        return Victim("tag_catalog", *arguments, "--output_dir", str(folder), folder=tmp_path / name,
                      environment=environment)  # fmt: skip

    begun = run("begun")
    while len(storage.names(folder / shards.MARKS)) < 8 and begun.process.is_alive():
        time.sleep(0.01)
    begun.process.kill()
    assert begun.end() == -signal.SIGKILL, begun.errors
    assert 8 <= len(storage.names(folder / shards.MARKS)) < 24
    workers = [run("first"), run("second")]
    assert [worker.end() for worker in workers] == [0, 0], [worker.errors for worker in workers]
    assert tagged(folder) == wanted
    assert {"plan.json", "manifest.json", "summary.json"} < storage.names(folder)
    assert not storage.exists(folder / shards.CLAIMS) and len(storage.names(folder / shards.MARKS)) == 24
    assert json.loads((folder / "summary.json").read_text())["rows"] == len(wanted)


def test_a_shard_counts_by_its_mark_alone(bucket, shop, fresh_accelerate):
    (url, _), (arguments, wanted) = bucket, shop
    folder = storage.open_folder(f"{url}/marks")
    assert tag_catalog.main([*arguments, "--output_dir", str(folder), "--format", "jsonl"]) == 0
    (folder / shards.MARKS / "part-000003.parquet").unlink()
    (folder / "part-000003.parquet").write_bytes(b"of a worker that was not through")
    before = (folder / "part-000004.parquet").stat().st_mtime
    assert tag_catalog.main([*arguments, "--output_dir", str(folder)]) == 0
    assert tagged(folder) == wanted and (folder / "part-000004.parquet").stat().st_mtime == before
    lines = (folder / "tags.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [row["id"] for row in wanted]


def test_one_of_two_gets_a_claim_until_it_gives_no_sign_of_life(bucket, monkeypatch):
    claim = storage.open_folder(f"{bucket[0]}/claimed/{shards.CLAIMS}/000000")
    assert shards._take(claim) and not shards._take(claim)
    storage.write(claim, json.dumps({"host": "elsewhere", "process": 1, "started": 0}))
    assert not shards._take(claim)
    monkeypatch.setattr(shards, "VOID", -60)
    assert shards._take(claim) and json.loads(claim.read_text())["process"] == os.getpid()
    before = claim.stat().st_mtime
    time.sleep(1.1)
    storage.touch(claim)
    assert storage.age(claim) < time.time() - before


def test_what_is_not_there_and_what_cannot_be_opened_is_named(bucket, shop, tmp_path, capsys):
    url, _ = bucket
    for model, output, message in ((f"{url}/nothing", f"{url}/out", f"{url}/nothing"),
                                   (shop[0][0], "nowhere://out", "nowhere://out: ")):
        assert tag_catalog.main([model, *shop[0][1:], "--output_dir", output]) == 2
        assert message in capsys.readouterr().err
