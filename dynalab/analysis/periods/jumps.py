"""Jumps of a norm that otherwise decays: the events of a period."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dynalab.analysis.slingshot.norms import slope

# Share of the way between two events, at both ends, that their slope leaves out.
MARGIN = 0.15


@dataclass(frozen=True)
class Jump:
    """One jump, in rows: from `onset` the norm rises up to `end`, by `rise` in its natural logarithm."""

    onset: int
    end: int
    rise: float


def find_jumps(steps: np.ndarray, norm: np.ndarray, jump: float, window: float) -> list[Jump]:
    """Return the jumps of a norm in their order.

    An event begins where the log norm rises by `jump` within `window` steps, and ends with the last row that is still
    higher than the one before.

    Args:
        steps: Steps of the rows, shape (T,), ascending.
        norm: Positive, shape (T,).
        jump: Rise of the natural logarithm.
        window: Steps that it is taken over, a row at least.
    """
    x = np.log(norm)
    ahead = np.maximum(np.searchsorted(steps, steps + window, side="right") - 1, np.arange(len(x)) + 1)
    ahead = np.minimum(ahead, len(x) - 1)
    rising = x[ahead] - x > jump
    found: list[Jump] = []
    row = 0
    while row < len(x):
        if not rising[row]:
            row += 1
            continue
        end = row
        # As long as the window ahead still rises, and then to its top.
        while end < len(x) - 1 and (rising[end] or x[end + 1] > x[end]):
            end += 1
        onset = row + int(np.argmin(x[row : end + 1]))
        found.append(Jump(onset, end, float(x[end] - x[onset])))
        row = end + 1
    return found


def slopes_between(
    steps: np.ndarray, norm: np.ndarray, jumps: list[Jump], unit: np.ndarray | None = None
) -> list[float]:
    """Return the slope of the log norm between each two neighbouring jumps that have four rows between them.

    Args:
        steps: Steps of the rows, shape (T,).
        norm: Positive, shape (T,).
        jumps: The jumps, in order.
        unit: What a slope is divided by, its mean over the same rows, shape (T,); slopes are a step without.
    """
    found = []
    for former, latter in pairwise(jumps):
        begin, end = float(steps[former.end]), float(steps[latter.onset])
        inside = (steps >= begin + MARGIN * (end - begin)) & (steps <= end - MARGIN * (end - begin))
        if inside.sum() >= 4:
            tilt = slope(steps[inside].astype(float), np.log(norm[inside]), 0.0)[0]
            found.append(tilt if unit is None else tilt / float(unit[inside].mean()))
    return found
