"""A generator of pooled vectors for tag sets; it is stopped when it diverges or collapses."""

import copy
import math

import torch
from torch import Tensor

from hf_tagger.augmentation.networks import Generator, condition
from hf_tagger.augmentation.retrain import AugmentationStopped, Log
from hf_tagger.augmentation.settings import GanSettings
from hf_tagger.augmentation.tag_sets import TagSetSampler
from hf_tagger.augmentation.vectors import TaggedVectors


class ConditionalGan:
    """Makes vectors for the tag sets that `sampler` draws. Keeps the generator's last good state, the losses of every
    check (`history`), and why training must stop (`stopped`).

    Args:
        tag_embeddings: [T, E], of the tags' names; log: called with (values, step) at every check.
    """

    LIMIT = 1e4  # absolute value of a loss from which training counts as diverged
    # Checks in a row with too little diversity that count as mode collapse. A fresh generator makes nearly the same
    # vector of everything, so more are allowed before the first good one.
    PATIENCE, WARM_UP = 3, 6

    def __init__(self, data: TaggedVectors, sampler: TagSetSampler, tag_embeddings: Tensor, settings: GanSettings,
                 log: Log | None = None):
        self.data, self.sampler, self.tag_embeddings = data, sampler, tag_embeddings
        self.settings, self.log = settings, log
        self.generator = Generator(data.width, tag_embeddings.shape[1], settings.latent, settings.hidden)
        self.generator.fit_scale(data.sample())
        self.optimizer = torch.optim.Adam(self.generator.parameters(), settings.learning_rate, (0.5, 0.9))
        self.history: list[dict[str, float]] = []
        self.state: dict[str, Tensor] | None = None
        self.stopped: str | None = None
        self.poor = 0

    def draw(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Synthetic vectors [B, H] and the tag sets they were asked for [B, T]."""
        labels = self.sampler.draw(size, generator).tag_labels
        return self.generator.sample(condition(labels, self.tag_embeddings), generator), labels

    def descend(self, loss: Tensor) -> None:
        """One step of the generator."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()

    @torch.no_grad()
    def diversity(self, generator: torch.Generator, size: int = 128) -> float:
        """Mean distance of two generated vectors of one tag set, divided by that of two real vectors with a tag in
        common; features are standardised. 1 where no tag has two products, 0 where the noise is ignored."""
        drawn = self.sampler.draw(size, generator)
        conditions = condition(drawn.tag_labels, self.tag_embeddings)
        first, second = (self.generator.sample(conditions, generator) for _ in range(2))
        pairs = drawn.rows != drawn.others
        if not pairs.any():
            return 1.0
        real = self.data.batch(drawn.rows[pairs])[0] - self.data.batch(drawn.others[pairs])[0]
        typical = (real / self.generator.std).norm(dim=1).mean().clamp(min=1e-6)
        return float(((first - second) / self.generator.std).norm(dim=1).mean() / typical)

    def check(self, step: int, losses: dict[str, float | Tensor], diversity: float) -> str | None:
        """Keeps the state as a good one, or returns why training must stop."""
        losses = {name: torch.as_tensor(loss).item() for name, loss in losses.items()}
        values = losses | {"diversity": diversity}
        self.history.append({"step": step, **values})
        if self.log is not None:
            self.log({f"gan/{name}": value for name, value in values.items()}, step)
        wrong = [f"{name} loss {value:.3g}" for name, value in losses.items() if not abs(value) <= self.LIMIT]
        if not all(torch.isfinite(weight).all() for weight in self.generator.parameters()):
            wrong.append("generator has infinite weights")
        if not math.isfinite(diversity):
            wrong.append(f"diversity {diversity}")
        if wrong:
            self.stopped = f"diverged at step {step} ({', '.join(wrong)}); lower gan.learning_rate"
        elif diversity < self.settings.min_diversity:
            self.poor += 1
            if self.poor >= (self.PATIENCE if self.state is not None else self.WARM_UP):
                self.stopped = (f"mode collapse at step {step}: generated vectors of one tag set differ by "
                                f"{diversity:.3f} of what real ones do, less than gan.min_diversity = "
                                f"{self.settings.min_diversity}; lower gan.learning_rate")
        else:
            self.poor, self.state = 0, copy.deepcopy(self.generator.state_dict())
        return self.stopped

    def finish(self) -> None:
        """Leaves the generator in its last good state. Raises AugmentationStopped if there never was one."""
        if self.state is None:
            raise AugmentationStopped("the GAN never reached a good state: " + (
                self.stopped or "generated vectors of one tag set differed by less than gan.min_diversity of what real "
                                "ones do; raise epochs"))
        self.generator.load_state_dict(self.state)
        self.generator.requires_grad_(False)
