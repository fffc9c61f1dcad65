"""Losses of S runs on lines and planes through their weights, and what the shape of these says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dynalab.core.progress import counted

if TYPE_CHECKING:
    from torch import Tensor

    State = Mapping[str, Tensor]

# Second differences count as negative from this share of the losses on: those are computed in float32.
NOISE = 4e-6


@dataclass(frozen=True)
class Axis:
    """A direction of every run's weights, and from where to where a slice goes along it.

    Attributes:
        direction: Name -> shape (S, ...); what is missing does not move.
        low: Where slices begin, in units of the direction, shape (S,); the weights are at 0.
        high: Where they end.
    """

    direction: State
    low: np.ndarray
    high: np.ndarray

    @property
    def norms(self) -> np.ndarray:
        """Length of every run's direction, shape (S,)."""
        return np.sqrt(dot(self.direction, self.direction))

    def places(self, n: int) -> np.ndarray:
        """Return where n points lie, evenly, shape (S, n), in units of the direction; 0 is exactly 0 in the middle."""
        middle, half = (self.high + self.low) / 2, (self.high - self.low) / 2
        return middle[:, None] + half[:, None] * grid(n)

    def moved(self, centre: State) -> tuple[State, State]:
        """Return the middle of the slices, and half of the way from where they begin to where they end."""
        middle, half = (self.high + self.low) / 2, (self.high - self.low) / 2
        start = dict(centre)
        if middle.any():
            start |= {name: centre[name] + along(middle, x) * x for name, x in self.direction.items()}
        return start, {name: along(half, x) * x for name, x in self.direction.items()}


def grid(n: int) -> np.ndarray:
    """Return n places from -1 to 1, evenly, shape (n,)."""
    return (np.arange(n) - (n - 1) / 2) / ((n - 1) / 2)


def along(values: np.ndarray, like: Tensor) -> Tensor:
    """Return a number a run, (S,), in a shape that multiplies a tensor (S, ...)."""
    import torch

    return torch.as_tensor(values, dtype=like.dtype, device=like.device).reshape(-1, *[1] * (like.ndim - 1))


def dot(one: State, other: State) -> np.ndarray:
    """Return inner products of directions, run by run, shape (S,), float64."""
    parts = ((x.double() * other[name].double()).unsqueeze(-1).flatten(1).sum(1) for name, x in one.items())
    return np.asarray(sum(part.cpu().numpy() for part in parts))


def line_losses(losses: Callable[[State], Tensor], centre: State, axis: Axis, n: int) -> np.ndarray:
    """Return the losses at n points of a line, shape (S, n); `losses` gives those of a state, (S,)."""
    start, way = axis.moved(centre)
    found = [losses(_added(start, way, share)) for share in counted(grid(n).tolist(), "points", "line")]
    return np.stack([values.cpu().numpy() for values in found], axis=1)


def plane_losses(
    losses: Callable[[State], Tensor], centre: State, first: Axis, second: Axis, n: int, workers: int = 1
) -> np.ndarray:
    """Return the losses at n x n points of a plane, shape (S, n, n): those along the first axis are rows.

    `workers` threads measure rows at once: each pass with the threads of its own that training has, so that numbers
    do not depend on how many there are.
    """
    middle, across = first.moved(centre)
    start, up = second.moved(middle)

    def row(share: float) -> np.ndarray:
        begin = _added(start, across, share)
        return np.stack([losses(_added(begin, up, float(two))).cpu().numpy() for two in grid(n)], axis=1)

    with ThreadPoolExecutor(max(workers, 1)) as pool:
        shares = grid(n).tolist()
        told = zip(counted(shares, "rows", "plane"), pool.map(row, shares), strict=True)
        return np.stack([values for _, values in told], axis=1)


def _added(start: State, way: State, share: float) -> State:
    import torch

    return {**start, **{name: torch.add(start[name], x, alpha=share) for name, x in way.items()}}


@dataclass(frozen=True)
class Stretch:
    """The stretch of a line around 0 on which the loss stays at or below a level.

    Attributes:
        width: Its length, in units of the axis; at least so long where it is open.
        open: Whether it reaches an end of the line.
    """

    width: float
    open: bool


def stretch(at: np.ndarray, losses: np.ndarray, level: float) -> Stretch | None:
    """Return the stretch of a line, losses (n,) at places (n,), that is low; None where the loss at 0 is not."""
    begin = int(np.argmin(np.abs(at)))
    if not losses[begin] <= level:
        return None
    ends, reached = [], False
    for way in (-1, 1):
        place = begin
        while 0 <= place + way < len(at) and losses[place + way] <= level:
            place += way
        beyond = place + way
        if not 0 <= beyond < len(at):
            reached = True
            ends.append(abs(at[place]))
            continue
        rise = losses[beyond] - losses[place]
        share = (level - losses[place]) / rise if np.isfinite(rise) and rise > 0 else 0.0
        ends.append(abs(at[place] + share * (at[beyond] - at[place])))
    return Stretch(float(sum(ends)), reached)


def convex_line(losses: np.ndarray) -> float | None:
    """Return the share of a line's inner points, losses (n,), at which it is convex; None where one is not finite."""
    if not np.isfinite(losses).all():
        return None
    before, here, after = losses[:-2], losses[1:-1], losses[2:]
    allowed = NOISE * np.maximum(np.abs(before), np.maximum(np.abs(here), np.abs(after)))
    return float((before - 2 * here + after >= -allowed).mean())


def convex_plane(losses: np.ndarray) -> float | None:
    """Return the share of a plane's inner points, losses (n, n), at which it is convex; None as in `convex_line`.

    There the matrix of second differences has no negative eigenvalue, which does not depend on the axes' units.
    """
    if not np.isfinite(losses).all():
        return None
    here = losses[1:-1, 1:-1]
    xx = losses[2:, 1:-1] - 2 * here + losses[:-2, 1:-1]
    yy = losses[1:-1, 2:] - 2 * here + losses[1:-1, :-2]
    xy = (losses[2:, 2:] - losses[2:, :-2] - losses[:-2, 2:] + losses[:-2, :-2]) / 4
    least = (xx + yy) / 2 - np.hypot((xx - yy) / 2, xy)
    around = np.lib.stride_tricks.sliding_window_view(np.abs(losses), (3, 3)).max((2, 3))
    return float((least >= -NOISE * around).mean())
