"""A critic of tag sets: does a product hold each of these tags, given the others?"""

import math

import torch
from torch import nn


class TagSetCritic(nn.Module):
    """Scores (product, tag set) by projection (after the projection discriminator, arXiv 1802.05637):

        score(x, S) = sum over t in S of (<V e_t, phi(x)> + <w, e_t>) + sum over pairs t, u in S of <A e_t, B e_u>

    with e_t the embedding of the tag's name: what speaks for a tag is the product, and the company it keeps. Trained by
    `augmentation.judge`; saved beside a model as `critic.safetensors`.

    Args:
        width: of the product's pooled vector; tags, names: number of tags and width of their names' embeddings.
    """

    HIDDEN, RANK = 256, 64

    def __init__(self, width: int, tags: int, names: int):
        super().__init__()
        self.product = nn.Sequential(nn.Linear(width, self.HIDDEN), nn.GELU(), nn.LayerNorm(self.HIDDEN))
        self.tag = nn.Linear(names, self.HIDDEN, bias=False)
        self.prior = nn.Linear(names, 1)
        self.left, self.right = nn.Linear(names, self.RANK, bias=False), nn.Linear(names, self.RANK, bias=False)
        self.register_buffer("names", torch.zeros(tags, names))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    def forward(self, pooled: torch.Tensor, tag_set: torch.Tensor) -> torch.Tensor:
        """pooled [B, H], tag_set [B, T] of 0 and 1 -> what the score of the set gains by each tag [B, T]: by one that
        it holds, against the set without it; by any other, against the set as it is."""
        states = self.product((pooled.float() - self.mean) / self.std)
        own = states @ self.tag(self.names).T / math.sqrt(self.HIDDEN) + self.prior(self.names)[:, 0]
        pairs = self.left(self.names) @ self.right(self.names).T
        pairs = (pairs + pairs.T) / 2
        pairs = pairs - pairs.diagonal().diag()
        return own + tag_set.to(pairs.dtype) @ pairs

    def keep(self, pooled: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
        """The chosen tags bool [B, T] without those whose removal raises the set's score, the worst first, one by one:
        bool [B, T]."""
        kept = chosen.clone()
        while True:
            gain = self(pooled, kept).masked_fill(~kept, math.inf)
            worst, tag = gain.min(1)
            drop = worst < 0
            if not bool(drop.any()):
                return kept
            kept[drop, tag[drop]] = False

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor]) -> "TagSetCritic":
        """The critic whose `state_dict` this is."""
        tags, names = tensors["names"].shape
        critic = cls(len(tensors["mean"]), tags, names)
        critic.load_state_dict(tensors)
        return critic.eval()
