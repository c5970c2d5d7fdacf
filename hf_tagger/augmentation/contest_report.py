"""The contest's results as a table and a plot: means, deviations and paired differences over seeds."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from hf_tagger.augmentation.contest import GROUPS

Results = dict[str, list[dict[str, dict[str, float]]]]


def figures(results: Results, method: str, group: str, split: str = "test") -> np.ndarray:
    """Macro-F1 per seed."""
    return np.array([run[split][group] for run in results[method]])


def difference(results: Results, method: str, reference: str, group: str) -> str:
    """Mean and standard deviation of the differences seed by seed, in points."""
    if method == reference:
        return ""
    points = 100 * (figures(results, method, group) - figures(results, reference, group))
    return f"{points.mean():+.1f} ± {_deviation(points):.1f}"


def markdown(results: Results, reference: str) -> str:
    """A table: macro-F1 of each group of tags on test, tail on validation, differences to the `reference` method."""
    head = [*(f"{group} test" for group in GROUPS), "tail, difference", "head, difference", "tail validation"]
    lines = ["| method | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    for method in results:
        cells = [_mean(figures(results, method, group)) for group in GROUPS]
        if reference in results:
            cells += [difference(results, method, reference, group) for group in ("tail", "head")]
        else:
            cells += ["", ""]
        cells.append(_mean(figures(results, method, "tail", "validation")))
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(path: Path, results: Results) -> None:
    """Bars of tail and head macro-F1 on test, with standard deviations, as PNG."""
    methods = sorted(results, key=lambda method: figures(results, method, "tail").mean())
    figure = Figure(figsize=(9, 1.5 + 0.4 * len(methods)), layout="constrained")
    axes = figure.add_subplot()
    for offset, group, colour in ((0.2, "tail", "C1"), (-0.2, "head", "C0")):
        values = [figures(results, method, group) for method in methods]
        axes.barh(np.arange(len(methods)) + offset, [value.mean() for value in values], height=0.38, color=colour,
                  xerr=[_deviation(value) for value in values], label=f"{group} tags")
    lowest = min(figures(results, method, group).min() for method in methods for group in ("tail", "head"))
    axes.set(yticks=np.arange(len(methods)), yticklabels=methods, xlabel="macro-F1 on test, mean ± std over seeds",
             xlim=(max(0.0, lowest - 0.05), None))
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside upper center", ncols=2)
    figure.savefig(path, dpi=120)


def _mean(values: np.ndarray) -> str:
    return f"{values.mean():.3f} ± {_deviation(values):.3f}"


def _deviation(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0
