"""The tables of the feedback store. Triggers in the database refuse to change or delete a row."""

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
)
event.listen(metadata, "before_create", _REFUSE.execute_if(dialect="postgresql"))
for _table in (verdicts, rulings):
    for _change in ("UPDATE", "DELETE"):
        _name = f"{_table.name}_no_{_change.lower()} BEFORE {_change} ON {_table.name}"
        event.listen(metadata, "after_create", sa.DDL(
            f"CREATE TRIGGER IF NOT EXISTS {_name} BEGIN SELECT RAISE(ABORT, 'feedback is append-only'); END"
        ).execute_if(dialect="sqlite"))
        event.listen(_table, "after_create", sa.DDL(
            f"CREATE TRIGGER {_name} FOR EACH ROW EXECUTE FUNCTION refuse_change()").execute_if(dialect="postgresql"))
    # What INSERT OR REPLACE takes away fires no trigger of DELETE, and TRUNCATE none of a row.
    event.listen(metadata, "after_create", sa.DDL(
        f"CREATE TRIGGER IF NOT EXISTS {_table.name}_no_replace BEFORE INSERT ON {_table.name} "
        f"WHEN EXISTS (SELECT 1 FROM {_table.name} WHERE number = NEW.number) "
        "BEGIN SELECT RAISE(ABORT, 'feedback is append-only'); END").execute_if(dialect="sqlite"))
    event.listen(_table, "after_create", sa.DDL(
        f"CREATE TRIGGER {_table.name}_no_truncate BEFORE TRUNCATE ON {_table.name} "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()").execute_if(dialect="postgresql"))
# A verdict that is there already is passed over, as `FeedbackStore.add` wants it, whatever is said to do on conflict.
event.listen(metadata, "after_create", sa.DDL(
    "CREATE TRIGGER IF NOT EXISTS verdicts_no_second_key BEFORE INSERT ON verdicts "
    "WHEN EXISTS (SELECT 1 FROM verdicts WHERE key = NEW.key) BEGIN SELECT RAISE(IGNORE); END"
).execute_if(dialect="sqlite"))
