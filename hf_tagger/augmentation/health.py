"""Stops a GAN that diverges or collapses, and restores its last good state."""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from hf_tagger import UserError

Log = Callable[[dict[str, float], int], None]


class AugmentationStopped(UserError):
    """A method has nothing to offer: the message says why, and what to change. The model stays as it was."""


class Watch:
    """Keeps the networks' last good state, the losses of every check (`history`), and why training must stop
    (`stopped`). `log` is called with (values, step) at every check."""

    LIMIT = 1e4  # absolute value of a loss from which training counts as diverged
    # Checks in a row with too little diversity that count as mode collapse. A fresh generator makes nearly the same
    # vector of everything, so more are allowed before the first good one.
    PATIENCE, WARM_UP = 3, 6

    def __init__(self, networks: dict[str, nn.Module], min_diversity: float, log: Log | None = None):
        self.networks, self.min_diversity, self.log = networks, min_diversity, log
        self.history: list[dict[str, float]] = []
        self.state: dict[str, dict[str, Tensor]] | None = None
        self.stopped: str | None = None
        self.step, self.poor = 0, 0

    def check(self, step: int, losses: dict[str, float | Tensor], diversity: float) -> str | None:
        """Keeps the state as a good one, or returns why training must stop. `diversity`: mean distance of two generated
        vectors of one tag set, relative to that of two real vectors with a tag in common; 0 is a generator that ignores
        its noise."""
        losses = {name: torch.as_tensor(loss).item() for name, loss in losses.items()}
        values = losses | {"diversity": diversity}
        self.history.append({"step": step, **values})
        if self.log is not None:
            self.log({f"gan/{name}": value for name, value in values.items()}, step)
        wrong = [f"{name} loss {value:.3g}" for name, value in losses.items() if not abs(value) <= self.LIMIT]
        wrong += [f"{name} has infinite weights" for name, network in self.networks.items()
                  if not all(torch.isfinite(weight).all() for weight in network.parameters())]
        if not math.isfinite(diversity):
            wrong.append(f"diversity {diversity}")
        if wrong:
            self.stopped = f"diverged at step {step} ({', '.join(wrong)}); lower gan.learning_rate"
        elif diversity < self.min_diversity:
            self.poor += 1
            if self.poor >= (self.PATIENCE if self.state is not None else self.WARM_UP):
                self.stopped = (f"mode collapse at step {step}: generated vectors of one tag set differ by "
                                f"{diversity:.3f} of what real ones do, less than gan.min_diversity = "
                                f"{self.min_diversity}; lower gan.learning_rate")
        else:
            self.poor, self.step = 0, step
            self.state = {name: copy.deepcopy(network.state_dict()) for name, network in self.networks.items()}
        return self.stopped

    def restore(self) -> None:
        """Puts the last good state back. Raises AugmentationStopped where there is none."""
        if self.state is None:
            raise AugmentationStopped("the GAN never reached a good state: " + (
                self.stopped or "generated vectors of one tag set differed by less than gan.min_diversity of what real "
                                "ones do; raise epochs"))
        for name, network in self.networks.items():
            network.load_state_dict(self.state[name])
