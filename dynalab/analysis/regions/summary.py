"""What is said of the regions around points over training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from dynalab.analysis.base import Group, Series
from dynalab.analysis.regions.findings import NAMES, Findings, Lag, PhaseSummary
from dynalab.analysis.regions.phases import COUNTED, Phase, counts_few
from dynalab.analysis.regions.words import LABELS, POINTS, VERDICTS, bounds
from dynalab.core.words import LINES, count, number, rounded
from dynalab.show.blocks import Block, Cell, Lines, Panel, Say, Table, run_cell


def show(findings: Findings, groups: Sequence[Group]) -> Iterator[Block]:
    """Yield what a reader sees; without groups (a terminal) there is no figure."""
    yield Say(f"**Linear regions:** {_headline(findings)}.", headline=True)
    if groups and findings.summary.runs:
        yield _figure(findings)
    rows = [
        _row(POINTS[of.points], LABELS[name], of.phases[name], of.runs)
        for of in findings.summary.sets
        for name in NAMES
    ]
    if rows:
        header = ["around", "phase", "runs", "sets in at step", "95% interval", "ends at step", "change"]
        header += ["after memorising", "after generalising"]
        yield Table(header, rows, "Phases of local complexity (median steps)", sortable=False)
    if findings.summary.runs:
        yield Say(_control(findings), note=True)
    table = []
    for run in findings.runs:
        train = run.train
        onsets = [_onset(getattr(train, name)) if train else None for name in NAMES]
        values = [train.first, train.highest, train.last] if train else [None] * 3
        verdict = run.verdict.replace("_", " ")
        table.append(
            [
                *(run_cell(run.run), verdict, *map(rounded, values), *onsets),
                *(run.memorised_step, run.generalised_step, run.reason),
            ]
        )
    header = ["run", "around training points", "first", "highest", "last", *LABELS.values(), "memorised"]
    about = (
        "Every run; in brackets the steps between which its curve cannot be told from where the phase sets in"
    )
    yield Table([*header, "generalised", "rows"], table, about)


def _headline(findings: Findings) -> str:
    sets = {of.points: of for of in findings.summary.sets}
    if "train" not in sets:
        return f"no run of {len(findings.runs):,} has the rows that phases take"
    train = sets["train"]
    judged = [run.train for run in findings.runs if run.train]
    if all(own.lowest == own.highest for own in judged):
        rows = f"every row of {count(len(judged), 'run')}" if len(judged) > 1 else "every row"
        text = f"around training points **nothing changes**: local complexity is the same in {rows}"
        return text + _one_point(findings)
    most = max(train.verdicts, key=lambda verdict: train.verdicts[verdict])
    n = train.verdicts[most]
    of = f"in {n:,} of {count(train.runs, 'run')}" if train.runs > 1 else ""
    text = f"around training points local complexity **{VERDICTS[most]}** {of}".rstrip()
    if most == "cannot_tell" and 2 * sum(counts_few(own.highest, findings.points) for own in judged) > len(
        judged
    ):
        text = f"around training points **no phase can be told** {of}".rstrip()
        text += f", whose rows count fewer than {COUNTED} units around all points together"
    second, ascent = train.phases["second_descent"], train.phases["ascent"]
    if second.onset.reached:
        text += f"; the second descent {_when(second)}"
    elif ascent.onset.reached:
        text += f"; the ascent {_when(ascent)}, and no second descent is seen"
    if train.last_to_first is not None:
        text += f"; local complexity ends at **{number(rounded(train.last_to_first))}** times its first value"
        text += bounds(train.last_to_first_interval, brackets=True)
    return text + _one_point(findings)


def _one_point(findings: Findings) -> str:
    return (
        "; one point has no spread over points, so that counts have no interval"
        if findings.points == 1
        else ""
    )


def _when(phase: PhaseSummary) -> str:
    time = phase.onset
    if time.median_step is None:
        return f"is seen in {count(time.reached, 'run')}, in fewer than half"
    within = bounds(time.interval, brackets=True)
    low, high = phase.onset_within
    if not within and low is not None and high is not None:
        # Of few runs there is no interval of the median: then how close the runs' own rows tell it.
        within = f", told to between {number(rounded(low))} and {number(rounded(high))}"
    return f"sets in at step **{time.median_step:,.0f}**{within}{_lags(phase)}"


def _lags(phase: PhaseSummary) -> str:
    lag = phase.after_memorising
    if lag.median is None:
        return ""
    way, ends = "after", list(lag.interval)
    low, high = ends
    if low is not None and high is not None and low <= 0 <= high:
        return (
            f"; whether before or after the run memorises cannot be told ({low:+,.0f} to {high:+,.0f} steps)"
        )
    if lag.median < 0:
        # Of steps before it, as the number itself.
        way, ends = "before", [None if bound is None else -bound for bound in reversed(ends)]
    return f", {abs(lag.median):,.0f}{bounds(ends, brackets=True)} steps {way} the run memorises"


def _onset(phase: Phase | None) -> Cell | None:
    """Return when a phase of a run sets in, and between which steps its curve cannot be told from its extreme there."""
    if phase is None:
        return None
    return Cell(phase.onset_step, f"{phase.onset_step:,}{bounds(phase.onset_interval, brackets=True)}")


def _row(around: str, name: str, phase: PhaseSummary, runs: int) -> list[Any]:
    low, high = phase.onset.interval
    ends = phase.end.median_step
    return [
        around,
        name,
        f"{phase.onset.reached:,} of {runs:,}",
        phase.onset.median_step,
        "" if low is None or high is None else f"{low:,.0f} to {high:,.0f}",
        ends,
        "" if phase.change is None else f"{phase.change:+.0%}",
        _lag(phase.after_memorising),
        _lag(phase.after_generalising),
    ]


def _lag(lag: Lag) -> str:
    return "" if lag.median is None else f"{lag.median:+,.0f}{bounds(lag.interval, brackets=True)}"


def _control(findings: Findings) -> str:
    text = "That a phase comes after memorising does not say that generalising is its cause: the same training on "
    text += "random labels is the control. `task.label_noise=0,0.9` trains both (an image task of ten classes); a page "
    text += "of both holds them against each other."
    if findings.radii:
        text += f" Counted in neighbourhoods of radius {findings.radii[0]:g}"
        text += f", around {count(findings.points, 'point')} of each set." if findings.points else "."
    return text


def _figure(findings: Findings) -> Lines:
    judged = {run.run for run in findings.runs if run.train}
    tables = {
        name: {run: own for run, own in table.groupby("run", sort=False) if run in judged}
        for name, table in findings.curves.groupby("points", sort=False)
    }

    def curves(column: str) -> dict[str, dict[str, Series]]:
        return {
            POINTS[name]: {
                run: Series.of(own["step"].to_numpy(), own[column].to_numpy()) for run, own in of.items()
            }
            for name, of in tables.items()
            if any(own[column].notna().any() for own in of.values())
        }

    panels = [
        Panel(
            title="local complexity: units that change sign near a point", curves=curves("local_complexity")
        )
    ]
    densities = [name for name in findings.curves.columns if name.startswith("density")]
    # At the first radius it is the local complexity but for a factor: another radius says what that one does not.
    panels.append(Panel(title=_density(densities[-1], findings), curves=curves(densities[-1])))
    summary = findings.summary
    marks = {"memorised": summary.memorised.median_step, "generalised": summary.generalised.median_step}
    spread = f" {LINES}" if len(judged) > 2 else ""
    return Lines(
        name="regions",
        caption="**Linear regions over training.** Units that change sign near training, held-out and random points, "
        "and the density of the boundaries of regions, which depends neither on the radius nor on the number of "
        f"directions where it is flat in both. Dashed: median step at which runs memorised and generalised.{spread}",
        alt="Local complexity and density of regions over training around three sets of points",
        panels=panels,
        marks=marks,
    )


def _density(column: str, findings: Findings) -> str:
    at = f", at radius {findings.radii[-1]:g}" if findings.radii else ""
    return f"density of regions, per unit of the inputs{at}"
