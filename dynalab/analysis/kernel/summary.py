"""What is said of a tangent kernel over training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dynalab.analysis.base import Group, Series
from dynalab.analysis.directions.findings import Over
from dynalab.analysis.kernel.findings import NAMES, Findings, Name, Summary
from dynalab.core.words import LINES, count, number, rounded, spoken
from dynalab.show.blocks import (
    Block,
    Figure,
    Lines,
    Panel,
    Say,
    Similarities,
    SimilarityMap,
    Table,
    run_cell,
    run_label,
)

PLACES = "weights in other places"
# Of a number: what it is, its unit, and what it is held against.
WORDS: Mapping[Name, tuple[str, str, str]] = {
    "distance": ("distance from the first kernel", "", PLACES),
    "turned": ("sum of the angles from row to row", "°", "updates in other places"),
    "alignment": ("alignment with the labels", "", "permuted labels"),
    "alignment_of_weights": ("alignment with the labels", "", PLACES),
    "cone_angle": ("angle of the cone", "°", "a random walk"),
    "after_accuracy": ("accuracy of the after-kernel", "", PLACES),
    "after_gain": ("accuracy of the after-kernel", "", "the first kernel"),
}


def show(findings: Findings, groups: Sequence[Group]) -> Iterator[Block]:
    """Yield what a reader sees; without groups (a terminal) there is no figure."""
    summary = findings.summary
    yield Say(f"**Tangent kernel:** {_headline(findings)}.", headline=True)
    if groups:
        yield from _figures(findings)
    rows: list[list[Any]] = []
    for name in NAMES:
        over, (words, unit, null) = summary.measures[name], WORDS[name]
        if over.runs:
            rows.append([words, *_values(over, unit), null, *_excess(over, unit)])
    header = ["in the last row", "measured", "null", "of", "excess", "95% interval"]
    yield Table(header, rows, f"Against nulls{_over(summary)}", sortable=False)
    rows = []
    for lag, landmark in (
        (summary.after_memorising, "memorises"),
        (summary.after_generalising, "generalises"),
    ):
        if lag.median is not None:
            rows.append([f"a run {landmark}", lag.runs, lag.median, _interval(lag.interval)])
    if rows:
        yield Table(
            ["the kernel comes to move slowly after", "runs", "by steps (median)", "95% interval"],
            rows,
            "Against landmarks",
            sortable=False,
        )
    header = ["run", "verdict", "slow from step", "fastest up to", "distance", "alignment", "after-kernel"]
    short = any(run.verdict == "insufficient_data" for run in findings.runs)
    rows = []
    for run in findings.runs:
        values = [
            run.measures[name].value if run.measures else None
            for name in ("distance", "alignment", "after_accuracy")
        ]
        rows.append(
            [
                *(run_cell(run.run), spoken(run.verdict), run.settle_step, run.fastest_step),
                *map(rounded, values),
                *(rounded(run.network_accuracy), run.memorised_step, run.generalised_step, run.rows),
                *([run.reason if run.verdict == "insufficient_data" else ""] if short else []),
            ]
        )
    yield Table([*header, "network", "memorised", "generalised", "rows", *[""] * short], rows, "Every run")
    some = count(findings.outputs, "output")
    if findings.outputs < findings.all_outputs:
        some = f"{findings.outputs:,} of {findings.all_outputs:,} outputs"
    why = {run.verdict: tail for run in findings.runs if (tail := run.reason.partition("; ")[2])}
    told = "".join(f" {(spoken(verdict) or '').capitalize()}: {tail}." for verdict, tail in why.items())
    judged = f"; regression is from their labels to {findings.held_out:,} held-out examples"
    yield Say(
        f"The kernel is of {some} on {findings.probes:,} training examples of each run"
        f"{judged if findings.summary.measures['after_accuracy'].runs else ''}. Weights and updates in other places "
        f"are the run's own, of which the entries of every tensor have been permuted.{told}",
        note=True,
    )


def _headline(findings: Findings) -> str:
    summary = findings.summary
    lazy = summary.verdicts.get("lazy", 0)
    untold = summary.verdicts.get("cannot_tell", 0)
    moving = summary.runs - lazy - untold
    distance = summary.measures["distance"]
    said = []
    if lazy:
        which = f" in {lazy:,} of {count(summary.runs, 'run')}" if summary.runs > 1 else ""
        said.append(f"it **hardly moves**{which}")
    if moving:
        said.append(_settling(summary, moving, lazy + untold > 0))
    if untold:
        which = f" in {untold:,} of {count(summary.runs, 'run')}" if summary.runs > 1 else ""
        said.append(f"whether it comes to move slowly **cannot be told**{which}")
    said.append(
        f"it ends at a distance of **{_short(distance.value)}** from the first one ({_short(distance.null)} with "
        f"{PLACES})"
    )
    alignment, after = summary.measures["alignment"], summary.measures["after_gain"]
    if alignment.runs:
        said.append(
            f"alignment with the labels goes from {_short(summary.first_alignment)} to "
            f"**{_short(alignment.value)}** ({_short(alignment.null)} with permuted ones)"
        )
    if after.runs:
        low, high = after.interval
        known = f" [{_signed(low)}, {_signed(high)}]" if low is not None and high is not None else ""
        said.append(
            f"regression with the last kernel is right on **{_short(after.value)}** of held-out examples, with the "
            f"first on {_short(after.null)} ({_signed(after.excess)}{known})"
        )
    return "; ".join(said) + _over(summary)


def _settling(summary: Summary, moving: int, others: bool = False) -> str:
    """Return when kernels come to move slowly; `others`: beside runs in which they hardly move."""
    time = summary.settles
    those = "the other " if others else "the " if moving == 1 else ""
    those += "run" if moving == 1 else f"{moving:,} runs"
    if not time.reached:
        return f"it moves on up to the last row in {'all ' if moving > 1 and not others else ''}{those}"
    of = f"in {time.reached:,} of {those}" if moving > 1 else f"in {those}" if others else ""
    if time.median_step is None:
        return f"it comes to move slowly {of}, fewer than half"
    text = f"{of} it **moves slowly** from step **{time.median_step:,.0f}** on".lstrip()
    if bounds := _interval(time.interval):
        text += f" [{bounds}]"
    lag = summary.after_memorising
    if lag.median is not None:
        way = "after" if lag.median >= 0 else "before"
        text += (
            f", {abs(lag.median):,.0f} steps {way} {'the run memorises' if moving == 1 else 'they memorise'}"
        )
    return text


def _over(summary: Summary) -> str:
    return f" (means over {count(summary.runs, 'run')})" if summary.runs > 1 else ""


def _short(value: float | None) -> str:
    # What is not 0 by the rounding of float64 alone is.
    return number(rounded(0.0 if value is not None and abs(value) < 1e-12 else value))


def _signed(value: float | None) -> str:
    return number(None) if value is None else f"{value:+.2g}" if abs(value) >= 5e-5 else "0"


def _interval(bounds: Sequence[float | None]) -> str:
    low, high = bounds
    return "" if low is None or high is None else f"{low:,.0f} to {high:,.0f}"


def _values(over: Over, unit: str) -> list[str]:
    return [f"{_short(value)}{unit}" for value in (over.value, over.null)]


def _excess(over: Over, unit: str) -> list[str]:
    low, high = over.interval
    known = "" if low is None or high is None else f"{_signed(low)}{unit} to {_signed(high)}{unit}"
    return [f"{_signed(over.excess)}{unit}", known]


def _figures(findings: Findings) -> Iterator[Figure]:
    tables = dict(iter(findings.curves.groupby("run", sort=False)))

    def curves(**names: str) -> dict[str, dict[str, Series]]:
        made: dict[str, dict[str, Series]] = {}
        for column, label in names.items():
            own = {
                run: Series.of(table["step"].to_numpy(), table[column].to_numpy())
                for run, table in tables.items()
                if table[column].notna().any()
            }
            if own:
                made[label] = own
        return made

    panels = [
        Panel(
            title="distance from the first kernel",
            curves=curves(distance="measured", distance_null=PLACES),
        ),
        Panel(
            title="turn of the kernel, degrees a step",
            curves=curves(velocity="measured", velocity_null="updates in other places"),
            logarithmic=True,
        ),
        Panel(
            title="alignment with the labels",
            curves=curves(alignment="measured", alignment_permuted="permuted labels", alignment_null=PLACES),
        ),
        Panel(
            title="accuracy on held-out examples",
            curves=curves(after="regression with the kernel", after_null=PLACES, network="the network"),
        ),
    ]
    summary = findings.summary
    spread = f" {LINES}" if len(tables) > 2 else ""
    yield Lines(
        name="kernel",
        caption="**The tangent kernel over training.** How far it is from its first, how fast it turns, how much alike "
        "it is to the labels, and how well regression with it does. Nulls: weights, or updates, whose entries have "
        f"changed places, and permuted labels.{spread}",
        alt="Distance, turn, alignment and accuracy of the tangent kernel over training",
        panels=[panel for panel in panels if panel.curves],
        marks={"moves slowly": summary.settles.median_step},
    )
    yield _map(findings)


def _map(findings: Findings) -> Similarities:
    """Return the map of the first run, and the mean over the runs that have the same steps."""
    squares: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for run, table in findings.maps.groupby("run", sort=False):
        steps = np.unique(table["step"])
        values = np.full((len(steps), len(steps)), np.nan)
        row, column = (np.searchsorted(steps, table[axis]) for axis in ("step", "other"))
        values[row, column] = values[column, row] = table["cosine"]
        squares[str(run)] = steps, values
    first, (steps, values) = next(iter(squares.items()))
    maps = [SimilarityMap(title=run_label(first), steps=steps, values=values)]
    same = [own for at, own in squares.values() if np.array_equal(at, steps)]
    if len(same) > 1:
        mean = np.stack(same).mean(0)
        maps.append(SimilarityMap(title=f"mean of {len(same):,} runs", steps=steps, values=mean))
    return Similarities(
        name="kernel-maps",
        caption="**Kernels of all pairs of steps.** Their cosines: a block along the diagonal is a time over which the "
        "kernel stays.",
        alt="Cosines between the tangent kernels of all pairs of steps",
        maps=maps,
    )
