"""Hyperparameter search and cross-validation with Optuna: its storage and samplers, and what a trial scores.

Needs optuna: pip install 'hf_tagger[search]'.
"""

import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np
import optuna
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback

from hf_tagger.catalog.reading.partial import Part, PartialCatalog
from hf_tagger.catalog.reading.stream import Catalog
from hf_tagger.catalog.schema import Record
from hf_tagger.catalog.strict import ConfigError, build
from hf_tagger.training.arguments import CatalogSettings, RunSettings
from hf_tagger.training.batches import Batches
from hf_tagger.training.context import start_run
from hf_tagger.training.data import read_catalog
from hf_tagger.training.frozen_heads import fit_kernel_head, fit_lexical_head, fit_logit_fusion
from hf_tagger.training.loop import Interrupted, NonFiniteLoss
from hf_tagger.training.phases import start_training, train_phases, validate
from hf_tagger.training.refit import out_of_fold_rows
from hf_tagger.training.search_settings import SearchSettings, with_values
from hf_tagger.training.starting_model import fit_feature_scales, starting_model

HELD_OUT = "held out"
HEARTBEAT, GRACE = 30, 120  # seconds
# Optuna calls the heartbeats experimental that notice trials of a killed process, and the callback that retries them.
warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
_RETRY = RetryHeartbeatStaleTrialCallback(max_retry=2)


def open_storage(path: Path) -> RDBStorage:
    """An SQLite file for studies that several processes share; trials of a killed one are tried again."""
    return RDBStorage(f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 60}},
                      heartbeat_interval=HEARTBEAT, grace_period=GRACE, heartbeat_stale_trial_callback=_RETRY)


def open_sampler(search: SearchSettings, entropy: list[int]) -> optuna.samplers.BaseSampler:
    """The sampler of a process, seeded by `entropy`; a grid by the search alone, for all processes walk the same."""
    if search.sampler == "grid":
        grid = {key: values.grid(key) for key, values in search.space.items()}
        return optuna.samplers.GridSampler(grid, seed=search.seed)
    seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    return {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}[search.sampler](seed=seed)


@dataclass(frozen=True)
class HeldOutFold:
    """A function: catalogue -> the catalogue with one fold of its training split moved to the split `HELD_OUT`."""

    fold_of: dict[str, int]  # {id of a training product: its fold}
    fold: int

    def __call__(self, catalog: Catalog) -> PartialCatalog:
        return PartialCatalog(catalog, {"train": Part("train", lambda record: not self.holds(record)),
                                        HELD_OUT: Part("train", self.holds)})

    def holds(self, record: Record) -> bool:
        return self.fold_of[record["id"]] == self.fold


def train_and_score(settings: RunSettings, data: dict, fold: HeldOutFold | None = None,
                    validated: Callable[[dict[str, float]], None] | None = None) -> dict[str, float]:
    """Trains and returns the metrics of the fold held out, or without one those of the validation split; `validated` is
    given the validation metrics each time they are measured."""
    run = start_run(settings, data)
    catalogue = read_catalog(run, fold)
    batches = Batches(catalogue, *starting_model(run, catalogue))
    fit_feature_scales(run, batches)
    fit_lexical_head(run, batches)

    def evaluate(_) -> dict[str, float]:
        metrics = validate(run, batches)
        validated(metrics)
        return metrics

    validates = validated is not None and settings.evaluation.validation in catalogue.catalog.splits
    training = start_training(run, batches, evaluate if validates else None)
    train_phases(run, training)
    fit_kernel_head(run, training)
    fit_logit_fusion(run, training, out_of_fold_rows(run, training))
    return validate(run, batches, None if fold is None else HELD_OUT)


@dataclass
class Objective:
    """A function: `optuna.Trial` -> its score, the mean over folds. The trial's user attributes keep "scores" (one per
    fold) and "std", their standard deviation."""

    data: dict  # the run's plain data
    catalog: CatalogSettings  # its catalogue, a made-up one already written
    search: SearchSettings
    folder: Path  # for what trials write; deleted when they end
    fold_of: dict[str, int] | None = None  # {product id: fold}, with `search.folds`
    threads: int | None = None  # of each trial on a CPU, where several run side by side

    def __call__(self, trial: optuna.Trial) -> float:
        values = {key: distribution.suggest(trial, key) for key, distribution in self.search.space.items()}
        folder = self.folder / f"trial-{trial.number}"
        settings = build(RunSettings, with_values(self.data, values))
        training = replace(settings.training, threads=self.threads or settings.training.threads)
        settings = replace(settings, output_dir=str(folder), catalog=self.catalog, save_adapter=False,
                           training=training)
        metric, scores = settings.training.metric, []
        try:
            if self.fold_of is None:
                steps = count()
                found = train_and_score(settings, self.data, None,
                                        lambda metrics: self._report(trial, metrics[metric], next(steps)))
                scores.append(found[metric])
            else:
                for fold in range(self.search.folds):
                    fold_held_out = HeldOutFold(self.fold_of, fold)
                    scores.append(train_and_score(settings, self.data, fold_held_out)[metric])
                    self._report(trial, float(np.mean(scores)), fold, last=fold + 1 == self.search.folds)
        except NonFiniteLoss as error:
            raise optuna.TrialPruned(str(error)) from error
        except (Interrupted, KeyboardInterrupt) as error:
            # The search that goes on tries it again; a grid would otherwise count this point as done.
            _RETRY(trial.study, trial.study.trials[trial.number])
            raise Interrupted("interrupted; the same command goes on") from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            trial.set_user_attr("scores", scores)
            trial.set_user_attr("std", float(np.std(scores, ddof=1)) if len(scores) > 1 else 0.0)
        if not np.isfinite(scores).all():
            raise ConfigError(f"training.metric: {metric} cannot be measured on what trials are scored on: no product "
                              "there has such a tag.")
        return float(np.mean(scores))

    def _report(self, trial: optuna.Trial, value: float, step: int, last: bool = False) -> None:
        trial.report(value, step)
        if self.search.prune and not last and trial.should_prune():
            raise optuna.TrialPruned(f"{value:.4f} after step {step}")
