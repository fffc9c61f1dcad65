"""What the loss says of the edge: it is not monotone there, and the motion has a period of two steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dynalab.analysis.slingshot.norms import slope


def loss_before_and_after(
    steps: np.ndarray, loss: np.ndarray, stays: Sequence[tuple[float, float]]
) -> dict[str, Any] | None:
    """Return how often the loss rises from step to step, and turns round, before and after the arrival.

    Args:
        steps: Steps of the loss, shape (T,).
        loss: The training loss of a full batch, shape (T,).
        stays: First and last step of every time at the edge, at least one.

    Returns:
        Shares of the steps before the first arrival, and of those at the edge; None unless the loss was recorded at
        every step, over ten steps on both sides.
    """
    following = np.diff(steps) == 1
    change = np.diff(loss)
    at = steps[1:]
    sides = {
        "before": at <= stays[0][0],
        "after": np.any([(at > first) & (at <= last) for first, last in stays], axis=0),
    }
    found: dict[str, Any] = {}
    for name, side in sides.items():
        chosen = side & following
        if chosen.sum() < 10:
            return None
        ups = change[chosen] > 0
        found[f"loss_up_{name}"] = float(ups.mean())
        found[f"loss_turns_{name}"] = float((ups[1:] != ups[:-1]).mean())
    found["corroborated"] = bool(found["loss_up_after"] >= 0.05 and found["loss_up_before"] <= 0.01)
    return found


def raw_sharpness(
    steps: np.ndarray, values: np.ndarray, stays: Sequence[tuple[float, float]]
) -> dict[str, Any] | None:
    """Return what the sharpness itself did at the adaptive edge, where it may go on rising (Cohen et al. 2022).

    Returns:
        First and last value (medians of three) and whether it rises; None with fewer than five rows.
    """
    inside = np.any([(steps >= first) & (steps <= last) for first, last in stays], axis=0) & (values > 0)
    if inside.sum() < 5:
        return None
    tilt, _ = slope(steps[inside], np.log(values[inside]), 0.0)
    first, last = float(np.median(values[inside][:3])), float(np.median(values[inside][-3:]))
    return {"first": first, "last": last, "rises": bool(tilt > 0 and last > first)}
