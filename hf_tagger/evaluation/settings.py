"""What an evaluation is told: of a training configuration, the parts that matter to it."""

from dataclasses import dataclass, field
from pathlib import Path

from hf_tagger.catalog.loader import LoaderSettings
from hf_tagger.catalog.settings import CatalogSettings
from hf_tagger.catalog.strict import ConfigError, build, override, read_yaml
from hf_tagger.evaluation.calibration import CalibrationSettings
from hf_tagger.evaluation.protocols import EvaluationSettings

PARTS = ("catalog", "evaluation", "calibration", "loader")


@dataclass
class EvaluateSettings:
    """What `recipes/evaluate.py` reads from a YAML file and the command line. `loader` is a training configuration's
    `training.loader`; its batch size is `evaluation.batch_size`."""

    catalog: CatalogSettings
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    calibration: CalibrationSettings | None = field(default_factory=CalibrationSettings)
    loader: LoaderSettings = field(default_factory=LoaderSettings)


def load_evaluation(catalogue: str | Path, model: str | Path, arguments: list[str]) -> EvaluateSettings:
    """The settings by which a model looks at a catalogue.

    Args:
        catalogue: a YAML file (a training configuration, or `source` and `schema` alone), or the path of a catalogue
            that is read by the schema in the model folder's own training configuration; all of it is the split "test".
        arguments: `--key.sub value` overrides of the four parts.

    Raises ConfigError, naming the key and the nearest known one, for anything that does not fit. Of a training
    configuration only these parts are looked at: another version may have written the rest.
    """
    if Path(catalogue).suffix in (".yaml", ".yml"):
        data = read_yaml(catalogue)
        if "catalog" not in data and {"source", "schema"} & data.keys():
            data = {"catalog": data}
    else:
        data = _by_the_models_schema(catalogue, Path(model) / "training_config.yaml")
    loader = (data.get("training") or {}).get("loader") or {}
    parts = {"loader": loader} | {name: data[name] for name in PARTS if name in data}
    return build(EvaluateSettings, override(parts, arguments))


def _by_the_models_schema(catalogue: str | Path, config: Path) -> dict:
    if not config.exists():
        raise ConfigError(f"{catalogue} is no YAML file, and {config}, which would tell how to read it, is not there: "
                          "give a YAML file with source and schema")
    data = read_yaml(config)
    if (data.get("catalog") or {}).get("schema") is None:
        raise ConfigError(f"{config} describes a made-up catalogue: give a YAML file with source and schema")
    data["catalog"] = data["catalog"] | {"source": {"files": {"test": str(catalogue)}}}
    data["evaluation"] = (data.get("evaluation") or {}) | {"split": "test"}
    return data
