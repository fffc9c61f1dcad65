"""Schedules: how the learning rate moves.

A schedule module holds `Config` and `build(config, total) -> factor`, where `factor(step)` multiplies the rate of the
update `step` -> `step + 1`. `needs_total(config)` says whether the factor depends on the length of training; only
then is the length part of an ensemble's identity, and only then can training not be prolonged. One of a user's that
does not say is taken to depend on it.
"""

from __future__ import annotations

from collections.abc import Callable


def halved(factor: Callable[[int], float], at: int | None) -> Callable[[int], float]:
    """Return a schedule that is half of another from a step on.

    Args:
        factor: The other one.
        at: The first update at half the rate; None leaves it as it is.
    """
    return factor if at is None else lambda step: factor(step) * (0.5 if step >= at else 1.0)
