"""Every row of the catalogue is tagged once. Runs that are killed: tests/storm/test_bulk.py."""

import json
import shutil

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file
from transformers import pipeline

from hf_tagger.catalog.quarantine import Refusal
from hf_tagger.deployment.bulk import open_shards, opened_fingerprint, product_rows, tag_rows
from hf_tagger.model.pipeline_tagger import ProductTaggingPipeline
from recipes import tag_catalog
from tests.catalog.files import catalog, products, write_jsonl, write_parquet
from tests.database_shop import write_database
from tests.shops import SCHEMA, shop_rows
from tests.tiny_tagger import trained_tagger


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A folder with a model and a catalogue, one photo of which is broken and one row empty."""
    folder = tmp_path_factory.mktemp("shop")
    model, processor = trained_tagger()
    ProductTaggingPipeline(model, processor=processor).save_pretrained(folder / "model")
    rows = shop_rows(0, 90)
    rows[5] |= {"title": "red mug", "image": b"no photo"}
    rows[6] |= {"title": None, "image": b"no photo"}
    rows[7] |= {"title": None, "image": None}
    write_parquet(folder / "test.parquet", rows)
    config = {"catalog": {"source": {"files": {"test": str(folder / "test.parquet")}}, "schema": SCHEMA}}
    (folder / "shop.yaml").write_text(yaml.safe_dump(config))
    (folder / "ids.json").write_text(json.dumps([row["sku"] for row in rows]))
    return folder


@pytest.fixture
def run_here(shop, tmp_path, capsys, fresh_accelerate):
    def run(*arguments):
        out = ["--output_dir", str(tmp_path / "out")]
        status = tag_catalog.main([str(shop / "model"), str(shop / "shop.yaml"), *out, *arguments])
        return status, capsys.readouterr()

    return run


def read(folder):
    return [row for path in sorted(folder.glob("part-*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_rows_come_in_order_with_the_tags_that_the_pipeline_gives(shop, run_here, tmp_path):
    status, printed = run_here("--shard_rows", "20", "--batch_size", "8")
    assert status == 0
    rows = read(tmp_path / "out")
    ids = json.loads((shop / "ids.json").read_text())
    assert [row["id"] for row in rows] == ids
    tagger = pipeline("product-tagging", model=str(shop / "model"), device="cpu")
    source = {row["sku"]: row for row in pq.read_table(shop / "test.parquet").to_pylist()}
    for row in rows:
        given = {"text": source[row["id"]]["title"], "image": source[row["id"]]["image"]}
        if row["error"] is None:
            wanted = tagger({key: value for key, value in given.items() if value})
            assert row["tags"] == [tag["label"] for tag in wanted]
            assert row["scores"] == pytest.approx([tag["score"] for tag in wanted], abs=1e-4)
    broken = {row["id"]: row for row in rows if row["error"]}
    assert set(broken) == {ids[5], ids[6], ids[7]}
    assert broken[ids[5]]["tags"] == [tag["label"] for tag in tagger("red mug")]
    assert not broken[ids[6]]["tags"] and not broken[ids[7]]["tags"]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["rows"], summary["errors"]) == (len(ids), 3)
    named = sum("colour" in row["attribute"] for row in rows)
    assert summary["attributes"]["colour"] == {"tags": named, "abstentions": len(ids) - named}


def test_products_that_nobody_has_tagged_are_tagged(shop, tmp_path, capsys):
    AcceleratorState._reset_state(True)
    schema = SCHEMA | {"keep": ["brand"], "group": "brand"}
    config = {"catalog": {"source": {"path": "train.parquet"}, "schema": schema}}
    (shop / "model" / "training_config.yaml").write_text(yaml.safe_dump(config))
    new = tmp_path / "new.csv"
    new.write_text("sku,title,image,language\n900,Red mug,,\n901,Blue dress,,en\n902,,,\n")
    assert tag_catalog.main([str(shop / "model"), str(new), "--output_dir", str(tmp_path / "out")]) == 0
    found = {row["id"]: row for row in read(tmp_path / "out")}
    assert {"Red", "Mug"} <= set(found["900"]["tags"]) and "Dress" in found["901"]["tags"]
    assert found["902"]["error"] == "row: no_content: neither text nor photo (looked in title, image)"
    assert capsys.readouterr().out.splitlines()[-1].startswith("3 rows, 1 with an error")
    AcceleratorState._reset_state(True)


def test_a_run_goes_on_with_the_same_model_wherever_it_lies_and_with_no_other(shop, tmp_path, run_here, capsys):
    assert run_here()[0] == 0
    moved = tmp_path / "moved"
    shutil.copytree(shop / "model", moved)
    (moved / "README.md").write_text("a card")
    arguments = [str(moved), str(shop / "shop.yaml"), "--output_dir", str(tmp_path / "out"), "--resume"]
    assert tag_catalog.main(arguments) == 0
    weights = load_file(moved / "model.safetensors")
    name = next(name for name in weights if name.endswith("bias"))
    save_file(weights | {name: weights[name] + 1}, moved / "model.safetensors", {"format": "pt"})
    capsys.readouterr()
    assert tag_catalog.main(arguments) == 2
    assert "begun with another model" in capsys.readouterr().err


def test_an_adapter_is_told_by_its_base_too(tmp_path):
    for name in ("base", "adapter"):
        (tmp_path / name).mkdir()
        save_file({"weight": torch.zeros(2)}, tmp_path / name / "x.safetensors")
    (tmp_path / "adapter" / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": str(tmp_path / "base")}))
    before = opened_fingerprint(tmp_path / "adapter", None)
    assert before == opened_fingerprint(tmp_path / "adapter", None)
    save_file({"weight": torch.ones(2)}, tmp_path / "base" / "x.safetensors")
    assert before != opened_fingerprint(tmp_path / "adapter", None)


def test_an_unknown_split_and_a_missing_model_are_named(run_here, shop, capsys):
    status, printed = run_here("--split", "tset")
    assert status == 2 and "no split 'tset'; the catalogue has test" in printed.err
    assert tag_catalog.main([str(shop / "nothing"), str(shop / "shop.yaml"), "--output_dir", str(shop / "out")]) == 2


def test_parts_refused_while_reading_are_told_with_their_row():
    records = [Refusal(1, "a", "image", "truncated", "cut off", fatal=False),
               {"id": "a", "number": 1, "text": "mug", "images": [], "language": None},
               Refusal(2, None, None, "empty", "nothing", file="shop.csv")]
    found = tag_rows(list(product_rows(records)), lambda products: [[] for _ in products])
    assert [(row["id"], row["error"]) for row in found] == [
        ("a", "image: truncated: cut off"), ("shop.csv:2", "row: empty: nothing")]


def test_the_manifest_tells_no_credentials_and_the_run_goes_on_all_the_same(tmp_path):
    manifest = {"model": "m", "catalogue": "SourceConfig(path='s3://key:s3cret@shop/a.parquet')", "shard_rows": 2}
    write_jsonl(tmp_path / "a.jsonl", products(0, 3))
    shop = catalog({"path": str(tmp_path / "a.jsonl")})
    pieces = open_shards(tmp_path / "out", shop, "train", 2, manifest, resume=False, main=True)
    assert "s3cret" not in (tmp_path / "out" / "manifest.json").read_text() and len(pieces) == 2
    assert open_shards(tmp_path / "out", shop, "train", 2, manifest, resume=True, main=True) == pieces


def test_rows_of_a_database_are_tagged_as_those_of_a_file(shop, run_here, tmp_path):
    url = write_database(tmp_path / "shop.db", shop_rows(0, 90))
    source = json.dumps({"files": {"test": url}, "query": "SELECT sku, title, image, language FROM products"})
    status, printed = run_here("--catalog.source", source)
    assert status == 0, printed.err
    tagged = read(tmp_path / "out")
    ids = json.loads((shop / "ids.json").read_text())
    assert [row["id"] for row in tagged] == ids
    assert run_here("--catalog.source", source, "--resume")[0] == 0 and read(tmp_path / "out") == tagged


def test_what_tags_are_called_need_not_be_there(shop, run_here):
    status, printed = run_here("--catalog.labels", "gone.csv", "--catalog.taxonomy", "gone.txt",
                               "--catalog.schema.attributes.category", "{taxonomy: categories, kind: multi}")
    assert status == 0, printed.err
