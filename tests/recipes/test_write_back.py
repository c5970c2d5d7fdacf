"""Tags go back into the shop's own file: rows in are rows out, and no byte changes that no tag changes."""

import csv
import gzip
import io
import json
import re

import pyarrow.parquet as pq
import pytest
import yaml
from accelerate.state import AcceleratorState

from hf_tagger.catalog.editing.files import one_file
from hf_tagger.catalog.formats.cells import split_pairs
from hf_tagger.catalog.formats.documents import read_xlsx
from hf_tagger.catalog.reading.source import SourceConfig
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.deployment import bulk
from hf_tagger.deployment.write_back import WriteBack, shard_rows
from hf_tagger.feedback.store import FeedbackStore
from hf_tagger.feedback.verdicts import Verdict
from hf_tagger.model.pipeline_tagger import ProductTaggingPipeline
from recipes import tag_catalog
from recipes.example import write_example
from tests.catalog.files import write_jsonl, write_parquet
from tests.catalog.test_documents import write_xlsx
from tests.recipes import shop_exports
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


def raw_cells(data, delimiter=b","):
    """The cells of a csv file as they are written, each with what ends it: a reader of its own, for comparison."""
    end = re.escape(delimiter)
    cell = rb'(?:"(?:[^"]|"")*"|[^' + end + rb'\r\n"]*)(?:' + end + rb"|\r?\n|\Z)"
    return [match.group() for match in re.finditer(cell, data) if match.group()]


def tagged(run, export, tmp_path, *arguments):
    """Runs it; checks what holds of every file; returns the file's bytes after it, and what was printed."""
    before, output = export.read_bytes(), tmp_path / f"tagged{export.suffix}"
    status, printed = run(export, "--output", output, *arguments)
    assert status == 0, printed.err
    assert export.read_bytes() == before
    status, _ = run(output, "--output", tmp_path / f"again{export.suffix}", *arguments)
    assert status == 0 and (tmp_path / f"again{export.suffix}").read_bytes() == output.read_bytes()
    after = output.read_bytes()
    assert after != before
    restored = tmp_path / f"restored{export.suffix}"
    assert run("--undo", f"{output}.undo.jsonl", "--output", restored)[0] == 0
    assert restored.read_bytes() == before
    assert run("--undo", f"{output}.undo.jsonl", "--output", restored)[0] == 2  # it is not written over
    return after, printed


def changed_in(printed):
    """(rows, products, cells, products changed) that a run counted."""
    found = re.search(r"([\d,]+) rows, ([\d,]+) products: ([\d,]+) cells of ([\d,]+) products changed", printed.out)
    return tuple(int(number.replace(",", "")) for number in found.groups())


def check_cells(before, after, column, delimiter=b","):
    """The file's cells differ in one column alone; returns its cells, before and after."""
    was, now = raw_cells(before, delimiter), raw_cells(after, delimiter)
    width = next(place for place, cell in enumerate(was, start=1) if cell.endswith(b"\n"))
    names = [cell.strip(b'\r\n"' + delimiter).removeprefix(b"\xef\xbb\xbf").decode() for cell in was[:width]]
    assert len(was) == len(now) and len(was) % width == 0
    place = names.index(column)
    differ = {index % width for index, (one, other) in enumerate(zip(was, now, strict=True)) if one != other}
    assert differ == {place}
    return was[width + place::width], now[width + place::width]


CURRENT_SHOPIFY = {"Handle": "URL handle", "Body (HTML)": "Description", "Product Category": "Product category",
                   "Option1 Name": "Option1 name", "Option1 Value": "Option1 value", "Image Src": "Product image URL",
                   "Variant Image": "Variant image URL"}


@pytest.mark.parametrize("current", [False, True])
def test_shopify(run, tmp_path, current):
    (export,) = write_example("shopify", tmp_path / "shop", 200)
    if current:
        header, _, rest = export.read_bytes().partition(b"\n")
        names = [CURRENT_SHOPIFY.get(name, name) for name in header.decode().strip().split(",")]
        export.write_bytes(",".join(names).encode() + b"\n" + rest)
    before = export.read_bytes()
    after, printed = tagged(run, export, tmp_path)
    was, now = check_cells(before, after, "Tags")
    rows, products, cells, _ = changed_in(printed)
    assert (rows, products) == (len(was), 200)
    changed = [place for place, pair in enumerate(zip(was, now, strict=True)) if pair[0] != pair[1]]
    assert len(changed) == cells > 100
    seen = set()
    for row in csv.DictReader(io.StringIO(after.decode(), newline="")):
        handle = row["URL handle" if current else "Handle"]
        assert handle not in seen or not row["Tags"]  # tags stand in first rows only
        assert len(set(row["Tags"].split(", "))) == len(row["Tags"].split(", "))
        seen.add(handle)


def test_what_the_variants_say_already_is_not_written_into_the_tags(run, tmp_path):
    export = tmp_path / "export.csv"
    export.write_text("Handle,Title,Body (HTML),Tags,Option1 Name,Option1 Value\na,red mug,,new,Colour,Teal\n"
                      "a,,,,,RED\nb,red mug,,Red,Colour,Red\nc,red mug,,Reddish,Size,Red\nd,,,,Colour,Blue\n"
                      "e,blue mug,,,Colour,Red\n")
    options = ["--attributes", "colour", "--catalog.schema.attributes.colour.column", "option:Colour",
               "--catalog.schema.attributes.colour.kind", "multi"]
    after, printed = tagged(run, export, tmp_path, *options)
    assert [row.split(b",")[3] for row in after.splitlines()[1:]] == [b"new", b"", b"Red", b'"Reddish', b"", b"Blue"]
    assert re.search(r"\ncolour +2 +0 +2 +0 +1 +Tags\n", printed.out)


def test_woocommerce(run, tmp_path):
    (export,) = write_example("woocommerce", tmp_path / "shop", 200)
    before = export.read_bytes()
    after, printed = tagged(run, export, tmp_path)
    was, now = check_cells(before, after, "Tags")
    rows, products, cells, _ = changed_in(printed)
    assert (rows, products) == (len(was), 200) and cells > 100
    for row in csv.DictReader(io.StringIO(after.decode("utf-8-sig"), newline="")):
        assert row["Type"] != "variation" or not row["Tags"]


def test_woocommerce_attributes_go_into_columns_that_each_row_names(run, tmp_path):
    export = tmp_path / "export.csv"
    header = "ID,Type,SKU,Name,Categories,Tags"
    header += "".join(f",Attribute {number} name,Attribute {number} value(s)" for number in (1, 2))
    export.write_text(f'{header}\n1,simple,a,red mug,,,Size,"S, M",,\n2,simple,b,blue mug,,,colour,,Size,S\n'
                      "3,simple,c,red mug,,,Fit,Slim,Size,S\n")
    status, printed = run(export, "--output", tmp_path / "a.csv", "--attributes", "colour",
                          "--catalog.write.colour.column", "attribute:Colour")
    assert status == 0, printed.err
    assert (tmp_path / "a.csv").read_bytes().splitlines()[1:] == [
        b'1,simple,a,red mug,,,Size,"S, M",Colour,Red', b"2,simple,b,blue mug,,,colour,Blue,Size,S",
        b"3,simple,c,red mug,,,Fit,Slim,Size,S"]
    assert "1 tags not written: no column is free for it" in printed.out


def test_google_tsv_and_xml(run, tmp_path):
    table, feed = write_example("google", tmp_path / "shop", 120)
    before = table.read_bytes()
    after, printed = tagged(run, table, tmp_path)
    rows, products, cells, _ = changed_in(printed)
    assert rows == products >= 200 and cells > 100
    was, now = (list(csv.DictReader(io.StringIO(data.decode(), newline=""), delimiter="\t"))
                for data in (before, after))
    assert [{name: row[name] for name in was[0] if name != "custom_label_0"} for row in now] == [
        {name: row[name] for name in was[0] if name != "custom_label_0"} for row in was]
    assert {"custom_label_1", "custom_label_2"} <= set(now[0])
    assert all(new["custom_label_0"] == old["custom_label_0"] for old, new in zip(was, now, strict=True)
               if old["custom_label_0"])
    before = feed.read_bytes()
    after, printed = tagged(run, feed, tmp_path)
    assert changed_in(printed)[:2] == (rows, rows)
    added = re.compile(rb"\n *<g:custom_label_[012]>[^<]*</g:custom_label_[012]>")
    assert added.sub(b"", after) == added.sub(b"", before) and after.count(b"<item>") == rows


@pytest.mark.parametrize(("write", "delimiter", "column"), [
    (shop_exports.magento, b",", "additional_attributes"), (shop_exports.bigcommerce, b",", "Search Keywords"),
    (shop_exports.bigcommerce_modern, b",", "Search Keywords"),
    (shop_exports.prestashop, b";", "Tags (x,y,z...)"), (shop_exports.etsy, b",", "TAGS"),
    (shop_exports.wix, b",", "collection"), (shop_exports.squarespace, b",", "Tags"),
    (shop_exports.odoo, b",", "Product Tags"),
])  # fmt: skip
def test_systems_that_have_a_place_for_tags(run, tmp_path, write, delimiter, column):
    export = write(tmp_path / "export.csv")
    before = export.read_bytes()
    after, printed = tagged(run, export, tmp_path)
    was, now = check_cells(before, after, column, delimiter)
    rows, products, cells, _ = changed_in(printed)
    changed = [(one, other) for one, other in zip(was, now, strict=True) if one != other]
    assert (rows, products, cells) == (len(was), 200, len(changed)) and cells > 100
    for pair in changed:  # what was there is there, before what is new
        one, other = (next(csv.reader([cell.decode().rstrip("\r\n,;") or '""']))[0] for cell in pair)
        if column == "additional_attributes":
            was, now = split_pairs(one), split_pairs(other)
            assert list(now)[:len(was)] == list(was) and all(now[code].startswith(was[code]) for code in was)
        else:
            assert other.startswith(one)


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_products_from_graphql(run, tmp_path, suffix):
    export = shop_exports.shopify_graphql(tmp_path / f"export.{suffix}")
    before = export.read_bytes()
    after, printed = tagged(run, export, tmp_path)
    was, now = (list(map(json.loads, data.splitlines())) if suffix == "jsonl" else [
        edge["node"] for edge in json.loads(data)["data"]["products"]["edges"]] for data in (before, after))
    changed = [(one, other) for one, other in zip(was, now, strict=True) if one != other]
    assert changed_in(printed)[:3] == (len(was), 200, len(changed)) and len(changed) > 100
    assert all("handle" in one and other == one | {"tags": other["tags"]} and other["tags"][:len(one["tags"])]
               == one["tags"] for one, other in changed)
    assert re.sub(rb'"tags": \[[^\]]*\]', b"", after) == re.sub(rb'"tags": \[[^\]]*\]', b"", before)


@pytest.mark.parametrize(("write", "place", "column"), [
    (shop_exports.shopify_json, "products", "tags"), (shop_exports.json_ld, "@graph", "keywords")])  # fmt: skip
def test_one_json_document(run, tmp_path, write, place, column):
    export = write(tmp_path / "export.json")
    before = export.read_bytes()
    after, printed = tagged(run, export, tmp_path)
    was, now = ([item.get("item", item) for item in json.loads(data.decode("utf-8-sig"))[place]]
                for data in (before, after))
    rows, products, cells, _ = changed_in(printed)
    changed = [place for place, pair in enumerate(zip(was, now, strict=True)) if pair[0] != pair[1]]
    assert (rows, products, cells) == (200, 200, len(changed)) and cells > 100
    for one, other in zip(was, now, strict=True):
        assert one | {column: None} == other | {column: None}
        given, held = one.get(column), other.get(column)
        assert given is None or type(given) is type(held) and held[:len(given)] == given  # what was there stands first
    pieces = re.compile(rb',\s*"' + column.encode() + rb'": ?(\[[^\]]*\]|"[^"]*")')
    assert pieces.sub(b"", after) == pieces.sub(b"", before)


def test_the_default_template_of_bigcommerce_gets_a_column_of_search_keywords(run, tmp_path):
    export = shop_exports.bigcommerce_default(tmp_path / "export.csv")
    before = export.read_bytes()
    after, printed = tagged(run, export, tmp_path)
    rows, products, cells, _ = changed_in(printed)
    was, now = (list(csv.DictReader(io.StringIO(data.decode(), newline=""))) for data in (before, after))
    assert (rows, products) == (200, 200) and sum(bool(row["Search Keywords"]) for row in now) == cells > 100
    assert [row | {"Search Keywords": None} for row in was] == [row | {"Search Keywords": None} for row in now]


def test_akeneo_gets_columns_of_its_own(run, tmp_path):
    export = shop_exports.akeneo(tmp_path / "export.csv")
    before = export.read_bytes()
    after, printed = tagged(run, export, tmp_path)
    assert changed_in(printed)[:2] == (200, 200)
    was, now = (list(csv.DictReader(io.StringIO(data.decode(), newline=""), delimiter=";")) for data in (before, after))
    assert list(now[0]) == [*was[0], "colour"]
    kept = [name for name in was[0] if name not in ("features", "categories")]
    assert [[row[name] for name in kept] for row in now] == [[row[name] for name in kept] for row in was]
    assert {row["colour"] for row in now} <= {"Red", "Blue", ""}


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
    status, _ = run(output, "--output", tmp_path / "again.csv")
    assert status == 0 and (tmp_path / "again.csv").read_bytes() == output.read_bytes()
    assert run("--undo", tmp_path / "tagged.csv.undo.jsonl")[0] == 0
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
def test_other_formats_come_back_with_tags(run, tmp_path, name, write, read):
    export, output = tmp_path / name, tmp_path / f"tagged_{name}"
    write(export)
    before = read(export)
    status, printed = run(export, "--output", output, "--attributes", "colour,features")
    assert status == 0, printed.err
    after = read(output)
    assert [row["colour"] or None for row in after] == ["Red", "Blue", None, "Blue"]
    assert [[row[key] for key in ("sku", "title")] for row in after] == [[row[key] for key in ("sku", "title")]
                                                                        for row in before]
    assert "4 rows, 4 products: 2 cells of 2 products changed" in printed.out
    assert run(output, "--output", tmp_path / f"again_{name}", "--attributes", "colour,features")[0] == 0
    assert read(tmp_path / f"again_{name}") == after
    assert run("--undo", f"{output}.undo.jsonl")[0] == 0
    assert read(output) == before
    if name in ("a.jsonl", "a.json", "a.xlsx"):
        assert output.read_bytes() == export.read_bytes()
    status, printed = run("--undo", f"{output}.undo.jsonl")
    assert status == 2 and "is not as it was written" in printed.err


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_lists_stay_lists_and_texts_texts(run, tmp_path, name):
    products = [{"sku": str(number), "title": "red mug waterproof", "texts": text, "lists": tags}
                for number, (text, tags) in enumerate([("sale, new", ["sale"]), ("", []), (None, None)])]
    (write_jsonl if name == "a.jsonl" else write_parquet)(tmp_path / name, products)
    for column, wanted in (("texts", ["sale, new, Waterproof", "Waterproof", "Waterproof"]),
                           ("lists", [["sale", "Waterproof"], ["Waterproof"], ["Waterproof"]])):
        output = tmp_path / f"{column}_{name}"
        status, printed = run(tmp_path / name, "--output", output, "--attributes", "features",
                              "--catalog.write.features.column", column)
        assert status == 0, printed.err
        found = pq.read_table(output).to_pylist() if name == "a.parquet" else list(map(json.loads, output.open()))
        assert [row[column] for row in found] == wanted


def test_a_preview_writes_nothing_but_its_page(run, tmp_path):
    export, page = tmp_path / "export.csv", tmp_path / "page.html"
    export.write_bytes(CSV.replace(b"blue mug", b"blue mug <script>"))
    status, printed = run(export, "--preview", page)
    assert status == 0, printed.err
    html = page.read_text()
    assert "Red" in html and "<script" not in html and "default-src 'none'" in html
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export.csv", "page.html"]


def test_options_and_verdicts_of_people_are_kept_to(run, tmp_path):
    export, store = tmp_path / "export.csv", tmp_path / "feedback.db"
    export.write_bytes(b"sku,title,colour,mine\n1,red mug,,\n2,blue mug waterproof,,\n3,red dress handmade,,new\n")
    with FeedbackStore(store) as feedback:
        feedback.add(Verdict("1", "f", "colour", "Red", "reject", "Ada", "m"))
    status, printed = run(export, "--output", tmp_path / "a.csv", "--attributes", "colour", "--feedback", store)
    assert status == 0, printed.err
    assert (tmp_path / "a.csv").read_bytes() == (
        b"sku,title,colour,mine\n1,red mug,,\n2,blue mug waterproof,Blue,\n3,red dress handmade,Red,new\n")
    assert "1 tags not written: a person removed it" in printed.out
    status, _ = run(export, "--output", tmp_path / "b.csv", "--attributes", "colour", "--catalog.write.colour.column",
                    "mine", "--only_empty")
    assert [row["mine"] for row in rows(tmp_path / "b.csv", delimiter=",")] == ["Red", "Blue", "new"]
    for arguments, message in (
        (["--attributes", "color"], "--attributes color: the model has no such attribute. Did you mean \"colour\"?"),
        (["--output", export], "is there already, and is not written over"),
        (["--feedback", tmp_path / "no.db"], "--feedback: there is no file"),
        (["--catalog.write.colour.column", "titel"], "the file has no column 'titel'"),
        (["--output", "s3://shop/a.csv"], "--output writes a file of this machine: copy it to s3://… afterwards"),
        (["--preview", tmp_path / "nowhere" / "a.html"], "nowhere for --preview"),
    ):
        status, printed = run(export, "--output", tmp_path / "c.csv", *arguments)
        assert status == 2 and message in printed.err and not (tmp_path / "c.csv").exists()


def test_photos_of_a_server_are_not_fetched_and_the_run_says_so(run, tmp_path, model):
    config = tmp_path / "my.yaml"
    config.write_text("schema: {id: sku, text: title, images: photo, attributes: {colour: {}}}\n")
    export = tmp_path / "export.csv"
    export.write_bytes(b"sku,title,photo\n1,red mug,https://shop.example/1.jpg\n2,,https://shop.example/2.jpg\n")
    status, printed = run(export, "--config", config, "--output", tmp_path / "a.csv", "--attributes", "colour")
    assert status == 0, printed.err
    assert [row["colour"] for row in rows(tmp_path / "a.csv", delimiter=",")] == ["Red", ""]
    assert "2 products: photo: url_refused, such as row 1: photo: url_refused: https://shop" in printed.out
    assert "set allow_urls: true in the schema" in printed.out and printed.out.count(" products: ") == 3


def test_a_configuration_names_the_file_and_all_of_it_is_tagged(run, tmp_path):
    export, config = tmp_path / "export.csv", tmp_path / "my.yaml"
    export.write_bytes(CSV)
    source = {"path": str(export), "fractions": {"validation": 0.1, "test": 0.1}}
    schema = {"id": "sku", "text": ["title"], "attributes": {"colour": {}}}
    config.write_text(yaml.safe_dump({"catalog": {"source": source, "schema": schema}}))
    assert run(config, "--output", tmp_path / "a.csv")[0] == run(export, "--output", tmp_path / "b.csv")[0] == 0
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_what_is_no_file_of_this_machine_is_told_so():
    for path, message in (("sqlite:///a.db", "not written into a database"), ("s3://shop/a.csv", "copy it here first")):
        with pytest.raises(ConfigError, match=message):
            one_file(SourceConfig(files={"test": path}, table="a" if "sqlite" in path else None), "test")


def test_an_interrupted_run_leaves_nothing_under_its_name_and_goes_on(run, tmp_path, monkeypatch):
    export = tmp_path / "export.csv"
    export.write_bytes(CSV)
    names = {"tagged.csv", "tagged.csv.undo.jsonl", "tagged.csv.provenance.jsonl"}

    def interrupted(*arguments):
        raise KeyboardInterrupt

    for place in (bulk, "tag_rows"), (WriteBack, "origins"):
        with monkeypatch.context() as patched:
            patched.setattr(*place, interrupted)
            assert run(export, "--output", tmp_path / "tagged.csv")[0] == 130
        assert not names & {path.name for path in tmp_path.iterdir()}
        assert not list(tmp_path.glob("*.unfinished"))
    assert run(export, "--output", tmp_path / "tagged.csv")[0] == 0
    assert names <= {path.name for path in tmp_path.iterdir()} and not (tmp_path / "tagged.csv.shards").exists()


def test_shards_for_pipelines_also_as_json_lines_and_csv(run, tmp_path):
    export = tmp_path / "export.csv"
    export.write_bytes(b"sku,title,colour\n=1,red mug waterproof handmade,\n2,,\n")
    for format in ("jsonl", "csv"):
        assert run(export, "--output_dir", tmp_path / format, "--format", format)[0] == 0
    first, second = map(json.loads, (tmp_path / "jsonl" / "tags.jsonl").read_text().splitlines())
    assert first["id"] == "=1" and first["tags"]["colour"] == ["Red"] and second["tags"] == {
        "colour": [], "category": [], "features": []}
    assert set(first["tags"]["features"]) == {"Waterproof", "Handmade"} and first["scores"]["colour"][0] > 0.5
    assert second["error"].startswith("row: no_content")
    found = rows(tmp_path / "csv" / "tags.csv", delimiter=",")
    assert found[0]["id"] == "'=1" and set(json.loads(found[0]["features"])) == {"Waterproof", "Handmade"}
    shard = pq.read_table(tmp_path / "csv" / "part-000000.parquet").to_pylist()
    assert shard[0]["by_attribute"]["colour"] == ["Red"] and [row["row"] for row in shard] == [1, 2]


def test_products_of_several_processes_come_in_the_order_of_their_rows(tmp_path):
    for rank in range(2):
        for number in range(3):
            tagged_rows = [{"id": str(row), "tags": ["a"] * (row != 9), "scores": [1.0] * (row != 9), "source": [],
                            "attribute": ["x"] * (row != 9), "error": None, "row": row, "photos": 0}
                           for row in range(1 + 8 * number + rank, 9 + 8 * number, 2)]
            bulk.write_shard(tmp_path / f"part-{rank:03}-{number:06}.parquet", tagged_rows)
    found = shard_rows(tmp_path, lambda products: (product for product in products if product["tags"]))
    assert [row["row"] for row in found] == [row for row in range(1, 25) if row != 9]
