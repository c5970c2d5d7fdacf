"""What each file format gives, and what becomes of files and rows that are broken."""

import gzip
import itertools
import json

import datasets
import pytest

from hf_tagger.catalog.reading.readers import CatalogError, read_rows
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.model.images import load_image
from tests.catalog.files import catalog, photo, records, refusals, shirts_schema, write_parquet, write_tar

SHIRTS = [
    {"id": "00123", "title": "Red shirt", "colour": "Red"},
    {"id": "00124", "title": 'Wide 24" shirt; blue', "colour": "NA"},
    {"id": "00125", "title": "Grüne Bluse", "colour": "None"},
]
EXPECTED = [
    ("00123", "Red shirt", ["Red"], 1),
    ("00124", 'Wide 24" shirt; blue', ["NA"], 2),
    ("00125", "Grüne Bluse", ["None"], 3),
]
CSV = 'id,title,colour\n00123,Red shirt,Red\n00124,"Wide 24"" shirt; blue",NA\n00125,Grüne Bluse,None\n'
JSONL = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in SHIRTS)


def write(name, content):
    def to(folder):
        (folder / name).write_bytes(content)
        return folder / name

    return pytest.param(to, id=name)


def tar_of_shirts(folder):
    members = {}
    for row in SHIRTS:
        members[f"shop/{row['id']}.jpg"] = photo()
        members[f"shop/{row['id']}.json"] = json.dumps(row).encode()
    return write_tar(folder / "shirts.tar", members)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda folder: write_parquet(folder / "shirts.parquet", SHIRTS), id="shirts.parquet"),
        pytest.param(tar_of_shirts, id="shirts.tar"),
        write("shirts.csv", CSV.encode()),
        write("shirts.csv.gz", gzip.compress(CSV.encode())),
        write("excel.csv", '\ufeffid;title;colour\r\n00123;Red shirt;Red\r\n00124;"Wide 24"" shirt; blue";NA\r\n\r\n'
              "00125;Grüne Bluse;None\r\n".encode()),
        write("trailing.csv", 'id|title|colour|\n00123|Red shirt|Red|\n00124|"Wide 24"" shirt; blue"|NA|\n'
              "00125|Grüne Bluse|None|\n".encode()),
        write("shirts.tsv", 'colour\tid\ttitle\nRed\t00123\tRed shirt\nNA\t00124\t"Wide 24"" shirt; blue"\n'
              "None\t00125\tGrüne Bluse\n".encode()),
        write("shirts.jsonl", JSONL.encode()),
        write("bom.ndjson", b"\xef\xbb\xbf\n" + JSONL.replace("\n", "\r\n\r\n").encode()),
        write("shirts.jsonl.gz", gzip.compress(JSONL.encode())),
    ],
)  # fmt: skip
def test_every_format_gives_the_same_products_cells_as_they_stand(tmp_path, make):
    found = records(catalog(make(tmp_path)))
    assert [(r["id"], r["text"], r["tags"]["colour"], r["number"]) for r in found] == EXPECTED


def test_csv_in_another_encoding(tmp_path):
    path = tmp_path / "latin.csv"
    path.write_bytes("id,title,colour\n1,Grüne Bluse,Grün\n2,Shirt,Red\n".encode("cp1252"))
    for source in (path, {"path": str(path), "encoding": "cp1252"}):
        assert [r["text"] for r in records(catalog(source))] == ["Grüne Bluse", "Shirt"]
    (refused,) = refusals(catalog({"path": str(path), "encoding": "utf-8"}))
    assert (refused.number, refused.reason, refused.fatal) == (1, "encoding", True)
    assert "set encoding" in refused.detail and "line 2" in refused.detail
    with pytest.raises(ConfigError, match="encoding: 'utf-9' is not known"):
        catalog({"path": str(path), "encoding": "utf-9"})


def test_csv_rows_that_do_not_fit_are_refused_and_the_others_go_on(tmp_path):
    path = tmp_path / "broken.csv"
    path.write_text(
        'id,title,colour\n1,Red shirt,Red\n2,Blue, wide shirt,Blue\n3,"Green" shirt,Green\n4,Short\n'
        '5,"Two\nlines",Red\n6,Open "quote,Red\n7,"never closed,Red\n'
    )
    items = list(catalog(path).records("train"))
    assert [(item.number, item.reason, item.fatal) for item in items if not isinstance(item, dict)] == [
        (2, "malformed", True),
        (3, "malformed", True),
        (4, "short_row", False),
        (7, "malformed", True),
    ]
    found = {item["id"]: (item["text"], item["tags"]["colour"]) for item in items if isinstance(item, dict)}
    assert found == {
        "1": ("Red shirt", ["Red"]),
        "4": ("Short", None),
        "5": ("Two lines", ["Red"]),
        "6": ('Open "quote', ["Red"]),
    }
    assert "line 3: 4 cells under 3 columns" in refusals(catalog(path))[0].detail


def test_csv_header_mistakes(tmp_path):
    path = tmp_path / "shop.csv"
    path.write_text("id,title,color\n1,Shirt,Red\n")
    with pytest.raises(ConfigError, match=r'shop.csv has no column "colour" .*Did you mean "color"'):
        records(catalog(path))
    path.write_text("id,title,title,colour\n1,Shirt,x,Red\n")
    with pytest.raises(ConfigError, match='several columns "title"'):
        records(catalog(path))
    path.write_text("id;title;colour\n1;Shirt;Red\n")
    with pytest.raises(ConfigError, match="no column"):
        records(catalog({"path": str(path), "delimiter": ","}))
    path.write_text("")
    with pytest.raises(ConfigError, match="no column"):
        records(catalog(path))


def test_json_lines_that_are_not_objects_are_refused(tmp_path):
    path = tmp_path / "shop.jsonl"
    path.write_bytes(b'{"id": 1, "title": "Shirt", "colour": null}\n{"id": 2, "tit\n[1, 2]\n"x"\n{"id": "\xff"}\n'
                     b'{"id": "5", "title": ["A", "B"], "other": {}}\n')  # fmt: skip
    assert [(r.number, r.reason) for r in refusals(catalog(path))] == [(n, "malformed") for n in (2, 3, 4, 5)]
    found = [item for item in catalog(path).records("train") if isinstance(item, dict)]
    assert [(r["id"], r["text"], r["number"]) for r in found] == [("1", "Shirt", 1), ("5", "A. B", 6)]


def test_json_keys_may_be_absent_but_not_from_all_rows(tmp_path):
    path = tmp_path / "shop.jsonl"
    path.write_text('{"id": 1, "title": "Shirt"}\n' * 300 + '{"id": 2, "title": "Shirt", "colour": "Red"}\n')
    assert len(records(catalog(path))) == 301
    path.write_text('{"id": 1, "title": "Shirt", "color": "Red"}\n')
    with pytest.raises(ConfigError, match=r'its first 1,000 rows\) has no column "colour" .*Did you mean "color"'):
        records(catalog(path))


def test_parquet_with_datasets_images_and_class_numbers(tmp_path):
    features = datasets.Features(
        id=datasets.Value("int64"),
        title=datasets.Value("string"),
        colour=datasets.ClassLabel(names=["Red", "Blue"]),
        photo=datasets.Image(),
    )
    photos = [None, {"bytes": photo(), "path": None}]
    rows = {"id": [1, 2], "title": ["Shirt", ""], "colour": [1, None], "photo": photos}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "shop.parquet")
    first, second = records(catalog(tmp_path / "shop.parquet", shirts_schema(images="photo")))
    assert (first["id"], first["images"], first["tags"]) == ("1", [], {"colour": ["Blue"]})
    assert (second["text"], second["tags"]) == (None, {"colour": None})
    assert load_image(second["images"][0]).size == (8, 8)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.parquet", b"PAR1 not a parquet file"), ("a.tar", b"not a tar file"), ("a.csv.gz", b"not gzip"),
     ("a.jsonl.gz", gzip.compress(JSONL.encode() * 10_000)[:-30]), ("a.tar.gz", b"\x1f\x8b cut")],
)  # fmt: skip
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CatalogError, match=f"{name} cannot be read as"):
        list(catalog(tmp_path / name).records("train"))


def test_a_parquet_file_damaged_inside_is_named(tmp_path):
    rows = [{"id": str(n), "title": "x" * 50, "colour": "Red"} for n in range(5000)]
    path = write_parquet(tmp_path / "a.parquet", rows, compression="none", use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[10_000:60_000] = b"\xff" * 50_000
    path.write_bytes(data)
    with pytest.raises(CatalogError, match="a.parquet cannot be read"):
        list(catalog(path).records("train"))


def test_a_second_parquet_file_without_a_column_is_named(tmp_path):
    write_parquet(tmp_path / "1.parquet", SHIRTS)
    write_parquet(tmp_path / "2.parquet", [{"id": "9", "title": "Shirt"}])
    with pytest.raises(ConfigError, match='2.parquet has no column "colour"'):
        records(catalog(tmp_path / "*.parquet"))


def test_parquet_reads_only_the_columns_of_the_schema(tmp_path):
    path = write_parquet(tmp_path / "shop.parquet", [row | {"blob": b"x" * 100} for row in SHIRTS])
    rows = read_rows(str(path), "parquet", shirts_schema().columns())
    ((_, values, error),) = itertools.islice(rows, 1)
    assert (values, error) == (SHIRTS[0], None)


def test_tar_products_may_lack_files(tmp_path):
    members = {
        "a/1.json": b'{"id": "1", "title": "Shirt", "colour": "Red"}',
        "a/1.front.jpg": photo(),
        "a/2.jpg": photo("blue"),
        "b/2.json": b'{"id": "b2", "title": "Hat"}',
        "b/3.json": b"{broken",
        "b/3.jpg": photo(),
        "b/._4.json": b"a Mac's own",
        "b/5.txt": "Grüner Schal".encode(),
    }
    write_tar(tmp_path / "shop.tar", members)
    schema = shirts_schema(text=["title", "txt"], images=["jpg", "front.jpg"])
    found = list(catalog(tmp_path / "shop.tar", schema).records("train"))
    assert [item["id"] if isinstance(item, dict) else item.reason for item in found] == [
        "1", "shop.tar:2", "b2", "malformed", "shop.tar:5"
    ]  # fmt: skip
    assert found[0]["images"] == [members["a/1.front.jpg"]]
    assert found[1]["images"] == [members["a/2.jpg"]]
    assert found[4]["text"] == "Grüner Schal"


def test_a_tar_cut_short_is_named(tmp_path):
    path = tar_of_shirts(tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CatalogError, match="shirts.tar cannot be read"):
        list(catalog(path).records("train"))


@pytest.mark.parametrize("metadata", ["metadata.csv", "metadata.jsonl", "metadata.parquet"])
def test_imagefolder(tmp_path, metadata):
    rows = []
    for name in ("one.png", "deep/two.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(photo())
        rows.append({"file_name": name, "title": "Shirt", "colour": "NA"})
    path = tmp_path / "photos" / metadata
    if metadata.endswith("csv"):
        path.write_text("file_name,title,colour\n" + "".join(",".join(row.values()) + "\n" for row in rows))
    elif metadata.endswith("jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        write_parquet(path, rows)
    schema = shirts_schema(id=None, images="image")
    for source in ({"path": f"{tmp_path}/photos"}, {"path": f"{tmp_path}/photos", "format": "imagefolder"}):
        found = records(catalog(source, schema))
        assert [load_image(r["images"][0]).size for r in found] == [(8, 8)] * 2
        assert [(r["id"], r["tags"]["colour"]) for r in found] == [(f"{metadata}:{n}", ["NA"]) for n in (1, 2)]
