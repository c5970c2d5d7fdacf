"""Tags go back into any other file, in every format, as the options say. Shops' exports: test_write_back_shops.py."""

import csv
import gzip
import io
import json
import re
import shutil

import pyarrow.parquet as pq
import pytest
import yaml

from hf_tagger.catalog.editing.files import one_file
from hf_tagger.catalog.formats.documents import read_xlsx
from hf_tagger.catalog.reading.source import SourceConfig
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.deployment import bulk
from hf_tagger.deployment.write_back import WriteBack
from hf_tagger.feedback.store import FeedbackStore
from hf_tagger.feedback.verdicts import Verdict
from tests.catalog.files import write_jsonl, write_parquet
from tests.catalog.test_documents import write_xlsx

CSV = (b"\xef\xbb\xbfsku;title;colour;price\r\n1;red mug;;9\r\n2;\"blue\ndress\";Blue;\"1,5\"\r\n3;;;\r\n"
       b"4;\"open;Red;1\r\n5;blue mug;Red;2\r\n")


def rows(path, encoding="utf-8-sig", delimiter=";"):
    return list(csv.DictReader(io.StringIO(path.read_bytes().decode(encoding), newline=""), delimiter=delimiter))


def test_a_plain_file_comes_back_with_tags(run_tag, tmp_path):
    export, output = tmp_path / "export.csv", tmp_path / "tagged.csv"
    export.write_bytes(CSV)
    status, printed = run_tag(export, "--output", output)
    assert status == 0, printed.err
    assert output.read_bytes() == (
        b"\xef\xbb\xbfsku;title;colour;price;category;features\r\n1;red mug;Red;9;Mug;\r\n"
        b"2;\"blue\ndress\";Blue;\"1,5\";Dress;\r\n3;;;;;\r\n4;\"open;Red;1\r\n5;blue mug;Red;2;Mug;\r\n")
    assert "the cell has another" in printed.out
    assert re.search(r"\ncolour +1 +0 +1 +1 +2 +colour\n", printed.out) and printed.out.split()[5] == "into"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "export.csv", "tagged.csv", "tagged.csv.provenance.jsonl", "tagged.csv.undo.jsonl"]
    first, *lines = map(json.loads, (tmp_path / "tagged.csv.provenance.jsonl").read_text().splitlines())
    assert first["export"] == "export.csv" and len(first["model"]) == 64
    red = next(line for line in lines if line["tag"] == "Red")
    assert (red["row"], red["id"], red["column"], red["words"], red["photos"]) == (1, "1", "colour", ["red"], 0)
    assert {line["what"] for line in lines if "what" in line} == {"added", "refused"}
    assert [(line["row"], line["error"].split(": ")[1]) for line in lines if "error" in line] == [
        (3, "no_content"), (4, "malformed")]
    status, _ = run_tag(output, "--output", tmp_path / "again.csv")
    assert status == 0 and (tmp_path / "again.csv").read_bytes() == output.read_bytes()
    assert run_tag("--undo", tmp_path / "tagged.csv.undo.jsonl")[0] == 0
    assert output.read_bytes() == CSV


PRODUCTS = [{"sku": "1", "title": "red mug", "colour": None}, {"sku": "2", "title": "blue dress", "colour": "Blue"},
            {"sku": "3", "title": None, "colour": None}, {"sku": "4", "title": "blue mug", "colour": None}]


def _gzipped(path):
    text = "sku,title,colour\n" + "".join(",".join(value or "" for value in row.values()) + "\n" for row in PRODUCTS)
    path.write_bytes(gzip.compress(text.encode()))


@pytest.mark.parametrize(("name", "write", "read"), [
    ("a.parquet", lambda path: write_parquet(path, PRODUCTS), lambda path: pq.read_table(path).to_pylist()),
    ("a.jsonl", lambda path: write_jsonl(path, PRODUCTS), lambda path: list(map(json.loads, path.open()))),
    ("a.json", lambda path: path.write_text(json.dumps(PRODUCTS, indent=1)), lambda path: json.loads(path.read_text())),
    ("a.json.gz", lambda path: path.write_bytes(gzip.compress(json.dumps({"items": PRODUCTS}).encode())),
     lambda path: json.loads(gzip.decompress(path.read_bytes()))["items"]),
    ("a.xlsx", lambda path: write_xlsx(path, [list(PRODUCTS[0]), *(list(row.values()) for row in PRODUCTS)]),
     lambda path: [values for _, values, _ in read_xlsx(str(path))]),
    ("a.csv.gz", _gzipped, lambda path: list(csv.DictReader(io.StringIO(gzip.decompress(path.read_bytes()).decode())))),
])  # fmt: skip
def test_other_formats_come_back_with_tags(run_tag, tmp_path, name, write, read):
    export, output = tmp_path / name, tmp_path / f"tagged_{name}"
    write(export)
    before = read(export)
    status, printed = run_tag(export, "--output", output, "--attributes", "colour,features")
    assert status == 0, printed.err
    after = read(output)
    assert [row["colour"] or None for row in after] == ["Red", "Blue", None, "Blue"]
    assert [[row[key] for key in ("sku", "title")] for row in after] == [[row[key] for key in ("sku", "title")]
                                                                        for row in before]
    assert "4 rows, 4 products: 2 cells of 2 products changed" in printed.out
    assert run_tag(output, "--output", tmp_path / f"again_{name}", "--attributes", "colour,features")[0] == 0
    assert read(tmp_path / f"again_{name}") == after
    assert run_tag("--undo", f"{output}.undo.jsonl")[0] == 0
    assert read(output) == before
    if name in ("a.jsonl", "a.json", "a.xlsx"):
        assert output.read_bytes() == export.read_bytes()
    status, printed = run_tag("--undo", f"{output}.undo.jsonl")
    assert status == 2 and "is not as it was written" in printed.err


@pytest.mark.parametrize(("decided", "why"), [
    ({"thresholds": [0.5, 0.5]}, {"Handmade": None}),
    ({"thresholds": [0.5, 0.9], "lists": {"used": True, "never_empty": True, "common": []}},
     {"Handmade": "decided together with the tags of its list"}),
    ({"thresholds": [0.9, 0.5], "parents": {"Handmade": "Waterproof"}},
     {"Handmade": None, "Waterproof": "a tag below it was given"}),
])  # fmt: skip
def test_a_tag_below_its_threshold_says_why_it_was_given(run_tag, tagger_folder, tmp_path, decided, why):
    model, export = shutil.copytree(tagger_folder, tmp_path / "model"), tmp_path / "export.csv"
    config = json.loads((model / "config.json").read_text())
    config["attributes"][2] |= decided
    (model / "config.json").write_text(json.dumps(config))
    export.write_text("sku,title\n1,red mug handmade\n")  # Handmade: 0.84
    status, printed = run_tag(export, "--output", tmp_path / "a.csv", "--attributes", "features", model=model)
    assert status == 0, printed.err
    _, *lines = map(json.loads, (tmp_path / "a.csv.provenance.jsonl").read_text().splitlines())
    assert {line["tag"]: line.get("why") for line in lines} == why
    assert all(("why" in line) == (line["score"] < line["threshold"]) for line in lines)


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_lists_stay_lists_and_texts_texts(run_tag, tmp_path, name):
    products = [{"sku": str(number), "title": "red mug waterproof", "texts": text, "lists": tags}
                for number, (text, tags) in enumerate([("sale, new", ["sale"]), ("", []), (None, None)])]
    (write_jsonl if name == "a.jsonl" else write_parquet)(tmp_path / name, products)
    for column, wanted in (("texts", ["sale, new, Waterproof", "Waterproof", "Waterproof"]),
                           ("lists", [["sale", "Waterproof"], ["Waterproof"], ["Waterproof"]])):
        output = tmp_path / f"{column}_{name}"
        status, printed = run_tag(tmp_path / name, "--output", output, "--attributes", "features",
                              "--catalog.write.features.column", column)
        assert status == 0, printed.err
        found = pq.read_table(output).to_pylist() if name == "a.parquet" else list(map(json.loads, output.open()))
        assert [row[column] for row in found] == wanted


def test_a_preview_writes_nothing_but_its_page(run_tag, tmp_path):
    export, page = tmp_path / "export.csv", tmp_path / "page.html"
    export.write_bytes(CSV.replace(b"blue mug", b"blue mug <script>"))
    status, printed = run_tag(export, "--preview", page)
    assert status == 0, printed.err
    html = page.read_text()
    assert "Red" in html and "<script" not in html and "default-src 'none'" in html
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export.csv", "page.html"]


def test_options_and_verdicts_of_people_are_kept_to(run_tag, tmp_path):
    export, store = tmp_path / "export.csv", tmp_path / "feedback.db"
    export.write_bytes(b"sku,title,colour,mine\n1,red mug,,\n2,blue mug waterproof,,\n3,red dress handmade,,new\n")
    with FeedbackStore(store) as feedback:
        feedback.add(Verdict("1", "f", "colour", "Red", "reject", "Ada", "m"))
    status, printed = run_tag(export, "--output", tmp_path / "a.csv", "--attributes", "colour", "--feedback", store)
    assert status == 0, printed.err
    assert (tmp_path / "a.csv").read_bytes() == (
        b"sku,title,colour,mine\n1,red mug,,\n2,blue mug waterproof,Blue,\n3,red dress handmade,Red,new\n")
    assert "1 tags not written: a person removed it" in printed.out
    status, _ = run_tag(export, "--output", tmp_path / "b.csv", "--attributes", "colour", "--only_empty",
                        "--catalog.write.colour.column", "mine")
    assert [row["mine"] for row in rows(tmp_path / "b.csv", delimiter=",")] == ["Red", "Blue", "new"]
    for arguments, message in (
        (["--attributes", "color"], "--attributes color: the model has no such attribute. Did you mean \"colour\"?"),
        (["--output", export], "is there already, and is not written over"),
        (["--feedback", tmp_path / "no.db"], "--feedback: there is no file"),
        (["--catalog.write.colour.column", "titel"], "the file has no column 'titel'"),
        (["--output", "s3://shop/a.csv"], "--output writes a file of this machine: copy it to s3://… afterwards"),
        (["--preview", tmp_path / "nowhere" / "a.html"], "nowhere for --preview"),
    ):
        status, printed = run_tag(export, "--output", tmp_path / "c.csv", *arguments)
        assert status == 2 and message in printed.err and not (tmp_path / "c.csv").exists()


def test_photos_of_a_server_are_not_fetched_and_the_run_says_so(run_tag, tmp_path):
    config = tmp_path / "my.yaml"
    config.write_text("schema: {id: sku, text: title, images: photo, attributes: {colour: {}}}\n")
    export = tmp_path / "export.csv"
    export.write_bytes(b"sku,title,photo\n1,red mug,https://shop.example/1.jpg\n2,,https://shop.example/2.jpg\n")
    status, printed = run_tag(export, "--config", config, "--output", tmp_path / "a.csv", "--attributes", "colour")
    assert status == 0, printed.err
    assert [row["colour"] for row in rows(tmp_path / "a.csv", delimiter=",")] == ["Red", ""]
    assert "2 products: photo: url_refused, such as row 1: photo: url_refused: https://shop" in printed.out
    assert "set allow_urls: true in the schema" in printed.out and printed.out.count(" products: ") == 3


def test_a_configuration_names_the_file_and_all_of_it_is_tagged(run_tag, tmp_path):
    export, config = tmp_path / "export.csv", tmp_path / "my.yaml"
    export.write_bytes(CSV)
    source = {"path": str(export), "fractions": {"validation": 0.1, "test": 0.1}}
    schema = {"id": "sku", "text": ["title"], "attributes": {"colour": {}}}
    config.write_text(yaml.safe_dump({"catalog": {"source": source, "schema": schema}}))
    assert run_tag(config, "--output", tmp_path / "a.csv")[0] == run_tag(export, "--output", tmp_path / "b.csv")[0] == 0
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_what_is_no_file_of_this_machine_is_told_so():
    for path, message in (("sqlite:///a.db", "not written into a database"), ("s3://shop/a.csv", "copy it here first")):
        with pytest.raises(ConfigError, match=message):
            one_file(SourceConfig(files={"test": path}, table="a" if "sqlite" in path else None), "test")


def test_an_interrupted_run_leaves_nothing_under_its_name_and_goes_on(run_tag, tmp_path, monkeypatch):
    export = tmp_path / "export.csv"
    export.write_bytes(CSV)
    names = {"tagged.csv", "tagged.csv.undo.jsonl", "tagged.csv.provenance.jsonl"}

    def interrupted(*arguments):
        raise KeyboardInterrupt

    for place in (bulk, "tag_rows"), (WriteBack, "origins"):
        with monkeypatch.context() as patched:
            patched.setattr(*place, interrupted)
            assert run_tag(export, "--output", tmp_path / "tagged.csv")[0] == 130
        assert not names & {path.name for path in tmp_path.iterdir()}
        assert not list(tmp_path.glob("*.unfinished"))
    assert run_tag(export, "--output", tmp_path / "tagged.csv")[0] == 0
    assert names <= {path.name for path in tmp_path.iterdir()} and not (tmp_path / "tagged.csv.shards").exists()


def test_shards_for_pipelines_also_as_json_lines_and_csv(run_tag, tmp_path):
    export = tmp_path / "export.csv"
    export.write_bytes(b"sku,title,colour\n=1,red mug waterproof handmade,\n2,,\n")
    for format in ("jsonl", "csv"):
        assert run_tag(export, "--output_dir", tmp_path / format, "--format", format)[0] == 0
    first, second = map(json.loads, (tmp_path / "jsonl" / "tags.jsonl").read_text().splitlines())
    assert first["id"] == "=1" and first["tags"]["colour"] == ["Red"] and second["tags"] == {
        "colour": [], "category": [], "features": []}
    assert set(first["tags"]["features"]) == {"Waterproof", "Handmade"} and first["scores"]["colour"][0] > 0.5
    assert second["error"].startswith("row: no_content")
    found = rows(tmp_path / "csv" / "tags.csv", delimiter=",")
    assert found[0]["id"] == "'=1" and set(json.loads(found[0]["features"])) == {"Waterproof", "Handmade"}
    shard = pq.read_table(tmp_path / "csv" / "part-000000.parquet").to_pylist()
    assert shard[0]["by_attribute"]["colour"] == ["Red"] and [row["row"] for row in shard] == [1, 2]
