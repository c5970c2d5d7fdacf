"""Semi-supervised GAN of pooled vectors (Salimans et al. 2016, arXiv 1606.03498; GAN-BERT, ACL 2020): the tag head is
the discriminator.

Every `single` attribute gets one more class, "generated", with its logit fixed at 0 (a softmax has one logit to
spare): a vector is real with probability Z / (Z + 1), Z = sum of exp(logits of the attribute). Products without known
tags are trained as real, the generator's vectors as generated.
"""

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_tagger.augmentation.retrain import AugmentationStopped, Log
from hf_tagger.augmentation.settings import GanSettings
from hf_tagger.augmentation.tag_sets import TagSetSampler
from hf_tagger.augmentation.vectors import TaggedVectors

SLOPE = 0.2


def condition(tag_labels: Tensor, tag_embeddings: Tensor) -> Tensor:
    """The mean embedding [B, E] of the tags given in tag_labels [B, T] (embeddings [T, E]); zeros where none is given.

    A tag with a handful of products thus borrows from tags with similar names, and a tag set that never occurred is
    the mixture of its tags.
    """
    given = (tag_labels == 1).to(tag_embeddings.dtype)
    return given @ tag_embeddings / given.sum(1, keepdim=True).clamp(min=1)


class OnScale(nn.Module):
    """Knows mean and standard deviation of the real vectors' features; the layers work on standardised ones."""

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    def fit_scale(self, sample: Tensor) -> None:
        """From real vectors [N, H]."""
        self.mean.copy_(sample.mean(0))
        self.std.copy_(sample.std(0).clamp(min=1e-4))


class Generator(OnScale):
    """Noise of width `latent` and condition -> synthetic vectors, on the scale of the real ones."""

    def __init__(self, width: int, conditions: int, latent: int, hidden: int):
        super().__init__(width)
        self.latent = latent
        self.condition = nn.Linear(conditions, latent)
        self.layers = nn.Sequential(
            nn.Linear(2 * latent, hidden), nn.LeakyReLU(SLOPE), nn.Linear(hidden, hidden), nn.LeakyReLU(SLOPE),
            nn.Linear(hidden, width),
        )

    def forward(self, conditions: Tensor, noise: Tensor) -> Tensor:
        """conditions [B, E], noise [B, Z] -> [B, H]."""
        return self.mean + self.std * self.layers(torch.cat([self.condition(conditions), noise], dim=1))

    def sample(self, conditions: Tensor, generator: torch.Generator) -> Tensor:
        """conditions [B, E] -> [B, H], with Gaussian noise."""
        return self(conditions, torch.randn(len(conditions), self.latent, generator=generator))


class ConditionalGan:
    """Makes vectors for the tag sets that `sampler` draws; is stopped when it diverges or collapses. Keeps the
    generator's last good state, the losses of every check (`history`), and why training must stop (`stopped`).

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


class SemiSupervisedGan(ConditionalGan):
    """The unlabelled part of the head's loss, as `extra_loss` of `retrain_head`. Each call also trains the generator,
    one step by feature matching. After a divergence or mode collapse the loss is 0.

    Args:
        data: products to tell from generated ones, labelled or not.
        groups: columns of the logits of each `single` attribute, at least one.
        random: source of all randomness but the generator's first weights.
    """

    def __init__(self, *args, groups: list[Tensor], random: torch.Generator, batch_size: int = 128, **options):
        super().__init__(*args, **options)
        self.groups, self.random, self.batch_size = groups, random, batch_size

    def __call__(self, head: nn.Module, step: int) -> Tensor:
        if self.stopped is not None:
            return torch.zeros(())
        rows = torch.randint(len(self.data), (self.batch_size,), generator=self.random)
        real = self.data.batch(rows)[0]
        fake, _ = self.draw(self.batch_size, self.random)
        matching = (real.mean(0) - fake.mean(0)).div(self.generator.std).square().mean()
        self.descend(matching)
        real_logits, fake_logits = head(real), head(fake.detach())
        loss = torch.zeros(())
        for group in self.groups:
            loss = loss + (F.softplus(-real_logits[:, group].logsumexp(1)).mean()
                           + F.softplus(fake_logits[:, group].logsumexp(1)).mean()) / len(self.groups)
        if (step + 1) % self.settings.check_every == 0:
            self.check(step + 1, {"discriminator": loss, "matching": matching}, self.diversity(self.random))
        return self.settings.unlabelled * loss
