"""Interaction logs: which shopper viewed or bought which product, and when."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hf_tagger.catalog.strict import ConfigError, did_you_mean


@dataclass(frozen=True)
class Interactions:
    """N interactions in the order of time: users and rows of products int [N], times in seconds float [N]."""

    user: np.ndarray
    product: np.ndarray
    time: np.ndarray


def read_interactions(path: str | Path, ids: Sequence[str]) -> tuple[Interactions, int]:
    """Reads a parquet file with the columns user, product (an id) and time (a timestamp, or seconds since 1970).

    Returns the interactions, and how many rows were left out: they are incomplete, or their product is not in `ids`.

    Raises ConfigError for a file that does not fit.
    """
    table = read_columns(path, ("user", "product", "time"))
    time = table["time"]
    try:
        if pa.types.is_timestamp(time.type):
            time = time.cast(pa.timestamp("us", tz=time.type.tz)).cast(pa.int64()).to_numpy() / 1e6
        else:
            time = time.cast(pa.float64()).to_numpy()
    except pa.ArrowInvalid as error:
        raise ConfigError(f"{path}: time must be a timestamp or seconds since 1970: {error}") from error
    row_of = {product: row for row, product in enumerate(ids)}
    products = np.array([row_of.get(str(product), -1) for product in table["product"].to_pylist()], dtype=np.int64)
    users = table["user"].to_pylist()
    whole = (products >= 0) & ~np.isnan(time) & np.array([user is not None for user in users], dtype=bool)
    order = np.flatnonzero(whole)[np.argsort(time[whole], kind="stable")]
    numbers: dict = {}
    user = np.array([numbers.setdefault(users[row], len(numbers)) for row in order], dtype=np.int64)
    return Interactions(user, products[order], time[order]), len(users) - len(order)


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
