"""A catalogue in a database: SQLite, and a real PostgreSQL server."""

import json
import sqlite3
import sys
from collections import Counter

import psutil
import pytest

pytest.importorskip("sqlalchemy")

from sqlalchemy import text  # noqa: E402

from hf_tagger.catalog.quarantine import Refusal  # noqa: E402
from hf_tagger.catalog.reading import sql  # noqa: E402
from hf_tagger.catalog.reading.source import check_files  # noqa: E402
from hf_tagger.catalog.reading.sql import DatabaseError, database_url, open_database  # noqa: E402
from hf_tagger.catalog.strict import ConfigError  # noqa: E402
from hf_tagger.model.urls import without_credentials  # noqa: E402
from tests.catalog.files import catalog, ids, photo, products, records, refusals, shirts_schema, write_jsonl  # noqa: E402
from tests.catalog.test_stream import all_ids  # noqa: E402


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    return request.getfixturevalue("postgres_url") if request.param == "postgresql" else f"sqlite:///{tmp_path}/shop.db"


def run(url, *statements, rows=()):
    """Executes statements, the last of them once for each of `rows`."""
    engine = open_database(database_url(url))
    with engine.begin() as connection:
        for statement in statements[:-1] if rows else statements:
            connection.execute(text(statement))
        if rows:
            connection.execute(text(statements[-1]), rows)
    engine.dispose()


def fill(url, rows, key="PRIMARY KEY"):
    run(url, f"CREATE TABLE products (id text {key}, title text, colour text, family text)",
        "INSERT INTO products VALUES (:id, :title, :colour, :family)", rows=rows)


def source(url, **options) -> dict:
    return {"path": url, "table": "products"} | options


@pytest.fixture
def small_pages(monkeypatch):
    monkeypatch.setattr(sql, "_PAGE_ROWS", 7)


def test_a_table_and_a_query_are_read_in_the_order_of_the_key(url, small_pages):
    fill(url, products(0, 30)[::-1])
    found = records(catalog(source(url)))
    assert ids(found) == all_ids(30)
    assert found[4] | {"file": "", "kept": {}} == {
        "id": "00004", "group": "00004", "number": 5, "file": "", "text": "Shirt number 4", "texts": ["Shirt number 4"],
        "language": None, "images": [], "tags": {"colour": ["Red"]}, "kept": {}}  # fmt: skip
    query = "SELECT id, title AS name, colour FROM products WHERE title LIKE 'Shirt number 1%' AND ':x' <> '%(y)s' ;\n"
    shop = catalog({"path": url, "query": query}, shirts_schema(text="name"))
    assert ids(records(shop)) == [id for id in all_ids(30) if id.startswith("0001") or id == "00001"]
    assert ids(records(catalog({"path": url, "query": "SELECT * FROM products -- all of them"}))) == all_ids(30)


def test_a_database_gives_the_products_that_a_file_gives_in_the_same_splits(url, tmp_path, small_pages):
    rows = products(0, 300)
    fill(url, rows)
    fractions = {"validation": 0.1, "test": 0.2}
    path = write_jsonl(tmp_path / "shop.jsonl", rows)
    schema = shirts_schema(group="family")
    shop, file = catalog(source(url, fractions=fractions), schema), catalog({"path": str(path), "fractions": fractions},
                                                                             schema)
    for split in shop.splits:
        found = ids(records(shop, split))
        assert found and found == ids(records(file, split))


@pytest.mark.parametrize("shuffle_buffer", [0, 10])
def test_every_row_goes_to_exactly_one_rank(url, small_pages, shuffle_buffer):
    fill(url, products(0, 50))
    shop = catalog(source(url))
    shares = [ids(records(shop, rank=rank, world_size=3, shuffle_buffer=shuffle_buffer, seed=1)) for rank in range(3)]
    assert sorted(sum(shares, [])) == all_ids(50) and max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("page", [1, 3, 4, 100])
def test_rows_that_share_a_key_or_have_none_are_read_or_set_aside_once(url, monkeypatch, page):
    monkeypatch.setattr(sql, "_PAGE_ROWS", max(page, 4))
    if page == 1:
        monkeypatch.setattr(sql._Rows._page, "__defaults__", (1,))
    rows = products(0, 20)
    for number, row in enumerate(rows):
        row["family"] = f"f{number // 3}"
    rows[5]["family"] = rows[19]["family"] = None
    fill(url, rows)
    shop = catalog(source(url, key="family"))
    items = list(shop.records("train"))
    assert sorted(item["id"] for item in items if not isinstance(item, Refusal)) == sorted(
        row["id"] for row in rows if row["family"])
    lost = [item for item in items if isinstance(item, Refusal)]
    assert [(item.reason, item.column, item.fatal) for item in lost] == [("no_key", "family", True)] * 2
    assert len({item.number for item in lost} | {item["number"] for item in items if item not in lost}) == 20


def test_a_key_that_tells_nothing_apart_is_refused(url, monkeypatch):
    monkeypatch.setattr(sql, "_PAGE_ROWS", 5)
    fill(url, [row | {"family": "all"} for row in products(0, 9)])
    with pytest.raises(DatabaseError, match="the table \"products\": family is 'all' in thousands of rows: name a col"):
        records(catalog(source(url, key="family")))


def test_nothing_can_be_written_through_it(url):
    fill(url, products(0, 3))
    before = all_ids(3)
    for query in ("DELETE FROM products", "SELECT 1 AS id, 'a' AS title, 'b' AS colour); DELETE FROM products; --",
                  "WITH gone AS (DELETE FROM products RETURNING *) SELECT * FROM gone"):
        with pytest.raises(DatabaseError, match="the query of .* cannot be read"):
            records(catalog({"path": url, "query": query}))
        assert ids(records(catalog(source(url)))) == before
    if url.startswith("postgresql"):
        run(url, "CREATE FUNCTION gone() RETURNS text AS 'DELETE FROM products RETURNING id' LANGUAGE sql")
        with pytest.raises(DatabaseError, match="read-only transaction"):
            records(catalog({"path": url, "query": "SELECT gone() AS id, 'a' AS title, 'b' AS colour"}))
        assert ids(records(catalog(source(url)))) == before


def test_others_can_write_while_it_is_read(url, small_pages):
    fill(url, products(0, 300))
    stream = catalog(source(url)).records("train")
    first = next(stream)["id"]
    run(url, "INSERT INTO products VALUES ('99999', 'Hat', 'Red', 'f')", "DELETE FROM products WHERE id = '00000'")
    assert first == "00000" and ids(stream) == [*all_ids(300)[1:], "99999"]


POSTGRES_TYPES = """
CREATE TYPE colour AS ENUM ('Red', 'Blue');
CREATE TABLE products (
  id numeric(20, 0) PRIMARY KEY, title text, colour colour, size numeric(6, 2), sizes numeric[], day date,
  at timestamptz, flag boolean, photo bytea, tags text[], data jsonb, old json, ref uuid, span interval, net inet,
  period int4range, weight real, code char(6), empty text[]);
INSERT INTO products VALUES
  (12345678901234567890, 'Shirt', 'Red', 12.50, '{1.5,NULL}', '2026-05-01', '2026-05-01 12:00+00', true, '\\x89504e47',
   '{Cotton,"Wool, soft"}', '["Sale", "New"]', '{"a": [1, 2]}', 'c0ffee00-0000-0000-0000-000000000000', '2 days',
   '10.0.0.1', '[1,5)', 0.1, 'ab', '{}'),
  (7, NULL, 'Blue', 'NaN', NULL, 'infinity', NULL, NULL, NULL, NULL, '[]', 'null', NULL, NULL, NULL, NULL, 'NaN',
   NULL, NULL);
"""


def test_what_postgresql_holds_becomes_what_a_schema_expects(postgres_url):
    run(postgres_url, *filter(str.strip, POSTGRES_TYPES.split(";")))

    def read(**schema):
        return records(catalog(source(postgres_url), shirts_schema(**schema)))

    given = read(attributes={
        "colour": {}, "size": {}, "sizes": {"kind": "multi", "format": "list"}, "day": {}, "at": {}, "flag": {},
        "tags": {"kind": "multi", "format": "list"}, "data": {"kind": "multi", "format": "list"}, "ref": {}, "net": {},
        "weight": {}, "code": {}, "empty": {"kind": "multi", "format": "list"}}, text=["title", "code", "id"],
        images="photo")[1]  # fmt: skip
    assert given["id"] == "12345678901234567890"
    assert given["text"] == "Shirt. ab. 12345678901234567890" and given["images"] == [b"\x89PNG"]
    assert given["tags"] == {
        "colour": ["Red"], "size": ["12.50"], "sizes": ["1.5"], "day": ["2026-05-01"],
        "at": ["2026-05-01 12:00:00+00:00"], "flag": ["True"], "tags": ["Cotton", "Wool, soft"],
        "data": ["Sale", "New"],
        "ref": ["c0ffee00-0000-0000-0000-000000000000"], "net": ["10.0.0.1"], "weight": ["0.1"], "code": ["ab"],
        "empty": []}  # fmt: skip
    other = read(text=["colour", "day", "span"], attributes={"size": {}, "weight": {}})
    assert [record["id"] for record in other] == ["7", "12345678901234567890"]
    assert other[0]["tags"] == {"size": None, "weight": None}
    assert other[0]["text"] == "Blue. infinity"
    noted = refusals(catalog(source(postgres_url), shirts_schema(text=["colour", "period", "photo", "old"])))
    assert [(note.column, note.reason, note.fatal) for note in noted] == [
        ("period", "wrong_type", False), ("photo", "wrong_type", False), ("old", "wrong_type", False)]
    assert noted[0].detail == "period is a Range: cast it in a query, such as CAST(period AS text)"
    assert refusals(catalog(source(postgres_url), shirts_schema(attributes={"old": {}, "colour": {}})))[0].fatal


@pytest.mark.parametrize(("type", "values"), [
    ('text COLLATE "C"', ["b", "A", "a", "B", "é"]), ("citext", ["b", "A", "a1", "B1", "c"]),
    ("real", [0.1, 0.7, 0.3, 1e-9]), ("uuid", None), ("date", None),
    ("char(4)", ["a", "ab", "b"]), ("bit(4)", None), ("bytea", None), ("timestamptz", None),
    ("text", ["b", "A", "a", "B", "é", "", " "]), ("bigint", None), ("numeric", [1.5, 2.25]),
])  # fmt: skip
def test_keys_of_every_type_are_paged_in_the_databases_own_order(postgres_url, monkeypatch, type, values):
    monkeypatch.setattr(sql, "_PAGE_ROWS", 2)
    made = {"uuid": "gen_random_uuid()", "date": "DATE '2026-01-01' + n", "bigint": "n - 5 + 4611686018427387904",
            "bytea": "decode(lpad(to_hex(n), 4, '0'), 'hex')", "bit(4)": "n::bit(4)",
            "timestamptz": "now() + n * interval '1 microsecond'"}  # fmt: skip
    if type == "citext":
        try:
            run(postgres_url, "CREATE EXTENSION citext")
        except Exception:
            pytest.skip("this server has no citext")
    run(postgres_url, f"CREATE TABLE products (id int, title text, colour text, key {type})")
    if values is None:
        run(postgres_url, f"INSERT INTO products SELECT n, 'Shirt', 'Red', {made[type]} FROM generate_series(1, 9) n")
    else:
        run(postgres_url, "INSERT INTO products VALUES (:id, 'Shirt', 'Red', :key)",
            rows=[{"id": number, "key": value} for number, value in enumerate(values)])
    found = ids(records(catalog(source(postgres_url, key="key"))))
    assert sorted(map(int, found)) == (list(range(1, 10)) if values is None else list(range(len(values))))


def test_sqlite_cells_of_any_type_and_text_that_is_none(tmp_path, small_pages):
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE products (id, title, colour, photo)")
        database.executemany("INSERT INTO products VALUES (?, ?, ?, ?)", [
            (1, "Shirt", "Red", photo()), (2.0, 17, 3.5, None), (3, b"bytes", "Red", b"x"), ("a", "Hat", b"Red", None),
            ("b", "Hat", '["Red"]', None)])  # fmt: skip
        database.execute("INSERT INTO products VALUES ('c', CAST(x'ff41' AS TEXT), 'Red', NULL)")
        for number in range(20):
            database.execute("INSERT INTO products VALUES (CAST(? AS TEXT), 'Hat', 'Red', NULL)", (b"\xff%d" % number,))
    items = list(catalog(source(f"sqlite:///{path}"), shirts_schema(images="photo")).records("train"))
    assert len([item for item in items if not isinstance(item, Refusal)]) == 4
    assert Counter((item.column, item.reason, item.fatal) for item in items if isinstance(item, Refusal)) == {
        ("title", "wrong_type", False): 1, ("colour", "wrong_type", True): 1, ("title", "encoding", True): 1,
        ("id", "encoding", True): 20}  # fmt: skip
    assert [item["tags"]["colour"] for item in items if not isinstance(item, Refusal)] == [
        ["Red"], ["3.5"], ["Red"], ["Red"]]


def test_photos_start_from_the_folder_of_a_sqlite_file(tmp_path):
    (tmp_path / "front.png").write_bytes(photo())
    fill(f"sqlite:///{tmp_path}/shop.db", [{"id": "1", "title": "Shirt", "colour": "Red", "family": "front.png"}])
    found = records(catalog(source(f"sqlite:///{tmp_path}/shop.db"), shirts_schema(images="family")))
    assert found[0]["images"] == [f"{tmp_path}/front.png"]


@pytest.mark.parametrize(("change", "message"), [
    ({"table": "product"}, 'has no table "product". Did you mean "products"'),
    ({"table": "no_such.products"}, 'no_such'),
    ({"key": "idd"}, r'the table "products" has no column "idd" \(source: key\). Did you mean "id"'),
    ({"table": None, "query": "SELECT id FROM products"}, r'the query has no column "title" \(schema: text\)'),
    ({"table": None, "query": "SELEC id FROM products"}, "the query of .* cannot be read: .*syntax error"),
    ({"table": None}, "a database needs table: NAME, or query: SELECT"),
    ({"query": "SELECT 1"}, "a database needs table: NAME, or query: SELECT"),
    ({"path": "shop.csv"}, "table, query and key are for a database"),
    ({"files": {"test": "{url}"}}, "several splits have the same rows"),
])  # fmt: skip
def test_what_does_not_fit_is_said_with_a_remedy(url, change, message):
    fill(url, products(0, 3))
    with pytest.raises((ConfigError, DatabaseError), match=message):
        records(catalog(json.loads(json.dumps(source(url) | change).replace("{url}", url))))


def test_an_id_is_needed(url):
    fill(url, products(0, 3))
    with pytest.raises(ConfigError, match="set schema.id"):
        records(catalog(source(url), shirts_schema(id=None)))


@pytest.mark.parametrize("url", [
    "postgresql://ana:s3cret@localhost:port/db", "postgresql://ana:s3/cret@127.0.0.1:1/db",
    "postgresql://ana:s3cret@127.0.0.1:1/db", "postgresql://127.0.0.1:1/db?user=ana&password=s3cret",
    "postgresql://ana:s3cret@127.0.0.1:1/db?odd=1", "postgresql+asyncpg://ana:s3cret@127.0.0.1:1/db",
    "mysql+nothing://ana:s3cret@127.0.0.1:1/db", "postgresql://ana:${SHOP_PASSWORD}@127.0.0.1:1/db",
    "sqlite:////no/such/folder/s3cret.db?mode=ro&uri=true",
])  # fmt: skip
def test_errors_tell_no_secret(url, monkeypatch):
    monkeypatch.setenv("SHOP_PASSWORD", "s3cret")
    with pytest.raises((ConfigError, DatabaseError)) as caught:
        records(catalog(source(url)))
    assert "cret@" not in str(caught.value) and "=s3cret" not in str(caught.value)


def test_an_url_without_its_credentials_says_what_to_do():
    saved = without_credentials("postgresql://ana:s3cret@host/db")
    with pytest.raises(DatabaseError, match=r"left out where this was saved. Give --catalog.source.path"):
        records(catalog(source(saved)))


def test_a_password_may_be_in_the_environment(url, monkeypatch):
    fill(url, products(0, 3))
    monkeypatch.setenv("SHOP", url.partition("//")[2])
    assert ids(records(catalog(source(url.partition("//")[0] + "//${SHOP}")))) == all_ids(3)


def test_a_sqlite_file_that_is_not_there_is_told_before_anything_is_imported_and_not_made(tmp_path):
    shop = catalog(source(f"sqlite:///{tmp_path}/shop.db"))
    with pytest.raises(ConfigError, match="there is no database .*shop.db"):
        check_files(shop.source)
    with pytest.raises(ConfigError, match="there is no database .*shop.db"):
        records(shop)
    assert not list(tmp_path.iterdir())
    (tmp_path / "shop.db").write_text("no database" * 100)
    with pytest.raises(DatabaseError, match="not a database"):
        records(shop)


def test_a_table_that_goes_away_is_one_line(url, small_pages):
    fill(url, products(0, 300))
    stream = catalog(source(url)).records("train")
    next(stream)
    run(url, "DROP TABLE products")
    with pytest.raises(DatabaseError, match='the table "products" of .* cannot be read: .*products'):
        list(stream)


def test_a_driver_that_is_not_installed_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pg8000", None)
    with pytest.raises(DatabaseError, match=r"pip install 'hf_tagger\[postgresql\]'"):
        open_database(database_url("postgresql://ana@host/db"))
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(DatabaseError, match=r"pip install 'hf_tagger\[sql\]'"):
        database_url("sqlite:///shop.db")


def test_memory_does_not_grow_with_the_table(url):
    wide = "x" * 100_000
    run(url, "CREATE TABLE products (id int PRIMARY KEY, title text, colour text)",
        "INSERT INTO products VALUES (:id, :title, 'Red')", rows=[{"id": n, "title": wide} for n in range(1500)])
    process, peaks = psutil.Process(), []
    for number, _ in enumerate(catalog(source(url)).records("train")):
        if number % 50 == 20:
            peaks.append(process.memory_info().rss)
    assert len(peaks) == 30 and max(peaks[5:]) - peaks[5] < 80 << 20, "150 MB of text"
