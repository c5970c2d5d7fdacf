"""Interaction logs: who met which product, and when."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hf_tagger.catalog.strict import ConfigError, did_you_mean

COLUMNS = ("user", "product", "time")


@dataclass(frozen=True)
class Interactions:
    """In the order of time: users and rows of products int [N], times in seconds float [N]."""

    user: np.ndarray
    product: np.ndarray
    time: np.ndarray


def read_interactions(path: str | Path, ids: Sequence[str]) -> tuple[Interactions, int]:
    """A parquet file with the columns user, product (an id) and time (a timestamp, or seconds since 1970), and how many
    of its rows are about products that are not among `ids`, or incomplete: these are left out.

    Raises ConfigError for a file that does not fit.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise ConfigError(f"{path} cannot be read as parquet: {error}") from error
    for name in COLUMNS:
        if name not in table.column_names:
            raise ConfigError(f"{path} has no column {name!r}.{did_you_mean(name, table.column_names)}")
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
