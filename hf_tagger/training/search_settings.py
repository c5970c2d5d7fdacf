"""Which keys of a run a search varies, and how. Nothing here imports optuna or torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hf_tagger.catalog.strict import ConfigError, build, override, read_yaml
from hf_tagger.training.arguments import RunSettings


@dataclass
class Range:
    """Numbers from `low` to `high`, both included: whole ones where both are whole."""

    low: int | float
    high: int | float
    step: int | float | None = None  # distance of neighbouring values, from `low` on
    log: bool = False  # drawn evenly on a logarithmic scale

    def __post_init__(self):
        if not self.low < self.high:
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log needs low above 0 and no step")
        if self.step is not None and self.step <= 0:
            raise ValueError(f"step must be above 0, got {self.step}")

    @property
    def whole(self) -> bool:
        return all(isinstance(number, int) for number in (self.low, self.high, self.step or 1))

    def suggest(self, trial, key: str) -> int | float:
        if self.whole:
            return trial.suggest_int(key, self.low, self.high, step=self.step or 1, log=self.log)
        return trial.suggest_float(key, self.low, self.high, step=self.step, log=self.log)

    def grid(self, key: str) -> list[int | float]:
        if self.step is None and not self.whole:
            raise ConfigError(f"space.{key}: a grid needs a step, or a list of values.")
        step = self.step or 1
        values = [self.low + index * step for index in range(int((self.high - self.low) / step + 1e-9) + 1)]
        # 3 * 0.1 is a little more than 0.3.
        return values if self.whole else [round(value, 12) for value in values]

    def examples(self) -> list[int | float]:
        return [self.low, self.high]


@dataclass
class Choice:
    """One of these values, whatever YAML can write."""

    values: list[Any]

    def suggest(self, trial, key: str) -> Any:
        return json.loads(trial.suggest_categorical(key, self.grid(key)))

    def grid(self, key: str) -> list[str]:
        # As JSON: a study's file holds no lists and no mappings.
        return [json.dumps(value) for value in self.values]

    def examples(self) -> list[Any]:
        return self.values


@dataclass
class SearchSettings:
    """What `recipes/search.py` reads from its second YAML file. A trial's score is the run's `training.metric`."""

    # {key of the run, dotted: a list of values, or the keys of `Range`}; {} only cross-validates the run as it is.
    space: dict[str, Any]
    sampler: Literal["tpe", "random", "grid"] = "tpe"  # tree-structured Parzen estimator; grid: every combination
    trials: int = 20  # trainings (with `folds`: sets of trainings); a grid ends with its last combination
    # 0 scores the validation split of one training. k >= 2 trains k times, each time without one fold of the training
    # split, and takes the mean score of the folds left out; groups of products stay together.
    folds: int = 0
    prune: bool = True  # stop trials that are worse than the median of earlier ones, after a validation or a fold
    seed: int = 0  # of sampler and folds

    def __post_init__(self):
        for key, values in self.space.items():
            if isinstance(values, dict):
                self.space[key] = build(Range, values, f"space.{key}")
            elif isinstance(values, list) and values:
                self.space[key] = Choice(values)
            else:
                raise ConfigError(f"space.{key}: expected a list of values or {{low, high}}, got {values!r}.")
        if self.folds < 0 or self.folds == 1:
            raise ConfigError(f"folds: 0 (none), or at least 2, got {self.folds}.")
        if self.trials < 1:
            raise ConfigError(f"trials must be at least 1, got {self.trials}.")


def load_search(path: str | Path) -> SearchSettings:
    """Raises ConfigError, naming the key and the nearest known one, for anything that does not fit."""
    data = read_yaml(path)
    try:
        return build(SearchSettings, data)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def with_values(data: dict, values: dict[str, Any]) -> dict:
    """A run's plain data with these values at their dotted keys."""
    return override(data, [f"--{key}={json.dumps(value)}" for key, value in values.items()])


def trial_values(search: SearchSettings, parameters: dict[str, Any]) -> dict[str, Any]:
    """A trial's parameters, as a study keeps them -> {key: value}."""
    return {key: json.loads(value) if isinstance(search.space[key], Choice) else value
            for key, value in parameters.items()}


def check_space(data: dict, search: SearchSettings) -> None:
    """Raises ConfigError for a key that no run has, or a value that it cannot take, before any training."""
    for key, values in search.space.items():
        if key.split(".")[0] in ("output_dir", "catalog"):
            raise ConfigError(f"space.{key}: trials share one catalogue and are kept apart by the search itself.")
        for value in values.examples():
            try:
                build(RunSettings, with_values(data, {key: value}))
            except ConfigError as error:
                raise ConfigError(f"space.{key}: {error}") from error
