"""What is said of slices of the loss."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from dynalab.analysis.base import Group, Series
from dynalab.analysis.landscape.findings import Findings, RunFindings, Widths
from dynalab.core.means import Mean
from dynalab.core.stats import quantile
from dynalab.core.words import LINES, count, number, rounded
from dynalab.show.blocks import (
    Block,
    Figure,
    Lines,
    Panel,
    Say,
    Surface,
    Surfaces,
    Table,
    run_cell,
    run_label,
)

# Pictures of planes that are drawn.
DRAWN = 6
# Least over largest eigenvalue, in size, up to which negative ones are few.
SMALL = 0.1
# The key `plane` -> what its directions are, and the units of its axes.
NAMES = {
    "random": "random directions, normalised by filter",
    "eigen": "the eigenvectors of the two largest eigenvalues",
    "path": "the principal plane of the trajectory",
    "runs": "the ways to the next runs",
}
UNITS = {
    "random": "units of a direction that is, filter by filter, as long as the weights",
    "eigen": "norms of the weights",
    "path": "norms of the weights",
    "runs": "from the run, at 0, to the next, at 1",
}


def show(findings: Findings, groups: Sequence[Group]) -> Iterator[Block]:
    """Yield what a reader sees; without groups (a terminal) there is no figure."""
    summary = findings.summary
    yield Say(f"**Loss landscape:** {_headline(findings)}.", headline=True)
    if text := _shares(findings):
        yield Say(text)
    if summary.lambda_max.runs:
        yield Say(_curvature(findings))
    if groups and summary.runs:
        yield from _figures(findings)
    yield _over(findings)
    header = ["run", "loss", "low up to", "largest eigenvalue", "least"]
    axes = [f"width, axis {width.axis}" for width in summary.widths]
    plane = ["plane below, %", "convex, %"] if summary.below.runs else []
    barrier = ["barrier"] if summary.barrier.runs else []
    rows: list[list[Any]] = []
    for run in findings.runs:
        row: list[Any] = [
            run_cell(run.run),
            *map(rounded, (run.loss, run.level, run.lambda_max, run.lambda_min)),
        ]
        widths = {line.axis: _width(line.width, line.open) for line in run.lines}
        row += [widths.get(width.axis, "") for width in summary.widths]
        if plane:
            row += [
                _percent(run.plane.below if run.plane else None),
                _percent(run.plane.convex if run.plane else None),
            ]
        if barrier:
            row.append(rounded(run.lines[0].barrier) if run.lines else None)
        rows.append([*row, run.reason if run.verdict != "measured" else ""])
    yield Table([*header, *axes, *plane, *barrier, ""], rows, "Every run; widths are in norms of the weights")


def _headline(findings: Findings) -> str:
    summary = findings.summary
    if not summary.runs:
        return f"no run of {len(findings.runs):,} has a finite loss at its weights"
    level = quantile([run.level for run in findings.runs if run.level is not None], 0.5)
    text = f"around step {summary.step:,} the {summary.split} loss"
    low, along = f"at or below {number(rounded(level))}", f"along {NAMES[summary.plane]}"
    width = summary.widths[0]
    if not width.runs:
        text += f" is nowhere {low} {along}"
    elif width.median is None:
        text += f" stays {low}{', in half of the runs,' if width.runs > 1 else ''} up to the ends of the lines {along}"
    else:
        text += f" stays {low} over **{number(rounded(width.median))}** norms of the weights {along}"
        text += f" (median of {count(width.runs, 'run')}{_open(width)})" if width.runs > 1 else ""
    if summary.barrier.runs:
        text += f"; between runs it rises by **{number(rounded(summary.barrier.value))}**{_interval(summary.barrier)}"
    if summary.below.runs:
        text += f"; **{_share(summary.below)}** of the plane is low"
        if summary.convex.runs:
            text += f", {_share(summary.convex)} convex"
    return text


def _open(width: Widths) -> str:
    return f", {width.open} at least so wide as their lines" if width.open else ""


def _shares(findings: Findings) -> str:
    summary = findings.summary
    if not summary.centred.runs:
        return ""
    return (
        f"The plane has {_share(summary.centred)} of the trajectory's variance, where a random walk with steps of the "
        f"same lengths has {_share(summary.centred_null, False)}; not centred, {_share(summary.uncentred)} of the "
        f"squared distances from the last row, where the walk has {_share(summary.uncentred_null, False)}."
    )


def _curvature(findings: Findings) -> str:
    summary = findings.summary
    top, low = (number(rounded(over.value)) for over in (summary.lambda_max, summary.lambda_min))
    text = f"The Hessian's eigenvalues at the weights lie between {low} and {top}"
    text += " (means)" * (summary.lambda_max.runs > 1)
    measured, ratio = summary.lambda_max.runs, summary.ratio
    flat = measured - ratio.runs
    if flat == measured:
        every = "the run" if flat == 1 else f"all {flat:,} runs"
        return f"The largest and the least eigenvalue of the Hessian at the weights are 0 in {every}."
    if flat:
        text += f"; they are 0 in {flat} of {count(measured, 'run')}"
    negative = (summary.lambda_min.value or 0.0) < 0 and (ratio.value or 0.0) < SMALL
    hidden = (
        ", which few of very many directions have and a random plane does not show"
        if negative and summary.plane == "random"
        else ""
    )
    others = f" in the other {count(ratio.runs, 'run')}" if flat else ""
    size = f"{number(rounded(ratio.value))} of the largest in size{_interval(ratio, math.inf)}"
    return f"{text}: the least is {size}{others}{hidden}."


def _over(findings: Findings) -> Table:
    summary = findings.summary
    rows: list[list[Any]] = []
    for width in summary.widths:
        low, high = width.quartiles if width.runs > 1 else (None, None)
        median = _width(width.median, width.runs > 0 and width.median is None)
        rows.append(
            [f"width along axis {width.axis}", "median", width.runs, median,
             f"{number(rounded(low))} to {_width(high, high is None)} (quartiles)" if low is not None else ""]
        )  # fmt: skip
    # With the most that it can be, of what cannot be below 0.
    of: dict[str, tuple[Mean, float | None]] = {
        "share of the plane that is low": (summary.below, 1.0),
        "share of the plane that is convex": (summary.convex, 1.0),
        "largest eigenvalue": (summary.lambda_max, None),
        "least eigenvalue": (summary.lambda_min, None),
        "their ratio in size": (summary.ratio, math.inf),
        "barrier to the next run": (summary.barrier, None),
        "share of the path, centred": (summary.centred, 1.0),
        "a random walk's, centred": (summary.centred_null, None),
        "share of the path, not centred": (summary.uncentred, 1.0),
        "a random walk's, not centred": (summary.uncentred_null, None),
    }
    for name, (over, most) in of.items():
        if over.runs:
            rows.append(
                [
                    name,
                    "mean",
                    over.runs,
                    number(rounded(over.value)),
                    _interval(over, most).strip(" []"),
                ]
            )
    statistics = {
        "none": "",
        "held": "; running statistics of the weights held",
        "refreshed": "; running statistics estimated anew at every point",
    }[summary.statistics]
    what = f"Over runs; {summary.split} loss of {count(summary.examples, 'example')} of each{statistics}"
    return Table(["of the loss", "", "runs", "value", "95% interval"], rows, what, sortable=False)


def _interval(over: Mean, most: float | None = None) -> str:
    low, high = over.interval
    if low is None or high is None:
        return ""
    if most is not None:  # Student's interval knows no ends: of what lies between 0 and this
        low, high = max(low, 0.0), min(high, most)
    return f" [{number(rounded(low))}, {number(rounded(high))}]"


def _share(over: Mean, interval: bool = True) -> str:
    low, high = over.interval
    text = _whole(over.value or 0)
    if not interval or low is None or high is None or _whole(low) == _whole(high):
        return text
    return f"{text} [{_whole(max(low, 0))}, {_whole(min(high, 1))}]"


def _whole(share: float) -> str:
    return f"{100 * share:.1g}%" if 0 < share < 0.01 else f"{share:.0%}"


def _percent(value: float | None) -> float | None:
    return None if value is None else round(100 * value, 1)


def _width(value: float | None, is_open: bool) -> str:
    if value is None:
        return "beyond the line" if is_open else number(None)
    return f"{'at least ' if is_open else ''}{number(rounded(value))}"


def _figures(findings: Findings) -> Iterator[Figure]:
    runs = [run for run in findings.runs if run.verdict == "measured"]
    if findings.planes is not None and any(run.plane for run in runs):
        yield _planes(findings, runs)
    if findings.lines is not None:
        yield _lines(findings, runs)


def _planes(findings: Findings, runs: Sequence[RunFindings]) -> Surfaces:
    plane = findings.summary.plane
    chosen = runs[:DRAWN]
    tables = dict(iter(findings.planes.groupby("run", sort=False)))
    points = {} if findings.points is None else dict(iter(findings.points.groupby("run", sort=False)))
    surfaces = []
    for run in chosen:
        table = tables[run.run]
        x, y = np.unique(table["first"]), np.unique(table["second"])
        values = table["loss"].to_numpy().reshape(len(x), len(y))
        at = points[run.run][["first", "second"]].to_numpy() if run.run in points else np.zeros((1, 2))
        over = {"path": at} if plane == "path" else {"points": at}
        surfaces.append(Surface(title=run_label(run.run), x=x, y=y, values=values, level=run.level, **over))
    some = f" ({len(chosen)} of {count(len(runs), 'run')})" if len(runs) > len(chosen) else ""
    drawn = {
        "path": " Dots are the weights that were kept, laid down on the plane: they are not in it, and the loss there "
        "is not theirs; the star is the last.",
        "runs": " Crosses are the runs.",
    }.get(plane, " The cross is the weights.")
    return Surfaces(
        name="landscape",
        caption=f"**The {findings.summary.split} loss on a plane{some}.** Along {NAMES[plane]}, in {UNITS[plane]}. The "
        f"thick line, where there is one, is the level up to which it counts as low.{drawn}",
        alt=f"Loss on a plane along {NAMES[plane]}, run by run",
        surfaces=surfaces,
        axes=("axis 1", "axis 2"),
        unit=f"{findings.summary.split} loss",
        logarithmic=True,
    )


def _lines(findings: Findings, runs: Sequence[RunFindings]) -> Lines:
    plane = findings.summary.plane
    measured = {run.run for run in runs}
    # Trajectories are of different lengths: their lines are laid on one grid, as far as they go.
    common = _common(findings)
    panels = []
    for axis, of_axis in findings.lines.groupby("axis", sort=True):
        curves = {}
        for run, table in of_axis.groupby("run", sort=False):
            if run in measured:
                at, loss = table["at"].to_numpy(), table["loss"].to_numpy()
                inside = (common[axis] >= at[0]) & (common[axis] <= at[-1])
                curves[run] = Series.of(common[axis][inside], np.interp(common[axis][inside], at, loss))
        panels.append(Panel(title=f"loss along axis {axis}", curves={"loss": curves}, logarithmic=True))
    spread = f" {LINES}" if len(runs) > 2 else ""
    if spread and plane == "path":
        spread += " Lines end where the paths of their runs do, median and band where the first of them does."
    return Lines(
        name="landscape-lines",
        caption=f"**The {findings.summary.split} loss on lines through the weights.** Along {NAMES[plane]}, in "
        f"{UNITS[plane]}; the weights are at 0.{spread}",
        alt=f"Loss on lines along {NAMES[plane]}, all runs",
        panels=panels,
        axis=UNITS[plane],
    )


def _common(findings: Findings) -> dict[int, np.ndarray]:
    """Return places along each axis that all lines are drawn at: their own where they share them."""
    found = {}
    for axis, table in findings.lines.groupby("axis", sort=True):
        at = np.unique(table["at"])
        n = int(table.groupby("run").size().max())
        found[int(axis)] = at if len(at) <= n else np.linspace(at[0], at[-1], 2 * n)
    return found
