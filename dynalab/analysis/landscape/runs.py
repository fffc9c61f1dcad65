"""What is found of every run on its slices, and the tables of their points."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from dynalab.analysis.landscape import axes as ways
from dynalab.analysis.landscape.findings import Line, Plane, RunFindings, Trajectory
from dynalab.analysis.landscape.measure import Slices
from dynalab.analysis.landscape.slices import convex_line, convex_plane, stretch
from dynalab.core.words import number, rounded


def runs_of(slices: Slices, towards: bool) -> Iterator[RunFindings]:
    """Yield what is found of every run; `towards`: whether the first axis goes to another run."""
    for row, run in enumerate(slices.place.group.runs):
        if not np.isfinite(slices.centre[row]):
            yield RunFindings(run.id, "insufficient_data", "the loss at its weights is not finite")
            continue
        loss, level = float(slices.centre[row]), float(slices.levels[row])
        plane = None
        if slices.planes is not None:
            values = slices.planes[row]
            plane = Plane(float((values <= level).mean()), convex_plane(values), float(np.nanmin(values)))
        yield RunFindings(
            run=run.id,
            verdict="measured",
            reason=f"loss {number(rounded(loss))}, low up to {number(rounded(level))}",
            loss=loss,
            level=level,
            lambda_max=None if slices.top is None else known(slices.top[row]),
            lambda_min=None if slices.low is None else known(slices.low[row]),
            lines=tuple(_line(slices, axis, row, towards) for axis in range(len(slices.axes))),
            plane=plane,
            trajectory=_trajectory(slices.shares[row], len(slices.points[row][0])) if slices.shares else None,
        )


def _line(slices: Slices, axis: int, row: int, towards: bool) -> Line:
    from dynalab.networks.paths import barriers

    way, values, size = slices.axes[axis], slices.lines[axis][row], slices.place.norms[row]
    at = way.places(len(values))[row]
    norm = float(way.norms[row] / size) if size > 0 else 0.0
    low = stretch(at, values, float(slices.levels[row])) if norm > 0 else None
    barrier = None
    if towards and axis == 0:
        inside = (at > -1e-9) & (at < 1 + 1e-9)
        barrier = known(barriers(values[None, inside], np.round(at[inside], 9).tolist())[0])
    width, is_open = (low.width * norm, low.open) if low else (None, False)
    return Line(axis + 1, norm, width, is_open, convex_line(values), barrier)


def _trajectory(own: ways.Shares, rows: int) -> Trajectory:
    parts = (own.centred, own.uncentred, own.centred_null, own.uncentred_null)
    return Trajectory(rows, *(tuple(map(known, part)) for part in parts))


def known(value: Any) -> float | None:
    """Return a finite number, or None."""
    return float(value) if np.isfinite(value) else None


def tables_of(slices: Slices) -> tuple[Any, Any, Any]:
    """Return the tables of the points of lines, of planes, and of what is drawn on these; None where there is none."""
    import pandas as pd

    lines: list[Any] = []
    planes: list[Any] = []
    points: list[Any] = []
    for row, run in enumerate(slices.place.group.runs):
        for axis, (way, values) in enumerate(zip(slices.axes, slices.lines, strict=True)):
            at = way.places(values.shape[1])[row]
            lines.append(pd.DataFrame({"run": run.id, "axis": axis + 1, "at": at, "loss": values[row]}))
        if slices.planes is not None:
            own = slices.planes[row]
            first, second = (way.places(len(own))[row] for way in slices.axes)
            at = {"first": np.repeat(first, len(own)), "second": np.tile(second, len(own))}
            planes.append(pd.DataFrame({"run": run.id, **at, "loss": own.ravel()}))
        if slices.points:
            steps, at = slices.points[row]
            points.append(pd.DataFrame({"run": run.id, "step": steps, "first": at[:, 0], "second": at[:, 1]}))
    return joined(lines), joined(planes), joined(points)


def joined(tables: Sequence[Any]) -> Any:
    """Return tables under each other; None where there is none."""
    import pandas as pd

    some = [table for table in tables if table is not None]
    return pd.concat(some, ignore_index=True) if some else None
