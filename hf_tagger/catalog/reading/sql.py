"""Rows of a database: a table, or what a query selects, read page by page in the order of a key column.

Each page is a statement of its own, in a transaction that can only read: however long training looks at a page, nobody
waits for it, and neither the client's memory nor what the server keeps grows with the table.
"""

import datetime
import decimal
import ipaddress
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from hf_tagger import UserError
from hf_tagger.catalog.formats.columns import RawRow, check_columns
from hf_tagger.catalog.quarantine import RowError
from hf_tagger.catalog.reading.source import SourceConfig, check_database
from hf_tagger.catalog.strict import ConfigError, did_you_mean
from hf_tagger.model.urls import without_credentials

if TYPE_CHECKING:
    from sqlalchemy import URL, Engine

_PAGE_ROWS, _PAGE_BYTES, _FETCHED_AT_ONCE = 4096, 16 << 20, 64
_PLAIN = (str, int, float, bytes, bool, type(None))
_AS_TEXT = (datetime.date, datetime.time, datetime.timedelta, uuid.UUID, ipaddress.IPv4Address, ipaddress.IPv6Address,
            ipaddress.IPv4Network, ipaddress.IPv6Network)


class DatabaseError(UserError):
    """A database cannot be opened or read: the message says why, without the credentials of its URL."""


def database_url(url: str) -> "URL":
    """An URL of SQLAlchemy's, with environment variables in place of `${NAME}`. Raises DatabaseError for any other."""
    try:
        from sqlalchemy import make_url
        from sqlalchemy.exc import ArgumentError
    except ModuleNotFoundError as error:
        raise DatabaseError("a database is read through SQLAlchemy: pip install 'hf_tagger[sql]'") from error
    try:
        parsed = make_url(os.path.expandvars(url))
    except (ArgumentError, ValueError):  # what cannot be parsed cannot be told from a password
        raise DatabaseError(f"what begins with {url.partition('://')[0]}:// is no database URL: write "
                            "postgresql://user@host/database or sqlite:///file.db") from None
    if parsed.username == "***":
        raise DatabaseError(f"{url}: name and password were left out where this was saved. Give --catalog.source.path; "
                            "a password that is the ${NAME} of an environment variable is kept")
    return parsed.set(drivername="postgresql+pg8000") if parsed.drivername in ("postgresql", "postgres") else parsed


def open_database(url: "URL", **options) -> "Engine":
    """An engine for `database_url`; options of `create_engine`. Raises DatabaseError where its driver is not installed.
    """
    from sqlalchemy import create_engine
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return create_engine(url, **options)
    except (ModuleNotFoundError, SQLAlchemyError, TypeError, ValueError) as error:
        name = url.get_backend_name()
        remedy = "pip install 'hf_tagger[postgresql]'" if name == "postgresql" else "install it, or name another"
        raise DatabaseError(f"the driver of {url.drivername}:// cannot be used ({error}): {remedy}") from error


def check_table(url: str, source: SourceConfig, columns: dict[str, str]) -> None:
    """Raises ConfigError where the table or query lacks one of the columns {name: the key that names it}, DatabaseError
    where it cannot be read."""
    keys = {source.key: "source: key"} if source.key else {}
    check_columns(columns | keys, table_columns(url, source), source.rows_name)


def table_names(url: str) -> list[str]:
    """Of the tables and views. Raises DatabaseError where it cannot be read."""
    from sqlalchemy import inspect
    from sqlalchemy.exc import SQLAlchemyError

    check_database(url)
    engine = open_database(database_url(url))
    try:
        found = inspect(engine)
        return sorted([*found.get_table_names(), *found.get_view_names()])
    except SQLAlchemyError as error:
        raise DatabaseError(f"{without_credentials(url)}: {_said(error)}") from error
    finally:
        engine.dispose()


def table_columns(url: str, source: SourceConfig) -> list[str]:
    """The columns of the table or query. Raises ConfigError for a table that is not there, DatabaseError where it
    cannot be read."""
    check_database(url)
    with _Rows(url, source) as rows:
        return rows.columns()


def read_sql(url: str, source: SourceConfig, columns: Iterable[str], key: str) -> Iterator[RawRow]:
    """As `readers.read_rows`: the rows in the order of the column `key`, which need not tell them apart, but should.
    A row without a key cannot be read, and is refused.

    Raises DatabaseError where the database cannot be read to the end.
    """
    columns, number = list(columns), 0
    with _Rows(url, source, [key, *(column for column in columns if column != key)]) as rows:
        names = [column.name for column in rows.table.c]
        for row in rows:
            number += 1
            values, odd = dict(zip(names, row, strict=True)), {}
            if key not in columns:
                del values[key]
            for column, value in values.items():
                if type(value) not in _PLAIN:
                    try:
                        values[column] = _plain(value)
                    except TypeError as wrong:
                        values[column], odd[column] = None, f"{column} is {wrong}"
            yield number, values, None if not odd else RowError(next(iter(odd)), "wrong_type", (
                f"{', '.join(odd.values())}: cast it in a query, such as CAST({next(iter(odd))} AS text)"))
        for _ in range(rows.without_key()):
            number += 1
            yield number, None, RowError(key, "no_key", "is empty, and rows are read in its order: name another column "
                                                        "in source.key")


class _Rows(AbstractContextManager):
    """An open database, and the rows of its table or query: tuples of these columns, by the first of them, the key."""

    def __init__(self, url: str, source: SourceConfig, columns: Sequence[str] = ()):
        self.source, self.key = source, next(iter(columns), None)
        self.engine = open_database(database_url(url), pool_pre_ping=True)
        import sqlalchemy

        self.sa, self.name = sqlalchemy, without_credentials(self.engine.url.render_as_string())
        self.sqlite = self.engine.dialect.name == "sqlite"
        if self.sqlite:
            sqlalchemy.event.listen(self.engine, "connect", _prepare_sqlite)
        if source.query:
            # A colon is no parameter of ours, wherever it stands.
            text = re.sub(r"(?<!:):(?=\w)", r"\\:", source.query.strip().rstrip(";")) + "\n"  # after a comment
            self.table = sqlalchemy.text(text).columns(*map(sqlalchemy.column, columns)).subquery("catalogue")
        else:
            schema, _, name = source.table.rpartition(".")
            self.table = sqlalchemy.table(name, *map(sqlalchemy.column, columns), schema=schema or None)

    def __exit__(self, *error) -> None:
        self.engine.dispose()

    def columns(self) -> list[str]:
        """Raises ConfigError, naming the nearest, for a table that is not there."""
        nothing = self.sa.select(self.sa.text("*")).select_from(self.table).where(self.sa.false())
        with self._reading() as connection:
            if self.source.table:
                found, schema = self.sa.inspect(connection), self.table.schema
                if not found.has_table(self.table.name, schema):
                    known = [*found.get_table_names(schema), *found.get_view_names(schema)]
                    raise ConfigError(f'{self.name} has no table "{self.source.table}".'
                                      f"{did_you_mean(self.table.name, known)}")
            return list(connection.execute(nothing).keys())

    def without_key(self) -> int:
        column = self.table.c[self.key]
        with self._reading() as connection:
            return connection.scalar(self.sa.select(self.sa.func.count()).select_from(self.table)
                                     .where(column.is_(None)))

    def __iter__(self) -> Iterator[Sequence]:
        column, after = self.table.c[self.key], None
        query = self.sa.select(*self.table.c).limit(_PAGE_ROWS).order_by(column)
        cast = self._key_type()
        while True:
            if after is None:
                page, cut = self._page(query.where(column.is_not(None)))
            else:
                page, cut = self._page(query.where(column > after))
            if cut:
                # Where the page ends, others may have the same key, by the database's own notion of what is the same.
                after = cast(page[-1][0])
                same, more = self._page(query.where(column == after), most_bytes=None)
                if more:
                    raise DatabaseError(f"{self.source.rows_name}: {self.key} is {page[-1][0]!r} in thousands of "
                                        "rows: name a column that tells rows apart in source.key")
                keys = {row[0] for row in same}
                page = [row for row in page if row[0] not in keys] + same
            yield from page
            if not cut:
                return

    def _page(self, query, most_bytes: int | None = _PAGE_BYTES) -> tuple[list[Sequence], bool]:
        """Rows of a query, the first ones by their bytes, and whether there may be more."""
        rows, weight = [], 0
        with self._reading() as connection:
            found = connection.execution_options(stream_results=True, yield_per=_FETCHED_AT_ONCE).execute(query)
            for row in found:
                rows.append(row)
                weight += sum(len(cell if isinstance(cell, str | bytes) else repr(cell)) for cell in row
                              if isinstance(cell, str | bytes | list | dict))
                if most_bytes is not None and weight > most_bytes:
                    return rows, True
        return rows, len(rows) == _PAGE_ROWS

    def _key_type(self):
        """What makes a value of the key one of the database's own type: citext is not ordered as text is."""
        if self.engine.dialect.name != "postgresql":
            return self._sqlite_key if self.sqlite else lambda value: value
        # "bpchar" and not "character", which is one of one letter.
        oid = self.sa.func.pg_typeof(self.table.c[self.key]).op("::")(self.sa.text("oid"))
        with self._reading() as connection:
            name = connection.scalar(self.sa.select(self.sa.func.format_type(oid, -1)).limit(1))
        return lambda value: self.sa.literal(value).op("::")(self.sa.text(name))

    def _sqlite_key(self, value: Any) -> Any:
        if isinstance(value, str) and not value.isascii():  # which may hold what is not UTF-8
            return self.sa.cast(self.sa.literal(value.encode("utf-8", "surrogateescape")), self.sa.Text)
        return value

    @contextmanager
    def _reading(self) -> Iterator:
        options = {"postgresql_readonly": True} if self.engine.dialect.name == "postgresql" else {}
        try:
            with self.engine.connect().execution_options(**options) as connection:
                yield connection
        except UserError:
            raise
        except (self.sa.exc.SQLAlchemyError, AttributeError, KeyError, OSError, OverflowError, TypeError,
                ValueError) as error:  # the last ones: options of the URL that the driver does not have
            raise DatabaseError(f"{self.source.rows_name} of {self.name} cannot be read: {_said(error)}") from None


def _prepare_sqlite(connection, record) -> None:
    connection.execute("PRAGMA query_only = ON")
    connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")  # refused with its row


def _said(error: Exception) -> str:
    """The database's own words: pg8000 gives a table of them."""
    words = (getattr(error, "orig", None) or error).args
    first = words[0] if words else error
    return without_credentials(str(first.get("M", first) if isinstance(first, dict) else first))


def _plain(value: Any) -> Any:
    """A cell as other readers give it. Raises TypeError for one that has no plain form."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, decimal.Decimal):
        return None if value.is_nan() else format(value, "f")
    if isinstance(value, _AS_TEXT):
        return str(value)
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    raise TypeError(f"a {type(value).__name__}")
