"""The page of recipes/lab/benchmark_suite.py: a table per catalogue, what they come to, speed beside a peer, a plot."""

import json
from itertools import chain
from pathlib import Path
from statistics import mean

import matplotlib
import numpy as np
import pyarrow.parquet as pq
from matplotlib.figure import Figure

from hf_tagger.catalog.strict import ConfigError
from hf_tagger.evaluation.plots import ACCENT, FAINT, INK, SECOND, STYLE
from hf_tagger.evaluation.predict import Predictions
from hf_tagger.evaluation.scoring import Scorer, draw
from hf_tagger.evaluation.tables import decimal, interval_of

DEFAULTS = "defaults"
METRICS = {"accuracy": "accuracy", "macro_f1": "macro-F1"}
RESAMPLES = 1000


def report(found: dict, plotted: bool = False) -> str:
    """The page: one table per catalogue, and how often the defaults are above or below."""
    machine = found["machine"]
    command = " ".join(["python recipes/lab/benchmark_suite.py", *found["overrides"]])
    lines = ["# The defaults on every catalogue", "",
             "Accuracy / macro-F1 on the test split (of lists, accuracy means that all tags are right), with 95 % "
             "bootstrap intervals of macro-F1 on test products. *Defaults*: `hf_tagger finetune` on a file with "
             "nothing but `catalog:`, mean of the seeds in brackets after the catalogue's name. Baselines have their "
             f"thresholds fitted on validation, as ours. Written by `{command}`, on {machine['cpu']} with "
             f"{machine['cores']} cores, whose load was {machine['load_average']}."]
    if plotted:
        lines += ["", "![Macro-F1 of the defaults less that of the best baseline, per attribute](suite.svg)"]
    points = []
    for catalogue, results in found["catalogues"].items():
        seeds, others = [name for name in results if name.startswith(DEFAULTS)], baselines_of(results)
        lines += ["", f"## {catalogue} ({', '.join(name.split()[1] for name in seeds)})", "",
                  "| attribute | defaults | " + " | ".join(others) + " |", "|---" * (len(others) + 2) + "|"]
        for attribute in dict.fromkeys(chain.from_iterable(result["scores"] for result in results.values())):
            ours = mean_scores([results[name]["scores"][attribute] for name in seeds])
            theirs = {name: results[name]["scores"].get(attribute, {}) for name in others}
            lines.append(f"| {attribute} | " + " | ".join(map(_cell, [ours, *theirs.values()])) + " |")
            known = {name: scores for name, scores in theirs.items() if scores}
            if ours and known:
                points.append((f"{catalogue} {attribute}", ours, known))
        lines += ["", "Minutes of CPU (peak MiB): " + ", ".join(
            f"{name} {results[name]['cpu_seconds'] / 60:.1f} ({results[name]['peak_mb']})"
            for name in [*seeds[:1], *others])]
    return "\n".join([*lines, "", "## In sum", "", *_sums(points), *_speed(found["catalogues"])]) + "\n"


def baselines_of(results: dict[str, dict]) -> list[str]:
    return [name for name in results if not name.startswith(DEFAULTS)]


def mean_scores(scores: list[dict[str, dict]]) -> dict[str, dict]:
    """{metric: {"value", "low", "high"}} of several seeds -> their means."""
    return {metric: {key: mean(each[metric][key] for each in scores) for key in scores[0][metric]}
            for metric in METRICS if scores and all(metric in each for each in scores)}


def _cell(scores: dict[str, dict]) -> str:
    values = [decimal(scores[metric]["value"]) if metric in scores else "–" for metric in METRICS]
    return " / ".join(values) + interval_of(scores["macro_f1"]) if "macro_f1" in scores else "–"


def _sums(points: list[tuple[str, dict, dict]]) -> list[str]:
    """Bars of the project: never more than a point below the best baseline, mostly above, on average well above."""
    if not points:
        return ["Nothing to compare yet."]
    lines = []
    everywhere = [name for name in points[0][2] if all(name in theirs for _, _, theirs in points)]
    for metric, label in METRICS.items():
        gains = {name: ours[metric]["value"] - max(other[metric]["value"] for other in theirs.values())
                 for name, ours, theirs in points}
        below = [f"{name} ({100 * gain:+.1f})" for name, gain in gains.items() if gain < -0.01]
        above = sum(gain > 0 for gain in gains.values())
        line = (f"- {label}: above the best baseline of each on {above} of {len(gains)} attributes; more than a point "
                f"below on {len(below)}{': ' + ', '.join(below) if below else ''}. Mean "
                f"{decimal(mean(ours[metric]['value'] for _, ours, _ in points))}")
        means = {name: mean(theirs[name][metric]["value"] for _, _, theirs in points) for name in everywhere}
        if means:
            best = max(means, key=means.get)
            line += f", of the best single baseline, {best}, {decimal(means[best])}"
        lines.append(f"{line}.")
    return lines


def _speed(catalogues: dict[str, dict]) -> list[str]:
    """Sides by side, and how many times ours is as fast; nothing where no peer was measured."""
    lines = []
    for catalogue, results in catalogues.items():
        for name, result in results.items():
            if "speed" not in result:
                continue
            ours, theirs = result["speed"][DEFAULTS], result["speed"][name]
            lines += ["", f"## Speed beside {name}: {catalogue}, {result['attribute']}", "",
                      f"| | defaults | {name} | ratio |", "|---|---|---|---|",
                      _row("training, rows/s", ours["rows_per_second"], theirs["rows_per_second"], faster=True),
                      _row("training, rows/s of CPU", ours["rows_per_cpu_second"], theirs["rows_per_cpu_second"],
                           faster=True),
                      _row("seconds to a model", ours["model_seconds"], theirs["model_seconds"]),
                      _row(f"seconds to the first useful model (accuracy {decimal(result['bar'])} on validation)",
                           ours["useful_seconds"], theirs["useful_seconds"], missing="never")]
            for size, times in ours["latency"].items():
                there = theirs["latency"].get(size, {}).get(name, {})
                lines += [_row(f"{size}, {label}, {way}", taken[key], there.get(key)) for way, taken in times.items()
                          for key, label in (("p50_ms", "ms"), ("cpu_ms", "ms of CPU"))]
    return lines


def _row(label: str, ours: float | None, theirs: float | None, faster: bool = False, missing: str = "–") -> str:
    known = ours is not None and theirs is not None
    ratio = (ours / theirs if faster else theirs / ours) if known else None
    cells = [missing if value is None else f"{value:.4g}" for value in (ours, theirs)]
    return f"| {label} | {' | '.join(cells)} | {'–' if ratio is None else f'{ratio:.3g} ×'} |"


def gains(folder: Path, results: dict[str, dict], protocols: dict[str, str]) -> dict[str, dict]:
    """{attribute: {"value", "low", "high", "over"}}: macro-F1 of the defaults, mean of their seeds, less that of the
    baseline which is best there. The 95 % interval is of paired bootstrap resamples: both are scored on the same ones.

    Args:
        folder: where each of `results` has left evaluation/predictions.parquet. An attribute whose best baseline has
            left none is passed over.
        protocols: {name: what stands behind an attribute scored under it}.
    """
    found = {}
    for protocol, suffix in protocols.items():
        drawn = {}  # {method: {attribute: macro-F1 of all products, then of each resample}}
        for name in results:
            path = folder / name.replace(" ", "_") / "evaluation" / "predictions.parquet"
            if path.exists() and (predictions := read_predictions(path, protocol)).ids:
                drawn[name] = _drawn(predictions)
        products = {ids for ids, _ in drawn.values()}
        if len(products) > 1:
            raise ConfigError(f"{folder}: predictions are of different test products: {', '.join(drawn)}")
        scores = {name: of_attributes for name, (_, of_attributes) in drawn.items()}
        seeds = [each for name, each in scores.items() if name.startswith(DEFAULTS)]
        for attribute in seeds[0] if seeds else ():
            row = attribute + suffix
            theirs = {name: results[name]["scores"][row]["macro_f1"]["value"] for name in baselines_of(results)
                      if "macro_f1" in results[name]["scores"].get(row, {})}
            best = max(theirs, key=theirs.get, default=None)
            if best in scores:
                value, *others = np.mean([each[attribute] for each in seeds], axis=0) - scores[best][attribute]
                low, middle, high = np.nanpercentile(others, [2.5, 50, 97.5])
                # Resamples are biased, see `Scorer.summary`.
                found[row] = {"value": float(value), "low": float(value - middle + low),
                              "high": float(value - middle + high), "over": best}
    return found


def _drawn(predictions: Predictions) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    weights = np.concatenate([np.ones((1, len(predictions.ids)), np.uint8), draw(len(predictions.ids), RESAMPLES, 0)])
    scores = Scorer(predictions).scores(weights, precisions=False)
    names = [entry["name"] for entry in predictions.attributes]
    return tuple(predictions.ids), {name: scores[f"{name}/macro_f1"] for name in names}


def read_predictions(path: Path, protocol: str) -> Predictions:
    """Predictions of `results.write_results` under one protocol, in the order of their ids."""
    table = pq.read_table(path, filters=[("protocol", "=", protocol)]).sort_by("id")
    tags: dict[str, list[str]] = {}
    for attribute, tag in json.loads(table.schema.metadata[b"tags"]):
        tags.setdefault(attribute, []).append(tag)
    rows = table.to_pylist()
    chosen = [[tag in row[f"{name}.predicted"] for name, known in tags.items() for tag in known] for row in rows]
    # The kind matters for scores that are not read here.
    attributes = [{"name": name, "kind": "multi", "tags": known} for name, known in tags.items()]
    return Predictions(attributes, [row["id"] for row in rows], [{name: row[f"{name}.given"] for name in tags}
                                                                 for row in rows],
                       scores=np.array([row["scores"] for row in rows], np.float32), chosen=np.array(chosen, bool))


def plot(catalogues: dict[str, dict[str, dict]], path: Path) -> None:
    """{catalogue: `gains`} as a picture: a line per attribute, orange where the whole interval is below zero."""
    rows = [(f"{catalogue} · {attribute}", gain) for catalogue, found in catalogues.items()
            for attribute, gain in found.items()]
    with matplotlib.rc_context(STYLE):
        figure = Figure((7.2, 0.8 + 0.2 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(0, color=INK, linewidth=0.8)
        for height, (_, gain) in enumerate(reversed(rows)):
            colour = SECOND if gain["high"] < 0 else ACCENT
            axes.plot([100 * gain["low"], 100 * gain["high"]], [height, height], color=colour, linewidth=1.2)
            axes.plot(100 * gain["value"], height, "o", color=colour, markersize=4)
        axes.set_yticks(range(len(rows)), [f"{label} ({gain['over']})" for label, gain in reversed(rows)])
        axes.set(xlabel="points of macro-F1 above the best baseline", ylim=(-0.7, len(rows) - 0.3))
        axes.grid(axis="x", color=FAINT, linewidth=0.5)
        figure.savefig(path, format=path.suffix[1:], metadata={"Date": None, "Creator": None})
