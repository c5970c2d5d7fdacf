"""The tables of the feedback store. Triggers in the database refuse to change or delete a row."""

from collections.abc import Iterator
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy import Column, Text, event

from hf_tagger.feedback.verdicts import DECISIONS

RULINGS = ("approve", "decline")


class UtcTime(sa.TypeDecorator):
    """Times with a zone, stored as UTC because SQLite drops the zone."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime, dialect) -> datetime:
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime, dialect) -> datetime:
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _number() -> Column:
    # SQLite numbers rows by itself only if the key's type is INTEGER.
    return Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True)


def _one_of(name: str, values: tuple[str, ...]) -> sa.CheckConstraint:
    return sa.CheckConstraint(f"{name} IN ({', '.join(map(repr, values))})", name=f"known_{name}")


metadata = sa.MetaData()

verdicts = sa.Table(
    "verdicts", metadata, _number(),
    Column("key", sa.String(64), nullable=False, unique=True),
    Column("product", Text, nullable=False, index=True),
    Column("fingerprint", sa.String(64), nullable=False),
    Column("attribute", Text, nullable=False),
    Column("tag", Text, nullable=False),
    Column("decision", sa.String(16), nullable=False),
    Column("reviewer", Text, nullable=False),
    Column("model_version", Text, nullable=False),
    Column("score", sa.Float),
    Column("at", UtcTime, nullable=False),
    _one_of("decision", DECISIONS),
)  # fmt: skip

rulings = sa.Table(
    "rulings", metadata, _number(),
    Column("attribute", Text, nullable=False),
    Column("tag", Text, nullable=False),
    Column("ruling", sa.String(16), nullable=False),
    Column("reviewer", Text, nullable=False),
    Column("at", UtcTime, nullable=False),
    _one_of("ruling", RULINGS),
)  # fmt: skip

_REFUSE = sa.DDL(
    "CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger AS "
    "$$ BEGIN RAISE EXCEPTION 'feedback is append-only'; END $$ LANGUAGE plpgsql"
).execute_if(dialect="postgresql")


def _triggers(table: str) -> Iterator[tuple[str, str]]:
    """(dialect, statement) that makes a trigger where there is none: stores of older versions get it, too."""
    # What INSERT OR REPLACE takes away fires no trigger of DELETE, and TRUNCATE none of a row.
    replaced = f"INSERT ON {table} WHEN EXISTS (SELECT 1 FROM {table} WHERE number = NEW.number)"
    for change, on in (("update", f"UPDATE ON {table}"), ("delete", f"DELETE ON {table}"), ("replace", replaced)):
        yield "sqlite", (f"CREATE TRIGGER IF NOT EXISTS {table}_no_{change} BEFORE {on} "
                         "BEGIN SELECT RAISE(ABORT, 'feedback is append-only'); END")
    for change, each in (("update", "ROW"), ("delete", "ROW"), ("truncate", "STATEMENT")):
        name = f"{table}_no_{change}"
        yield "postgresql", (
            f"DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgname = '{name}' "
            f"AND tgrelid = '{table}'::regclass) THEN CREATE TRIGGER {name} BEFORE {change.upper()} ON {table} "
            f"FOR EACH {each} EXECUTE FUNCTION refuse_change(); END IF; END $$")


for _table in (verdicts, rulings):
    event.listen(_table, "before_create", _REFUSE)
    for _dialect, _statement in _triggers(_table.name):
        event.listen(metadata, "after_create", sa.DDL(_statement).execute_if(dialect=_dialect))
# A verdict that is there already is passed over, as `FeedbackStore.add` wants it, whatever is said to do on conflict.
event.listen(metadata, "after_create", sa.DDL(
    "CREATE TRIGGER IF NOT EXISTS verdicts_no_second_key BEFORE INSERT ON verdicts "
    "WHEN EXISTS (SELECT 1 FROM verdicts WHERE key = NEW.key) BEGIN SELECT RAISE(IGNORE); END"
).execute_if(dialect="sqlite"))
