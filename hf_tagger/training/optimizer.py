"""Optimisers with a learning rate per part of the model: heads, and each tower layer by its depth."""

import re

import torch
from torch import nn

LAYER = re.compile(r"\.(?:layers?|blocks?|stages|h)\.?(\d+)(?:\.(?:blocks\.)?(\d+))?")
OPTIMIZERS = {
    "adamw": lambda groups, s: torch.optim.AdamW(groups, betas=tuple(s.betas), weight_decay=s.weight_decay),
    "adam": lambda groups, s: torch.optim.Adam(groups, betas=tuple(s.betas), weight_decay=s.weight_decay),
    "sgd": lambda groups, s: torch.optim.SGD(groups, momentum=s.momentum, weight_decay=s.weight_decay),
    "adagrad": lambda groups, s: torch.optim.Adagrad(groups, weight_decay=s.weight_decay),
}


def tower_of(name: str) -> str | None:
    """ "text" or "vision" for a parameter of a tower, else None."""
    match = re.search(r"\b(text|vision)_tower\.", name)
    return match.group(1) if match else None


def layer_depth(name: str) -> int | None:
    """How deep a tower parameter's layer lies, counted from the input; None outside of numbered layers."""
    match = LAYER.search(name)
    return None if match is None else int(match.group(1)) * 100 + int(match.group(2) or 0)


def parameter_groups(
    model: nn.Module, learning_rate: float, tower_learning_rate: float, layer_decay: float, weight_decay: float
) -> list[dict]:
    """Groups of trainable parameters: heads at `learning_rate`, a tower's last layer at `tower_learning_rate`, every
    layer below it at `layer_decay` times the one above (arXiv 1801.06146); vectors and scalars without decay."""
    trainable = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    depths = {tower: sorted({layer_depth(name) for name, _ in trainable if tower_of(name) == tower} - {None},
                            reverse=True) for tower in ("text", "vision")}
    groups: dict[tuple[float, bool], dict] = {}
    for name, parameter in trainable:
        rate, tower, depth = learning_rate, tower_of(name), layer_depth(name)
        if tower:
            below_top = depths[tower].index(depth) if depth is not None else len(depths[tower])
            rate = tower_learning_rate * layer_decay**below_top
        decays = parameter.ndim >= 2
        group = groups.setdefault((rate, decays), {"params": [], "lr": rate})
        if not decays:
            group["weight_decay"] = 0.0
        group["params"].append(parameter)
    return list(groups.values())


def add_l1_gradient(optimizer: torch.optim.Optimizer, weight: float) -> None:
    """Adds the subgradient of weight x |w|, summed over the matrices (what decays), to their gradients."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None and parameter.ndim >= 2:
                parameter.grad.add_(parameter.detach().sign(), alpha=weight)
