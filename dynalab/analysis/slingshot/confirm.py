"""Comparing runs with their forks: which slingshots go away when no loss is rounded to 0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def first_onsets(result: Mapping[str, Any]) -> dict[str, int]:
    """Return run -> step of its first slingshot, of the runs that have one: a fork begins before it."""
    return {
        run["run"]: min(event["onset_step"] for event in run["events"] if event["kind"] == "slingshot")
        for run in result["runs"]
        if any(event["kind"] == "slingshot" for event in run["events"])
    }


def compare(result: Mapping[str, Any], forks: Sequence[tuple[Mapping[str, Any], int]]) -> dict[str, Any]:
    """Return what forks with a float64 loss say of an analysis' slingshots.

    Args:
        result: The analysis of the parent's runs.
        forks: The analyses of the forks' runs, whose labels are the same, and the step each begins at.

    Returns:
        `change`, `forks` (the forks' ensembles) and, for every run of a fork, its slingshots from the fork's beginning
        on and those of its parent, and whether they are confirmed: the parent has some and the fork has none.
    """
    theirs = {run["run"].rpartition("/")[2]: (run, step) for fork, step in forks for run in fork["runs"]}
    rows = []
    for run in result["runs"]:
        other, step = theirs.get(run["run"].rpartition("/")[2], (None, 0))
        if other is None:
            continue
        mine, forked = (
            sum(event["kind"] == "slingshot" and event["onset_step"] >= step for event in item["events"])
            for item in (run, other)
        )
        rows.append(
            {
                "run": run["run"],
                "fork": other["run"],
                "from_step": step,
                "slingshots": mine,
                "fork_slingshots": forked,
                "fork_events": sum(event["onset_step"] >= step for event in other["events"]),
                "confirmed": bool(mine and not forked),
            }
        )
    ids = list(dict.fromkeys(fork["ensemble"] for fork, _ in forks))
    return {"change": "train.loss_dtype=float64", "forks": ids, "runs": rows}


def words(confirmation: Mapping[str, Any]) -> str:
    """Return what the forks say of all runs, in a line."""
    rows = confirmation["runs"]
    gone = sum(row["confirmed"] for row in rows)
    still = sum(bool(row["fork_slingshots"]) for row in rows)
    runs = f"{len(rows)} run{'s' * (len(rows) != 1)}"
    return (
        f"trained again with the loss in float64 {since(rows)}: gone, and so confirmed, in {gone} of {runs}"
        f"{f'; still there in {still}' if still else ''}"
    )


def forks_of(confirmation: Mapping[str, Any]) -> list[str]:
    """Return the ids of the forks; earlier results name one."""
    return list(confirmation.get("forks") or [confirmation["fork"]])


def since(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return from where forks were trained."""
    steps = sorted({row.get("from_step", 0) for row in rows})
    if steps in ([], [0]):
        return "from the start"
    said = f"{steps[0]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}"
    return f"from {'their' if len(rows) > 1 else 'its'} checkpoint{'s' * (len(steps) > 1)} of step {said}"
