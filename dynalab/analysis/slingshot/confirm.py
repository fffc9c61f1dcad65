"""Comparing runs with their forks: which slingshots go away when no loss is rounded to 0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def compare(result: Mapping[str, Any], fork: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a fork with a float64 loss says of an analysis' slingshots.

    Args:
        result: The analysis of the parent's runs.
        fork: The analysis of the fork's runs, whose labels are the same.

    Returns:
        `fork` (the fork's ensemble) and, for every run of the fork, its slingshots and those of its parent, and whether
        they are confirmed: the parent has some and the fork has none.
    """
    theirs = {run["run"].rpartition("/")[2]: run for run in fork["runs"]}
    rows = []
    for run in result["runs"]:
        other = theirs.get(run["run"].rpartition("/")[2])
        if other is None:
            continue
        mine, forked = (
            sum(event["kind"] == "slingshot" for event in item["events"]) for item in (run, other)
        )
        rows.append(
            {
                "run": run["run"],
                "fork": other["run"],
                "slingshots": mine,
                "fork_slingshots": forked,
                "fork_events": len(other["events"]),
                "confirmed": bool(mine and not forked),
            }
        )
    return {"fork": fork["ensemble"], "runs": rows}
