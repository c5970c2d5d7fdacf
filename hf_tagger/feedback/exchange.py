"""Verdicts as a parquet file, out of one store and into another."""

from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hf_tagger.catalog.strict import ConfigError
from hf_tagger.feedback.interactions import read_columns
from hf_tagger.feedback.store import FeedbackStore
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
    """Adds what `export_verdicts` wrote, all of it or nothing; a verdict that the store already has counts once.
    Returns how many the file holds.

    Raises ConfigError, naming the file and the row, for a file that does not fit.
    """
    table, verdicts = read_columns(path, SCHEMA.names), []
    try:
        rows = table.cast(SCHEMA).to_pylist()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ConfigError(f"{path}: a column has values of another type: {error}") from error
    for number, row in enumerate(rows, 1):
        try:
            verdicts.append(Verdict(**row))
        except (ValueError, AttributeError) as error:
            raise ConfigError(f"{path}, row {number}: {error}") from error
    store.add(verdicts)
    return len(verdicts)
