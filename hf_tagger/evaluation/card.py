"""The model card of an evaluated tagger, with its results as the Hub's model index."""

import html
import json
from datetime import date
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from hf_tagger.catalog.strict import ConfigError
from hf_tagger.evaluation.report import ReportData
from hf_tagger.evaluation.tables import comparison_table, decimal, interval_of
from hf_tagger.model.urls import without_credentials

WEAK, SEEN_OFTEN_ENOUGH, MOST_WEAK = 0.5, 3, 15
INDEXED = {"micro_f1": "F1 (micro)", "macro_f1": "F1 (macro)", "subset_accuracy": "Accuracy (all attributes)"}


def write_card(template: Path, path: Path, data: ReportData, model: str, command: list[str],
               evaluation: Path) -> ModelCard:
    """Fills the template and writes the card to `path`. Raises ConfigError where there is no template.

    Args:
        model: model folder or Hub id; of a folder, provenance.json, vocabulary.json and training_config.yaml are read.
        command: the command line that measured the results; evaluation: the folder with the figures.
    """
    if not template.is_file():
        raise ConfigError(f"there is no card template {template}: it is part of the repository, not of the package")
    provenance, vocabulary, config = (_read(Path(model) / name) for name in
                                      ("provenance.json", "vocabulary.json", "training_config.yaml"))
    plain = {result.name: result.plain() for result in data.results}
    first, tested = data.results[0], data.results[0].per_tag
    entries = first.predictions.attributes
    languages = [language for language in vocabulary.get("rows_per_language", {}) if language]
    name = Path(model).resolve().name if Path(model).is_dir() else model.rpartition("/")[2]
    card = ModelCard.from_template(
        ModelCardData(language=sorted({language.partition("-")[0] for language in languages}) or None,
                      library_name="transformers", tags=["product-tagging", "hf_tagger", "multimodal"],
                      model_name=name, eval_results=eval_results(data, plain, provenance)),
        template_path=str(template), model_name=name, repository=model if not Path(model).is_dir() else name,
        attributes=_shown([entry["name"] for entry in entries]), tags=sum(len(entry["tags"]) for entry in entries),
        calibrated=data.uncalibrated is not None, split=data.about["split"], products=len(first.scorer),
        date=date.today().isoformat(), command=" ".join(_without_folders(command)), score=_score,
        protocols=_shown(plain),
        baselines=comparison_table(_shown({name: plain} | data.baselines)) if data.baselines else "",
        calibration=_shown(_calibration(data)), figures=_figures(evaluation, path),
        untested=sum(not row["support"] for row in tested),
        weak=[_shown(row) | {"f1": decimal(row["f1"])} for row in sorted(tested, key=lambda row: row["f1"])
              if row["support"] >= SEEN_OFTEN_ENOUGH and row["f1"] < WEAK][:MOST_WEAK],
        remarks=_shown(plain[first.name]["remarks"]), single_language=len(languages) == 1,
        data={"description": _describe(config), "fingerprint": provenance.get("data_fingerprint", "not recorded"),
              "rows": _shown(_listed(provenance.get("rows", {}))),
              "languages": _shown(_listed(vocabulary.get("rows_per_language", {}))) if languages else "not recorded"},
        training={"git_revision": provenance.get("git_revision"), "versions": _listed(provenance.get("versions", {})),
                  "config": yaml.safe_dump(_without_folders(config), sort_keys=False, allow_unicode=True).strip()},
        cost=_cost(provenance), lineage=_shown(_read(Path(model) / "lineage.json")),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    card.save(path)
    return card


def eval_results(data: ReportData, plain: dict[str, dict], provenance: dict) -> list[EvalResult]:
    """Micro-F1, macro-F1 and subset accuracy of every protocol, as the Hub's model index wants them."""
    return [
        EvalResult(task_type="product-tagging", task_name="Product tagging", dataset_type="product-catalogue",
                   dataset_name=data.about["dataset"], dataset_config=protocol, dataset_split=data.about["split"],
                   dataset_revision=provenance.get("data_fingerprint"), metric_type=metric, metric_name=title,
                   metric_value=round(result["overall"][metric]["value"], 4))
        for protocol, result in plain.items() for metric, title in INDEXED.items() if metric in result["overall"]
    ]


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8")
    return (yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)) or {}


def _score(scores: dict[str, dict], metric: str) -> str:
    return decimal(scores[metric]["value"]) + interval_of(scores[metric]) if metric in scores else "–"


def _calibration(data: ReportData) -> dict[str, list[str]]:
    if data.uncalibrated is None:
        return {}
    before, after = data.uncalibrated.scores(precisions=False), data.results[0].scorer.scores(precisions=False)
    found = {}
    for entry in data.results[0].predictions.attributes:
        name, metrics = entry["name"], ("ece", "macro_f1") if entry.get("thresholds") else ("ece",)
        values = [scores[f"{name}/{metric}"][0] for metric in metrics for scores in (before, after)]
        found[name] = [decimal(float(value)) for value in values]
        found[name] += ["–"] * (4 - len(found[name]))
    return found


def _figures(evaluation: Path, path: Path) -> list[Path]:
    """Paths of the figures relative to the card; none of figures outside its folder."""
    folder = path.resolve().parent
    found = sorted(evaluation.resolve().glob("figures/*.png"))
    return [figure.relative_to(folder) for figure in found if figure.is_relative_to(folder)]


def _describe(config: dict) -> str:
    catalog = config.get("catalog") or {}
    if catalog.get("synthetic") is not None:
        return ("A made-up catalogue, drawn by `hf_tagger/catalog/synthetic`: the scores show that the software "
                "works, nothing about any real catalogue.")
    schema = catalog.get("schema") or {}
    columns = [name for key in ("text", "images") for name in [schema.get(key) or []]]
    named = ", ".join(name for column in columns for name in ([column] if isinstance(column, str) else column))
    return f"A catalogue read from the columns {named}, with its own tags as labels." if named else "Not recorded."


def _without_folders(value: Any) -> Any:
    """Plain data with absolute paths cut to their last part, and no credentials: a card is read by others."""
    if isinstance(value, dict):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_folders(item) for item in value]
    if not isinstance(value, str):
        return value
    return Path(value).name if Path(value).is_absolute() else without_credentials(value)


def _shown(value: Any) -> Any:
    """Plain data with what a shop wrote as Markdown shows it: no HTML, no further column, no further line."""
    if isinstance(value, dict):
        return {_shown(key): _shown(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shown(item) for item in value]
    return " ".join(html.escape(value, quote=False).replace("|", "\\|").split()) if isinstance(value, str) else value


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{key or 'unknown'} {value}" for key, value in values.items()) or "not recorded"


def _cost(provenance: dict) -> str:
    machine, seconds = provenance.get("machine"), provenance.get("seconds")
    if not machine or not seconds:
        return "Training time was not recorded."
    where = machine.get("gpu") or f"{machine['cores']} cores of {machine['cpu']}"
    return (f"Training took {seconds / 3600:.2f} hours on {where}, in {provenance.get('processes', 1)} process(es). "
            "The energy was not metered.")
