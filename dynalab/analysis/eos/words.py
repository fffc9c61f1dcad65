"""A result in a few lines, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dynalab.core.stats import passage

SAID = {
    "at_edge": "at the edge of stability",
    "visited": "at the edge for a time",
    "below_edge": "below the edge",
    "never_sharpened": "without sharpening",
    "insufficient_data": "with too few rows",
    "unknown": "not to be told",
}


def describe(result: Mapping[str, Any]) -> list[str]:
    """Return what a reader wants to know first.

    Args:
        result: The plain values of an analysis.
    """
    runs, summary = result["runs"], result["summary"]
    lines = [f"{len(runs)} runs: " + ", ".join(f"{n} {SAID[key]}" for key, n in summary["verdicts"].items())]
    if summary["onset"]:
        ratio = f"; ratio there {summary['ratio'][1]:.3f}" if summary["ratio"] else ""
        lines.append(f"  arrival {passage(summary['onset'])}{ratio}")
    for run in runs[:20]:
        ratio = f", median ratio {run['median_ratio']:.3f}" if run["median_ratio"] is not None else ""
        lines.append(f"  {run['run'].rpartition('/')[2]}: {run['verdict']}{ratio} ({run['reason']})")
    if len(runs) > 20:
        lines.append(f"  and {len(runs) - 20} more runs")
    if confirmation := result.get("confirmation"):
        from dynalab.analysis.eos.confirm import words

        lines.append(f"  {words(confirmation['runs'])} ({', '.join(confirmation['forks'])})")
    return lines
