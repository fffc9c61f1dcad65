"""What is said of hybrids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean, stdev
from typing import Any

from dynalab.analysis.base import Group
from dynalab.analysis.hybrid.findings import Findings, Over, Point, Summary
from dynalab.core.means import intervals_words, mean_interval
from dynalab.core.words import count, listed, metric_words, number, share, spoken
from dynalab.show.blocks import Block, Response, Say, Table, run_cell

PARTS = {"norm": "the normalisation"}


def reason_of(summary: Summary) -> str:
    """Return a verdict in words."""
    low, high = summary.interval
    latest = summary.latest.at_step
    if high is None:
        told = "it is worse" if summary.verdict == "worse" else "it cannot be told whether it is"
        return f"from the latest step, {latest:,}, on {told} by more than the margin"
    early = "earlier steps were not tried" if high == summary.points[0].at_step else ""
    if not early:
        early = (
            f"from step {low:,} on it is worse" if low is not None else "of earlier steps it cannot be told"
        )
    return f"from step {high:,} on the interval lies within the margin; {early}"


def show(findings: Findings, groups: Sequence[Group]) -> Iterator[Block]:
    """Yield what a reader sees; without groups (a terminal) there is no figure."""
    summary = findings.summary
    yield Say(_headline(summary), headline=True)
    if groups:
        yield _figure(findings)
    name = metric_words(summary.metric)
    rows: list[list[Any]] = []
    for point in summary.points:
        over = point.metrics[summary.metric]
        gap, interval = _gap(over)
        rows.append(
            [
                point.at_step,
                over.runs,
                _short(over.hybrid),
                _short(over.full),
                gap,
                interval,
                spoken(point.verdict),
            ]
        )
    header = ["rest held from", "runs", "hybrid", "full training", "difference", "95% interval", "verdict"]
    caption = (
        f"{name[:1].upper()}{name[1:]} at the end, within {number(summary.margin)} of full training or worse"
    )
    known = [point.metrics[summary.metric] for point in summary.points]
    yield Table(header, rows, f"{caption}; {_intervals(known)}", sortable=False)
    if others := [metric for metric in summary.points[0].metrics if metric != summary.metric]:
        rows = [
            [point.at_step, *(" ".join(filter(None, _cell(point.metrics[metric]))) for metric in others)]
            for point in summary.points
        ]
        overs = [point.metrics[metric] for point in summary.points for metric in others]
        yield Table(
            ["rest held from", *map(metric_words, others)],
            rows,
            f"Differences from full training, with {_intervals(overs)}",
            sortable=False,
        )
    header = ["run", "full training", *(f"from {point.at_step:,}" for point in summary.points)]
    rows = [
        [run_cell(run.run), *(_short(item[summary.metric]) for item in (run.final, *_finals(run)))]
        for run in findings.runs
    ]
    yield Table(header, rows, f"Every run: {name} at the end")
    yield Say(
        "Weights that are held move by exactly 0; the running statistics of a normalisation go on. Runs are compared "
        f"with their own hybrids ({listed(findings.forks) if findings.forks else 'no forks'}).",
        note=True,
    )


def _intervals(overs: Sequence[Over]) -> str:
    return intervals_words((over.runs, over.interval) for over in overs)


def _finals(run: Any) -> list[Any]:
    return [hybrid.final for hybrid in run.hybrids]


def _headline(summary: Summary) -> str:
    low, high = summary.interval
    part = listed([PARTS.get(part, part) for part in summary.keep])
    size = f"{summary.trained:,} of {count(summary.weights, 'weight')}, {share(summary.trained, summary.weights)}"
    point = next((item for item in summary.points if item.at_step == high), summary.latest)
    end, margin = f"{metric_words(summary.metric)} ends", number(summary.margin)
    text = f"**Hybrid:** with {part} alone trained from step **{point.at_step:,}** on ({size}), "
    if high is not None:
        text += f"{end} within {margin} of full training"
    elif summary.verdict == "worse":
        text += f"{end} more than {margin} worse than in full training"
    else:
        text += f"it **cannot be told** whether {end} within {margin} of full training"
    text += f": {_against(point, summary)}"
    if low is not None and high is not None:
        text += f"; from step {low:,} on it is worse"
    return text + "."


def _against(point: Point, summary: Summary) -> str:
    over = point.metrics[summary.metric]
    if not over.runs:
        return "no hybrid ended well"
    gap, interval = _cell(over)
    means = f" (means over {count(over.runs, 'run')})" if over.runs > 1 else ""
    lost = summary.runs - over.runs
    left = f", {count(lost, 'run')} without a hybrid" if lost else ""
    return f"{_short(over.hybrid)} against {_short(over.full)}, **{gap}**{interval and f' {interval}'}{means}{left}"


def _gap(over: Over) -> tuple[str | None, str]:
    low, high = over.interval
    interval = "" if low is None or high is None else f"{_signed(low)} to {_signed(high)}"
    return None if over.difference is None else _signed(over.difference), interval


def _cell(over: Over) -> tuple[str, str]:
    low, high = over.interval
    interval = "" if low is None or high is None else f"[{_signed(low)}, {_signed(high)}]"
    return number(None) if over.difference is None else _signed(over.difference), interval


def _signed(value: float) -> str:
    return f"{value:+.2g}" if value else "0"


def _short(value: float | None) -> str:
    return number(None if value is None else float(f"{value:.4g}"))


def _figure(findings: Findings) -> Response:
    summary, metric = findings.summary, findings.summary.metric
    values = [
        [run.hybrids[place].final[metric] for run in findings.runs] for place in range(len(summary.points))
    ]
    full = [value for run in findings.runs if (value := run.final[metric]) is not None]
    spread = stdev(full) if len(full) > 1 else 0.0
    middle = fmean(full)
    part = listed([PARTS.get(part, part) for part in summary.keep])
    return Response(
        name="hybrid",
        caption=f"**The end of hybrids.** After the step along the axis {part} alone is trained. A dot a run; the line "
        "joins means, with bars for their 95% intervals; the band is full training, mean and standard deviation.",
        alt=f"{metric_words(metric)} of hybrids over the step from which on the rest is held, beside full training",
        key="step from which on the rest is held",
        at=[point.at_step for point in summary.points],
        values=[[value for value in row if value is not None] for row in values],
        estimates=[point.metrics[metric].hybrid for point in summary.points],
        intervals=[_interval(row) for row in values],
        axis=metric_words(metric),
        band=(middle - spread, middle, middle + spread),
        beside="full training",
    )


def _interval(row: Sequence[float | None]) -> tuple[float | None, float | None]:
    import numpy as np

    return mean_interval(np.array([value for value in row if value is not None]))
