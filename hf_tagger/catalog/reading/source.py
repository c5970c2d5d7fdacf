"""Where a catalogue's rows are: files, folders and globs of any fsspec file system, or a dataset on the Hub."""

import codecs
import glob
import json
import os
import re
from dataclasses import dataclass, field
from typing import Literal

import fsspec

from hf_tagger.catalog.profiles import profile as load_profile
from hf_tagger.catalog.reading.photo_folder import PHOTOS, photos_in
from hf_tagger.catalog.strict import ConfigError, did_you_mean

FORMATS = {
    "parquet": (".parquet", ".pq"),
    "csv": (".csv", ".txt"),  # .txt: Google's and Amazon's feeds, with tabs
    "tsv": (".tsv", ".tab"),
    "jsonl": (".jsonl", ".ndjson", ".json", ".jsonld"),
    "xml": (".xml", ".rss", ".atom"),
    "xlsx": (".xlsx", ".xlsm", ".xls", ".ods"),
    "webdataset": (".tar", ".tgz"),
}
COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst", ".zip")

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
# Dialects of SQLAlchemy, with or without the name of a driver.
_DATABASE = re.compile(r"(sqlite|postgres(ql)?|mysql|mariadb|oracle|mssql|duckdb|snowflake|redshift)(\+\w+)?://", re.I)
_METADATA_FILES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


def format_of(file: str) -> str | None:
    """The format of a file by its name, without compression suffixes; None for an unknown one."""
    name = file.lower()
    for suffix in COMPRESSIONS:
        name = name.removesuffix(suffix)
    return next((format for format, suffixes in FORMATS.items() if name.endswith(suffixes)), None)


def is_database(path: str) -> bool:
    """Whether the path of a catalogue is an URL of SQLAlchemy's."""
    return _DATABASE.match(path) is not None


@dataclass
class SourceConfig:
    # Files of the split "train": a path, a glob, a folder, an hf:// or s3:// address, or a list of these; or a database
    # (postgresql://…, sqlite:///…); or the id of a dataset on the Hub with its own splits. (The types of its CSV and
    # JSON files are guessed, and reading stops at the first bad row; "hf://datasets/<id>/*.csv" reads cells as they
    # were typed.)
    path: str | list[str] | None = None
    files: dict[str, str | list[str]] = field(default_factory=dict)  # {split: the same}
    # {split: share} cut from "train" by a hash of the group (or id) column: rows of one group are in one split, and
    # stay in it when the catalogue grows.
    # null: a tenth for validation where it has no rows of its own, another for test where there are no splits at all;
    # {}: none. Only the `catalog` section of a configuration reads null so.
    fractions: dict[str, float] | None = None
    split_seed: int = 0  # another seed gives other splits
    format: Literal["parquet", "csv", "tsv", "jsonl", "xml", "xlsx", "imagefolder", "webdataset", "hub"] | None = None
    # Of the shop system that wrote the export (shopify, woocommerce …, or a file like those in catalog/profiles), whose
    # rows of variants make one product; default: the one whose columns the file has; "none": every row is a product.
    profile: str | None = None
    delimiter: str | None = None  # of csv files; default: found in the header line
    encoding: str | None = None  # of csv, tsv and jsonl files; default: found
    # Of a database: a table (`name` or `schema.name`) or a SELECT, and the column that tells rows apart, in whose order
    # they are read; default: the schema's id.
    table: str | None = None
    query: str | None = None
    key: str | None = None
    name: str | None = None  # configuration of a Hub dataset
    revision: str | None = None

    def __post_init__(self):
        if not self.path and not self.files:
            raise ConfigError("a source needs path (one catalogue) or files ({train: …, validation: …}).")
        if self.path and "train" in self.files:
            raise ConfigError("give the training rows once: path or files.train. For those of files alone, set path to "
                              "null (--catalog.source.path null).")
        given_twice = sorted(set(self.fractions or ()) & {*self.files, "train"})
        if given_twice:
            left = {split: share for split, share in self.fractions.items() if split not in given_twice}
            raise ConfigError(f'fractions.{given_twice[0]}: fractions are cut from "train", for splits without files. '
                              f"To use the files, set --catalog.source.fractions '{json.dumps(left)}'.")
        shares = (self.fractions or {}).values()
        if any(share <= 0 for share in shares) or sum(shares) >= 1:
            raise ConfigError(f"fractions must be above 0 and leave some rows for train, got {self.fractions}.")
        if self.delimiter is not None and len(self.delimiter) != 1:
            raise ConfigError(f"delimiter must be one character, got {self.delimiter!r}.")
        if self.profile not in (None, "none"):
            load_profile(self.profile)
        try:
            codecs.lookup(self.encoding or "utf-8")
        except LookupError:
            raise ConfigError(f"encoding: {self.encoding!r} is not known; try utf-8 or cp1252.") from None

        stored = [split for split in self.splits if split not in (self.fractions or ())]
        databases = [url for split in stored if (url := self.database(split))]
        if databases and (self.table is None) == (self.query is None):
            raise ConfigError("a database needs table: NAME, or query: SELECT …")
        if len(set(databases)) < len(databases):
            raise ConfigError("several splits have the same rows of a database: cut them from path with fractions.")
        if (self.table or self.query or self.key) and not databases:
            raise ConfigError("table, query and key are for a database: path: postgresql://… or sqlite:///…")

    @property
    def splits(self) -> list[str]:
        """Names of the splits that this source declares (a Hub dataset may have more)."""
        train = ["train"] if self.path or "train" in self.files else []
        return train + [split for split in [*self.files, *(self.fractions or ())] if split != "train"]

    def hub_id(self, split: str) -> str | None:
        """The Hub dataset of the split; None if it is in files."""
        path = self.files.get(self.stored_split(split), self.path)
        if not isinstance(path, str) or (self.format or "hub") != "hub":
            return None
        looks_like_one = _HUB_ID.fullmatch(path) and not os.path.exists(path) and format_of(path) is None
        return path if self.format == "hub" or looks_like_one else None

    def database(self, split: str) -> str | None:
        """The URL of the database that holds the split; None if it is in files."""
        patterns = self.patterns(split)
        return patterns[0] if len(patterns) == 1 and is_database(patterns[0]) else None

    @property
    def rows_name(self) -> str:
        """What a database is asked for, for messages."""
        return "the query" if self.query else f'the table "{self.table}"'

    def stored_split(self, split: str) -> str:
        """The split in which the rows of `split` are stored: "train" for one that is cut from it."""
        return "train" if split in (self.fractions or ()) else split

    def patterns(self, split: str) -> list[str]:
        """Paths, globs and folders of the files that hold the split's rows."""
        stored = self.stored_split(split)
        patterns = self.files.get(stored) or (self.path if stored == "train" else None) or []
        return [patterns] if isinstance(patterns, str) else patterns

    def is_cut(self, split: str) -> bool:
        """Whether only some of the stored rows belong to the split."""
        return bool(self.fractions) and self.stored_split(split) == "train"


def catalogue_files(source: SourceConfig, split: str) -> list[tuple[str, str]]:
    """(file, format) of each file that holds rows of the split, sorted by name.

    Raises ConfigError for an undeclared split, a path without files, an unknown format, or several formats.
    """
    patterns = source.patterns(split)
    if not patterns:
        raise ConfigError(f'The source has no split "{split}".{did_you_mean(split, source.splits)}')
    files = sorted({file for pattern in patterns for file in _files_at(pattern)})
    declared = None if source.format in (None, "imagefolder") else source.format
    formats = [declared or (PHOTOS if os.path.isdir(file) else format_of(file)) for file in files]
    if None in formats:
        known = ", ".join(f"{name} ({' '.join(suffixes)})" for name, suffixes in FORMATS.items())
        file = files[formats.index(None)]
        raise ConfigError(f"{file}: its name does not tell the format. Set format to one of: {known}, imagefolder.")
    other = next((index for index, format in enumerate(formats) if format != formats[0]), None)
    if other is not None:
        raise ConfigError(f'The split "{split}" mixes formats: {files[0]}, {files[other]}.')
    return list(zip(files, formats, strict=True))


def check_files(source: SourceConfig) -> None:
    """Raises ConfigError, as `catalogue_files` does, for the splits that are read from local files."""
    for split in dict.fromkeys(map(source.stored_split, source.splits)):
        if url := source.database(split):
            check_database(url)
        remote = any("://" in pattern for pattern in source.patterns(split))
        if not remote and source.hub_id(split) is None:
            catalogue_files(source, split)


def check_database(url: str) -> None:
    """Raises ConfigError for a file of SQLite that is not there: it would be made."""
    file = sqlite_file(url)
    if file and not file.startswith("file:") and not os.path.isfile(file):
        raise ConfigError(f"there is no database {file} (looked from {os.getcwd()}).")


def sqlite_file(url: str) -> str | None:
    """The file of a database; None of one on a server."""
    path = re.match(r"sqlite(?:\+\w+)?:///([^?]*)", os.path.expandvars(url))
    return path and path[1]


def _files_at(pattern: str) -> list[str]:
    """Files of a path, glob or folder. Of a folder: its metadata files (imagefolder), else its catalogue files, also in
    sub-folders; one on this machine that holds photos alone is a catalogue itself."""
    try:
        fs, path = fsspec.core.url_to_fs(pattern)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{pattern}: {error}") from error

    def files_in(entry: str) -> list[str]:
        if not fs.isdir(entry):
            return [entry]
        found = fs.find(entry)
        catalogues = [f for f in found if f.endswith(_METADATA_FILES)] or [
            f for f in found if format_of(f) and not f.lower().endswith(".txt")]  # notes lie in folders
        return catalogues or [entry] * ("://" not in pattern and any(True for _ in photos_in(entry)))

    try:
        entries = [path] if fs.exists(path) else fs.glob(path) if glob.has_magic(path) else []
        found = [file for entry in entries for file in files_in(entry)]
    except Exception as error:  # each service has errors of its own
        if "://" not in pattern:
            raise
        raise ConfigError(f"{pattern} cannot be reached: {type(error).__name__}: {error}") from error
    if not found:
        raise ConfigError(f"No catalogue file at {pattern} (looked from {os.getcwd()}).")
    return [fs.unstrip_protocol(file) if "://" in pattern else file for file in found]
