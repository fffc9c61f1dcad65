"""Hessian-vector products of S runs at once, reverse over reverse, with the graph of the gradient kept.

The runs are independent, so the derivative of <sum over runs of the gradients, V> holds every run's own product in
its rows: one backward pass gives all S. `torch.func`'s jacrev is not used anywhere here: its batching of the backward
passes of layer and batch normalisation is silently wrong (pytorch/functorch#534); autograd of a stacked forward pass
is not affected.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from dynalab.core.state import Objective
from dynalab.curvature.layout import Layout

Losses = Callable[[Mapping[str, Tensor]], Tensor]

# Runs that are differentiated one at a time keep their graphs side by side, so that what is done beside the products is
# done once, where examples times parameters of a run are no more than this (at most so many runs): the graphs are then
# small. It says nothing of the number of runs, or a run's bits would depend on it.
SMALL, TOGETHER = 1 << 21, 10


class Operator(Protocol):
    """Products with the Hessians of R runs, and their gradients, (R, width)."""

    layout: Layout
    gradient: Tensor

    def product(self, vectors: Tensor) -> Tensor:
        """Return H v of every run: rows (R, width) to rows (R, width)."""
        ...


class Hessian:
    """The Hessian of each run's loss at fixed weights.

    The graph of the gradient is kept for as long as this object lives: drop it after a measurement.

    Attributes:
        layout: How parameters lie in rows.
        gradient: Each run's gradient, shape (S, width).
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
            found: Sequence[Tensor | None] = [None] * len(leaves)
            if values.requires_grad:
                found = torch.autograd.grad(values.sum(), leaves, create_graph=True, allow_unused=True)
        filled = [
            torch.zeros_like(w) if g is None else g.detach() for w, g in zip(leaves, found, strict=True)
        ]
        self.gradient = self.layout.rows(dict(zip(self._leaves, filled, strict=True)))
        gradients = zip(self._leaves, found, strict=True)
        self._curved = {name: g for name, g in gradients if g is not None and g.requires_grad}

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


class Joined:
    """The Hessians of runs that were differentiated one by one, as one operator of two rows at least.

    A lone run has a second row, a copy that costs no product: kernels take another road for one row than for several,
    and bits are not to depend on how many there are.
    """

    def __init__(self, parts: Sequence[Hessian]) -> None:
        self._parts = parts
        self.layout = parts[0].layout
        self.gradient = self._wide([part.gradient for part in parts])

    def product(self, vectors: Tensor) -> Tensor:
        """Return H v of every run: rows (R, width) to rows (R, width). On a CPU rows of zeros cost nothing."""
        rows = [vectors[row : row + 1] for row in range(len(self._parts))]
        live = vectors.any(1).tolist() if vectors.device.type == "cpu" else [True] * len(rows)
        return self._wide(
            [
                part.product(row) if some else torch.zeros_like(row)
                for part, row, some in zip(self._parts, rows, live, strict=False)
            ]
        )

    def _wide(self, rows: list[Tensor]) -> Tensor:
        return torch.cat(rows if len(rows) > 1 else rows * 2)


def alone(objective: Objective, params: Mapping[str, Tensor], run: int) -> tuple[slice, Operator]:
    """Return one run and its Hessian, whatever the runs are differentiated together with otherwise."""
    part = slice(run, run + 1)
    return part, Joined([_hessian(objective, params, part)])


def operators(objective: Objective, params: Mapping[str, Tensor]) -> Iterator[tuple[slice, Operator]]:
    """Yield the runs and their Hessians at stacked weights (S, ...), as many at a time as the graphs allow.

    What belongs to the runs of a slice may have one row more than the slice (`Joined`).
    """
    count = sum(math.prod(params[name].shape[1:]) for name in objective.trained)
    alone = all(part.stop - part.start == 1 for part in objective.parts)
    if not alone or objective.size * count > SMALL:
        yield from ((part, _hessian(objective, params, part)) for part in objective.parts)
        return
    for first in range(0, len(objective.parts), TOGETHER):
        some = objective.parts[first : first + TOGETHER]
        joined = Joined([_hessian(objective, params, part) for part in some])
        yield slice(some[0].start, some[-1].stop), joined


def _hessian(objective: Objective, params: Mapping[str, Tensor], part: slice) -> Hessian:
    weights = {name: params[name][part] for name in objective.trained}
    return Hessian(partial(objective.losses, part=part), weights)
