"""Search a configuration's keys for better values, or cross-validate it as it is.

    python recipes/search.py recipes/configs/quickstart.yaml recipes/configs/search/quickstart.yaml
    python recipes/search.py my.yaml space.yaml --study runs/my-search --processes 2
    accelerate launch recipes/finetune.py runs/my-search/best.yaml

The first file is one of recipes/finetune.py, and every key of it can be overridden as `--key.sub value`; the second
says which keys vary (`hf_tagger/training/search.py`, SearchSettings). The folder `--study` gets

    study.db      Optuna's study (SQLite): the same command goes on with it, and may run several times side by side
    trials.json   what was tried, best first, with the mean and standard deviation over folds
    best.yaml     the best configuration, for recipes/finetune.py

Needs optuna: pip install 'hf_tagger[search]'
"""

import argparse
import hashlib
import json
import multiprocessing
import sys
from dataclasses import asdict, replace
from pathlib import Path

import optuna
import yaml
from optuna.trial import TrialState

from hf_tagger.catalog.quarantine import TooManyBadRows
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.training.arguments import RunSettings, load_run
from hf_tagger.training.context import start_run
from hf_tagger.training.data import read_catalog
from hf_tagger.training.folds import assign_folds
from hf_tagger.training.loop import Interrupted
from hf_tagger.training.search import (
    GRACE,
    Objective,
    SearchSettings,
    check_space,
    load_search,
    open_storage,
    trial_values,
    with_values,
)
from hf_tagger.training.threads import available_cores, threads_asked_for

STUDY = "search"


def main(arguments: list[str]) -> int:
    options, overrides = parse(arguments)
    try:
        settings, data = load_run(options.config, overrides)
        search = load_search(options.space)
        check_space(data, search)
        folder = Path(options.study or f"{settings.output_dir}-search")
        folder.mkdir(parents=True, exist_ok=True)
        study = open_study(folder, search, data)
        objective = prepare(settings, data, search, folder)
        if options.processes == 1:
            work(objective, folder, 0, 1)
        else:
            jobs = [(objective, folder, index, options.processes) for index in range(options.processes)]
            with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
                pool.starmap(work, jobs, chunksize=1)
    except (ConfigError, TooManyBadRows) as error:
        print(f"search: {error}", file=sys.stderr)
        return 2
    except (Interrupted, KeyboardInterrupt):
        print("search: interrupted; the same command goes on", file=sys.stderr)
        return 130
    return report(study, search, data, folder)


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("config", help="a YAML file of recipes/finetune.py")
    parser.add_argument("space", help="a YAML file that says which of its keys vary")
    parser.add_argument("--study", help="folder (default: the output_dir of config with -search at its end)")
    parser.add_argument("--processes", type=int, default=1, help="trials side by side")
    return parser.parse_known_args(arguments)


def open_study(folder: Path, search: SearchSettings, data: dict) -> optuna.Study:
    """The study of this folder. Raises ConfigError where it was begun with another configuration or space."""
    study = optuna.create_study(storage=open_storage(folder / "study.db"), study_name=STUDY, direction="maximize",
                                load_if_exists=True)
    # More trials of the same search may be asked for.
    asked = json.dumps([data, asdict(search) | {"trials": None}], sort_keys=True, default=str)
    fingerprint = hashlib.blake2b(asked.encode(), digest_size=8).hexdigest()
    begun = study.user_attrs.get("fingerprint")
    if begun is None:
        study.set_user_attr("fingerprint", fingerprint)
    elif begun != fingerprint:
        raise ConfigError(f"{folder / 'study.db'} was begun with another configuration or search space: give another "
                          "--study, or delete it.")
    return study


def prepare(settings: RunSettings, data: dict, search: SearchSettings, folder: Path) -> Objective:
    # Resumed: a made-up catalogue must not be written anew while another search of this study reads it.
    run = start_run(replace(settings, output_dir=str(folder / "shared")), data, resume=True)
    catalogue = read_catalog(run)
    catalog, fold_of = catalogue.catalog, None
    if search.folds:
        fold_of = assign_folds(catalog.records("train"), catalogue.vocabulary.attributes, search.folds, search.seed)
    elif settings.evaluation.validation not in catalog.splits:
        raise ConfigError(f'The catalogue has no split "{settings.evaluation.validation}" to score trials on: cut one '
                          "(catalog.source.fractions), or set folds.")
    return Objective(data, catalogue.settings, search, folder, fold_of)


def work(objective: Objective, folder: Path, index: int, processes: int) -> None:
    """Tries until the study has as many trials as were asked for."""
    if processes > 1:
        objective.threads = max(1, (threads_asked_for() or available_cores()) // processes)
    store, search = open_storage(folder / "study.db"), objective.search
    begun = len(optuna.load_study(study_name=STUDY, storage=store).trials)
    # Another seed for every process and every resumption: each would else draw what an earlier one has drawn.
    study = optuna.load_study(study_name=STUDY, storage=store, sampler=search.sampler_for([search.seed, begun, index]),
                              pruner=optuna.pruners.MedianPruner(n_startup_trials=4))
    stopped = []
    while not stopped and len(study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING),
                                               deepcopy=False)) < search.trials:
        study.optimize(objective, n_trials=1)
        stopped = search.sampler == "grid" and study.sampler.is_exhausted(study)


def report(study: optuna.Study, search: SearchSettings, data: dict, folder: Path) -> int:
    """Writes trials.json and best.yaml and prints the trials, best first."""
    trials = [{"number": trial.number, "state": trial.state.name.lower(), "score": trial.value,
               "std": trial.user_attrs.get("std"), "scores": trial.user_attrs.get("scores"),
               "values": trial_values(search, trial.params)} for trial in study.get_trials(deepcopy=False)]
    complete = sorted((trial for trial in trials if trial["state"] == "complete"), key=lambda trial: -trial["score"])
    others = [trial for trial in trials if trial["state"] != "complete"]
    (folder / "trials.json").write_text(json.dumps(complete + others, indent=1) + "\n", encoding="utf-8")
    for trial in complete + others:
        score = "" if trial["score"] is None else f"{trial['score']:.4f}"
        spread = f" +- {trial['std']:.4f}" if search.folds and trial["state"] == "complete" else ""
        values = ", ".join(f"{key} {value}" for key, value in trial["values"].items())
        print(f"{trial['number']:>4} {trial['state']:<9}{score}{spread}  {values}")
    running = sum(trial["state"] == "running" for trial in others)
    if running:
        print(f"{running} are running elsewhere, or were killed less than {GRACE} seconds ago: the same command tries "
              "these again, later")
    if not complete:
        print("search: no trial was completed", file=sys.stderr)
        return 1
    best = folder / "best.yaml"
    text = yaml.safe_dump(with_values(data, complete[0]["values"]), sort_keys=False, allow_unicode=True)
    best.write_text(f"# accelerate launch recipes/finetune.py {best}\n{text}", encoding="utf-8")
    print(f"best: trial {complete[0]['number']}; train it: accelerate launch recipes/finetune.py {best}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
