"""Verdicts as a parquet file, out of one store and into another."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hf_tagger.catalog.strict import did_you_mean
from hf_tagger.feedback.store import FeedbackError, FeedbackStore
from hf_tagger.feedback.verdicts import Verdict

_TEXT = ("product", "fingerprint", "attribute", "tag", "decision", "reviewer", "model_version", "key")
SCHEMA = pa.schema([*((name, pa.string()) for name in _TEXT), ("score", pa.float64()),
                    ("at", pa.timestamp("us", tz="UTC"))])


def export_verdicts(store: FeedbackStore, path: str | Path) -> int:
    """Writes every verdict, in order; returns how many."""
    rows = [asdict(verdict) for verdict in store.verdicts()]
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), path, compression="zstd")
    return len(rows)


def import_verdicts(store: FeedbackStore, path: str | Path) -> int:
    """Adds what `export_verdicts` wrote, all of it or nothing; verdicts that the store has already count once. Returns
    how many the file holds.

    Raises FeedbackError, naming the file and the row, for a file that does not fit.
    """
    verdicts = list(_read(Path(path)))
    store.add(verdicts)
    return len(verdicts)


def _read(path: Path) -> Iterator[Verdict]:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise FeedbackError(f"{path} cannot be read as parquet: {error}") from error
    for name in SCHEMA.names:
        if name not in table.column_names:
            raise FeedbackError(f"{path} has no column {name!r}.{did_you_mean(name, table.column_names)}")
    try:
        rows = table.select(SCHEMA.names).cast(SCHEMA).to_pylist()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise FeedbackError(f"{path}: a column has values of another type: {error}") from error
    for number, row in enumerate(rows, 1):
        try:
            yield Verdict(**row)
        except (ValueError, AttributeError) as error:
            raise FeedbackError(f"{path}, row {number}: {error}") from error
