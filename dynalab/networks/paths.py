"""Losses of networks on paths between weights, those of S runs at once, and the barrier that a path goes over.

A point of a path is a state of the networks: weights, and the buffers that are numbers, name -> (S, ...). Running
statistics of norms belong to the weights that they were gathered with and to no others, so they are estimated anew at
every point, the ends included: with those of one end, or a mean of both, a barrier is seen where there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dynalab.core.progress import counted
from dynalab.networks.statistics import statistics_of

if TYPE_CHECKING:
    from dynalab.networks.stacked import Examples, Stacked

State = Mapping[str, Tensor]
# Returns the point at a share of the way, 0 at the start and 1 at the end.
Path = Callable[[float], State]


def state_of(stack: Stacked) -> dict[str, Tensor]:
    """Return the weights of a stack's runs and their buffers, as far as they are no integers, name -> (S, ...)."""
    both = {**stack.params, **stack.buffers}
    return {name: tensor for name, tensor in both.items() if tensor.is_floating_point()}


def line(start: State, end: State) -> Path:
    """Return the straight line between two states; its ends are these to the bit."""
    return lambda share: {name: torch.lerp(start[name], end[name], share) for name in start}


def bezier(start: State, bend: State, end: State) -> Path:
    """Return the quadratic Bezier curve (1 - t)^2 start + 2 t (1 - t) bend + t^2 end (Garipov et al. 2018)."""
    first, second = line(start, bend), line(bend, end)
    return lambda share: line(first(share), second(share))(share)


def held(examples: Examples) -> Examples:
    """Return examples whose pieces are made once, for many passes over them; all of them are in memory."""
    return replace(examples, batches=list(examples.batches))


def measured(
    stack: Stacked, state: State, examples: Examples, training: Examples | None = None
) -> dict[str, Tensor]:
    """Return `loss` and what else the task measures of the networks at a state, each of shape (S,), float64.

    Args:
        stack: The networks; run i is measured on the examples of the stack's run i, whoever's weights it has.
        state: As of `state_of`; what is missing is the stack's own.
        examples: What is measured on.
        training: What running statistics are estimated on anew; None: those of the state are taken as they are.
    """
    params, buffers = at(stack, state, training)
    with torch.no_grad():
        return stack.measures(params, examples, buffers)


def at(stack: Stacked, state: State, training: Examples | None = None) -> tuple[State, State]:
    """Return weights and buffers of a state, its running statistics estimated anew on training examples."""
    params = {name: tensor for name, tensor in state.items() if name in stack.params}
    buffers = {name: tensor for name, tensor in state.items() if name in stack.buffers}
    if training is not None and statistics_of(stack.buffers):
        buffers = stack.refresh_statistics(params, training, buffers)
    return params, buffers


def along(
    stack: Stacked,
    path: Path,
    shares: Sequence[float],
    examples: Examples,
    training: Examples | None = None,
    what: str = "path",
) -> dict[str, np.ndarray]:
    """Return what is measured at shares of the way, name -> (S, n), float64; arguments as of `measured`.

    `what` it is the way of is told with every point.
    """
    points = [measured(stack, path(share), examples, training) for share in counted(shares, "points", what)]
    return {name: torch.stack([point[name] for point in points], dim=1).cpu().numpy() for name in points[0]}


def barriers(losses: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """Return how high every path goes above the straight line between the losses of its ends, shape (S,).

    The barrier of Frankle et al. 2020 (arXiv 1912.05671) and Entezari et al. 2022 (arXiv 2110.06296): the maximum over
    points of L(t) - [(1 - t) L(0) + t L(1)]; it is 0 at least, since the ends are among the points. NaN where a loss is
    not finite.

    Args:
        losses: At the shares, shape (S, n); their first is 0 and their last is 1.
        shares: Of the way, ascending, length n.
    """
    t = np.asarray(shares, float)
    assert t[0] == 0 and t[-1] == 1
    with np.errstate(invalid="ignore"):
        # In this order losses that are equal leave 0 to the bit.
        over = losses - (losses[:, :1] + t * (losses[:, -1:] - losses[:, :1]))
        # What is no higher than its own rounding lies on the line.
        rounding = 4 * np.finfo(float).eps * np.abs(losses).max(1, keepdims=True)
        over = np.where(np.abs(over) <= rounding, 0.0, over)
    over[:, [0, -1]] = np.where(np.isfinite(losses[:, [0, -1]]), 0.0, np.nan)
    return np.where(np.isfinite(losses).all(1), over.max(1), np.nan)
