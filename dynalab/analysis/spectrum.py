"""The spectrum of the Hessian over training, from the bins that the probe `spectrum` records.

An eigenvalue counts as near zero where its size is at most a share of its row's largest, and as negative below that:
the bulk about 0 is not resolved finer. A bin counts as negative where all of it lies below; one that reaches within, as
near zero, and so does the one around 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from dynalab.analysis.base import Group, Keys, Needs, Run, key, runs_of
from dynalab.core.stats import Spread
from dynalab.core.words import count, number, share
from dynalab.curvature.bins import columns_of, names
from dynalab.probes import spectrum as probe
from dynalab.show.blocks import Block, Cell, Heatmap, Map, Say, Table, run_cell

VERSION = 3
FIGURES = ("spectrum",)
LARGEST = ("eigenvalue_max", "sharpness")
# Of the preconditioned Hessian is the threshold of an adaptive optimizer, which this is not.
PRECONDITIONED = "preconditioned_sharpness"
NEEDS = Needs(
    columns=(names(1)[0], LARGEST),
    optional=("stability_threshold", PRECONDITIONED, *names(probe.MOST_BINS)[1:]),
    record="'probes=[weights,gradients,spectrum]'",
    statuses=("done", "diverged"),
)
MAPS = 4  # that are drawn


@dataclass(frozen=True, kw_only=True)
class Config(Keys):
    """Keys of the analysis."""

    near_zero: float = key(
        0.01, "share of a row's largest eigenvalue up to which one is near zero", above=0, below=1
    )


@dataclass(frozen=True)
class Row:
    """The spectrum of a row: its largest eigenvalue, and shares of all of them."""

    step: int  # its step
    largest: float  # largest eigenvalue, loss/weight^2
    negative: float  # share of eigenvalues that are negative
    near_zero: float  # share of those that are near zero


@dataclass(frozen=True)
class RunFindings:
    """What is found of a run; `verdict` is `measured`, or `insufficient_data` where no row can be read."""

    run: str  # its id
    verdict: str  # `measured`, or `insufficient_data` where no row can be read
    reason: str  # in words
    rows: int = 0  # rows that can be read
    first: Row | None = None  # the first of them
    last: Row | None = None  # the last of them


@dataclass(frozen=True)
class Over:
    """A row over runs."""

    largest: Spread  # of the largest eigenvalue
    negative: Spread  # of the share of negative ones
    near_zero: Spread  # of the share near zero


@dataclass(frozen=True)
class Summary:
    """First and last rows over the runs that were measured."""

    near_zero: float  # the key: share of the largest eigenvalue that counts as near zero
    first: Over
    last: Over


@dataclass(frozen=True)
class Findings:
    """What is found of every run, and over them."""

    runs: tuple[RunFindings, ...]
    summary: Summary


def analyse(groups: Sequence[Group], config: Config) -> Findings:
    """Read the first and the last spectrum of every run."""
    judged = tuple(_judge(run, config.near_zero) for run in runs_of(groups))
    measured = [run for run in judged if run.first and run.last]
    first, last = (
        Over(*(Spread.of([getattr(row, name) for row in rows]) for name in Over.__dataclass_fields__))
        for rows in ([run.first for run in measured], [run.last for run in measured])
    )
    return Findings(judged, Summary(config.near_zero, first, last))


def grid_of(config: Mapping[str, Any]) -> np.ndarray:
    """Return the edges of the bins that a resolved configuration says, shape (B + 1,)."""
    section = (config.get("probe") or {}).get("spectrum") or {}
    keys = {name: section[name] for name in ("low", "high", "per_decade") if section.get(name)}
    return np.asarray(probe.Config(**keys).edges())


def rows_of(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Return steps, (T,), and shares, (T, B), of the rows that have all bins; none where they are not of its grid."""
    bins = columns_of(list(run.series))
    if len(bins) != len(grid_of(run.config)) - 1:
        return np.empty(0, np.int64), np.empty((0, len(bins)))
    series = [run.series[name] for name in bins]
    steps = series[0].steps
    shares = np.stack([column.at(steps) for column in series], axis=1)
    whole = np.isfinite(shares).all(axis=1)
    return steps[whole], shares[whole]


def _judge(run: Run, near_zero: float) -> RunFindings:
    (steps, shares), grid, largest = rows_of(run), grid_of(run.config), run.first(*LARGEST)
    top = np.full(len(steps), np.nan) if largest is None else largest.at(steps)
    rows = np.flatnonzero(np.isfinite(top))
    if not len(rows):
        fits = len(columns_of(list(run.series))) == len(grid) - 1
        why = (
            "no row has all bins and a largest eigenvalue"
            if fits
            else "its bins are not of its configuration"
        )
        return RunFindings(run.id, "insufficient_data", why)
    first, last = (
        read(int(steps[at]), float(top[at]), shares[at], grid, near_zero) for at in (rows[0], rows[-1])
    )
    return RunFindings(run.id, "measured", count(len(rows), "row"), len(rows), first, last)


def read(step: int, largest: float, shares: np.ndarray, grid: np.ndarray, near_zero: float) -> Row:
    """Return what the shares of the bins, (B,), between the edges of a grid, (B + 1,), say of a row."""
    middle = (len(grid) - 1) // 2
    # Rounding of a bound that is one of the edges.
    within = np.minimum(np.abs(grid[:-1]), np.abs(grid[1:])) < near_zero * abs(largest) * (1 - 1e-9)
    within[middle] = True
    below = ~within & (np.arange(len(shares)) < middle)
    return Row(step, largest, float(shares[below].sum()), float(shares[within].sum()))


def show(findings: Findings, groups: Sequence[Group]) -> Iterator[Block]:
    """Yield what a reader sees; without groups (a terminal) there is no figure."""
    yield Say(f"**Spectrum of the Hessian:** {_headline(findings)}.", headline=True)
    if figure := _figure(findings, runs_of(groups)):
        yield figure
    header = ["run", "rows", "first step", "last step"]
    for name in ("largest", "negative", "near zero"):
        header += [f"{name}, first", f"{name}, last"]
    rows = []
    for run in findings.runs:
        step, largest, *shares = (
            [getattr(row, name, None) for row in (run.first, run.last)]
            for name in ("step", "largest", "negative", "near_zero")
        )
        cells = [Cell(value, "" if value is None else share(value, 1)) for value in chain(*shares)]
        amount = Cell(run.rows, tone="" if run.rows else "quiet")
        rows.append([run_cell(run.run), amount, *step, *largest, *cells])
    yield Table(header, rows, "Every run, in its first and its last row")
    if odd := [run for run in findings.runs if run.verdict != "measured"]:
        reasons = [[run_cell(run.run), run.reason] for run in odd]
        yield Table(["run", "why"], reasons, "Not measured")


def _headline(findings: Findings) -> str:
    summary, first, last = findings.summary, findings.summary.first, findings.summary.last
    if last.largest.median is None:
        return f"no row of {count(len(findings.runs), 'run')} can be read"
    shares = [
        f"**{share(spread.median or 0.0, 1)}** {name}"
        for spread, name in ((last.negative, "negative"), (last.near_zero, "near zero"))
    ]
    of = f" (medians over {count(last.largest.runs, 'run')})" if last.largest.runs > 1 else ""
    rest = f"{' and '.join(shares)}, of a size up to the bin with {share(summary.near_zero, 1)} of the largest{of}"
    end = f"**{number(last.largest.median)}**"
    if all(run.rows <= 1 for run in findings.runs):
        return f"the largest eigenvalue is {end}; {rest}; a single row shows no movement"
    return f"the largest eigenvalue goes from {number(first.largest.median)} to {end}; at the end {rest}"


def _figure(findings: Findings, recorded: Sequence[Run]) -> Heatmap | None:
    """Return the maps of the first runs that have rows, on the bins of the first of these."""
    judged = {run.run for run in findings.runs}
    rows = {run.id: rows_of(run) for run in recorded if run.id in judged}
    runs = [run for run in recorded if run.id in rows and len(rows[run.id][0])]
    if not runs:
        return None
    grid = grid_of(runs[0].config)
    runs = [run for run in runs if np.array_equal(grid_of(run.config), grid)][:MAPS]
    # The sharpness is of more products where both were recorded.
    largest = [run.first(*reversed(LARGEST)) for run in runs]
    limits = [run.first("stability_threshold") for run in runs]
    if any(PRECONDITIONED in run.series for run in runs):
        limits = [None] * len(runs)
    part = f" ({len(runs)} of {count(len(recorded), 'run')})" if len(runs) < len(recorded) else ""
    return Heatmap(
        name="spectrum",
        caption=f"**Spectral density of the Hessian over time{part}.** A column a row of the probe, a bin a share of "
        "the eigenvalues; logarithmic on either side of 0. Most lie near 0, where bins are finer than what is "
        "resolved; a few stand out above.",
        alt="Eigenvalues of the Hessian over training, as a map",
        maps=[
            Map(run=run.id, steps=rows[run.id][0], values=rows[run.id][1], line=top, dashed=limit)
            for run, top, limit in zip(runs, largest, limits, strict=True)
        ],
        edges=grid,
        line="largest eigenvalue" if any(item is not None for item in largest) else "",
        dashed="threshold" if any(item is not None for item in limits) else "",
    )
