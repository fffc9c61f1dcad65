"""When a run's learning rate jumped, as its configuration says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def rate_changes(config: Mapping[str, Any], last: float) -> tuple[float, ...]:
    """Return the steps up to `last` at which the schedule's rate jumps; smooth schedules have none.

    Args:
        config: A resolved configuration, or an empty one.
        last: The last step of interest.
    """
    schedule = config.get("schedule") or {}
    if schedule.get("name") != "step":
        return ()
    return tuple(float(step) for step in schedule.get("milestones") or () if step <= last)
