"""Conditional WGAN-GP on pooled vectors (arXiv 1704.00028; class-conditional features: f-CLSWGAN, arXiv 1712.00981)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hf_tagger.augmentation.health import Log, Watch
from hf_tagger.augmentation.networks import Generator, ProjectionCritic, condition
from hf_tagger.augmentation.settings import GanSettings
from hf_tagger.augmentation.tag_sets import TagSetSampler
from hf_tagger.augmentation.vectors import TaggedVectors
from hf_tagger.evaluation.progress import progress_bar


class ConditionalGan(Watch):
    """A generator of vectors for the tag sets that `sampler` draws, watched while it is trained. tag_embeddings: [T,
    E], of the tags' names."""

    def __init__(self, data: TaggedVectors, sampler: TagSetSampler, tag_embeddings: Tensor, settings: GanSettings,
                 log: Log | None = None):
        super().__init__({}, settings.min_diversity, log)
        self.data, self.sampler, self.tag_embeddings, self.settings = data, sampler, tag_embeddings, settings
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.generator = self.add("generator", Generator(data.width, tag_embeddings.shape[1], settings.latent,
                                                         settings.hidden))

    def add(self, name: str, network: Generator | ProjectionCritic):
        network.fit_scale(self.data.sample())
        self.networks[name] = network
        self.optimizers[name] = torch.optim.Adam(network.parameters(), self.settings.learning_rate, (0.5, 0.9))
        return network

    def draw(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Synthetic vectors [B, H] and the tag sets they were asked for [B, T]."""
        labels = self.sampler.draw(size, generator).tag_labels
        return self.generator.sample(condition(labels, self.tag_embeddings), generator), labels

    def descend(self, name: str, loss: Tensor) -> None:
        """One step of a network's optimizer."""
        self.optimizers[name].zero_grad(set_to_none=True)
        loss.backward()
        self.optimizers[name].step()

    @torch.no_grad()
    def diversity(self, generator: torch.Generator, size: int = 128) -> float:
        """Mean distance of two generated vectors of one tag set, divided by that of two real vectors with a tag in
        common; features are standardised. 1 where no tag has two products."""
        drawn = self.sampler.draw(size, generator)
        conditions = condition(drawn.tag_labels, self.tag_embeddings)
        first, second = (self.generator.sample(conditions, generator) for _ in range(2))
        pairs = drawn.rows != drawn.others
        if not pairs.any():
            return 1.0
        real = self.data.batch(drawn.rows[pairs])[0] - self.data.batch(drawn.others[pairs])[0]
        typical = (real / self.generator.std).norm(dim=1).mean().clamp(min=1e-6)
        return float(((first - second) / self.generator.std).norm(dim=1).mean() / typical)

    def finish(self) -> None:
        """Leaves the networks in their last good state. Raises AugmentationStopped if there never was one."""
        self.restore()
        for network in self.networks.values():
            network.requires_grad_(False)


def train_gan(data: TaggedVectors, sampler: TagSetSampler, tag_embeddings: Tensor, settings: GanSettings,
              classify: Callable[[Tensor, Tensor], Tensor], generator: torch.Generator, batch_size: int = 64,
              log: Log | None = None, progress: bool = True) -> ConditionalGan:
    """Trains generator and critic on the tag sets and products that `sampler` draws.

    Args:
        classify: (vectors, tag_labels) -> loss of the trained tag head, which does not change here.
        generator: source of all randomness but the networks' first weights, which come from torch's own.

    Raises AugmentationStopped if it diverges or collapses before any good state. Later, the last good state is kept.
    """
    gan = ConditionalGan(data, sampler, tag_embeddings, settings, log)
    critic = gan.critic = gan.add("critic", ProjectionCritic(data.width, tag_embeddings.shape[1], settings.hidden))

    def sample() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        drawn = sampler.draw(batch_size, generator)
        real, labels = data.batch(drawn.rows)
        of_real, of_fake = (condition(given, tag_embeddings) for given in (labels, drawn.tag_labels))
        return real, of_real, gan.generator.sample(of_fake, generator), of_fake, drawn.tag_labels

    for step in progress_bar(range(1, settings.steps + 1), desc="GAN", unit="step", disable=not progress, leave=False):
        for _ in range(settings.critic_steps):
            with torch.no_grad():
                real, of_real, fake, of_fake, _ = sample()
            gap = critic(real, of_real).mean() - critic(fake, of_fake).mean()
            penalty = gradient_penalty(critic, real, fake, of_real, of_fake, generator)
            gan.descend("critic", settings.gradient_penalty * penalty - gap)
        _, _, fake, of_fake, asked = sample()
        score, wrong = -critic(fake, of_fake).mean(), classify(fake, asked)
        gan.descend("generator", score + settings.classification * wrong)
        if step % settings.check_every == 0 or step == settings.steps:
            losses = {"wasserstein": gap, "penalty": penalty, "generator": score, "classification": wrong}
            if gan.check(step, losses, gan.diversity(generator)):
                break
    gan.finish()
    return gan


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor, of_real: Tensor, of_fake: Tensor,
                     generator: torch.Generator) -> Tensor:
    """Mean squared deviation from 1 of the critic's gradient norm between real and fake vectors (a scalar), with the
    vectors standardised: the features' scale does not matter."""
    share = torch.rand(len(real), 1, generator=generator)
    between = ((share * real + (1 - share) * fake - critic.mean) / critic.std).detach().requires_grad_(True)
    scores = critic(critic.mean + critic.std * between, share * of_real + (1 - share) * of_fake)
    gradient, = torch.autograd.grad(scores.sum(), between, create_graph=True)
    return (gradient.norm(dim=1) - 1).square().mean()
