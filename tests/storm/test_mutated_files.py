"""Rows in = rows used + rows set aside, whatever has happened to a file; or one line says why it cannot be read."""

import json
import re
import sqlite3
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from hf_tagger import UserError
from hf_tagger.catalog.quarantine import Quarantine, Refusal
from tests.catalog.files import catalog, products

ROWS = [row | {"title": f'{row["title"]}, 24" wide' if n % 3 else row["title"], "id": f"p{n:02d}"}
        for n, row in enumerate(products(0, 30))]  # fmt: skip
PLAIN = "".join(f"{row['id']},{row['title']},{row['colour']}\n" for row in products(0, 30)).encode()
QUOTED = "".join('{id},"{}",{colour}\n'.format(row["title"].replace('"', '""'), **row) for row in ROWS).encode()
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
PIECES = st.sampled_from([b'"', b",", b"\n", b"\r\n", b"\x00", b"\xff", b"\\", b"{", b"[", b"", b"\xe2", b"\\ud800"])
CHANGES = st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 3), PIECES), min_size=1, max_size=6)
pytestmark = pytest.mark.filterwarnings("ignore")


def try_all(storm, check, rounds=(60, 3000), **drawn):
    """`check(folder, ...)` with draws of what `drawn` says; it returns the rows that were accounted for."""
    @seed(storm.random.randrange(2**32))
    @settings(max_examples=storm.rounds(*rounds), deadline=None, database=None)
    @given(**drawn)
    def each(**drawn):
        with storm.trial("mutated files"), TemporaryDirectory() as folder:
            storm.held("rows of mutated files, used or set aside", len(check(Path(folder), **drawn)))

    each()


def changed(content: bytes, changes) -> bytes:
    """At each place, so many bytes replaced by a piece."""
    for place, cut, piece in changes:
        place %= len(content)
        content = content[:place] + piece + content[place + cut:]
    return content


def read(folder, name: str, content: bytes):
    """{number: record or fatal refusal}; None where the file is refused in one line."""
    (folder / name).write_bytes(content)
    return accounted(folder, catalog(folder / name))


def accounted(folder, opened):
    found, quarantine = {}, Quarantine(folder / "quarantine.jsonl")
    try:
        for item in opened.records("train"):
            number = item.number if isinstance(item, Refusal) else item["number"]
            if isinstance(item, Refusal):
                quarantine.add(item)
            if not isinstance(item, Refusal) or item.fatal:
                assert number not in found
                found[number] = item
    except UserError as error:
        assert str(error)
        return None
    assert sorted(found) == list(range(1, len(found) + 1))
    used = sum(isinstance(item, dict) for item in found.values())
    assert used + quarantine.rows_lost == len(found)
    lines = (folder / "quarantine.jsonl").read_text().splitlines()
    assert len({json.loads(line)["row"] for line in lines if json.loads(line)["fatal"]}) == len(found) - used
    return found


def lines_of(content: bytes, blank: bytes = b"") -> int:
    """Lines with anything but what is `blank`."""
    return sum(bool(line.strip(blank)) for line in re.split(rb"\r\n|\n|\r", content))


def test_jsonl(storm):
    def check(folder, changes):
        content = LINES[:100] + changed(LINES[100:], changes)
        found = read(folder, "a.jsonl", content)
        assert len(found) == lines_of(content, b" \t\x1c\x1d\x1e\x1f\x85\x0b\x0c")
        return found

    try_all(storm, check, changes=CHANGES)


def test_csv(storm):
    def check(folder, changes, rows):
        content = b"id,title,colour\n" + changed(rows, changes)
        found = read(folder, "a.csv", content)
        assert len(found) <= lines_of(content) - 1
        # Two changes together may write a cell of two lines; two quotes and another change one of many, as nobody can
        # tell from a text with line breaks.
        if [piece for *_, piece in changes].count(b'"') < 2 or len(changes) < 3:
            assert lines_of(content) - 1 - len(changes) <= len(found)
        return found

    try_all(storm, check, changes=CHANGES, rows=st.sampled_from([PLAIN, QUOTED]))


def test_one_stray_quote_costs_no_more_than_its_own_row(storm):
    def check(folder, place, rows):
        place %= len(rows)
        content = b"id,title,colour\n" + rows[:place] + b'"' + rows[place:]
        found = read(folder, "a.csv", content)
        assert len(found) == 30
        expected = products(0, 30) if rows is PLAIN else ROWS
        for number, row in enumerate(expected, start=1):
            if number != rows.count(b"\n", 0, place) + 1:
                assert (found[number]["id"], found[number]["tags"]["colour"]) == (row["id"], [row["colour"]])
        return found

    try_all(storm, check, (60, 2000), place=st.integers(0, 2000), rows=st.sampled_from([PLAIN, QUOTED]))


def test_parquet(storm):
    def check(folder, damage):
        titles = [row["title"].encode() for row in ROWS]
        for row, piece in damage:
            titles[row] = titles[row][:3] + piece + titles[row][3:]
        table = pa.table({"id": [row["id"] for row in ROWS], "title": pa.array(titles, pa.binary()).view(pa.string()),
                          "colour": [row["colour"] for row in ROWS]})  # fmt: skip
        pq.write_table(table, folder / "made.parquet")
        found = read(folder, "a.parquet", (folder / "made.parquet").read_bytes())
        assert len(found) == 30
        for number, title in enumerate(titles, start=1):
            try:
                title.decode()
            except UnicodeDecodeError:
                assert found[number].reason == "encoding" and found[number].column == "title"
            else:
                assert found[number]["tags"]["colour"] == [ROWS[number - 1]["colour"]]
        return found

    damage = st.lists(st.tuples(st.integers(0, 29), st.binary(min_size=1, max_size=6)), min_size=1)
    try_all(storm, check, (60, 2000), damage=damage)


def test_parquet_with_other_bytes_is_read_or_refused(storm, tmp_path):
    table = pa.Table.from_pylist(ROWS)
    pq.write_table(table, tmp_path / "whole.parquet", row_group_size=10)
    whole = (tmp_path / "whole.parquet").read_bytes()

    def check(folder, changes):
        found = read(folder, "a.parquet", changed(whole, changes))
        assert found is None or len(found) <= 30
        return found or {}

    try_all(storm, check, (60, 1000), changes=CHANGES)


def test_sqlite(storm, monkeypatch):
    pytest.importorskip("sqlalchemy")
    from hf_tagger.catalog.reading import sql

    def check(folder, rows, page, wanted):
        monkeypatch.setattr(sql, "_PAGE_ROWS", page)
        rows = [cells[:3] + (number,) for number, cells in enumerate(rows)]
        with sqlite3.connect(folder / "shop.db") as database:
            database.execute("CREATE TABLE products (id, title, colour, number)")
            values = ", ".join("CAST(? AS TEXT)" if text else "?" for text in wanted)
            database.executemany(f"INSERT INTO products VALUES ({values}, ?)", rows)
        database.close()
        found = accounted(folder, catalog({"path": f"sqlite:///{folder}/shop.db", "table": "products"}))
        # Only thousands of rows with one key, which here are four, cannot be read.
        assert found is None or len(found) == len(rows)
        return found or {}

    cells = st.one_of(st.none(), st.integers(-9, 9), st.floats(), st.binary(max_size=4), st.text(max_size=4).filter(
        lambda text: text.isprintable()))
    rows = st.lists(st.tuples(cells, cells, cells), max_size=20)
    try_all(storm, check, rows=rows, page=st.sampled_from([4, 7, 100]), wanted=st.tuples(*[st.booleans()] * 3))
