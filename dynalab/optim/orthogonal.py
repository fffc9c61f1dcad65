"""`optimizer.orthogonal=true`: gradients without their part along the weights (Prieto et al. 2025, arXiv 2501.04697).

A loss that falls when all weights grow, as a cross-entropy does once every example is right, has a gradient along the
weights that only scales them. Of every tensor g' = g - (w.g / |w|^2) w is taken and scaled to the norm of g, as in the
authors' code. It is the last thing that is done to a gradient before the optimizer has it: after SAM's ascent (w being
the weights that are moved) and after clipping, which it leaves what it is since norms stay. Weight decay comes later,
inside the optimizer.
"""

from __future__ import annotations

import torch
from torch import Tensor


def orthogonal(gradient: Tensor, weight: Tensor) -> Tensor:
    """Return each run's gradient (S, ...) without its part along the weight (S, ...), at its own norm.

    A gradient that lies along the weight, as that of a tensor of one entry does, comes to 0: what is left of it is
    rounding, which must not be scaled up. Where the weight is 0 the gradient stays.
    """
    g, w = (tensor.detach().to(torch.float64).unsqueeze(-1).flatten(1) for tensor in (gradient, weight))
    square = w.square().sum(1)
    along = ((g * w).sum(1) / square).masked_fill(square == 0, 0.0)
    left = g - along[:, None] * w
    norm, rest = g.square().sum(1).sqrt(), left.square().sum(1).sqrt()
    scale = (norm / rest).masked_fill(rest <= torch.finfo(gradient.dtype).eps * norm, 0.0)
    return (left * scale[:, None]).to(gradient.dtype).view(gradient.shape)
