"""Settings of an evaluation: the parts of a training configuration that it needs."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from hf_tagger.catalog.formats.columns import with_imagefolder_names
from hf_tagger.catalog.formats.nested import outer
from hf_tagger.catalog.profiles import recognise
from hf_tagger.catalog.reading.source import format_of, is_database
from hf_tagger.catalog.schema import CatalogSchema
from hf_tagger.catalog.settings import CatalogSettings, LoaderSettings
from hf_tagger.catalog.strict import ConfigError, build, override, read_yaml

PARTS = ("catalog", "evaluation", "calibration", "loader")
Objective = Literal["f1", "precision", "recall"]


@dataclass
class Protocol:
    """A way of looking at a split: other text columns, or without one modality."""

    text: list[str] | None = None  # null: the schema's columns
    without: list[Literal["text", "image"]] = field(default_factory=list)


@dataclass
class EvaluationSettings:
    """How validation and test are scored."""

    split: str = "test"  # scored at the end, under every protocol
    validation: str = "validation"  # chooses weights, fits thresholds and the logit fusion
    batch_size: int = 32  # products per batch
    one_attribute: bool = False  # free-form tags are asked for attribute by attribute, those that a row knows
    protocols: dict[str, Protocol] = field(default_factory=lambda: {"all": Protocol()})

    @property
    def first_protocol(self) -> Protocol:
        """The one that validation is looked at by."""
        return next(iter(self.protocols.values()))


@dataclass
class ThresholdSettings:
    """What thresholds are to reach."""

    # `f1`: the highest F1 (a `single` attribute gets no thresholds: the likelier of its best tag and none is given).
    # `precision`: as many tags as possible of which at least `target` are right. `recall`: as few tags as possible that
    # hold at least `target` of the right ones.
    objective: Objective = "f1"
    target: float = 0.9
    # For `precision` and `recall`: positives at which a tag's own threshold and the one of all its attribute's tags
    # weigh the same; with fewer, the latter weighs more.
    shrinkage: float = 20.0

    def __post_init__(self):
        if not 0 < self.target <= 1:
            raise ValueError(f"target is a precision or recall above 0 and up to 1, got {self.target}")
        if self.shrinkage < 0:
            raise ValueError(f"shrinkage must not be negative, got {self.shrinkage}")


@dataclass
class CalibrationSettings(ThresholdSettings):
    """Temperatures and thresholds, see `evaluation.calibration`."""

    min_positives: int = 5  # of a `multi` tag, for a Platt scaling of its own; others share their attribute's
    attributes: dict[str, ThresholdSettings] = field(default_factory=dict)  # {attribute: in place of the above}


@dataclass
class EvaluateSettings:
    """What `hf_tagger evaluate` reads from a YAML file and the command line. `loader` is a training configuration's
    `training.loader`; its batch size is `evaluation.batch_size`."""

    catalog: CatalogSettings
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    calibration: CalibrationSettings | None = field(default_factory=CalibrationSettings)
    loader: LoaderSettings = field(default_factory=LoaderSettings)


def load_evaluation(catalogue: str | Path, model: str | Path, arguments: list[str],
                    config: str | Path | None = None) -> EvaluateSettings:
    """The settings by which a model looks at a catalogue.

    Args:
        catalogue: a YAML file (a training configuration, or `source` and `schema` alone), or the path of a catalogue
            that is read by the schema in the model folder's own training configuration or, where its columns are not
            there, by the profile of the shop's system that wrote it; all of it is the split "test".
        arguments: `--key.sub value` overrides of the four parts.
        config: a YAML file whose schema reads a catalogue given by its path, in place of the model's.

    Raises ConfigError, naming the key and the nearest known one, for anything that does not fit. Of a training
    configuration only these parts are looked at: another version may have written the rest.
    """
    if Path(catalogue).suffix in (".yaml", ".yml"):
        data = read_yaml(catalogue)
        if "catalog" not in data and {"source", "schema"} & data.keys():
            data = {"catalog": data}
    else:
        trained = Path(model) / "training_config.yaml"
        data = None if config or _can_read(trained, catalogue) else recognised(catalogue)
        data = data or _by_the_schema_of(config or trained, catalogue)
    loader = (data.get("training") or {}).get("loader") or {}
    parts = {"loader": loader} | {name: data[name] for name in PARTS if name in data}
    return build(EvaluateSettings, override(parts, arguments))


def load_checked_evaluation(catalogue: str | Path, model: str, arguments: list[str],
                            config: str | Path | None = None) -> EvaluateSettings:
    """`load_evaluation`, for recipes: what is not there (the model, a file of the catalogue) raises ConfigError, too,
    before they import what takes seconds."""
    check_model(model)
    settings = load_evaluation(catalogue, model, arguments, config)
    settings.catalog.check_paths()
    return settings


def check_model(model: str) -> None:
    """Raises ConfigError where `model` is no folder with a model and cannot be a Hub id either."""
    folder = Path(model)
    if not folder.is_dir() and (folder.exists() or model.count("/") != 1 or model.startswith((".", "/"))):
        raise ConfigError(f"there is no model folder {model}")
    if folder.is_dir() and not any((folder / name).exists() for name in ("config.json", "adapter_config.json")):
        raise ConfigError(f"{model} holds no model: train one with recipes/finetune.py")


def _can_read(config: Path, catalogue: str | Path) -> bool:
    """Whether the schema of a training configuration finds its columns, other than those of tags, in a catalogue."""
    schema = (read_yaml(config).get("catalog") or {}).get("schema") if config.exists() else None
    format = format_of(str(catalogue))
    if schema is None or format in (None, "webdataset") or not Path(catalogue).is_file():
        return schema is not None
    from hf_tagger.catalog.reading.readers import file_columns  # takes seconds to import: not for a misspelt path

    wanted = build(CatalogSchema, schema).without_tags().columns()
    header = with_imagefolder_names(file_columns(str(catalogue), format, None, None, wanted))
    return all(outer(column, header) for column in wanted)


def recognised(catalogue: str | Path) -> dict | None:
    """The configuration that the profile of a shop's system gives for its export; None of any other file."""
    format = format_of(str(catalogue))
    if format in (None, "parquet", "webdataset") or not Path(catalogue).is_file():
        return None
    from hf_tagger.catalog.reading.readers import file_columns

    columns = file_columns(str(catalogue), format, None, None)
    found = recognise(columns)
    if found is None:
        return None
    system, names = found
    schema = {"id": names.get(system.id), "text": system.texts(columns),
              "images": [names[name] for name in system.images if name in names],
              "image_delimiter": system.image_delimiter, "image_root": system.image_root,
              "language_column": names.get(system.language),
              "attributes": {name: asdict(spec) | {"column": names[name]} for name, spec in system.attributes.items()
                             if name in names}}
    return {"catalog": {"source": {"files": {"test": str(catalogue)}, "profile": system.name}, "schema": schema}}


def _by_the_schema_of(config: str | Path, catalogue: str | Path) -> dict:
    if not Path(config).exists():
        raise ConfigError(f"{catalogue} is no YAML file, and {config}, which would tell how to read it, is not there: "
                          "give a YAML file with source and schema")
    data = read_yaml(config)
    if "catalog" not in data and "schema" in data:
        data = {"catalog": data}
    if (data.get("catalog") or {}).get("schema") is None:
        raise ConfigError(f"{config} describes a made-up catalogue: give a YAML file with source and schema")
    kept = ("encoding", "delimiter", "profile", *(["format"] if format_of(str(catalogue)) is None else []))
    if is_database(str(catalogue)):
        kept = ("table", "query", "key")
    source = {name: value for name, value in (data["catalog"].get("source") or {}).items() if name in kept}
    data["catalog"] = data["catalog"] | {"source": source | {"files": {"test": str(catalogue)}}}
    data["evaluation"] = (data.get("evaluation") or {}) | {"split": "test"}
    return data
