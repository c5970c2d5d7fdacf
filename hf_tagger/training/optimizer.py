"""Optimisers with a learning rate for the heads and one for the towers."""

import re

import torch
from torch import nn

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


def parameter_groups(model: nn.Module, learning_rate: float, tower_learning_rate: float) -> list[dict]:
    """Groups of trainable parameters: heads and towers at their rates; vectors and scalars without weight decay."""
    groups: dict[tuple[float, bool], dict] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate, decays = tower_learning_rate if tower_of(name) else learning_rate, parameter.ndim >= 2
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
