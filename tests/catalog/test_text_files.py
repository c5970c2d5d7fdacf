"""What shops' systems write around and into text files."""

import gzip
import json

import pytest

from hf_tagger.catalog.formats import text_files
from hf_tagger.catalog.reading.readers import CatalogError
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.model.text import clean_text
from tests.catalog.files import catalog, products, records, refusals, write_jsonl, write_parquet

ROWS = [("1", "Grüne Bluse", ["Grün"]), ("2", "Linen shirt", ["Red"])]
CSV = "id,title,colour\n1,Grüne Bluse,Grün\n2,Linen shirt,Red\n"
JSONL = '{"id": "1", "title": "Grüne Bluse", "colour": "Grün"}\n{"id": "2", "title": "Linen shirt", "colour": "Red"}\n'


def rows(path, **source):
    return [(r["id"], r["text"], r["tags"]["colour"]) for r in records(catalog({"path": str(path), **source}))]


@pytest.mark.parametrize("declared", [{}, {"encoding": "utf-8"}, {"encoding": "cp1252"}, {"encoding": "utf-16"}])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize(("name", "content"), [("a.csv", CSV), ("a.jsonl", JSONL), ("a.csv.gz", CSV)])
def test_a_byte_order_mark_and_the_zeros_of_utf_16_say_the_encoding(tmp_path, declared, encoding, name, content):
    data = content.encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    assert rows(tmp_path / name, **declared) == ROWS


@pytest.mark.parametrize(("declared", "written", "text"), [
    ("shift_jis", "cp932", "①綿シャツ"), ("Shift-JIS", "cp932", "髙島屋"), ("gb2312", "gb18030", "朱镕基杯"),
    ("euc-kr", "cp949", "똠방각하"), ("big5", "cp950", "碁盤裏")])
def test_what_windows_writes_under_the_name_of_an_older_encoding(tmp_path, declared, written, text):
    (tmp_path / "a.csv").write_bytes(f"id,title,colour\n1,{text},Red\n".encode(written))
    assert rows(tmp_path / "a.csv", encoding=declared)[0][1] == clean_text(text)


@pytest.mark.parametrize("above", [
    "sep=;\n", '"sep=;"\r\n', "\ufeffsep=;\n", "\n\n", ";;\n", "My shop's export\nof 1.1.\n\n",
    "TemplateType=x;1.0;\nSKU;Name;Tint\n",
])  # fmt: skip
def test_what_stands_above_the_header_is_passed_over(tmp_path, above):
    (tmp_path / "a.csv").write_text(above + CSV.replace(",", ";"), encoding="utf-8")
    assert rows(tmp_path / "a.csv") == ROWS


def test_a_header_in_another_encoding_is_told_by_the_encoding(tmp_path):
    (tmp_path / "a.csv").write_bytes("id,title,colour,größe\n1,x,Red,L\n".encode("cp1252"))
    with pytest.raises(ConfigError, match="is not utf-8: set encoding"):
        rows(tmp_path / "a.csv", encoding="utf-8")


@pytest.mark.parametrize("separator", ["\t", ","])
def test_where_a_file_does_not_use_quotes_they_are_text(tmp_path, separator):
    lines = ["id,title,colour", '1,"Loud" lamp,Red', '2,"Open lamp,Blue', '3,24" wide,Red', '4,x",Blue']
    (tmp_path / "a.csv").write_text("\n".join(lines).replace(",", separator))
    assert [title for _, title, _ in rows(tmp_path / "a.csv")] == ['"Loud" lamp', '"Open lamp', '24" wide', 'x"']


def test_two_stray_quotes_around_many_lines_cost_their_own_two(tmp_path):
    lines = [f"{n},Mug {n},Red" for n in range(1, 21)]
    lines[2], lines[15] = ',"3,Mug 3,Red', '16,Mug 16","Red'
    (tmp_path / "a.csv").write_text("\n".join(["id,title,colour", *lines]) + "\n")
    found = [item["id"] for item in catalog(tmp_path / "a.csv").records("train") if isinstance(item, dict)]
    assert {str(n) for n in range(1, 21)} - set(found) <= {"3", "16"}
    # A long text beside a cell that lacks its quotes stays one row: its lines are none by themselves.
    html = "\n".join(f"<li>{n}</li>" for n in range(20))
    (tmp_path / "b.csv").write_text(f'id,title,colour\n1,"{html}",Red, dark\n2,Mug,Red\n')
    (refused,) = refusals(catalog(tmp_path / "b.csv"))
    assert refused.number == 1 and "4 cells under 3 columns" in refused.detail


def test_a_cell_may_go_on_over_many_lines_and_an_open_one_costs_its_own_line(tmp_path):
    html = "\n".join(f"<li>one, two, {n}</li>" for n in range(80))
    rows = "".join(f"{n},Mug {n},Red\n" for n in range(3, 900)) + '900,"a ""mug""",Red\n'
    (tmp_path / "a.csv").write_text(f'id,title,colour\n1,"{html}",Red\n2,"never closed,Blue\n{rows}')
    found = [item for item in catalog(tmp_path / "a.csv").records("train") if isinstance(item, dict)]
    assert len(found) == 899 and "two, 79" in found[0]["text"] and found[-1]["text"] == 'a "mug"'
    (refused,) = refusals(catalog(tmp_path / "a.csv"))
    assert (refused.number, refused.reason) == (2, "malformed") and refused.detail.startswith("line 82: a quote that")


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.jsonl.gz"])
def test_a_line_without_end_is_refused_alone_and_never_held(tmp_path, monkeypatch, name):
    monkeypatch.setattr(text_files, "MAX_LINE", 1000)
    lines = (CSV if "csv" in name else JSONL).splitlines()
    lines.insert(-1, "[" * 100_000)
    data = "\n".join(lines).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    items = list(catalog(tmp_path / name).records("train"))
    assert [isinstance(item, dict) for item in items] == [True, False, True]
    assert "more than 1000 characters" in items[1].detail


@pytest.mark.parametrize("name", ["a.csv.gz", "a.jsonl.gz", "a.csv.bz2", "a.csv.xz"])
def test_half_a_compressed_file_is_one_line(tmp_path, name):
    import bz2
    import lzma

    packed = {"gz": gzip, "bz2": bz2, "xz": lzma}[name.rpartition(".")[2]].compress(JSONL.encode() * 1000)
    (tmp_path / name).write_bytes(packed[:len(packed) // 2])
    with pytest.raises(CatalogError, match=name) as error:
        rows(tmp_path / name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("row", [
    '{"id": "\\ud800", "title": "Mug", "colour": "Red"}', '{"id": "x", "title": "M\\udfffug", "colour": "Red"}',
    '{"id": "x", "title": "Mug", "colour": ["\\ud800"]}', '{"id": 1' + "0" * 5000 + "}", "[" * 100_000,
    '{"a": ' * 100_000,
])  # fmt: skip
def test_a_line_of_json_that_nothing_can_hold_is_set_aside(tmp_path, row):
    (tmp_path / "a.jsonl").write_text(JSONL + row + "\n" + JSONL)
    items = list(catalog(tmp_path / "a.jsonl").records("train"))
    assert [isinstance(item, dict) for item in items] == [True, True, False, True, True]
    json.dumps([items[2].id, items[2].detail], ensure_ascii=False).encode()


@pytest.mark.parametrize("write", [write_jsonl, write_parquet])
def test_a_cell_too_large_to_keep_is_left_out_and_a_long_text_cut(tmp_path, write):
    rows = products(0, 3)
    rows[1] |= {"title": "long " * 100_000, "colour": "R" * 1_000_000}
    path = write(tmp_path / f"a{'.jsonl' if write is write_jsonl else '.parquet'}", rows)
    items = list(catalog(path).records("train"))
    assert [item["tags"]["colour"] for item in items if isinstance(item, dict)] == [["Black"], None, ["Blue"]]
    (refused,) = refusals(catalog(path))
    assert (refused.number, refused.column, refused.reason, refused.fatal) == (2, "colour", "too_large", False)
