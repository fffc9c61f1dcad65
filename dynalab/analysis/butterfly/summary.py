"""What is said of forks whose weights were moved a little."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from dynalab.analysis.base import Group
from dynalab.analysis.butterfly.findings import Bounds, Findings, Mean, Name, Summary
from dynalab.core.words import count, listed, number, p_value, rounded, spoken
from dynalab.show.blocks import Block, Response, Say, Table, run_cell

KINDS = {
    "gaussian": "every weight moved by {} standard deviations",
    "one": "one weight moved by {} standard deviations",
    "direction": "all weights moved by {} standard deviations along one direction",
}
WORDS: dict[Name, str] = {
    "accuracy_barrier": "barrier of errors",
    "barrier": "barrier of the loss",
    "churn": "examples in other classes",
    "distance": "distance of weights",
    "function_distance": "distance of outputs",
}
SHARES: tuple[Name, ...] = ("accuracy_barrier", "churn")


def show(findings: Findings, groups: Sequence[Group]) -> Iterator[Block]:
    """Yield what a reader sees; without groups (a terminal) there is no figure."""
    summary = findings.summary
    shown = [
        name
        for name in WORDS
        if summary.between_seeds[name].runs or any(p.apart[name].runs for p in summary.points)
    ]
    yield Say(f"**Butterfly effect:** {_headline(summary)}.", headline=True)
    if groups:
        for name in shown[:3]:
            yield _figure(findings, name)
    rows: list[list[Any]] = []
    for point in summary.points:
        low, high = point.share_interval
        share = "" if low is None or high is None else f"{number(rounded(low))} to {number(rounded(high))}"
        rows.append(
            [
                f"{point.at_step:,}",
                f"{point.connected:,} of {point.runs:,}",
                share,
                *(_cell(point.apart[name], name) for name in shown),
            ]
        )
    if any(mean.runs for mean in summary.between_seeds.values()):
        rows.append(
            ["between two seeds", "", "", *(_cell(summary.between_seeds[name], name) for name in shown)]
        )
    header = ["moved at step", "connected", "95% interval", *(WORDS[name] for name in shown)]
    yield Table(
        header, rows, "Forks against their runs at the end, means over runs [95% intervals]", sortable=False
    )
    if summary.against:
        rows = []
        for item in summary.against:
            low, high = item.share_interval
            rows.append(
                [
                    (spoken(item.landmark) or "").removesuffix(" step"),
                    f"{item.earlier:,} of {item.runs:,}",
                    ""
                    if low is None or high is None
                    else f"{number(rounded(low))} to {number(rounded(high))}",
                    None if item.lag.median is None else f"{item.lag.median:+,.0f}",
                    _signed(item.lag.interval),
                    p_value(item.p),
                    p_value(item.p_adjusted),
                ]
            )
        header = [
            "landmark",
            "connected by then",
            "95% interval",
            "lag (median)",
            "95% interval",
            "p",
            "adjusted",
        ]
        yield Table(
            header,
            rows,
            "The step from which forks stay connected against landmarks; p: no nearer to a run's own than to others'",
            sortable=False,
        )
    rows = []
    for run in findings.runs:
        values = [getattr(fork.apart, summary.measure) for fork in run.forks]
        step = run.connected_step
        rows.append([run_cell(run.run), spoken(run.verdict), step, *map(rounded, values)])
    names = [f"at {point.at_step:,}" for point in summary.points]
    yield Table(
        ["run", "verdict", "connected from", *names], rows, f"Every run: {WORDS[_measure(summary)]} of forks"
    )
    yield Say(_note(findings), note=True)


def _signed(bounds: Bounds) -> str:
    low, high = (None if end is None else f"{end:+,.0f}" for end in bounds)
    if low is None or high is None:
        return f"at least {low}" if low else f"at most {high}" if high else ""
    return f"{low} to {high}"


def _measure(summary: Summary) -> Name:
    return "barrier" if summary.measure == "barrier" else "accuracy_barrier"


def _headline(summary: Summary) -> str:
    time = summary.connected
    moved = KINDS[summary.kind].format(f"{summary.scale:g}")
    last = summary.points[-1]
    text = f"with {moved}, forks end in the same basin as their run "
    if time.median_step is not None:
        low, high = time.interval
        known = f" [{low:,.0f} to {high:,.0f}]" if low is not None and high is not None else ""
        first = time.median_step == summary.points[0].at_step
        text += f"from step **{time.median_step:,.0f}** on{known}"
        text += ", the first that was tried" if first else ""
        if summary.runs > 1:
            text += f" ({time.reached:,} of {count(summary.runs, 'run')} by step {last.at_step:,})"
    elif time.reached:
        text += (
            f"in {time.reached:,} of {count(summary.runs, 'run')}, fewer than half, by step {last.at_step:,}"
        )
    else:
        text += f"from **none** of the steps on that were tried, up to {last.at_step:,}"
    name = _measure(summary)
    early = summary.points[0]
    text += f"; moved at step {early.at_step:,}, the {WORDS[name]} is {_bold(early.apart[name], name)}"
    seeds = summary.between_seeds[name]
    if seeds.runs:
        text += f", between two seeds {_cell(seeds, name)}"
        if seeds.mean is not None and seeds.mean <= summary.threshold:
            text += f": two seeds are connected as well, up to {number(rounded(summary.threshold))}, so that this "
            text += "does not tell basins apart"
    return text


def _bold(mean: Mean, name: Name) -> str:
    value, _, known = _cell(mean, name).partition(" ")
    return f"**{value}** {known}".rstrip()


def _cell(mean: Mean, name: Name) -> str:
    low, high = _interval(mean, name)
    known = f" [{_short(low)}, {_short(high)}]" if low is not None and high is not None else ""
    return f"{_short(mean.mean)}{known}"


def _interval(mean: Mean, name: Name) -> Bounds:
    """Return a mean's interval as far as there are values: none is below 0, no share above 1."""
    low, high = mean.interval
    if high is not None and name in SHARES:
        high = min(high, 1.0)
    return (None if low is None else max(low, 0.0)), high


def _short(value: float | None) -> str:
    return number(None if value is None else float(f"{value:.2g}"))


def _note(findings: Findings) -> str:
    summary = findings.summary
    control = "No fork that was not moved was trained. "
    if summary.control is not None:
        control = "Forks that were not moved are their runs to the bit: every number of theirs is 0. "
        if summary.control:
            control = f"Forks that were not moved differ from their runs by up to {number(summary.control)}. "
    return (
        f"{control}Connected: the {WORDS[_measure(summary)]} on training examples is at most "
        f"{number(rounded(summary.threshold))}. A run whose last fork is not counts as later. Forks: "
        f"{listed(findings.forks)}."
    )


def _figure(findings: Findings, name: Name) -> Response:
    summary = findings.summary
    seeds = summary.between_seeds[name]
    band = None
    low, high = _interval(seeds, name)
    if seeds.mean is not None and low is not None and high is not None:
        band = (low, seeds.mean, high)
    points = summary.points
    beside = "; the band is what two seeds have, mean and 95% interval" if band else ""
    return Response(
        name=f"butterfly-{name.replace('_', '-')}",
        caption=f"**{WORDS[name].capitalize()}.** Between the ends of runs and of their forks, over the step at which "
        f"these were moved. A dot a run; the line joins means, with bars for their 95% intervals{beside}.",
        alt=f"{WORDS[name]} between runs and forks over the step at which these were moved",
        key="step at which weights were moved",
        at=[point.at_step for point in points],
        values=[
            [value for run in findings.runs if (value := getattr(run.forks[place].apart, name)) is not None]
            for place in range(len(points))
        ],
        estimates=[point.apart[name].mean for point in points],
        intervals=[_interval(point.apart[name], name) for point in points],
        axis=WORDS[name],
        band=band,
        beside="two seeds" if band else "",
    )
