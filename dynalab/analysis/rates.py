"""When a run's learning rate jumped, as its configuration says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def rate_changes(config: Mapping[str, Any], last: float) -> tuple[float, ...]:
    """Return the steps up to `last` at which the rate jumps; smooth schedules have none.

    Args:
        config: A resolved configuration, or an empty one.
        last: The last step of interest.
    """
    schedule = config.get("schedule") or {}
    steps = list(schedule.get("milestones") or ()) if schedule.get("name") == "step" else []
    halved = (config.get("train") or {}).get("halve_at")
    steps += [] if halved is None else [halved]
    return tuple(float(step) for step in sorted(steps) if step <= last)
