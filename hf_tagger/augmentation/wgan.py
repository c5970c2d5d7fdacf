"""Conditional WGAN-GP on pooled vectors (arXiv 1704.00028; class-conditional features: f-CLSWGAN, arXiv 1712.00981)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hf_tagger.augmentation.health import AugmentationStopped, Log, Watch
from hf_tagger.augmentation.networks import Generator, ProjectionCritic, condition
from hf_tagger.augmentation.settings import GanSettings
from hf_tagger.augmentation.tag_sets import TagSetSampler
from hf_tagger.augmentation.vectors import TaggedVectors
from hf_tagger.evaluation.progress import progress_bar

BETAS = (0.5, 0.9)


@dataclass
class ConditionalGan:
    """A trained generator and critic.

    Args:
        steps: the step whose networks these are.
        stopped: why training stopped early, if it did.
        history: losses at every check.
    """

    generator: Generator
    critic: nn.Module
    tag_embeddings: Tensor
    sampler: TagSetSampler
    steps: int
    stopped: str | None
    history: list[dict[str, float]]

    def draw(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Synthetic vectors [B, H] and the tag sets they were asked for [B, T]."""
        labels = self.sampler.draw(size, generator).tag_labels
        return self.generator.sample(condition(labels, self.tag_embeddings), generator), labels


def train_gan(data: TaggedVectors, sampler: TagSetSampler, tag_embeddings: Tensor, settings: GanSettings,
              classify: Callable[[Tensor, Tensor], Tensor], generator: torch.Generator, batch_size: int = 64,
              log: Log | None = None, progress: bool = True) -> ConditionalGan:
    """Trains generator and critic on the tag sets and products that `sampler` draws.

    Args:
        tag_embeddings: [T, E], of the tags' names.
        classify: (vectors, tag_labels) -> loss of the trained tag head, which does not change here.
        generator: source of all randomness but the networks' first weights, which come from torch's own.

    Raises AugmentationStopped if it diverges or collapses before any good state. Later, the last good state is kept.
    """
    width, conditions = data.width, tag_embeddings.shape[1]
    networks = {"generator": Generator(width, conditions, settings.latent, settings.hidden),
                "critic": ProjectionCritic(width, conditions, settings.hidden)}
    make, judge = networks["generator"], networks["critic"]
    standardise(networks.values(), data)
    optimizers = {name: torch.optim.Adam(network.parameters(), settings.learning_rate, BETAS)
                  for name, network in networks.items()}
    watch, stopped = Watch(networks, settings.min_diversity, log), None

    def sample() -> tuple[Tensor, Tensor, Tensor, Tensor]:
        drawn = sampler.draw(batch_size, generator)
        real, labels = data.batch(drawn.rows)
        fake = make.sample(condition(drawn.tag_labels, tag_embeddings), generator)
        return real, condition(labels, tag_embeddings), drawn.tag_labels, fake

    for step in progress_bar(range(1, settings.steps + 1), desc="GAN", unit="step", disable=not progress, leave=False):
        for _ in range(settings.critic_steps):
            with torch.no_grad():
                real, of_real, asked, fake = sample()
            of_fake = condition(asked, tag_embeddings)
            gap = judge(real, of_real).mean() - judge(fake, of_fake).mean()
            penalty = gradient_penalty(judge, real, fake, of_real, of_fake, generator)
            _descend(optimizers["critic"], settings.gradient_penalty * penalty - gap)
        _, _, asked, fake = sample()
        score = -judge(fake, condition(asked, tag_embeddings)).mean()
        wrong = classify(fake, asked)
        _descend(optimizers["generator"], score + settings.classification * wrong)
        if step % settings.check_every == 0 or step == settings.steps:
            losses = {name: value.item() for name, value in
                      (("wasserstein", gap), ("penalty", penalty), ("generator", score), ("classification", wrong))}
            stopped = watch.check(step, losses, diversity(make, data, sampler, tag_embeddings, generator))
            if stopped is not None:
                if watch.state is None:
                    raise AugmentationStopped(f"augmentation.method gan: {stopped}")
                break
    watch.restore()
    for network in networks.values():
        network.requires_grad_(False)
    return ConditionalGan(make, judge, tag_embeddings, sampler, watch.step, stopped, watch.history)


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor, of_real: Tensor, of_fake: Tensor,
                     generator: torch.Generator) -> Tensor:
    """Mean squared deviation from 1 of the critic's gradient norm between real and fake vectors (a scalar), with the
    vectors standardised: the features' scale does not matter."""
    share = torch.rand(len(real), 1, generator=generator)
    between = ((share * real + (1 - share) * fake - critic.mean) / critic.std).detach().requires_grad_(True)
    scores = critic(critic.mean + critic.std * between, share * of_real + (1 - share) * of_fake)
    gradient, = torch.autograd.grad(scores.sum(), between, create_graph=True)
    return (gradient.norm(dim=1) - 1).square().mean()


@torch.no_grad()
def diversity(make: Generator, data: TaggedVectors, sampler: TagSetSampler, tag_embeddings: Tensor,
              generator: torch.Generator, size: int = 128) -> float:
    """Mean distance of two generated vectors of one tag set, divided by that of two real vectors with a tag in common;
    features are standardised. 1 where no tag has two products."""
    drawn = sampler.draw(size, generator)
    conditions = condition(drawn.tag_labels, tag_embeddings)
    first, second = (make.sample(conditions, generator) for _ in range(2))
    pairs = drawn.rows != drawn.others
    if not pairs.any():
        return 1.0
    real = data.batch(drawn.rows[pairs])[0] - data.batch(drawn.others[pairs])[0]
    typical = (real / make.std).norm(dim=1).mean().clamp(min=1e-6)
    return float(((first - second) / make.std).norm(dim=1).mean() / typical)


def standardise(networks: Iterable[nn.Module], data: TaggedVectors) -> None:
    sample = data.sample()
    for network in networks:
        network.mean.copy_(sample.mean(0))
        network.std.copy_(sample.std(0).clamp(min=1e-4))


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
