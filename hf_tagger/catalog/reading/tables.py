"""Small table files that a shop writes: verdicts, interactions."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hf_tagger.catalog.strict import ConfigError, did_you_mean


def read_columns(path: str | Path, columns: Sequence[str]) -> pa.Table:
    """These columns of a parquet file; others are left out.

    Raises ConfigError, naming the file, if there is none, if it cannot be read, or if it lacks a column.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise ConfigError(f"there is no file {path}") from None
    except (OSError, pa.ArrowInvalid) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    for column in columns:
        if column not in table.column_names:
            raise ConfigError(f"{path} has no column {column!r}.{did_you_mean(column, table.column_names)}")
    return table.select(list(columns))
