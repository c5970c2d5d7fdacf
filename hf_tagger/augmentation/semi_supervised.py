"""Semi-supervised GAN (Salimans et al. 2016, arXiv 1606.03498; GAN-BERT, ACL 2020): the tag head is the discriminator.

Every `single` attribute gets one more class, "generated", with its logit fixed at 0 (a softmax has one logit to
spare): a vector is real with probability Z / (Z + 1), Z = sum of exp(logits of the attribute). Products without known
tags are trained as real, the generator's vectors as generated.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_tagger.augmentation.health import AugmentationStopped, Log, Watch
from hf_tagger.augmentation.networks import Generator, condition
from hf_tagger.augmentation.settings import GanSettings
from hf_tagger.augmentation.tag_sets import TagSetSampler
from hf_tagger.augmentation.vectors import TaggedVectors
from hf_tagger.augmentation.wgan import BETAS, diversity, standardise


class SemiSupervisedGan:
    """The unlabelled part of the head's loss, as `extra_loss` of `retrain_head`. Each call also trains the generator,
    one step by feature matching.

    Args:
        data: products to tell from generated ones, labelled or not.
        groups: columns of the logits of each `single` attribute, at least one.

    After a divergence or mode collapse the loss is 0, and `stopped` says why.
    """

    def __init__(self, data: TaggedVectors, sampler: TagSetSampler, tag_embeddings: Tensor, groups: list[Tensor],
                 settings: GanSettings, generator: torch.Generator, batch_size: int = 128, log: Log | None = None):
        self.data, self.sampler, self.tag_embeddings = data, sampler, tag_embeddings
        self.groups, self.settings, self.random, self.batch_size = groups, settings, generator, batch_size
        self.generator = Generator(data.width, tag_embeddings.shape[1], settings.latent, settings.hidden)
        standardise([self.generator], data)
        self.optimizer = torch.optim.Adam(self.generator.parameters(), settings.learning_rate, BETAS)
        self.watch = Watch({"generator": self.generator}, settings.min_diversity, log)
        self.stopped: str | None = None

    @property
    def history(self) -> list[dict[str, float]]:
        """Losses at every check."""
        return self.watch.history

    def __call__(self, head: nn.Module, step: int) -> Tensor:
        if self.stopped is not None:
            return torch.zeros(())
        rows = torch.randint(len(self.data), (self.batch_size,), generator=self.random)
        real = self.data.batch(rows)[0]
        fake, _ = self.draw(self.batch_size, self.random)
        matching = (real.mean(0) - fake.mean(0)).div(self.generator.std).square().mean()
        self.optimizer.zero_grad(set_to_none=True)
        matching.backward()
        self.optimizer.step()
        real_logits, fake_logits = head(real), head(fake.detach())
        loss = torch.zeros(())
        for group in self.groups:
            loss = loss + (F.softplus(-real_logits[:, group].logsumexp(1)).mean()
                           + F.softplus(fake_logits[:, group].logsumexp(1)).mean()) / len(self.groups)
        if (step + 1) % self.settings.check_every == 0:
            spread = diversity(self.generator, self.data, self.sampler, self.tag_embeddings, self.random)
            self.stopped = self.watch.check(step + 1, {"discriminator": loss.item(), "matching": matching.item()},
                                            spread)
        return self.settings.unlabelled * loss

    def draw(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Synthetic vectors [B, H] and the tag sets they were asked for [B, T]."""
        labels = self.sampler.draw(size, generator).tag_labels
        return self.generator.sample(condition(labels, self.tag_embeddings), generator), labels

    def finish(self) -> None:
        """Leaves the generator in its last good state.

        Raises AugmentationStopped where it never had one.
        """
        if self.watch.state is None:
            raise AugmentationStopped(f"augmentation.method semi_supervised_gan: {self.stopped or 'no check was made'}")
        self.watch.restore()
        self.generator.requires_grad_(False)
