"""Scores as tables for people."""


def score_table(results: dict[str, dict[str, float]], attributes: list[str]) -> str:
    """Accuracy / macro-F1 per attribute (rows) and protocol (columns)."""
    rows = {attribute: {name: f"{scores[f'{attribute}/accuracy']:.3f} / {scores[f'{attribute}/macro_f1']:.3f}"
                        for name, scores in results.items()} for attribute in attributes}
    for label, key in (("micro-F1, all tags", "micro_f1"), ("macro-F1, all tags", "macro_f1")):
        rows[label] = {name: f"{scores[key]:.3f}" for name, scores in results.items()}
    return "accuracy / macro-F1\n" + text_table(rows) if results else "no test split: nothing was scored"


def text_table(rows: dict[str, dict]) -> str:
    """A line per row, which begins with its name, in columns under their keys; a dash where a row has no such key."""
    keys = list(dict.fromkeys(key for row in rows.values() for key in row))
    cells = [["", *keys]] + [[name, *(_plain(row.get(key)) for key in keys)] for name, row in rows.items()]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join([f"{line[0]:<{widths[0]}}", *(f"{cell:>{width}}" for cell, width in
                                                            zip(line[1:], widths[1:], strict=True))]).rstrip()
                     for line in cells)


def _plain(value) -> str:
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def comparison_table(methods: dict[str, dict[str, dict]]) -> str:
    """Markdown: a row per protocol and method, the best of each column and protocol in bold, from {method: {protocol:
    `ProtocolResult.plain()`}}; a method may lack protocols that show it nothing."""
    protocols = dict.fromkeys(name for results in methods.values() for name in results)
    attributes = dict.fromkeys(name for results in methods.values() for result in results.values()
                               for name in result["attributes"])
    header = ["protocol", "method", "products", "micro-F1", "macro-F1", "mAP", *attributes]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for protocol in protocols:
        shown = {name: results[protocol] for name, results in methods.items() if protocol in results}
        for name, result in shown.items():
            cells = [protocol, name, str(result["products"])]
            cells += [_cell(metric, result["overall"], [other["overall"] for other in shown.values()],
                            interval=metric != "map") for metric in ("micro_f1", "macro_f1", "map")]
            for attribute in attributes:
                others = [other["attributes"].get(attribute, {}) for other in shown.values()]
                own = result["attributes"].get(attribute, {})
                cells.append(" / ".join(_cell(metric, own, others) for metric in ("accuracy", "macro_f1")))
            lines.append("| " + " | ".join(cells) + " |")
    note = ("Micro-F1 and macro-F1 over all tags, with 95 % bootstrap intervals; per attribute accuracy / macro-F1. "
            "Bold: the best of the column under its protocol.")
    return "\n".join([*lines, "", note])


def _cell(metric: str, own: dict, others: list[dict], interval: bool = False) -> str:
    if metric not in own:
        return "–"
    best = max(other[metric]["value"] for other in others if metric in other)
    text = decimal(own[metric]["value"])
    text = f"**{text}**" if own[metric]["value"] == best and len(others) > 1 else text
    return text + interval_of(own[metric]) if interval else text


def interval_of(entry: dict) -> str:
    """" [.812, .871]" of an entry of `Scorer.summary`; "" where it has no interval."""
    return f" [{decimal(entry['low'])}, {decimal(entry['high'])}]" if "low" in entry else ""


def decimal(value: float | None) -> str:
    """.843, 1.000; a dash for nothing and NaN."""
    if value is None or value != value:
        return "–"
    return f"{value:.3f}".removeprefix("0") if 0 <= value < 1 else f"{value:.3f}"
