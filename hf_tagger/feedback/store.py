"""The feedback store: verdicts in SQLite or PostgreSQL, durable, with several writers at once."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Engine, event, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from hf_tagger import UserError
from hf_tagger.catalog.reading.sql import DatabaseError, database_url, open_database
from hf_tagger.catalog.strict import did_you_mean
from hf_tagger.feedback.tables import RULINGS, metadata, rulings, verdicts
from hf_tagger.feedback.verdicts import UNDECIDED, Verdict
from hf_tagger.model.urls import without_credentials

_AT_ONCE = 500
_SCHEME = re.compile(r"(sqlite|postgres\w*|mysql|mariadb|oracle|mssql)[+\w]*:", re.IGNORECASE)
_INSERT = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
_READ = [verdicts.c[field.name] for field in fields(Verdict)]


class FeedbackError(UserError):
    """The store cannot be opened, read or written: the message says why, and what to do."""


class FeedbackStore(AbstractContextManager):
    """Append-only: a verdict is never changed or deleted, only withdrawn or contradicted by a later one.

    When `add` returns, the verdicts are on disk: neither a killed process nor a power cut loses them. SQLite writes a
    write-ahead log and waits for the disk at every commit; readers never wait, writers take turns. Where several
    machines write, use PostgreSQL: SQLite does not work over a network file system.

    Args:
        url: a path (SQLite), or a URL of SQLAlchemy's: `sqlite:///feedback.db`, `postgresql://user@host/database`. The
            file and the tables are created, a PostgreSQL database is not.
        attributes: of the model's config. With them, a verdict about another attribute is refused. One about another
            tag is kept, as a proposed tag (`feedback.proposals`).
        patience: seconds that a writer waits for others before it gives up.

    Raises FeedbackError if the database cannot be opened.
    """

    def __init__(self, url: str | Path, attributes: Sequence[dict] | None = None, patience: float = 30.0):
        self.attributes = attributes
        self.engine = _open(str(url), patience)
        self.url = without_credentials(str(self.engine.url))
        try:
            # In one transaction, because two processes may create the tables at once.
            with self._errors("could not be opened"), self._writing() as connection:
                metadata.create_all(connection)
        except (AttributeError, KeyError, OSError, SQLAlchemyError, TypeError, ValueError) as error:  # odd options
            raise FeedbackError(f"the feedback store {self.url} could not be opened: {type(error).__name__}: "
                                f"{without_credentials(str(error))}. Check the options of its URL.") from None

    def add(self, new: Verdict | Iterable[Verdict]) -> None:
        """Stores one verdict or several, all of them or none.

        Raises:
            ValueError: an attribute that the model does not have.
            FeedbackError: the database is locked, full, read-only or not reachable.
        """
        new = [new] if isinstance(new, Verdict) else list(new)
        for attribute in {verdict.attribute for verdict in new}:
            self._check_attribute(attribute)
        with self._errors("did not take this verdict"), self._writing() as connection:
            for start in range(0, len(new), _AT_ONCE):
                rows = [asdict(verdict) for verdict in new[start:start + _AT_ONCE]]
                insert = _INSERT[self.engine.dialect.name](verdicts)
                connection.execute(insert.on_conflict_do_nothing(index_elements=["key"]), rows)

    def verdicts(self) -> list[Verdict]:
        """All verdicts, in the order in which they were stored."""
        return self.verdicts_after(0)[0]

    def verdicts_after(self, number: int) -> tuple[list[Verdict], int]:
        """The verdicts stored after the one of this number, in that order, and the number for the next call."""
        query = select(verdicts.c.number, *_READ).where(verdicts.c.number > number).order_by(verdicts.c.number)
        with self._errors("could not be read"), self.engine.connect() as connection:
            rows = [dict(row) for row in connection.execute(query).mappings()]
        numbers = [row.pop("number") for row in rows]
        return [Verdict(**row) for row in rows], numbers[-1] if numbers else number

    def rule(self, attribute: str, tag: str, ruling: str, reviewer: str) -> None:
        """Stores that a proposed tag is approved or declined ("approve", "decline"). The latest ruling counts. A
        tag whose attribute is undecided is approved for one of the model's attributes.

        Raises ValueError for another ruling or an unknown attribute, and FeedbackError as `add` does.
        """
        if ruling not in RULINGS:
            raise ValueError(f"{ruling!r} is not a ruling.{did_you_mean(ruling, RULINGS)}")
        if ruling == "approve" and attribute == UNDECIDED:
            raise ValueError(f"{tag!r}: approve it for one of the model's attributes")
        self._check_attribute(attribute)
        row = {"attribute": attribute, "tag": tag, "ruling": ruling, "reviewer": reviewer, "at": datetime.now(UTC)}
        with self._errors("did not take this ruling"), self._writing() as connection:
            connection.execute(rulings.insert(), row)

    def rulings(self) -> dict[tuple[str, str], str]:
        """{(attribute, tag): "approve" | "decline"}"""
        query = select(rulings.c.attribute, rulings.c.tag, rulings.c.ruling).order_by(rulings.c.number)
        with self._errors("could not be read"), self.engine.connect() as connection:
            return {(attribute, tag): ruling for attribute, tag, ruling in connection.execute(query)}

    def __exit__(self, *error) -> None:
        self.engine.dispose()

    def _check_attribute(self, attribute: str) -> None:
        known = [entry["name"] for entry in self.attributes or ()]
        if self.attributes is not None and attribute not in (*known, UNDECIDED):
            raise ValueError(f"the model has no attribute {attribute!r}.{did_you_mean(attribute, known)}")

    @contextmanager
    def _writing(self) -> Iterator:
        with self.engine.execution_options(writes=True).begin() as connection:
            if self.engine.dialect.name == "postgresql":
                # One writer at a time, so that numbers rise in the order of the commits: `verdicts_after` needs that.
                connection.execute(text("SELECT pg_advisory_xact_lock(4207849)"))
            yield connection

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise FeedbackError(f"the feedback store {self.url} {what}: {_remedy(str(error.orig))} "
                                "Nothing that was stored before is lost.") from error


def _open(url: str, patience: float) -> Engine:
    if "://" not in url:
        if _SCHEME.match(url):
            raise FeedbackError(f"a feedback URL begins with {_SCHEME.match(url)[1]}://, and this one does not")
        try:
            Path(url).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FeedbackError(f"{url}: its folder cannot be made: {error}") from error
        url = f"sqlite:///{url}"
    try:
        parsed = database_url(url)
        if parsed.get_backend_name() not in _INSERT:
            raise FeedbackError(f"feedback is kept in SQLite or PostgreSQL, not in {parsed.get_backend_name()}")
        if parsed.get_backend_name() == "sqlite" and (parsed.database or ":memory:") == ":memory:":
            raise FeedbackError("feedback is kept in a file, not in memory: give its path")
        options = {"timeout": patience} if parsed.get_backend_name() == "sqlite" else {}
        engine = open_database(parsed, connect_args=options, pool_pre_ping=not options)
    except DatabaseError as error:
        raise FeedbackError(str(error)) from None
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection, record) -> None:
    connection.isolation_level = None  # transactions begin where `_begin_sqlite` says, not where the driver guesses
    for setting in ("journal_mode = WAL", "synchronous = FULL"):
        connection.execute(f"PRAGMA {setting}")


def _begin_sqlite(connection) -> None:
    # A writer takes the lock before it reads: SQLite refuses at once to turn a read transaction into a write one.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")


def _remedy(message: str) -> str:
    lowered = message.lower()
    if "locked" in lowered or "busy" in lowered:
        return "another program keeps it locked. Close that program, or try again."
    if "full" in lowered or "no space" in lowered:
        return "the disk is full. Make room, and try again."
    if "readonly" in lowered or "unable to open" in lowered:
        return f"it cannot be written to ({message}). Check the path and its permissions."
    return f"{message}."
