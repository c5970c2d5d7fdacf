"""A generator of pooled vectors for tag sets, and how well it does."""

import torch
from torch import Tensor

from hf_tagger.augmentation.health import Log, Watch
from hf_tagger.augmentation.networks import Generator, condition
from hf_tagger.augmentation.settings import GanSettings
from hf_tagger.augmentation.tag_sets import TagSetSampler
from hf_tagger.augmentation.vectors import TaggedVectors


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

    def add(self, name: str, network: Generator):
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
