"""The first of SAM's two steps: up the gradient to the edge of a ball, each run by itself (Foret et al. 2021)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor


def radius(optimizer: torch.optim.Optimizer) -> float:
    """Return the radius that an optimizer (or the one inside it) climbs before its gradient is taken; 0 for none."""
    return float(getattr(getattr(optimizer, "inner", optimizer), "rho", 0.0))


def ascended(
    params: Mapping[str, Tensor], gradients: Sequence[Tensor | None], rho: float
) -> dict[str, Tensor]:
    """Return w + rho g / ||g||, with the norm over all parameters of one run.

    Args:
        params: Name -> weights w, shape (S, ...).
        gradients: g, in the same order; weights without one stay.
        rho: Radius of the ball.
    """
    found = [g for g in gradients if g is not None]
    if not found:
        return {name: param.detach() for name, param in params.items()}
    scale = rho / (joint_norm(found) + 1e-12)
    return {
        name: param.detach() if g is None else param.detach() + g * along_runs(scale, g)
        for (name, param), g in zip(params.items(), gradients, strict=True)
    }


def along_runs(factor: Tensor, tensor: Tensor) -> Tensor:
    """Return a factor a run, (S,), in the type of a tensor (S, ...) and with as many axes."""
    return factor.to(tensor.dtype).view(-1, *[1] * (tensor.dim() - 1))


def joint_norm(tensors: Iterable[Tensor]) -> Tensor:
    """Return each run's norm over all tensors (S, ...), shape (S,), summed in float64."""
    squares = sum(tensor.to(torch.float64).unsqueeze(-1).flatten(1).square().sum(1) for tensor in tensors)
    assert isinstance(squares, Tensor)
    return squares.sqrt()
