"""Second derivatives of stacked networks against central differences of their gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def check_second_derivatives(
    losses_at: Callable[[Mapping[str, Tensor]], Tensor],
    params: Mapping[str, Tensor],
    *,
    step: float,
    rtol: float,
    atol: float,
) -> None:
    """Compare a Hessian-vector product in a random direction with the difference of gradients.

    Args:
        losses_at: Maps stacked parameters to the runs' losses, (S,).
        params: Name -> (S, ...), float64.
        step: Of the difference.
        rtol: Relative tolerance.
        atol: Absolute tolerance, in units of the product's largest entry.
    """
    torch.manual_seed(1)
    direction = {key: torch.randn_like(value) for key, value in params.items()}

    def slope(point: Mapping[str, Tensor], graph: bool) -> tuple[Tensor, ...]:
        return torch.autograd.grad(losses_at(point).sum(), list(point.values()), create_graph=graph)

    leaves = {key: value.clone().requires_grad_() for key, value in params.items()}
    along = sum((g * d).sum() for g, d in zip(slope(leaves, True), direction.values(), strict=True))
    curvature = torch.autograd.grad(along, list(leaves.values()))
    moved = [
        slope({k: (v + sign * step * direction[k]).requires_grad_() for k, v in params.items()}, False)
        for sign in (1, -1)
    ]
    scale = max(value.abs().max().item() for value in curvature)
    for value, plus, minus in zip(curvature, *moved, strict=True):
        torch.testing.assert_close(value, (plus - minus) / (2 * step), rtol=rtol, atol=atol * scale)
