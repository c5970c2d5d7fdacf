"""The columns of a catalogue file, and what every reader of one yields."""

from collections.abc import Iterable
from typing import Any

from hf_tagger.catalog.quarantine import RowError
from hf_tagger.catalog.strict import ConfigError, did_you_mean

# (row number from 1, values | None, RowError | None): values alone for a good row, an error alone for a lost one, both
# for a row of which a part is missing.
RawRow = tuple[int, dict[str, Any] | None, RowError | None]
# `datasets`' imagefolder calls the photo of the metadata column `file_name` `image`.
_IMAGEFOLDER_NAMES = {"image": "file_name", "images": "file_names"}


def check_columns(wanted: dict[str, str], found: Iterable[str], where: str) -> None:
    """Raises ConfigError, naming the nearest column, if one of `wanted` {column: the key that names it} is not found.
    """
    found = list(found)
    for column, key in wanted.items():
        if column not in found:
            raise ConfigError(f'{where} has no column "{column}" ({key}).{did_you_mean(column, found)}')


def stored_name(column: str, stored: Iterable[str]) -> str:
    return column if column in stored else _IMAGEFOLDER_NAMES.get(column, column)


def with_imagefolder_names(stored: Iterable[str]) -> list[str]:
    return [*stored, *(name for name, file_name in _IMAGEFOLDER_NAMES.items() if file_name in stored)]
