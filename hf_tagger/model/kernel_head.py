"""Evidence from remembered products: kernel ridge regression on the towers' frozen features.

A product is compared with a few thousand training products, by the look of its photo at several depths of the vision
tower and by the sense of its text. In closed form, and in seconds, this gets more out of frozen features than a trained
hidden layer does, above all for tags with few examples.
"""

import math

import torch
from torch import nn
from transformers import initialization as init

from .configuration_tagger import TaggerConfig

# Kernel ridge regresses 0 and 1; times this, its answers are as far apart as logits.
LOGIT_SCALE = 12.0
# With text and photo, with a photo alone.
MODES = 2


Blocks = dict[str, tuple[str, slice]]


def feature_blocks(widths: dict[str, int], stage_widths: list[int]) -> Blocks:
    """Where each block of features stands: {name: ("text" or "image", columns)}. The photo's blocks are its pooled
    vector, its early and its late stages, a coarse grid of one of them, and its colour histogram."""
    blocks = {"text": ("text", slice(0, widths["text"]))} if widths["text"] else {}
    early = sum(stage_widths[: (len(stage_widths) + 1) // 2])
    late = sum(stage_widths) - early
    ends = {"early": early, "late": late, "grid": widths["grid"], "histogram": widths["histogram"]}
    start = widths["image"] - sum(ends.values())
    blocks["final"] = ("image", slice(0, start))
    for name, width in ends.items():
        if width:
            blocks[name] = ("image", slice(start, start + width))
            start += width
    return blocks


class ExemplarEvidence(nn.Module):
    """score = sum over exemplars of A x kernel(similarity), similarity being a weighted mean of the cosines of the
    blocks of features that the product has; one set of weights, and one A, per kernel (`exemplar_kernels`).

    Fitted by `training.exemplars`. A product without a photo gets nothing from it.
    """

    def __init__(self, config: TaggerConfig, blocks: Blocks):
        super().__init__()
        self.blocks, self.width = blocks, config.exemplar_width
        self.kernels = [{name: kernel[name] for name in kernel if name in blocks} for kernel in config.exemplar_kernels]
        if any(not set(kernel) - {"text"} for kernel in self.kernels):
            raise ValueError(f"every exemplar kernel must look at the photo; the blocks are {', '.join(blocks)}")
        count, size = config.exemplars, config.exemplar_dim
        candidates = config.num_tags + len(config.attributes)
        self.register_buffer("coefficients", torch.zeros(len(self.kernels), MODES, count, candidates))
        self.register_buffer("offset", torch.zeros(candidates))
        for name, (_, columns) in blocks.items():
            features = columns.stop - columns.start
            self.register_buffer(f"mean_{name}", torch.zeros(features))
            self.register_buffer(f"std_{name}", torch.ones(features))
            self.register_buffer(f"axes_{name}", torch.zeros(features, min(size, features)))
            self.register_buffer(f"keys_{name}", torch.zeros(count, min(size, features)))

    @torch.no_grad()
    def reset(self) -> None:
        for name, buffer in self.named_buffers():
            (init.ones_ if name.startswith("std_") else init.zeros_)(buffer)

    def block(self, name: str, features: torch.Tensor) -> torch.Tensor:
        """One block of features [B, F], standardised and of unit length [B, F']."""
        columns = self.blocks[name][1]
        part = features[:, columns].float()
        part = (part - getattr(self, f"mean_{name}").float()) / getattr(self, f"std_{name}").float()
        return nn.functional.normalize(part.clamp(-4, 4), dim=1).to(getattr(self, f"axes_{name}").dtype)

    def similarities(self, text: torch.Tensor | None, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Cosines with every exemplar [B, N], block by block; without text, of the photo's blocks only."""
        found = {}
        for name, (modality, _) in self.blocks.items():
            features = text if modality == "text" else image
            if features is not None:
                query = self.block(name, features) @ getattr(self, f"axes_{name}")
                found[name] = query @ getattr(self, f"keys_{name}").T
        return found

    def kernel(self, weights: dict[str, float], similarities: dict[str, torch.Tensor]) -> torch.Tensor:
        """(exp(s / width) - 1) / exp(1 / width), s the weighted mean of similarities [B, N].

        Without the constant that all products have in common it is still positive definite, and sums over thousands of
        exemplars cancel far less: they round by a tenth.
        """
        chosen = {name: weights[name] ** 2 for name in weights if name in similarities}
        mean = sum(weight * similarities[name] for name, weight in chosen.items()) / sum(chosen.values())
        return (mean / self.width).expm1() * math.exp(-1 / self.width)

    def forward(self, text: torch.Tensor | None, image: torch.Tensor | None, present: torch.Tensor) -> torch.Tensor:
        """text, image [B, F] as the towers give them (None: no product has it), present bool [B, 2] -> logits
        [B, kernels, C], zero for products without a photo."""
        logits = torch.zeros(len(present), len(self.kernels), self.coefficients.shape[-1], device=present.device)
        if image is None:
            return logits
        with torch.autocast(present.device.type, enabled=False):
            for mode in range(MODES):
                rows = present[:, 1] & (present[:, 0] == (mode == 0))
                if not bool(rows.any()):
                    continue
                similarities = self.similarities(text[rows] if mode == 0 else None, image[rows])
                answers = [self.kernel(weights, similarities) @ self.coefficients[index, mode]
                           for index, weights in enumerate(self.kernels)]
                logits[rows] = LOGIT_SCALE * (torch.stack(answers, dim=1) + self.offset).float()
        return logits

    @torch.no_grad()
    def grow(self, order: torch.Tensor) -> None:
        """Makes room for new candidates (see `NameHead.grow`): no exemplar has them yet."""
        coefficients = self.coefficients.new_zeros(*self.coefficients.shape[:-1], len(order))
        coefficients[..., order >= 0] = self.coefficients[..., order[order >= 0]]
        offset = self.offset.new_zeros(len(order))
        offset[order >= 0] = self.offset[order[order >= 0]]
        self.coefficients, self.offset = coefficients, offset
