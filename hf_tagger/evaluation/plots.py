"""Figures of an evaluation: panels as SVG for the report, or side by side in a PNG for the card."""

import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from hf_tagger.catalog.batching.collate import UNKNOWN
from hf_tagger.evaluation.predict import few
from hf_tagger.evaluation.scoring import HEAD, MEDIUM

STYLE = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.fonttype": "none",
         "font.family": "sans-serif", "axes.titlesize": 10, "axes.titleweight": "bold", "svg.hashsalt": "hf_tagger"}
INK, ACCENT, SECOND, FAINT = "#1f2933", "#2563a8", "#c2571a", "#c4ccd4"
# In a report the page decides on the colours, light or dark.
DRAWN = 20_000_000  # scores that a curve is drawn from
VARIABLES = {INK: "var(--ink)", ACCENT: "var(--accent)", SECOND: "var(--second)", FAINT: "var(--faint)"}


@dataclass
class Panel:
    """One plot."""

    title: str
    description: str  # what it shows, for screen readers
    draw: Callable[[Axes], None]


def svg(panel: Panel, size: tuple[float, float] = (3.4, 2.7)) -> str:
    """The panel as an <svg> element for HTML, coloured by the page's CSS variables."""
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure = Figure(size, layout="constrained")
        _draw(panel, figure.add_subplot())
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg"):], flags=re.DOTALL)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    label = f"{panel.title}: {panel.description}".replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)


def png(panels: list[Panel], path: Path, columns: int = 4) -> None:
    """All panels side by side as one picture on white."""
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure((3.2 * columns, 2.6 * rows), layout="constrained")
        for number, panel in enumerate(panels):
            _draw(panel, figure.add_subplot(rows, columns, number + 1))
        figure.savefig(path, dpi=110)


def _draw(panel: Panel, axes: Axes) -> None:
    for spine in axes.spines.values():
        spine.set_color(INK)
    axes.tick_params(colors=INK)
    axes.grid(color=FAINT, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.set_title(panel.title, color=INK, loc="left")
    panel.draw(axes)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(INK)
    if legend := axes.get_legend():
        for text in legend.get_texts():
            text.set_color(INK)


def reliability(name: str, bins: np.ndarray, before: np.ndarray | None = None) -> Panel:
    """Confidence against the share that is right, from bins [3, 15] (counts, summed confidence, right); larger dots
    hold more predictions. `before`: the bins without calibration."""

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
        for values, colour, label in ((before, SECOND, "before"), (bins, ACCENT, "calibrated")):
            if values is None:
                continue
            count, confidence, right = values[:, values[0] > 0]
            x, y = confidence / count, right / count
            axes.plot(x, y, color=colour, linewidth=0.8, alpha=0.45)
            axes.scatter(x, y, s=4 + 80 * np.sqrt(count / count.sum()), color=colour, linewidths=0, alpha=0.8,
                         label=label)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="confidence", ylabel="share that is right")
        if before is not None:
            axes.legend(frameon=False, loc="lower right", fontsize=8)

    return Panel(name, "reliability diagram, confidence against the share of predictions that are right", draw)


def precision_recall(name: str, references: np.ndarray, scores: np.ndarray, point: tuple[float, float]) -> Panel:
    """Precision against recall over all tags of an attribute pooled (of very many scores, those of a sample of the
    products); `point`: (recall, precision) at the thresholds."""
    width = scores.shape[1]
    rows = few(*scores.shape, DRAWN)
    references, scores = references[rows], scores[rows]
    known = references[:, :width] != UNKNOWN
    order = np.argsort(-scores[known], kind="stable")
    hits = (references[:, :width][known] == 1)[order].cumsum()
    total = (references == 1).sum()
    # Some hundred points along the recall axis draw the same curve as all of them.
    chosen = np.unique(np.searchsorted(hits, np.linspace(1, max(hits[-1], 1), 300))) if len(hits) else np.array([], int)
    chosen = chosen[chosen < len(hits)]

    def draw(axes: Axes) -> None:
        axes.plot(hits[chosen] / total, hits[chosen] / (chosen + 1), color=ACCENT, linewidth=1.6)
        axes.scatter([point[0]], [point[1]], color=SECOND, s=28, zorder=3)
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="recall", ylabel="precision")

    reached = f"precision {point[1]:.2f}, recall {point[0]:.2f}"
    return Panel(name, f"precision-recall curve; at the thresholds {reached}", draw)


def f1_by_frequency(name: str, rows: list[dict]) -> Panel:
    """F1 of each tag against its training products, from `Scorer.per_tag` rows; dots grow with the support."""
    rows = [row for row in rows if row["support"] and row["training"] is not None]
    counts = np.array([row["training"] for row in rows], float).clip(0.7)
    f1 = np.array([row["f1"] for row in rows])
    size = np.array([row["support"] for row in rows], float)

    def draw(axes: Axes) -> None:
        for edge in (MEDIUM, HEAD):
            axes.axvline(edge, color=INK, linewidth=0.6, linestyle=(0, (2, 3)))
        axes.scatter(counts, f1, s=8 + 60 * np.sqrt(size / max(size.max(initial=1), 1)), color=ACCENT, alpha=0.55,
                     linewidths=0)
        axes.set(xscale="log", ylim=(-0.04, 1.04), xlabel="training products", ylabel="F1",
                 xlim=(0.6, max(300, 1.6 * counts.max(initial=1))))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda count, _: f"{count:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(which="minor", length=0)

    return Panel(name, f"F1 of {len(rows)} tags against their number of training products", draw)
