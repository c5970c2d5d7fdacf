"""The results of an evaluation, and the files that keep them: metrics.json, per_tag.csv and predictions.parquet."""

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hf_tagger.catalog.strict import ConfigError
from hf_tagger.evaluation.predict import ENTRIES, Predictions, blocks
from hf_tagger.evaluation.scoring import Scorer
from hf_tagger.evaluation.slices import product_slices

SLICE_METRICS = ("micro_f1", "macro_f1", "subset_accuracy")


def measurable(found: dict[str, Predictions], needed: bool = True) -> tuple[dict[str, Predictions], list[str]]:
    """The protocols under which there is something to measure, and for each of the others a line that says why it is
    left out.

    Raises ConfigError where none is left, but one is `needed`.
    """
    left_out = {}
    for name, predictions in found.items():
        names = [entry["name"] for entry in predictions.attributes]
        if not predictions.ids:
            left_out[name] = f'"{name}" is left out: no product of the split has what it looks at'
        elif not any(tags.get(attribute) is not None for tags in predictions.tags for attribute in names):
            left_out[name] = (f'"{name}" is left out: no product of the split has a label of any attribute of the '
                              f"model ({', '.join(names)}); give the schema the columns that hold them")
    if needed and len(left_out) == len(found):
        raise ConfigError("there is nothing to measure. " + ". ".join(left_out.values()))
    return {name: found[name] for name in found if name not in left_out}, list(left_out.values())


@dataclass
class ProtocolResult:
    """One protocol's predictions and every score of them."""

    name: str
    predictions: Predictions
    scorer: Scorer
    summary: dict[str, dict]  # of `Scorer.summary`
    per_tag: list[dict]  # of `Scorer.per_tag`
    slices: dict[str, dict[str, dict]] = field(default_factory=dict)  # {family: {value: {"products", metric: {...}}}}

    @classmethod
    def of(cls, name: str, predictions: Predictions, columns: Iterable[str] = (), resamples: int = 1000):
        """Scores predictions that are `measurable`; columns as of `product_slices`."""
        scorer = Scorer(predictions)
        summary = scorer.summary(resamples)
        slices = {family: {value: _slice(scorer.subset(rows), resamples) for value, rows in values.items()}
                  for family, values in product_slices(predictions, columns).items()}
        return cls(name, predictions, scorer, summary, scorer.per_tag(resamples), slices)

    @property
    def values(self) -> dict[str, float]:
        """{metric: score}, NaN where nothing could be measured."""
        return {name: float(value[0]) for name, value in self.scorer.scores().items()}

    def plain(self) -> dict[str, Any]:
        """As plain data: "products", "overall", "attributes", "tag_frequency", "slices", "unseen_tags"."""
        found: dict[str, dict[str, dict]] = {}  # {attribute, frequency or "" for all: {metric: entry}}
        for metric, entry in self.summary.items():
            owner, _, short = metric.rpartition("/")
            found.setdefault(owner, {})[short] = entry
        overall, frequency = found.pop("", {}), self.scorer.frequency()
        for entry in self.predictions.attributes:
            scores = found.get(entry["name"], {})
            if entry.get("parents") and "micro_f1" in scores:
                # Every node above a tag is a tag as well, given and predicted (Kiritchenko, Matwin & Famili 2005).
                scores["hierarchical_f1"] = scores["micro_f1"]
        return {"products": len(self.predictions.ids), "overall": overall,
                "attributes": {entry["name"]: found[entry["name"]] for entry in self.predictions.attributes
                               if entry["name"] in found},
                "tag_frequency": {name: found.get(name, {}) | {"tags": int(columns.sum())}
                                  for name, columns in frequency.items()},
                "slices": self.slices, "unseen_tags": self.scorer.unseen(),
                "remarks": remarks(self.predictions, self.scorer)}


def remarks(predictions: Predictions, scorer: Scorer) -> list[str]:
    """What a reader of the scores must know: attributes and tags that could not be scored, thresholds never fitted."""
    known = {entry["name"]: entry for entry in predictions.attributes}
    seen = {name for tags in predictions.tags for name, given in tags.items() if given is not None}
    found = [] if predictions.drawn_from is None else [
        f"scored on {predictions.products}: not more than {ENTRIES:,} scores are held at a time"]
    if foreign := sorted(seen - known.keys()):
        found.append(f"not scored, for the model does not know them: the attributes {', '.join(foreign)}")
    if unlabelled := [name for name in known if name not in seen]:
        found.append(f"not scored, for no product has a label: {', '.join(unlabelled)}")
    for name, tags in scorer.unseen().items():
        commonest = sorted(tags, key=tags.get, reverse=True)[:5]
        shown = ", ".join(f"{tag} ({tags[tag]})" for tag in commonest) + ", …" * (len(tags) > 5)
        found.append(f"{name}: {len(tags)} never seen in training, so counted as missed: {shown}")
    plain = [name for name, entry in known.items() if entry["kind"] == "multi" and not entry.get("thresholds")]
    if plain:
        found.append(f"no fitted thresholds, so 0.5: {', '.join(plain)}; fit them with --calibrate")
    return found


def _slice(scorer: Scorer, resamples: int) -> dict[str, Any]:
    summary = scorer.summary(resamples, precisions=False)
    kept = {name: entry for name, entry in summary.items() if name in SLICE_METRICS or name.endswith("/accuracy")}
    return {"products": len(scorer)} | kept


def write_results(folder: Path, results: list[ProtocolResult], about: dict[str, Any]) -> None:
    """Writes the three files into `folder`; `about` (model, catalogue, split ...) opens metrics.json."""
    folder.mkdir(parents=True, exist_ok=True)
    metrics = about | {"protocols": {result.name: result.plain() for result in results}}
    text = json.dumps(rounded(metrics), indent=1, ensure_ascii=False)
    (folder / "metrics.json").write_text(text + "\n", encoding="utf-8")
    rows = [{"protocol": result.name, **row} for result in results for row in result.per_tag]
    with open(folder / "per_tag.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({key: _as_text(value) for key, value in row.items()} for row in rounded(rows))
    _write_predictions(folder / "predictions.parquet", results)


def _as_text(value: Any) -> Any:
    """A string that a spreadsheet would take for a formula, with the apostrophe that tells it not to (OWASP, CSV
    injection)."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def rounded(value: Any) -> Any:
    """Plain data with its floats at five decimals, NaN as None."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    if isinstance(value, float):
        return None if np.isnan(value) else round(value, 5)
    return value


def _write_predictions(path: Path, results: list[ProtocolResult]) -> None:
    """A row per product and protocol: what was given and predicted of each attribute, the score of its best tag, and
    the scores of all tags, whose names are the file's metadata."""
    writer = None
    for result in results:
        predictions = result.predictions
        columns = {"id": predictions.ids, "protocol": [result.name] * len(predictions.ids)}
        columns |= {key: [about[key] for about in predictions.about] for key in ("text", "language", "photos")}
        fields = [("id", pa.string()), ("protocol", pa.string()), ("text", pa.string()), ("language", pa.string()),
                  ("photos", pa.int32())]
        for attribute, tags, _, chosen, scores in predictions.parts():
            name = attribute["name"]
            columns[f"{name}.given"] = [row.get(name) for row in predictions.tags]
            columns[f"{name}.predicted"] = [[tags[column] for column in np.flatnonzero(row)] for row in chosen]
            columns[f"{name}.best_score"] = scores.max(1)
            fields += [(f"{name}.given", pa.list_(pa.string())), (f"{name}.predicted", pa.list_(pa.string())),
                       (f"{name}.best_score", pa.float32())]
        columns["scores"] = predictions.scores
        fields.append(("scores", pa.list_(pa.float32())))
        names = [[entry["name"], tag] for entry in predictions.attributes for tag in entry["tags"]]
        schema = pa.schema(fields, {"tags": json.dumps(names, ensure_ascii=False)})
        writer = writer or pq.ParquetWriter(path, schema, compression="zstd")
        for rows in blocks(*predictions.scores.shape):
            writer.write_table(pa.Table.from_pydict({name: list(values[rows]) for name, values in columns.items()},
                                                    schema))
    writer.close()
