"""Semi-supervised GAN (Salimans et al. 2016, arXiv 1606.03498; GAN-BERT, ACL 2020): the tag head is the discriminator.

Every `single` attribute gets one more class, "generated", with its logit fixed at 0 (a softmax has one logit to
spare): a vector is real with probability Z / (Z + 1), Z = sum of exp(logits of the attribute). Products without known
tags are trained as real, the generator's vectors as generated.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_tagger.augmentation.gan import ConditionalGan


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
