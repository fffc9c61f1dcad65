"""What is read of layers of units in one pass over memory, in code that is compiled for this machine.

Numbers are those of torch to the bit, which does the same in seven passes, and wherever there is no C++ compiler, or
tensors are other than float32 in a row on a CPU. See maps.cpp.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_float, c_int64, c_void_p
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from dynalab.config import compiling

SOURCE = Path(__file__).with_name("maps.cpp")


# As in maps.cpp.
_FUNCTIONS = {
    "tangents": [c_void_p, c_void_p, *[c_int64] * 4, *[c_void_p] * 3],
    "nearer": [*[c_void_p] * 3, c_int64, c_int64, c_void_p, c_int64, c_void_p, c_float, c_void_p],
    "scaled": [c_void_p, c_void_p, c_int64, c_void_p, c_void_p],
}


@cache
def library() -> ctypes.CDLL | None:
    """Return the code for this machine, compiled where it is not kept yet; None where that cannot be."""
    return compiling.loaded(compiling.available(SOURCE), _FUNCTIONS)


def known(*tensors: Tensor) -> ctypes.CDLL | None:
    """Return the code, if it knows such tensors."""
    for it in tensors:
        if it.dtype is not torch.float32 or it.device.type != "cpu":
            return None
    return library()


def tangents(maps: Tensor, more: Tensor | None, offsets: int, here: Tensor, up: Tensor, down: Tensor) -> None:
    """Read the arguments of a layer of ReLU, which become those of its tangents at the first of n.

    Args:
        maps: At B points, and at n - 1 offsets from each, (n B, ...), in one piece of memory.
        more: What is added to them, likewise, in the same order of memory.
        offsets: n.
        here: Becomes the arguments at the points, (B, units), its entries of a point in a row.
        up: Becomes how far the largest of n is above these, likewise.
        down: Becomes how far the smallest is above them, likewise.
    """
    code = known(maps, here)
    points, units = here.shape
    if code is not None:
        added = None if more is None else more.data_ptr()
        row, *places = here.stride(0), here.data_ptr(), up.data_ptr(), down.data_ptr()
        code.tangents(maps.data_ptr(), added, offsets, points, units, row, *places)
        return
    if more is not None:
        maps.add_(more)
    spread = maps.as_strided((offsets, points, units), (points * units, units, 1))
    at_points = spread[0]
    here.copy_(at_points)
    torch.sub(spread.amax(0), at_points, out=up)
    torch.sub(spread.amin(0), at_points, out=down)
    torch.mul(spread, torch.gt(at_points, 0, out=torch.empty_like(at_points)), out=spread)


def nearer(
    here: Tensor, up: Tensor, down: Tensor, sizes: Sequence[int], radii: Sequence[float], step: float
) -> Tensor:
    """Return how many units of each layer are nearer to 0 than each radius, (B, radii, layers).

    Args:
        here: Their arguments at B points, shape (B, units), layer after layer.
        up: How far these go up over a step, at most, likewise.
        down: How far they go down, likewise, 0 or less.
        sizes: Units of each layer.
        radii: In steps' units.
        step: How long the step is.

    Returns:
        In the type of the arguments; NaN for points of which a number is none, or infinite on both sides.
    """
    code = known(here, up, down)
    if code is not None and here.is_contiguous() and up.is_contiguous() and down.is_contiguous():
        counts = here.new_empty(len(here), len(radii), len(sizes))
        lengths, far = (c_int64 * len(sizes))(*sizes), (c_float * len(radii))(*radii)
        given = (it.data_ptr() for it in (here, up, down))
        code.nearer(*given, len(here), len(sizes), lengths, len(radii), far, step, counts.data_ptr())
        return counts
    moved, distance = torch.maximum(up, -down), here.abs() * step
    reached = distance / moved
    cuts = here.new_empty(len(here), len(radii), here.shape[1])
    for place, radius in enumerate(radii):
        torch.lt(reached, radius, out=cuts[:, place])
    # Sums of ones are exact, and those of truth values take as long as a copy of them into integers.
    counts = torch.stack([layer.sum(-1) for layer in cuts.split(list(sizes), -1)], -1)
    # They are 0 or more, so that this is NaN for NaN alone, or where both are infinite.
    unknown = (distance.sum(1) - moved.sum(1)).isnan()
    return counts.masked_fill_(unknown[:, None, None], torch.nan)
