"""A result in a few lines, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dynalab.core.stats import passage

SAID = {
    "slingshot": "slingshots",
    "other_spikes": "spikes of another kind",
    "no_events": "no spikes",
    "insufficient_data": "too few rows",
}


def describe(result: Mapping[str, Any]) -> list[str]:
    """Return what a reader wants to know first.

    Args:
        result: The plain values of an analysis.
    """
    runs, summary = result["runs"], result["summary"]
    said = ", ".join(f"{SAID[key]} in {n}" for key, n in summary["verdicts"].items())
    lines = [f"{len(runs)} runs: {said}"]
    if summary["first_onset"]:
        lines.append(f"  first slingshot {passage(summary['first_onset'])}")
    for run in runs[:20]:
        kinds: dict[str, list[int]] = {}
        for event in run["events"]:
            kinds.setdefault(event["kind"], []).append(event["onset_step"])
        events = "; ".join(
            f"{kind} at {', '.join(f'{step:,}' for step in steps)}" for kind, steps in kinds.items()
        )
        period = f", period {run['period_steps']:,.0f} steps" if run["period_steps"] else ""
        spread = f" (variation {run['period_cv']:.2f})" if run["period_cv"] is not None else ""
        lines.append(f"  {run['run'].rpartition('/')[2]}: {events or SAID[run['verdict']]}{period}{spread}")
    if len(runs) > 20:
        lines.append(f"  and {len(runs) - 20} more runs")
    if confirmation := result.get("confirmation"):
        from dynalab.analysis.slingshot.confirm import forks_of, words

        lines.append(f"  {words(confirmation)} ({', '.join(forks_of(confirmation))})")
    missing = sorted({channel for run in runs for channel in run["missing_channels"]})
    if missing:
        lines.append(f"  not recorded: {', '.join(missing)}")
    return lines
