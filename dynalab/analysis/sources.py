"""Where an analysis has its rows from: weights that were kept, or a probe that measured while training."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dynalab.analysis.base import Group, Run


def record_of(probe: str) -> Mapping[str, str]:
    """Return what records the rows, by the values of the key `source`."""
    keep, measure = "snapshots.every=20", f"'probes=[weights,gradients,{probe}]'"
    return {
        "auto": f"{keep} (weights), or {measure} (without keeping them)",
        "weights": keep,
        "probe": measure,
    }


def source_of(
    group: Group, asked: str, kept: Callable[[Run], int], measured: Callable[[Run], int], fewest: int
) -> str:
    """Return `weights` or `probe`, what is read of all runs of a group.

    Args:
        group: The runs.
        asked: The key `source`; `auto` is the probe where no run kept as many as it takes and the probe has more.
        kept: How many steps a run's weights were kept at.
        measured: How many rows the probe has of a run.
        fewest: Rows that the analysis takes.
    """
    if asked != "auto":
        return asked
    most, rows = max(map(kept, group.runs)), max(map(measured, group.runs))
    return "probe" if most < fewest and rows > most else "weights"
