"""Semi-supervised GAN (Salimans et al. 2016, arXiv 1606.03498; GAN-BERT, ACL 2020): the tag head is the discriminator.

The classes of every `single` attribute are joined by "generated", whose logit is fixed at 0, as over-parametrised
softmax allows: a vector is real with probability Z / (Z + 1), Z = sum of exp(logits of the attribute). Products whose
tags are unknown teach the head that they are some product; the generator's vectors, that they are none.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_tagger.augmentation.health import AugmentationStopped, Watch
from hf_tagger.augmentation.networks import Generator, condition
from hf_tagger.augmentation.settings import GanSettings
from hf_tagger.augmentation.tag_sets import TagSetSampler
from hf_tagger.augmentation.vectors import TaggedVectors
from hf_tagger.augmentation.wgan import BETAS, Log, diversity, standardise


class SemiSupervisedGan:
    """The unlabelled part of the head's loss, for `retrain_head`'s `extra_loss`; trains the generator on the side, by
    feature matching.

    Args:
        groups: candidates [C'] of each `single` attribute.
        rows: products to tell from generated ones (labelled or not).

    After a divergence or mode collapse it adds nothing more and says why in `stopped`.
    """

    def __init__(self, data: TaggedVectors, sampler: TagSetSampler, tag_embeddings: Tensor, groups: list[Tensor],
                 settings: GanSettings, generator: torch.Generator, batch_size: int = 128, log: Log | None = None):
        if not groups:
            raise ValueError("semi_supervised_gan tells products from generated ones by the softmax of `single` "
                             "attributes, and there is none: choose another method")
        self.data, self.sampler, self.tag_embeddings = data, sampler, tag_embeddings
        self.groups, self.settings, self.random, self.log = groups, settings, generator, log
        self.batch_size = batch_size
        self.generator = Generator(data.width, tag_embeddings.shape[1], settings.latent, settings.hidden)
        standardise([self.generator], data)
        self.optimizer = torch.optim.Adam(self.generator.parameters(), settings.learning_rate, BETAS)
        self.watch = Watch({"generator": self.generator}, settings.min_diversity)
        self.stopped: str | None = None
        self.history: list[dict[str, float]] = []

    def __call__(self, head: nn.Module, step: int) -> Tensor:
        if self.stopped is not None:
            return torch.zeros(())
        rows = torch.randint(len(self.data), (self.batch_size,), generator=self.random)
        real = self.data.batch(rows)[0]
        fake = self._generate()
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
            self._check(step + 1, {"discriminator": loss.item(), "matching": matching.item()})
        return self.settings.unlabelled * loss

    def _generate(self) -> Tensor:
        labels = self.sampler.draw(self.batch_size, self.random).tag_labels
        noise = torch.randn(self.batch_size, self.generator.latent, generator=self.random)
        return self.generator(condition(labels, self.tag_embeddings), noise)

    def _check(self, step: int, losses: dict[str, float]) -> None:
        spread = diversity(self.generator, self.data, self.sampler, self.tag_embeddings, self.random)
        self.history.append({"step": step, **losses, "diversity": spread})
        if self.log is not None:
            self.log({f"gan/{name}": value for name, value in {**losses, "diversity": spread}.items()}, step)
        if (reason := self.watch.check(step, losses, spread)) is not None:
            self.stopped = reason

    @torch.no_grad()
    def draw(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Synthetic vectors [B, H] and the tag sets they were asked for [B, T]."""
        labels = self.sampler.draw(size, generator).tag_labels
        noise = torch.randn(size, self.generator.latent, generator=generator)
        return self.generator(condition(labels, self.tag_embeddings), noise), labels

    def finish(self) -> None:
        """Leaves the generator in its last good state.

        Raises AugmentationStopped where it never had one.
        """
        if self.watch.state is None:
            raise AugmentationStopped(f"augmentation.method semi_supervised_gan: {self.stopped or 'no check was made'}")
        self.watch.restore()
