"""What the loss says of the edge: it is not monotone there, and the motion has a period of two steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dynalab.core.runs import Series
from dynalab.core.stats import theil_sen


@dataclass(frozen=True)
class LossAround:
    """How often the loss rises from step to step, and turns round: shares before the first arrival and at the edge."""

    loss_up_before: float  # share of steps before the arrival at which the loss rises
    loss_turns_before: float  # share at which it turns round
    loss_up_after: float  # share of steps at the edge at which it rises
    loss_turns_after: float  # share at which it turns round
    corroborated: bool  # whether it rises at 1% of the steps at most before, and at 5% at least at the edge


@dataclass(frozen=True)
class RawSharpness:
    """First and last sharpness at the edge (medians of three), and whether it rises."""

    first: float  # the first, median of three
    last: float  # the last, median of three
    rises: bool  # whether it rises


def loss_before_and_after(loss: Series, stays: Sequence[tuple[float, float]]) -> LossAround | None:
    """Return what the training loss of a full batch did before and after the arrival, given at least one stay.

    None unless it was recorded at every step, over ten steps on both sides.
    """
    following = np.diff(loss.steps) == 1
    rises = np.diff(loss.values) > 0
    at = loss.steps[1:]
    before = following & (at <= stays[0][0])
    after = following & np.any([(at > first) & (at <= last) for first, last in stays], axis=0)
    if min(before.sum(), after.sum()) < 10:
        return None
    up, ups = (float(rises[side].mean()) for side in (before, after))
    turn, turns = (float((rises[side][1:] != rises[side][:-1]).mean()) for side in (before, after))
    return LossAround(up, turn, ups, turns, bool(ups >= 0.05 and up <= 0.01))


def raw_sharpness(sharpness: Series, stays: Sequence[tuple[float, float]]) -> RawSharpness | None:
    """Return what the sharpness did at the adaptive edge, where it may go on rising (Cohen et al. 2022), or None."""
    steps, values = sharpness.steps, sharpness.values
    inside = np.any([(steps >= first) & (steps <= last) for first, last in stays], axis=0) & (values > 0)
    if inside.sum() < 5:
        return None
    tilt, _ = theil_sen(steps[inside], np.log(values[inside]))
    first, last = float(np.median(values[inside][:3])), float(np.median(values[inside][-3:]))
    return RawSharpness(first, last, bool(tilt > 0 and last > first))
