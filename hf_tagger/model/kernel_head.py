"""The kernel head: kernel ridge regression on the towers' frozen features.

A product is compared with a few thousand training products (landmarks), by the look of its photo at several depths of
the vision tower and by the sense of its text. Fitted in closed form by `hf_tagger/training/heads/kernel.py`, in
seconds, this gets more out of frozen features than a trained hidden layer does, above all for tags with few examples.
"""

import math

import torch
from torch import nn
from torch.nn import functional
from transformers import initialization as init

from .configuration_tagger import TaggerConfig
from .heads import CandidateColumns, mean_by_attribute

# Ridge regression answers between 0 and 1; times this, its answers are as far apart as logits.
LOGIT_SCALE = 12.0
# (text, photo): what a product has. Each combination has coefficients of its own.
MODES = {"both": (True, True), "image": (False, True), "text": (True, False)}

Blocks = dict[str, tuple[str, slice]]


def feature_blocks(widths: dict[str, int], stage_widths: list[int]) -> Blocks:
    """Where each block of features stands: {name: ("text" or "image", columns)}. The photo's blocks are its pooled
    vector, its early and its late stages, a coarse grid of one of them, and its colour histogram."""
    blocks = {"text": ("text", slice(0, widths["text"]))} if widths["text"] else {}
    if not widths["image"]:
        return blocks
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


def kernel_modes(config: TaggerConfig) -> list[str]:
    """The `MODES` that a model of this configuration answers in. Where there are photos, a product without one gets
    nothing from the kernel head: its words say more."""
    if config.vision_config is None:
        return ["text"]
    return ["image"] if config.text_config is None else ["both", "image"]


class KernelHead(nn.Module):
    """score = LOGIT_SCALE x (sum over landmarks of coefficient x kernel(similarity) + offset), the similarity being the
    mean of the cosines of those blocks of features that the product has, weighted by the squares of `kernel_weights`.

    A landmark with a text is there twice: with its whole text, and with its text less the words of its own tags (the V
    = 2 views), or its photo would look superfluous.
    """

    VIEWS = 2

    def __init__(self, config: TaggerConfig, blocks: Blocks):
        super().__init__()
        self.weights = {name: config.kernel_weights[name] for name in blocks if config.kernel_weights.get(name)}
        if not self.weights:
            raise ValueError(f"kernel_weights must weigh some of this model's blocks of features ({', '.join(blocks)}),"
                             f" got {config.kernel_weights}")
        self.blocks, self.width, self.modes = blocks, config.kernel_width, kernel_modes(config)
        count, candidates = config.kernel_landmarks, config.num_tags + len(config.attributes)
        self.columns = CandidateColumns(config)
        for mode in self.modes:
            rows = count if mode == "image" else self.VIEWS * count
            self.register_buffer(f"coefficients_{mode}", torch.zeros(rows, self.columns.width))
        self.register_buffer("offset", torch.zeros(candidates))
        key_widths: dict[str, int] = {}
        self.squares: dict[str, float] = {}  # summed weights^2 of each modality that has a block
        for name, weight in self.weights.items():
            modality, columns = blocks[name]
            features = columns.stop - columns.start
            size = min(config.kernel_dim, features)
            self.register_buffer(f"mean_{name}", torch.zeros(features))
            self.register_buffer(f"std_{name}", torch.ones(features))
            self.register_buffer(f"axes_{name}", torch.zeros(features, size))
            key_widths[modality] = key_widths.get(modality, 0) + size
            self.squares[modality] = self.squares.get(modality, 0.0) + weight**2
        for modality, key_width in key_widths.items():
            rows = count if modality == "image" else self.VIEWS * count
            self.register_buffer(f"keys_{modality}", torch.zeros(rows, key_width))

    @torch.no_grad()
    def reset(self) -> None:
        self.columns.reset()
        for name, buffer in self.named_buffers(recurse=False):
            (init.ones_ if name.startswith("std_") else init.zeros_)(buffer)

    def standardised(self, name: str, features: torch.Tensor) -> torch.Tensor:
        """One block of a tower's features [B, F], standardised and of unit length [B, F']."""
        part = features[:, self.blocks[name][1]].float()
        part = (part - getattr(self, f"mean_{name}")) / getattr(self, f"std_{name}")
        return functional.normalize(part.clamp(-4, 4), dim=1)

    def query(self, modality: str, features: torch.Tensor) -> torch.Tensor:
        """Features [B, F] as the tower gives them -> [B, D], to be multiplied with the keys: each block along its
        principal axes, times its weight."""
        return torch.cat([self.standardised(name, features) @ (weight * getattr(self, f"axes_{name}").float())
                          for name, weight in self.weights.items() if self.blocks[name][0] == modality], dim=1)

    def kernel(self, similarities: dict[str, torch.Tensor], mode: str) -> torch.Tensor:
        """(exp(s / width) - 1) / exp(1 / width) of the weighted mean cosine s with every landmark, in every view where
        the mode has text [B, N or V x N], from products of queries and keys, {"text": [B, V x N], "image": [B, N]}.

        Without the constant that all products have in common the kernel is still positive definite, and sums over
        thousands of landmarks cancel far less: they round by a tenth.
        """
        seen = [modality for modality, has in zip(("text", "image"), MODES[mode], strict=True)
                if has and modality in similarities]
        parts = [similarities[modality] for modality in seen]
        if mode == "both" and seen[-1] == "image":
            parts[-1] = parts[-1].repeat(1, self.VIEWS)
        total = sum(self.squares[modality] for modality in seen)
        return (sum(parts) / (total * self.width)).expm1() * math.exp(-1 / self.width)

    def forward(self, text: torch.Tensor | None, image: torch.Tensor | None, present: torch.Tensor) -> torch.Tensor:
        """text, image [B, F] as the towers give them (None: no product has it), present bool [B, 2] -> logits [B, C],
        zero for a product in none of `modes`."""
        features = {"text": text, "image": image}
        with torch.autocast(present.device.type, enabled=False):
            similarities = {name: self.query(name, features[name]) @ getattr(self, f"keys_{name}").float().T
                            for name in self.squares if features[name] is not None}
            logits = torch.zeros(present.shape[0], len(self.offset), device=present.device)
            for mode in self.modes:
                if any(has and features is None for has, features in zip(MODES[mode], (text, image), strict=True)):
                    continue
                rows = in_mode(present, mode).nonzero()[:, 0]
                kernel = self.kernel({name: found[rows] for name, found in similarities.items()}, mode)
                answer = self.columns.decoded(kernel @ getattr(self, f"coefficients_{mode}").float())
                logits = logits.index_copy(0, rows, LOGIT_SCALE * (answer + self.offset))
            return logits

    @torch.no_grad()
    def grow(self, order: torch.Tensor, old_attribute: torch.Tensor, new_attribute: torch.Tensor) -> None:
        """Makes room for new candidates (see `NameHead.grow`): no landmark has them yet, and they are as frequent as is
        typical of their attribute."""
        typical = mean_by_attribute(self.offset[:, None], old_attribute)[:, 0]
        offset = self.offset.new_zeros(len(order))
        offset[order >= 0] = self.offset[order[order >= 0]]
        self.offset = offset
        for name in (f"coefficients_{mode}" for mode in self.modes):
            setattr(self, name, self.columns.grown(getattr(self, name), order, new_attribute))
        self.columns.grow(order, new_attribute)
        self.offset[order < 0] = typical[new_attribute[order < 0]]


def in_mode(present: torch.Tensor, mode: str) -> torch.Tensor:
    """Which products [B] have just what the mode names, from present bool [B, 2]."""
    text, image = MODES[mode]
    return (present[:, 0] == text) & (present[:, 1] == image)
