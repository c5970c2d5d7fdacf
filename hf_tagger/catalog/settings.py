"""The `catalog` section of a command: the shop's catalogue, or a made-up one."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from hf_tagger.catalog.schema import CatalogSchema
from hf_tagger.catalog.source import SourceConfig, check_files
from hf_tagger.catalog.strict import ConfigError, build

if TYPE_CHECKING:
    from hf_tagger.catalog.stream import Catalog


@dataclass
class CatalogSettings:
    """
    Args:
        source: where the catalogue is; schema: what its columns mean.
        synthetic: in place of both, options of `catalog.synthetic.write_catalog`, for a made-up catalogue.
        labels: file of corrected tags that replace the catalogue's own (`catalog.labels`).
        max_bad_fraction: share of refused rows from which the run stops.
        drop_duplicates: leave out products with the text and photos of an earlier one.
    """

    source: SourceConfig | None = None
    schema: CatalogSchema | None = None
    synthetic: dict[str, Any] | None = None
    labels: str | None = None
    max_bad_fraction: float = 0.05
    drop_duplicates: bool = False

    def __post_init__(self):
        if (self.synthetic is None) == (self.source is None or self.schema is None):
            raise ValueError("give source and schema (your catalogue), or synthetic (a made-up one)")

    def check_paths(self) -> None:
        """Raises ConfigError where a local file is not there, or a made-up catalogue has no such option, within a
        second: before what takes seconds to import."""
        if self.synthetic is not None:
            from hf_tagger.catalog.synthetic import check_options

            check_options(self.synthetic)
        else:
            check_files(self.source)
        if self.labels is not None and "://" not in self.labels and not Path(self.labels).exists():
            raise ConfigError(f"catalog.labels: there is no file {self.labels}")


@dataclass
class LoaderSettings:
    """
    Args:
        batch_size: products per batch and process.
        shuffle_buffer: rows held to draw from (0: catalogue order). Rows carry their undecoded photos: a thousand rows
            of 300 kB photos hold 300 MB.
        bucket_batches: batches sorted together by text length before they are cut (1: no length buckets).
        num_workers: processes that decode and tokenize ahead of the training step (0: in the main process).
    """

    batch_size: int = 32
    shuffle_buffer: int = 2000
    bucket_batches: int = 8
    num_workers: int = 1


def write_synthetic(settings: CatalogSettings, folder: Path) -> None:
    """Writes the made-up catalogue that `settings.synthetic` describes into `folder`, in place of what is there."""
    from hf_tagger.catalog.synthetic import write_catalog

    # Shards of an earlier run with other options would be read along.
    shutil.rmtree(folder, ignore_errors=True)
    write_catalog(folder, **settings.synthetic)


def open_catalog(settings: CatalogSettings, folder: Path, write: bool = True) -> "Catalog":
    """The catalogue; a made-up one is first written into `folder`, if this is the process that does so."""
    if settings.synthetic is not None:
        if write:
            write_synthetic(settings, folder)
        settings = written_synthetic(settings, folder)
    return with_labels(settings)


def with_labels(settings: CatalogSettings) -> "Catalog":
    """The catalogue of these `source` and `schema`, corrected by `labels`."""
    from hf_tagger.catalog.labels import Labels
    from hf_tagger.catalog.stream import Catalog

    labels = Labels(settings.labels, settings.schema) if settings.labels else None
    return Catalog(settings.source, settings.schema, labels)


def written_synthetic(settings: CatalogSettings, folder: Path) -> CatalogSettings:
    """Where the made-up catalogue that `write_synthetic` wrote is, and how it is read."""
    files = {split: f"{folder}/{split}-*.parquet" for split in ("train", "validation", "test")}
    schema = yaml.safe_load((folder / "schema.yaml").read_text(encoding="utf-8"))
    data = {"source": {"files": files}, "schema": schema, "labels": settings.labels}
    return build(CatalogSettings, data, "catalog")
