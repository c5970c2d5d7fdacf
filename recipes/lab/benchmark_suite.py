"""The defaults against simpler methods, on many catalogues: no knob is turned for any of them.

    python recipes/lab/benchmark_suite.py recipes/configs/fashion.yaml recipes/lab/configs/*.yaml --seeds 0 1 2

CONFIGs have a `catalog:` section and nothing else that a shop would not write; `--key.sub value` overrides (a longer
`--budget` on a busy machine) are for all, and the page names them. Each is trained by `hf_tagger finetune`
for every seed and scored by `hf_tagger evaluate`; `hf_tagger baselines` scores the majority, TF-IDF with logistic
regression, the same with frozen features, and nearest neighbours on the same splits. Each program is a process of its
own, measured from outside: seconds, CPU seconds and peak memory.

Defaults are chosen on validation and out of fold; the test split is looked at here, once per release. Writes
OUTPUT/suite.json after every program (what is there is not computed again) and OUTPUT/suite.md, the page that
model_cards/suite.md is a copy of.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import mean

from hf_tagger import cli
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.evaluation.machine import describe_machine
from hf_tagger.evaluation.tables import decimal

DEFAULTS, BASELINES = "defaults", ("majority", "tfidf", "regression", "knn")
METRICS = ("accuracy", "macro_f1")


@cli.recipe
def main(arguments: list[str]) -> None:
    options, overrides = parse(arguments)
    folder = Path(options.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "suite.json"
    found = {"machine": describe_machine(), "overrides": overrides}
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
    catalogues = found.setdefault("catalogues", {})
    for config in options.configs:
        results = catalogues.setdefault(Path(config).stem, {})
        for name in [*options.baselines, *(f"{DEFAULTS} {seed}" for seed in options.seeds)]:
            if name not in results:
                cli.say(f"{Path(config).stem}, {name} ...")
                score = score_defaults if name.startswith(DEFAULTS) else score_baseline
                results[name] = score(config, name, folder / Path(config).stem, overrides)
                path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
                (folder / "suite.md").write_text(report(found), encoding="utf-8")
    print(report(found))


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = cli.parser(__doc__)
    parser.add_argument("configs", nargs="+", help="YAML files of `hf_tagger finetune`")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--baselines", nargs="*", choices=BASELINES, default=BASELINES, help="these alone")
    parser.add_argument("--output_dir", default="runs/suite")
    return parser.parse_known_args(arguments)


def score_defaults(config: str, name: str, folder: Path, overrides: list[str]) -> dict:
    seed, model = name.split()[1], str(folder / name.replace(" ", "_"))
    spent = measured("finetune", config, "--output_dir", model, "--seed", seed, *overrides)
    measured("evaluate", model, config, "--evaluation.split", "test")
    metrics = json.loads(Path(model, "evaluation", "metrics.json").read_text(encoding="utf-8"))
    return spent | {"scores": kept(next(iter(metrics["protocols"].values())))}


def score_baseline(config: str, name: str, folder: Path, _) -> dict:
    spent = measured("baselines", config, "--only", name, "--output_dir", str(folder))
    methods = json.loads((folder / "baselines.json").read_text(encoding="utf-8"))["methods"]
    return spent | {"scores": kept(next(iter(methods[name].values())))}


def kept(result: dict) -> dict[str, dict]:
    """Of one protocol's `ProtocolResult.plain()` the scores of each attribute, with intervals."""
    return {name: {metric: scores[metric] for metric in METRICS if metric in scores}
            for name, scores in result["attributes"].items()}


def measured(*command: str) -> dict[str, float]:
    """Runs a command of `hf_tagger`: its seconds, CPU seconds and peak memory in MiB. Raises ConfigError where it
    fails."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "hf_tagger.cli", *command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise ConfigError(f"hf_tagger {' '.join(command)} failed")
    return {"seconds": round(time.perf_counter() - start, 1), "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
            "peak_mb": round(usage.ru_maxrss / 1024)}


def report(found: dict) -> str:
    """The page: one table per catalogue, and how often the defaults are above or below."""
    machine = found["machine"]
    command = " ".join(["python recipes/lab/benchmark_suite.py", *found["overrides"]])
    lines = ["# The defaults on every catalogue", "",
             "Accuracy / macro-F1 on the test split (of lists, accuracy means that all tags are right), with 95 % "
             "bootstrap intervals of macro-F1 on test products. *Defaults*: `hf_tagger finetune` on a file with "
             "nothing but `catalog:`, mean of the seeds in brackets after the catalogue's name. Baselines have their "
             f"thresholds fitted on validation, as ours. Written by `{command}`, on {machine['cpu']} with "
             f"{machine['cores']} cores, whose load was {machine['load_average']}."]
    points = []
    for catalogue, results in found["catalogues"].items():
        seeds = [name for name in results if name.startswith(DEFAULTS)]
        others = [name for name in BASELINES if name in results]
        lines += ["", f"## {catalogue} ({', '.join(name.split()[1] for name in seeds)})", "",
                  "| attribute | defaults | " + " | ".join(others) + " |", "|---" * (len(others) + 2) + "|"]
        for attribute in next(iter(results.values()))["scores"]:
            ours = {metric: mean(results[name]["scores"][attribute][metric]["value"] for name in seeds)
                    for metric in METRICS} if seeds else {}
            cells = [_cell(ours, [results[name]["scores"][attribute]["macro_f1"] for name in seeds])]
            theirs = [results[name]["scores"][attribute] for name in others]
            cells += [_cell({metric: scores[metric]["value"] for metric in METRICS}, [scores["macro_f1"]])
                      for scores in theirs]
            lines.append(f"| {attribute} | " + " | ".join(cells) + " |")
            if seeds and others:
                points.append((f"{catalogue} {attribute}", ours, {
                    name: {metric: scores[metric]["value"] for metric in METRICS}
                    for name, scores in zip(others, theirs, strict=True)}))
        shown = [name for name in [*seeds[:1], *others] if name in results]
        lines += ["", "Minutes of CPU (peak MiB): " + ", ".join(
            f"{name} {results[name]['cpu_seconds'] / 60:.1f} ({results[name]['peak_mb']})" for name in shown)]
    return "\n".join([*lines, "", "## In sum", "", *_sums(points)]) + "\n"


def _cell(values: dict[str, float], macro: list[dict]) -> str:
    if not values:
        return "–"
    text = f"{decimal(values['accuracy'])} / {decimal(values['macro_f1'])}"
    if "low" in macro[0]:
        low, high = (decimal(mean(entry[end] for entry in macro)) for end in ("low", "high"))
        text += f" [{low}, {high}]"
    return text


def _sums(points: list[tuple[str, dict, dict]]) -> list[str]:
    """Bars of the project: never more than a point below the best baseline, mostly above, on average well above."""
    if not points:
        return ["Nothing to compare yet."]
    lines, names = [], list(points[0][2])
    for metric, label in zip(METRICS, ("accuracy", "macro-F1"), strict=True):
        gains = {name: ours[metric] - max(other[metric] for other in theirs.values()) for name, ours, theirs in points}
        below = [f"{name} ({100 * gain:+.1f})" for name, gain in gains.items() if gain < -0.01]
        above = sum(gain > 0 for gain in gains.values())
        means = {name: mean(theirs[name][metric] for _, _, theirs in points) for name in names}
        best = max(means, key=means.get)
        ours = mean(ours[metric] for _, ours, _ in points)
        lines.append(f"- {label}: above the best baseline of each on {above} of {len(gains)} attributes; more than a "
                     f"point below on {len(below)}{': ' + ', '.join(below) if below else ''}. Mean {decimal(ours)}, of "
                     f"the best single baseline, {best}, {decimal(means[best])}.")
    return lines


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
