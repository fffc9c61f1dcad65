"""Hessian-vector products of S runs at once, reverse over reverse, with the graph of the gradient kept.

The runs are independent, so the derivative of <sum over runs of the gradients, V> holds every run's own product in
its rows: one backward pass gives all S. `torch.func`'s jacrev is not used anywhere here: its batching of the backward
passes of layer and batch normalisation is silently wrong (pytorch/functorch#534); autograd of a stacked forward pass
is not affected.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from dynalab.curvature.layout import Layout

Losses = Callable[[Mapping[str, Tensor]], Tensor]


class Hessian:
    """The Hessian of each run's loss at fixed weights.

    The graph of the gradient is kept for as long as this object lives: drop it after a measurement.

    Attributes:
        layout: How parameters lie in rows.
        gradient: Each run's gradient, shape (S, width).
        losses: Each run's loss, shape (S,).
    """

    def __init__(self, losses: Losses, params: Mapping[str, Tensor]) -> None:
        """Differentiate once.

        Args:
            losses: Maps stacked parameters to the loss of every run, shape (S,); it must be the same function at every
                call (fixed examples, fixed noise) and keep the runs apart.
            params: Name -> weights, shape (S, ...).
        """
        from torch.nn.attention import SDPBackend, sdpa_kernel

        self.layout = Layout(params)
        self._leaves = {name: param.detach().requires_grad_() for name, param in params.items()}
        leaves = list(self._leaves.values())
        # The fused kernels of attention have no second derivative.
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            values = losses(self._leaves)
            found = torch.autograd.grad(values.sum(), leaves, create_graph=True, allow_unused=True)
        self.losses = values.detach()
        gradients = dict(zip(self._leaves, found, strict=True))
        filled = {
            name: torch.zeros_like(leaf) if (g := gradients[name]) is None else g.detach()
            for name, leaf in self._leaves.items()
        }
        self.gradient = self.layout.rows(filled)
        self._curved = {name: g for name, g in gradients.items() if g is not None and g.requires_grad}

    def product(self, vectors: Tensor) -> Tensor:
        """Return H v of every run: rows (S, width) to rows (S, width)."""
        if not self._curved:
            return torch.zeros_like(vectors)
        pieces = self.layout.tensors(vectors)
        found = torch.autograd.grad(
            list(self._curved.values()),
            list(self._leaves.values()),
            grad_outputs=[pieces[name] for name in self._curved],
            retain_graph=True,
            allow_unused=True,
        )
        products = {name: g.detach() for name, g in zip(self._leaves, found, strict=True) if g is not None}
        return self.layout.rows(products) if products else torch.zeros_like(vectors)
