"""Tags go back into the shop's own file: rows in are rows out, and no byte changes that no tag changes."""

import csv
import io
import json

import pytest
import yaml
from accelerate.state import AcceleratorState

from hf_tagger.model.pipeline_tagger import ProductTaggingPipeline
from recipes import tag_catalog
from tests.shops import SCHEMA
from tests.tiny_tagger import trained_tagger


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "model"
    model, processor = trained_tagger()
    ProductTaggingPipeline(model, processor=processor).save_pretrained(folder)
    schema = {"id": "sku", "text": ["title"], "attributes": SCHEMA["attributes"]}
    config = {"catalog": {"source": {"path": "train.csv"}, "schema": schema}}
    (folder / "training_config.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture
def run(model, tmp_path, capsys):
    AcceleratorState._reset_state(True)

    def run(*arguments):
        status = tag_catalog.main([str(model), *map(str, arguments)] if "--undo" not in arguments else
                                  list(map(str, arguments)))
        return status, capsys.readouterr()

    yield run
    AcceleratorState._reset_state(True)


CSV = (b"\xef\xbb\xbfsku;title;colour;price\r\n1;red mug;;9\r\n2;\"blue\ndress\";Blue;\"1,5\"\r\n3;;;\r\n"
       b"4;\"open;Red;1\r\n5;blue mug;Red;2\r\n")


def rows(path, encoding="utf-8-sig", delimiter=";"):
    return list(csv.DictReader(io.StringIO(path.read_bytes().decode(encoding), newline=""), delimiter=delimiter))


def test_a_plain_file_comes_back_with_tags(run, tmp_path):
    export, output = tmp_path / "export.csv", tmp_path / "tagged.csv"
    export.write_bytes(CSV)
    status, printed = run(export, "--output", output)
    assert status == 0, printed.err
    assert output.read_bytes() == (
        b"\xef\xbb\xbfsku;title;colour;price;category;features\r\n1;red mug;Red;9;Mug;\r\n"
        b"2;\"blue\ndress\";Blue;\"1,5\";Dress;\r\n3;;;;;\r\n4;\"open;Red;1\r\n5;blue mug;Red;2;Mug;\r\n")
    assert "the cell has another" in printed.out
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "export.csv", "tagged.csv", "tagged.csv.provenance.jsonl", "tagged.csv.undo.jsonl"]
    first, *lines = map(json.loads, (tmp_path / "tagged.csv.provenance.jsonl").read_text().splitlines())
    assert first["export"] == "export.csv" and len(first["model"]) == 64
    red = next(line for line in lines if line["tag"] == "Red")
    assert (red["row"], red["id"], red["column"], red["words"], red["photos"]) == (1, "1", "colour", ["red"], 0)
    status, _ = run(output, "--output", tmp_path / "again.csv")
    assert status == 0 and (tmp_path / "again.csv").read_bytes() == output.read_bytes()
    assert run("--undo", tmp_path / "tagged.csv.undo.jsonl")[0] == 0
    assert output.read_bytes() == CSV


def test_a_preview_writes_nothing_but_its_page(run, tmp_path):
    export, page = tmp_path / "export.csv", tmp_path / "page.html"
    export.write_bytes(CSV.replace(b"blue mug", b"blue mug <script>"))
    status, printed = run(export, "--preview", page)
    assert status == 0, printed.err
    html = page.read_text()
    assert "Red" in html and "<script" not in html and "default-src 'none'" in html
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export.csv", "page.html"]
