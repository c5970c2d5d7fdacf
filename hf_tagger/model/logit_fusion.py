"""Logit fusion: what the sources say of each tag, added with weights per attribute (stacking, Wolpert 1992)."""

from collections.abc import Sequence

import torch
from torch import nn
from transformers import initialization as init


class LogitFusion(nn.Module):
    """Sources are the tag head and, where the model has them, the lexical head and the kernel head. They give
    log-probabilities (`single` attributes) or logits (`multi`).

    How far a source is trusted depends on what there is to go by: on a title that spells the tag out the words decide,
    on one that does not the photo does. There is one weight per source and state of the text, (a tag of this attribute
    is named or not) x (tags of 0, 1, more `single` attributes are named), plus one that is added where there is no
    photo. At first all sources weigh the same; the weights are fitted by `hf_tagger/training/logit_fusion.py`.
    """

    FEATURES = 6

    def __init__(self, attributes: Sequence[dict], sources: int):
        super().__init__()
        self.attributes, self.sources = len(attributes), sources
        self.weights = nn.Embedding(self.attributes, self.sources * self.FEATURES)
        self.register_buffer("single", torch.tensor([entry["kind"] == "single" for entry in attributes]))

    @torch.no_grad()
    def reset(self) -> None:
        start = torch.full((self.sources, self.FEATURES), 1.5 / self.sources if self.sources > 1 else 1.0)
        start[:, -1] = 0.0
        init.copy_(self.weights.weight, start.flatten().expand(self.attributes, -1))

    def features(self, named: torch.Tensor, has_image: torch.Tensor) -> torch.Tensor:
        """Whether a tag of each attribute is named, bool [B, A], has_image bool [B] -> [B, A, F]."""
        count = named.sum(1, keepdim=True)
        columns = [~named & (count == 0), ~named & (count == 1), ~named & (count > 1), named & (count == 1),
                   named & (count > 1), (~has_image[:, None]).expand_as(named)]
        return torch.stack(columns, dim=-1).float()

    def normalise(self, logits: torch.Tensor, candidate_attribute: torch.Tensor) -> torch.Tensor:
        """[N, C] -> log-probabilities within each `single` attribute, "none" included; logits of `multi` ones as they
        are. A row of zeros, of a source with nothing to go by, stays as it is."""
        logits = logits.float()
        index = candidate_attribute.repeat(len(logits), 1)
        highest = logits.new_full((len(logits), self.attributes), -torch.inf).scatter_reduce(1, index, logits, "amax")
        powers = (logits - highest.gather(1, index)).exp()
        total = torch.zeros_like(highest).scatter_add(1, index, powers).log() + highest
        normalised = logits - torch.where(self.single, total, 0.0).gather(1, index)
        return normalised.masked_fill((logits == 0).all(-1, keepdim=True), 0.0)

    def forward(
        self, sources: torch.Tensor, features: torch.Tensor, candidate_attribute: torch.Tensor
    ) -> torch.Tensor:
        """Logits of the sources [B, S, C], the tag head's first, and `features` [B, A, F] -> [B, C]."""
        weights = self.weights.weight.float().unflatten(1, (self.sources, -1))
        with torch.autocast(sources.device.type, enabled=False):
            trust = torch.einsum("baf,asf->bsa", features, weights).clamp(min=0.0)
            normalised = self.normalise(sources.flatten(0, 1), candidate_attribute).unflatten(0, sources.shape[:2])
            return (trust[..., candidate_attribute] * normalised).sum(1)
