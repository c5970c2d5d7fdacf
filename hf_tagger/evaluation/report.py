"""The report of an evaluation: one HTML file that needs nothing else, and the same figures as PNG."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from hf_tagger.catalog.reading.stream import Catalog
from hf_tagger.evaluation import plots
from hf_tagger.evaluation.calibration import without_calibration
from hf_tagger.evaluation.mistakes import Case, confident_mistakes, confusions, uncertain_products
from hf_tagger.evaluation.pages import embedded_photo, first_records, templates
from hf_tagger.evaluation.predict import Predictions
from hf_tagger.evaluation.results import ProtocolResult
from hf_tagger.evaluation.scoring import Scorer
from hf_tagger.evaluation.tables import decimal

THUMBNAIL = 160  # pixels


@dataclass
class ReportData:
    """What the template shows: the first protocol in detail, the others in tables."""

    title: str
    about: dict[str, Any]
    results: list[ProtocolResult]
    mistakes: list[Case]
    uncertain: list[Case]
    # The first protocol's scores with plain probabilities and thresholds of 0.5; None where nothing is fitted.
    uncalibrated: Scorer | None = None
    # {method: {protocol: `ProtocolResult.plain()`}}, as recipes/baselines.py writes them.
    baselines: dict[str, dict[str, dict]] = field(default_factory=dict)
    photos: dict[str, str] = field(default_factory=dict)  # {product id: data URI}

    @classmethod
    def of(cls, title: str, about: dict[str, Any], results: list[ProtocolResult], catalog: Catalog | None = None,
           baselines: dict | None = None) -> "ReportData":
        """`catalog`: where the gallery's photos are read from (default: a gallery without photos)."""
        predictions = results[0].predictions
        data = cls(title, about, results, confident_mistakes(predictions), uncertain_products(predictions),
                   before_calibration(predictions), baselines or {})
        if catalog is not None:
            wanted = {case.id for case in data.mistakes + data.uncertain}
            data.photos = thumbnails(catalog, about["split"], wanted)
        return data

    @property
    def figures(self) -> dict[str, list[plots.Panel]]:
        """{"reliability", "precision_recall", "f1_by_frequency": one panel per attribute}."""
        main = self.results[0]
        before = self.uncalibrated.reliability() if self.uncalibrated else {}
        found = {"reliability": [plots.reliability(name, bins, before.get(name))
                                 for name, bins in main.scorer.reliability().items() if bins[0].any()],
                 "precision_recall": [], "f1_by_frequency": []}
        for part in main.scorer.parts:
            entry = {metric: main.summary.get(f"{part.name}/micro_{metric}") for metric in ("recall", "precision")}
            if all(entry.values()):
                point = entry["recall"]["value"], entry["precision"]["value"]
                panel = plots.precision_recall(part.name, part.references, part.scores, point)
                found["precision_recall"].append(panel)
            rows = [row for row in main.per_tag if row["attribute"] == part.name and row["support"]]
            if any(row["training"] for row in rows):
                found["f1_by_frequency"].append(plots.f1_by_frequency(part.name, rows))
        return found


def before_calibration(predictions: Predictions) -> Scorer | None:
    """Scores of the same logits without calibration; None where there is none, or no logits."""
    plain = without_calibration(predictions.attributes)
    if predictions.logits is None or plain == predictions.attributes:
        return None
    return Scorer(predictions.decided(plain))


def write_report(folder: Path, data: ReportData) -> Path:
    """Writes report.html and figures/*.png into `folder`."""
    figures = data.figures
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for name, panels in figures.items():
        if panels:
            plots.png(panels, folder / "figures" / f"{name}.png")
    environment = templates(Path(__file__).parent)
    environment.filters["decimal"] = decimal
    environment.filters["threshold_range"] = threshold_range
    environment.globals["zip"] = zip
    main = data.results[0]
    page = environment.get_template("report.html.jinja").render(
        data=data, main=main, plain=[(result.name, result.plain()) for result in data.results],
        before={name: float(value[0]) for name, value in data.uncalibrated.scores(precisions=False).items()}
        if data.uncalibrated else {},
        after=main.values, confusions=confusions(main.predictions),
        figures={name: [Markup(plots.svg(panel)) for panel in panels] for name, panels in figures.items()},
        attributes=main.predictions.attributes, weakest=sorted(
            (row for row in main.per_tag if row["support"]), key=lambda row: (row["f1"], -row["support"])),
    )
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def thumbnails(catalog: Catalog, split: str, wanted: set[str]) -> dict[str, str]:
    """{id: data URI} of the first readable photo of each wanted product, as a small JPEG."""
    found = {record["id"]: embedded_photo(record["images"], THUMBNAIL, catalog.schema.allow_urls)
             for record in first_records(catalog.records(split), wanted)}
    return {product: photo for product, photo in found.items() if photo}


def threshold_range(attribute: dict) -> str:
    """What the thresholds of an attribute are, in a few words."""
    thresholds = attribute.get("thresholds")
    if thresholds is None:
        return "the likelier of the best tag and none" if attribute["kind"] == "single" else "0.5 (not fitted)"
    return f"{decimal(min(thresholds))} to {decimal(max(thresholds))}, median {decimal(float(np.median(thresholds)))}"
