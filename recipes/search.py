"""Search a configuration's keys for better values, or cross-validate it as it is.

    hf_tagger search recipes/configs/quickstart.yaml recipes/configs/search/quickstart.yaml
    hf_tagger search my.yaml space.yaml --output_dir runs/my-search --processes 2
    hf_tagger finetune runs/my-search/best.yaml

The first file is one of `hf_tagger finetune`, and every key of it can be overridden as `--key.sub value`; the second
says which keys vary (`hf_tagger/training/search_settings.py`, SearchSettings). The output folder gets

    study.db      Optuna's study (SQLite): the same command goes on with it, and may run several times side by side
    trials.json   what was tried, best first, with the mean and standard deviation over folds
    best.yaml     the best configuration, for `hf_tagger finetune`

Needs optuna: pip install 'hf_tagger[search]'
"""

import argparse
import hashlib
import json
import multiprocessing
import sys
from dataclasses import asdict, replace
from pathlib import Path

import yaml

from hf_tagger import cli
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.training.arguments import RunSettings, load_run
from hf_tagger.training.search_settings import SearchSettings, check_space, load_search, trial_values, with_values

STUDY = "search"


@cli.recipe
def main(arguments: list[str]) -> int:
    options, overrides = parse(arguments)
    settings, data = load_run(options.config, overrides)
    search = load_search(options.space)
    check_space(data, search)
    settings.check_paths()
    folder = Path(options.output_dir or f"{settings.output_dir}-search")
    folder.mkdir(parents=True, exist_ok=True)
    study = open_study(folder, search, data)
    objective = prepare(settings, data, search, folder)
    if options.processes == 1:
        work(objective, folder, 0, 1)
    else:
        jobs = [(objective, folder, index, options.processes) for index in range(options.processes)]
        with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
            pool.starmap(work, jobs, chunksize=1)
    return report(study, search, data, folder)


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = cli.parser(__doc__, "config")
    parser.add_argument("space", metavar="SPACE", help="a YAML file that says which of its keys vary")
    parser.add_argument("--output_dir", help="folder of the study (default: that of the configuration and -search)")
    parser.add_argument("--processes", type=int, default=1, help="trials side by side")
    return parser.parse_known_args(arguments)


def open_study(folder: Path, search: SearchSettings, data: dict):
    """The study of this folder. Raises ConfigError where it was begun with another configuration or space."""
    import optuna

    from hf_tagger.training.search import open_storage

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
                          "--output_dir, or delete it.")
    return study


def prepare(settings: RunSettings, data: dict, search: SearchSettings, folder: Path):
    """What a trial is worth, on a catalogue that all trials share."""
    from hf_tagger.training.context import start_run
    from hf_tagger.training.data import read_catalog
    from hf_tagger.training.heads.folds import assign_folds
    from hf_tagger.training.search import Objective

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


def work(objective, folder: Path, index: int, processes: int) -> None:
    """Tries until the study has as many trials as were asked for."""
    import optuna
    from optuna.trial import TrialState

    from hf_tagger.training.search import open_sampler, open_storage
    from hf_tagger.training.threads import available_cores, threads_asked_for

    if processes > 1:
        objective.threads = max(1, (threads_asked_for() or available_cores()) // processes)
    store, search = open_storage(folder / "study.db"), objective.search
    begun = len(optuna.load_study(study_name=STUDY, storage=store).trials)
    # Another seed for every process and every resumption: each would else draw what an earlier one has drawn.
    sampler = open_sampler(search, [search.seed, begun, index])
    study = optuna.load_study(study_name=STUDY, storage=store, sampler=sampler,
                              pruner=optuna.pruners.MedianPruner(n_startup_trials=4))
    stopped = []
    while not stopped and len(study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING),
                                               deepcopy=False)) < search.trials:
        study.optimize(objective, n_trials=1)
        stopped = search.sampler == "grid" and study.sampler.is_exhausted(study)


def report(study, search: SearchSettings, data: dict, folder: Path) -> int:
    """Writes trials.json and best.yaml and prints the trials, best first."""
    from hf_tagger.training.search import GRACE

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
    best.write_text(f"# hf_tagger finetune {best}\n{text}", encoding="utf-8")
    print(f"best: trial {complete[0]['number']}; train it: hf_tagger finetune {best}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
