"""Solves small convex problems: calibration, lexical head, logit fusion, gates of personalization."""

from collections.abc import Callable

import torch
from torch import Tensor


def minimise(loss: Callable[[Tensor], Tensor | tuple[Tensor | float, Tensor]], start: Tensor, pull: float = 0.0,
             iterations: int = 100, **options) -> Tensor:
    """The parameters of the least loss, by L-BFGS with a line search for the strong Wolfe conditions (Nocedal and
    Wright 2006, Numerical Optimization, chapters 3 and 7).

    Args:
        loss: parameters -> a scalar to be differentiated, or (value, gradient) where the gradient is cheaper by hand.
        start: first parameters, of any shape; all is computed in their precision.
        pull: adds pull x |parameters - start|^2, so that few or separable examples do not move them far.
        options: of `torch.optim.LBFGS`.
    """
    start = start.detach()
    parameters = start.clone().requires_grad_(True)
    optimizer = torch.optim.LBFGS([parameters], max_iter=iterations, line_search_fn="strong_wolfe", **options)

    def closure():
        optimizer.zero_grad()
        found = loss(parameters)
        if isinstance(found, tuple):
            value, parameters.grad = found[0], found[1].clone()
        else:
            value = found.detach()
            found.backward()
        if pull:
            moved = parameters.detach() - start
            parameters.grad += 2 * pull * moved
            value = value + pull * moved.square().sum()
        return torch.as_tensor(value)

    optimizer.step(closure)
    return parameters.detach()
