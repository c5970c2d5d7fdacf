"""Conditional WGAN-GP on pooled vectors (arXiv 1704.00028; class-conditional features: f-CLSWGAN, arXiv 1712.00981)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hf_tagger.augmentation.gan import SLOPE, ConditionalGan, OnScale, condition
from hf_tagger.augmentation.retrain import Log
from hf_tagger.augmentation.settings import GanSettings
from hf_tagger.augmentation.tag_sets import TagSetSampler
from hf_tagger.augmentation.vectors import TaggedVectors

STEPS, CRITIC_STEPS = 600, 2  # of the generator, and of the critic for each of these
GRADIENT_PENALTY = 10.0  # weight of the critic's gradient penalty
CLASSIFICATION = 0.3  # weight of the trained tag head's loss on the generated vectors


class ProjectionCritic(OnScale):
    """How real a vector looks as a product of a tag set: f(x) + <V condition, phi(x)> (arXiv 1802.05637)."""

    def __init__(self, width: int, conditions: int, hidden: int):
        super().__init__(width)
        self.layers = nn.Sequential(nn.Linear(width, hidden), nn.LeakyReLU(SLOPE), nn.Linear(hidden, hidden),
                                    nn.LeakyReLU(SLOPE))
        self.realness = nn.Linear(hidden, 1)
        self.projection = nn.Linear(conditions, hidden, bias=False)

    def forward(self, vectors: Tensor, conditions: Tensor) -> Tensor:
        """vectors [B, H], conditions [B, E] -> [B]."""
        states = self.layers((vectors - self.mean) / self.std)
        return self.realness(states)[:, 0] + (states * self.projection(conditions)).sum(1) / states.shape[1] ** 0.5


def train_gan(data: TaggedVectors, sampler: TagSetSampler, tag_embeddings: Tensor, settings: GanSettings,
              classify: Callable[[Tensor, Tensor], Tensor], generator: torch.Generator, batch_size: int = 64,
              log: Log | None = None, steps: int = STEPS, gradient_weight: float = GRADIENT_PENALTY,
              classification: float = CLASSIFICATION) -> ConditionalGan:
    """Trains generator and critic on the tag sets and products that `sampler` draws.

    Args:
        classify: (vectors, tag_labels) -> loss of the trained tag head, which does not change here.
        generator: source of all randomness but the networks' first weights, which come from torch's own.

    Raises AugmentationStopped if it diverges or collapses before any good state. Later, the last good state is kept.
    """
    gan = ConditionalGan(data, sampler, tag_embeddings, settings, log)
    critic = ProjectionCritic(data.width, tag_embeddings.shape[1], settings.hidden)
    critic.fit_scale(data.sample())
    optimizer = torch.optim.Adam(critic.parameters(), settings.learning_rate, (0.5, 0.9))

    def sample() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        drawn = sampler.draw(batch_size, generator)
        real, labels = data.batch(drawn.rows)
        of_real, of_fake = (condition(given, tag_embeddings) for given in (labels, drawn.tag_labels))
        return real, of_real, gan.generator.sample(of_fake, generator), of_fake, drawn.tag_labels

    for step in range(1, steps + 1):
        for _ in range(CRITIC_STEPS):
            with torch.no_grad():
                real, of_real, fake, of_fake, _ = sample()
            gap = critic(real, of_real).mean() - critic(fake, of_fake).mean()
            penalty = gradient_penalty(critic, real, fake, of_real, of_fake, generator)
            optimizer.zero_grad(set_to_none=True)
            (gradient_weight * penalty - gap).backward()
            optimizer.step()
        _, _, fake, of_fake, asked = sample()
        score, wrong = -critic(fake, of_fake).mean(), classify(fake, asked)
        gan.descend(score + classification * wrong)
        if step % settings.check_every == 0 or step == steps:
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
