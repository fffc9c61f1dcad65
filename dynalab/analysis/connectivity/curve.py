"""Trained curves between networks (Garipov et al. 2018, arXiv 1802.10026): a quadratic Bezier curve, ends fixed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dynalab.analysis.connectivity.measure import Networks, Path, distance
from dynalab.core.progress import counted


def curves(
    networks: Networks, shares: Sequence[float], aligned: bool, steps: int, rate: float
) -> dict[tuple[int, int], Path]:
    """Return what is measured on curves from every run to the next one, on the examples of the first.

    The bend begins halfway and is trained by Adam on the loss at one point of the curve an update, the same for all
    pairs and drawn evenly; norms are those of training.

    Args:
        networks: The networks.
        shares: Of the way, 0 to 1.
        aligned: Whether the second networks are matched first.
        steps: Updates.
        rate: Of learning.
    """
    import torch

    from dynalab.networks.paths import along, at, bezier

    n = networks.stack.width
    pairs = networks.pairs if networks.other is not None else _ring(n)
    start, end = networks.ends(pairs, aligned)
    stack, trained = networks.stack, networks.stack.trained
    bend = {name: torch.lerp(start[name], end[name], 0.5) for name in start}
    leaves = {name: bend[name].clone().requires_grad_() for name in trained}
    optimizer = torch.optim.Adam(leaves.values(), lr=rate)
    rng = np.random.default_rng(0)
    for _ in counted(range(steps), "updates", "curves"):
        share = float(rng.uniform())
        # As in an update, norms go by the statistics of the examples, which gradients go through.
        params, buffers = at(stack, bezier(start, {**bend, **leaves}, end)(share))
        loss = stack.losses(params, networks.training, buffers, training=True).sum()
        optimizer.zero_grad()
        for leaf, gradient in zip(
            leaves.values(), torch.autograd.grad(loss, list(leaves.values())), strict=True
        ):
            leaf.grad = gradient
        optimizer.step()
    path = bezier(start, {**bend, **{name: leaf.detach() for name, leaf in leaves.items()}}, end)
    values = along(stack, path, shares, networks.examples, networks.training, "curves")
    apart = distance(stack, start, end)
    found = {}
    for slot, pair in enumerate(pairs):
        error = 1 - values["accuracy"][slot] if "accuracy" in values else None
        found[pair] = networks.path(shares, [(values["loss"][slot], error)], float(apart[slot]))
    return found


def _ring(n: int) -> list[tuple[int, int]]:
    """Return pairs of every place and the next one, (lesser, greater)."""
    return [(min(i, (i + 1) % n), max(i, (i + 1) % n)) for i in range(n)]
