"""The `catalog` section of a command: the shop's catalogue, or a made-up one."""

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_tagger.catalog.profiles import Write
from hf_tagger.catalog.reading.source import SourceConfig, check_files
from hf_tagger.catalog.schema import CatalogSchema
from hf_tagger.catalog.strict import ConfigError, build

if TYPE_CHECKING:
    from hf_tagger.catalog.reading.stream import Catalog


# Share of the rows of each split that is cut from a catalogue unasked. A hash decides alone, not the tags: to keep each
# rare tag in training would move products between the splits when others come. A tag of three products is left without
# one in training in 0.8 % of cases.
HELD_OUT = 0.1


@dataclass
class CatalogSettings:
    source: SourceConfig | None = None  # where the catalogue is
    schema: CatalogSchema | None = None  # what its columns mean
    # In place of both, options of `catalog.synthetic.products.write_catalog`, for a made-up catalogue.
    synthetic: dict[str, Any] | None = None
    # Files of a standard taxonomy whose nodes `schema.attributes.NAME.taxonomy` names (`catalog.taxonomy`).
    taxonomy: str | list[str] = field(default_factory=list)
    labels: str | None = None  # file of corrected tags that replace the catalogue's own (`reading.labels`)
    max_bad_fraction: float = 0.05  # of refused rows, or of products that lost their photos: more stop the run
    drop_duplicates: bool = False  # leave out products with the text and photos of an earlier one
    # {attribute, or "*" for every other one: where `hf_tagger tag --output` writes its tags}; default: as the profile
    # of the shop's system has it, else into the attribute's own column.
    write: dict[str, Write] = field(default_factory=dict)

    def __post_init__(self):
        if (self.synthetic is None) == (self.source is None or self.schema is None):
            raise ValueError("give source and schema (your catalogue), or synthetic (a made-up one)")
        self.taxonomy = [self.taxonomy] if isinstance(self.taxonomy, str) else self.taxonomy
        if self.schema is not None:
            specs = {**self.schema.attributes, "pairs.discover": self.schema.pairs and self.schema.pairs.discover}
            named = [name for name, spec in specs.items() if spec is not None and spec.taxonomy is not None]
            if named and not self.taxonomy:
                raise ValueError(f"{named[0]} names a taxonomy: give its file, taxonomy: categories.txt")
            if self.taxonomy and not named:
                raise ValueError("taxonomy: no attribute names it; write schema.attributes.NAME.taxonomy: categories")
        if self.source is not None:
            self.source = with_held_out_splits(self.source)

    def check_paths(self, tags: bool = True) -> None:
        """Raises ConfigError where a local file is not there, or a made-up catalogue has no such option, within a
        second: before what takes seconds to import. `tags`: whether they are read."""
        if self.synthetic is not None:
            from hf_tagger.catalog.synthetic.products import check_options

            check_options(self.synthetic)
        else:
            check_files(self.source)
        for key, files in (("labels", [self.labels] if self.labels else []), ("taxonomy", self.taxonomy)):
            for file in files if tags else ():
                if "://" not in file and not Path(file).exists():
                    raise ConfigError(f"catalog.{key}: there is no file {file}")


@dataclass
class LoaderSettings:
    batch_size: int = 32  # products per batch and process
    # Rows held to draw from (0: catalogue order), with their undecoded photos: a thousand of 300 kB hold 300 MB.
    shuffle_buffer: int = 2000
    bucket_batches: int = 8  # batches sorted together by text length before they are cut (1: no length buckets)
    num_workers: int = 1  # processes that decode and tokenize ahead of the training step (0: in the main process)


def with_held_out_splits(source: SourceConfig) -> SourceConfig:
    """A source whose `fractions` are left open, with the splits that it lacks cut from "train"."""
    if source.fractions is not None:
        return source
    cut = []
    if "train" in source.splits and "validation" not in source.splits and not source.hub_id("train"):
        cut = ["validation"] if len(source.splits) > 1 else ["validation", "test"]
    return replace(source, fractions=dict.fromkeys(cut, HELD_OUT))


def made_up(settings: CatalogSettings, folder: Path, write: bool = True) -> CatalogSettings:
    """With the made-up catalogue that `synthetic` describes as `source` and `schema`; with `write`, it is first written
    into `folder`, in place of what is there. Other settings are returned as they are."""
    if settings.synthetic is None:
        return settings
    from hf_tagger.catalog.synthetic.products import SPLITS, catalog_schema, write_catalog

    if write:
        # Shards of an earlier run with other options would be read along.
        shutil.rmtree(folder, ignore_errors=True)
        write_catalog(folder, **settings.synthetic)
    return replace(settings, synthetic=None, schema=build(CatalogSchema, catalog_schema()),
                   source=SourceConfig(files={split: f"{folder}/{split}-*.parquet" for split in SPLITS}))


def open_catalog(settings: CatalogSettings, folder: Path, write: bool = True) -> "Catalog":
    """The catalogue of these settings, corrected by `labels`; `folder`, `write`: see `made_up`."""
    from hf_tagger.catalog.reading.labels import Labels
    from hf_tagger.catalog.reading.stream import Catalog
    from hf_tagger.catalog.tag_names import TagNames

    settings = made_up(settings, folder, write)
    labels = Labels(settings.labels, settings.schema) if settings.labels else None
    return Catalog(settings.source, settings.schema, labels, TagNames(settings.schema, settings.taxonomy))
