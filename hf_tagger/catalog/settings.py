"""Which catalogue a command works on: the shop's own, or a made-up one."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hf_tagger.catalog.labels import Labels
from hf_tagger.catalog.schema import CatalogSchema
from hf_tagger.catalog.source import SourceConfig
from hf_tagger.catalog.stream import Catalog
from hf_tagger.catalog.strict import build


@dataclass
class CatalogSettings:
    """
    Args:
        source: where the catalogue is; schema: what its columns mean.
        synthetic: in place of both, options of `catalog.synthetic.write_catalog`: a made-up catalogue to try things on.
        labels: file of corrected tags that stand in for the catalogue's own, see `catalog.labels`.
        max_bad_fraction: share of rows that may be refused before the run stops.
        drop_duplicates: leave out products whose text and photos occurred before.
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


def write_synthetic(settings: CatalogSettings, folder: Path) -> None:
    """Writes the made-up catalogue that `settings.synthetic` describes into `folder`, in place of what is there."""
    from hf_tagger.catalog.synthetic import write_catalog

    # Shards of an earlier run with other options would be read along.
    shutil.rmtree(folder, ignore_errors=True)
    write_catalog(folder, **settings.synthetic)


def open_catalog(settings: CatalogSettings, folder: Path, write: bool = True) -> Catalog:
    """The catalogue; a made-up one is first written into `folder`, if this is the process that does so."""
    if settings.synthetic is not None:
        if write:
            write_synthetic(settings, folder)
        settings = written_synthetic(settings, folder)
    return with_labels(settings)


def with_labels(settings: CatalogSettings) -> Catalog:
    """The catalogue of these `source` and `schema`, corrected by `labels`."""
    labels = Labels(settings.labels, settings.schema) if settings.labels else None
    return Catalog(settings.source, settings.schema, labels)


def written_synthetic(settings: CatalogSettings, folder: Path) -> CatalogSettings:
    """Where the made-up catalogue that `write_synthetic` wrote is, and how it is read."""
    files = {split: f"{folder}/{split}-*.parquet" for split in ("train", "validation", "test")}
    schema = yaml.safe_load((folder / "schema.yaml").read_text(encoding="utf-8"))
    data = {"source": {"files": files}, "schema": schema, "labels": settings.labels}
    return build(CatalogSettings, data, "catalog")
