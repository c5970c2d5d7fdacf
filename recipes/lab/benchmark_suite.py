"""The defaults against simpler methods, on many catalogues: no knob is turned for any of them.

    python recipes/lab/benchmark_suite.py recipes/configs/fashion.yaml recipes/configs/implicit_multi.yaml \
        recipes/lab/configs/*.yaml --seeds 0 1 2
    python recipes/lab/benchmark_suite.py recipes/lab/configs/marketplace.yaml --peer autogluon --environment ENV

CONFIGs have a `catalog:` section and nothing else that a shop would not write; `--key.sub value` overrides (a longer
`--budget` on a busy machine) are for all, and the page names them. Each is trained by `hf_tagger finetune`
for every seed and scored by `hf_tagger evaluate`; `hf_tagger baselines` scores the majority, TF-IDF with logistic
regression, the same with frozen features, and nearest neighbours on the same splits. Each program is a process of its
own, measured from outside: seconds, CPU seconds and peak memory. Evaluation protocols that a CONFIG gives and that
hide no modality, such as masked titles, are scored as well.

`--peer autogluon` trains AutoGluon MultiModal, too, on the same encoders, see recipes/lab/peer.py, and compares the
speed of both with the first seed of the defaults. It is installed into `--environment`, about 7 GB, and never into this
one. OMP_NUM_THREADS=1 gives both sides one thread.

Defaults are chosen on validation and out of fold; the test split is looked at here, once per release. Writes
OUTPUT/suite.json after every program (what is there is not computed again), and OUTPUT/suite.md with suite.svg, the
page that model_cards/suite.md is a copy of.
"""

import argparse
import json
import sys
from pathlib import Path

from hf_tagger import cli
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.evaluation.machine import describe_machine
from hf_tagger.evaluation.protocols import standard_protocols
from hf_tagger.training.arguments import load_run
from measuring import HF_TAGGER, measured
from suite_page import DEFAULTS, METRICS, gains, plot, report

BASELINES = ("majority", "tfidf", "regression", "knn")


@cli.recipe
def main(arguments: list[str]) -> None:
    options, overrides = parse(arguments)
    folder = Path(options.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "suite.json"
    found = {"machine": describe_machine(), "overrides": overrides}
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
    catalogues, gained = found.setdefault("catalogues", {}), found.setdefault("gains", {})

    def write() -> None:
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        if drawn := any(gained.values()):
            plot(gained, folder / "suite.svg")
        (folder / "suite.md").write_text(report(found, drawn), encoding="utf-8")

    for config in options.configs:
        results, at = catalogues.setdefault(Path(config).stem, {}), folder / Path(config).stem
        protocols = shown_protocols(config, overrides)
        for method in [*options.baselines, *(f"{DEFAULTS} {seed}" for seed in options.seeds), *options.peer]:
            if method not in results:
                cli.say(f"{at.name}, {method} ...")
                score = PEERS.get(method) or (score_defaults if method.startswith(DEFAULTS) else score_baseline)
                results[method] = score(config, method, at, options, overrides, results)
                results[method]["scores"] = kept(results[method]["scores"], protocols)
                write()
        gained[at.name] = gains(at, results, protocols)
        write()
    print(report(found))


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = cli.parser(__doc__)
    parser.add_argument("configs", nargs="+", help="YAML files of `hf_tagger finetune`")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--baselines", nargs="*", choices=BASELINES, default=BASELINES, help="these alone")
    parser.add_argument("--peer", nargs="*", choices=list(PEERS), default=[], help="other libraries")
    parser.add_argument("--environment", type=Path, help="folder of the peer's virtual environment, made if need be")
    parser.add_argument("--peer_attributes", nargs="*", default=[], metavar="ATTRIBUTE",
                        help="what the peer learns (default: all that have one tag per product)")
    parser.add_argument("--output_dir", default="runs/suite")
    options, overrides = parser.parse_known_args(arguments)
    if options.peer and not options.environment:
        raise ConfigError("--peer is installed into a virtual environment of its own: say where, --environment FOLDER")
    return options, overrides


def shown_protocols(config: str, overrides: list[str]) -> dict[str, str]:
    """Evaluation protocols that hide no modality, and what stands behind an attribute scored under each: nothing under
    the first."""
    settings, _ = load_run(config, overrides)
    first, *others = (name for name, protocol in standard_protocols(settings.evaluation.protocols).items()
                      if not protocol.without)
    return {first: ""} | {name: f" ({name})" for name in others}


def score_defaults(config: str, method: str, folder: Path, _, overrides: list[str], *__) -> dict:
    seed, model = method.split()[1], str(folder / method.replace(" ", "_"))
    spent = measured([*HF_TAGGER, "finetune", config, "--output_dir", model, "--seed", seed, *overrides])
    measured([*HF_TAGGER, "evaluate", model, config, "--evaluation.split", "test"])
    metrics = json.loads(Path(model, "evaluation", "metrics.json").read_text(encoding="utf-8"))
    return spent | {"scores": metrics["protocols"]}


def score_baseline(config: str, method: str, folder: Path, *_) -> dict:
    spent = measured([*HF_TAGGER, "baselines", config, "--only", method, "--output_dir", str(folder)])
    methods = json.loads((folder / "baselines.json").read_text(encoding="utf-8"))["methods"]
    return spent | {"scores": methods[method]}


def score_autogluon(config: str, method: str, folder: Path, options: argparse.Namespace, _, results: dict) -> dict:
    from peer import beside, environment

    first = f"{DEFAULTS} {options.seeds[0]}"
    return beside(config, folder / first.replace(" ", "_"), results[first], environment(options.environment),
                  folder / method, options.peer_attributes)


def kept(results: dict[str, dict], protocols: dict[str, str]) -> dict[str, dict]:
    """Of each protocol's `ProtocolResult.plain()` the scores of each attribute, with intervals."""
    return {attribute + suffix: {metric: scores[metric] for metric in METRICS if metric in scores}
            for name, suffix in protocols.items() if name in results
            for attribute, scores in results[name]["attributes"].items()}


PEERS = {"autogluon": score_autogluon}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
