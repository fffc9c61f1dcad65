"""What is said of the partition of slices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from dynalab.analysis.base import Group, Series
from dynalab.analysis.partition.findings import Findings, Over, Row
from dynalab.core.words import LINES, count, number, rounded
from dynalab.show.blocks import Block, Figure, Lines, Panel, Polygons, Say, Table, Tiling, run_cell, run_label

# Name of a column of the regions -> what it is, whether by logarithm, whether classes.
COLOURS = {
    "norm": ("norm of the slopes along the slice", True, False),
    "class": ("class", False, True),
    "distance": ("distance from the decision boundary", False, False),
}


def show(findings: Findings, groups: Sequence[Group]) -> Iterator[Block]:
    """Yield what a reader sees; without groups (a terminal) there is no figure."""
    yield Say(f"**Partition of a slice:** {_headline(findings)}.", headline=True)
    if groups:
        yield from _figures(findings)
    steps = findings.summary.steps
    if steps:
        rows: list[list[Any]] = [
            [own.step, *(cell for over in (own.regions, own.near_density, own.norm) for cell in _cells(over))]
            for own in steps
        ]
        header = [
            "step",
            *(
                cell
                for name in ("regions", "near against away", "norm")
                for cell in (name, "95% interval", "runs")
            ),
        ]
        near = f"{findings.summary.near:.0%} of a side"
        caption = (
            f"Regions of the slice; density within {near} of the decision boundary, over that away from it"
        )
        yield Table(header, rows, caption, sortable=False)
    rows = []
    for run in findings.runs:
        first, last = (run.rows[0], run.rows[-1]) if run.rows else (None, None)
        values: list[float | None] = [row.regions if row else None for row in (first, last)]
        values += [_short(row.near_density) if row else None for row in (first, last)]
        rows.append([run_cell(run.run), ", ".join(map(str, run.examples)), *values, run.reason])
    header = ["run", "examples", "regions, first", "last", "near against away, first", "last", "rows"]
    yield Table(header, rows, "Every run")


def _headline(findings: Findings) -> str:
    steps = findings.summary.steps
    if not steps:
        return f"no run of {len(findings.runs):,} has weights whose partition could be made"
    last, at = steps[-1], f"at step {steps[-1].step:,}"
    if len(steps) > 1:
        text = f"regions go from {_told(steps[0].regions)} at step {steps[0].step:,} to **{_told(last.regions)}** {at}"
    else:
        noun = "region" if last.regions.value == 1 else "regions"
        text = f"the slice has **{_told(last.regions)}** {noun} {at}"
    if last.near_density.value is not None:
        near, every = last.near_density.runs, last.regions.runs
        of = "" if near == every else f" in the {near:,} of {count(every, 'run')} that have both"
        text += f"; they are **{_told(last.near_density)}** times as dense near the decision boundary as away from it"
        text += of
    return text + (
        f" (geometric means over {count(last.regions.runs, 'run')})" if last.regions.runs > 1 else ""
    )


def _told(over: Over) -> str:
    low, high = over.interval
    interval = "" if low is None or high is None else f" [{number(_short(low))}, {number(_short(high))}]"
    return f"{number(_short(over.value))}{interval}"


def _cells(over: Over) -> list[Any]:
    low, high = over.interval
    interval = "" if low is None or high is None else f"{number(_short(low))} to {number(_short(high))}"
    return [number(_short(over.value)), interval, over.runs]


def _short(value: float | None) -> float | None:
    """Return a number with three digits that count; whole where it is large."""
    return float(round(value)) if value is not None and abs(value) >= 1000 else rounded(value)


def _figures(findings: Findings) -> Iterator[Figure]:
    if findings.regions is not None and len(findings.regions):
        yield from _pictures(findings)
    if len(findings.summary.steps) > 1:
        yield _curves(findings)


def _pictures(findings: Findings) -> Iterator[Polygons]:
    run = next(run for run in findings.runs if run.run == findings.regions["run"].iloc[0])
    tables = [
        dict(iter(it.groupby("step"))) for it in (findings.regions, findings.polygons, findings.boundary)
    ]
    regions, corners, boundary = tables
    of = f"{run_label(run.run)}, through the training examples {', '.join(map(str, run.examples))}"
    empty = np.empty((0, 2, 2))
    for column, (what, logarithmic, classes) in COLOURS.items():
        if not np.isfinite(findings.regions[column]).any():
            continue
        tilings = [
            Tiling(
                title=f"step {step:,}: {count(row.regions, 'region')}",
                polygons=_split(corners[step]),
                values=regions[step][column].to_numpy(),
                boundary=boundary[step][["x", "y", "to_x", "to_y"]].to_numpy().reshape(-1, 2, 2)
                if step in boundary
                else empty,
                points=np.array(run.points),
            )
            for step, row in ((row.step, row) for row in run.rows)
        ]
        yield Polygons(
            name=f"partition-{column}",
            caption=f"**Regions, by {what}.** The slice of {of} (crosses); its axes are in units of the "
            "inputs. On each polygon the network is affine; the line is the decision boundary.",
            alt=f"Polygons on which the network is affine, coloured by {what}, at {count(len(tilings), 'step')}",
            tilings=tilings,
            unit=what,
            classes=classes,
            logarithmic=logarithmic,
        )


def _split(corners: Any) -> list[np.ndarray]:
    region = corners["region"].to_numpy()
    return np.split(corners[["x", "y"]].to_numpy(), np.flatnonzero(np.diff(region)) + 1)


def _curves(findings: Findings) -> Lines:
    """Return how many regions there are over training, and how much denser they are near the boundary."""
    measured = [run for run in findings.runs if run.rows]

    def curves(of: Callable[[Row], float | None]) -> dict[str, Series]:
        return {
            run.run: Series.of(
                np.array([row.step for row in run.rows]),
                np.array([np.nan if (value := of(row)) is None else value for row in run.rows], float),
            )
            for run in measured
        }

    spread = f" {LINES}" if len(measured) > 2 else ""
    return Lines(
        name="partition",
        caption=f"**Regions over training.** How many the slice has, and how many times as many for an area near the "
        f"decision boundary as away from it.{spread}",
        alt="Number of regions over training, and their density near the decision boundary",
        panels=[
            Panel(title="regions of the slice", curves={"regions": curves(lambda row: row.regions)}),
            Panel(
                title="density near the boundary over that away from it",
                curves={"near against away": curves(lambda row: row.near_density)},
                level=1.0,
            ),
        ],
    )
