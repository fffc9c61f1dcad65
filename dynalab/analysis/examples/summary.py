"""What is said of examples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from dynalab.analysis.base import Group
from dynalab.analysis.examples.findings import Bounds, Difficulty, Findings, Row
from dynalab.analysis.examples.settings_summary import compared
from dynalab.core.runs import Series
from dynalab.core.words import count, number, steps_words
from dynalab.show.blocks import Block, Cell, Lines, Panel, Say, Table, run_cell

SHOWN = 12  # rows of training that a terminal has room for
WORDS = {
    "models": "most of it is the models' own",
    "test_set": "most of it is the luck of the test set",
    "cannot_tell": "which of the two is more cannot be told",
}


def show(findings: Findings, groups: Sequence[Group]) -> Iterator[Block]:
    """Yield what a reader sees; without groups (a terminal) there is no figure."""
    if findings.settings:
        yield from compared(findings, groups)
    else:
        yield from _of_one(findings, groups)
    for name, examples in (("hardest", findings.hardest), ("easiest", findings.easiest)):
        yield _examples(name, examples, findings.common)


def _of_one(findings: Findings, groups: Sequence[Group]) -> Iterator[Block]:
    end = findings.summary
    yield Say(f"**Test-set noise:** {_split(end)}.", headline=True)
    yield Say(_learnt(findings))
    if groups and (figure := _figure(findings)):
        yield figure
    rows = [
        [
            *(row.step, row.runs, Cell(row.accuracy, f"{row.accuracy:.2%}"), _points(row.accuracy_sd)),
            *(_share(row), _points(row.models_sd), _points(row.test_set_sd)),
            *(_percent(row.agreement), _percent(row.agreement_by_chance), _percent(row.churn)),
        ]
        for row in _thinned(findings.over_training)
    ]
    header = ["step", "runs", "accuracy", "sd", "models' share", "models' sd", "test set's sd", "agree"]
    some = (
        ""
        if len(rows) == len(findings.over_training)
        else (f", {len(rows)} of {count(len(findings.over_training), 'row')} (the stored result has all)")
    )
    yield Table(
        [*header, "by chance", "changed"], rows, f"Over training: deviations (sd) in points of accuracy{some}"
    )
    own = [
        [
            *(run_cell(run.run), run.examples, _percent(run.accuracy), _percent(run.churn)),
            *(run.forgotten, _percent(run.never_right), _percent(run.never_forgotten)),
        ]
        for run in findings.runs
    ]
    header = [
        "run",
        "examples",
        "accuracy",
        "changed a row",
        "times forgotten",
        "never right",
        "never forgotten",
    ]
    yield Table(header, own, "Every run, over its rows", folded=True)


def _split(row: Row) -> str:
    where = f"at step {row.step:,} accuracy is **{row.accuracy:.2%}** over {count(row.runs, 'run')}"
    if row.accuracy_sd is None:
        return f"{where}, and one run has no spread"
    where += f" with a standard deviation of **{_points(row.accuracy_sd)}** points"
    if row.models_share is None:
        return (
            f"{where}; it is not split, for there are {row.reason}" if "fewer" in row.reason else f"{where}"
        )
    return (
        f"{where}, of whose variance **{row.models_share:.0%}** [{_bounds(row.interval)}] is the models' own; "
        f"{WORDS[row.verdict]}"
    )


def _learnt(findings: Findings) -> str:
    end, runs = findings.summary, findings.runs
    lines = [f"**{count(findings.examples, 'example')}** were followed."]
    if end.models_sd is not None:
        low, high = (_points(value) for value in end.models_sd_interval)
        lines.append(
            f"True accuracies have a standard deviation of **{_points(end.models_sd)}** points [{low} to {high}], "
            f"the number of examples adds **{_points(end.test_set_sd)}**."
        )
    if end.agreement is not None and end.agreement_by_chance is not None:
        lines.append(
            f"Two runs agree on **{end.agreement:.1%}** of the examples, by chance it would be "
            f"{end.agreement_by_chance:.1%}."
        )
    if forgotten := [run.forgotten for run in runs if run.forgotten is not None]:
        never, kept = (
            float(np.mean([getattr(run, name) for run in runs]))
            for name in ("never_right", "never_forgotten")
        )
        lines.append(
            f"An example is forgotten **{number(round(float(np.mean(forgotten)), 2))}** times a run between rows; "
            f"{kept:.1%} are never forgotten once they are right, {never:.1%} are never right."
        )
    return " ".join(lines)


def _figure(findings: Findings) -> Lines | None:
    rows = findings.over_training
    split = [row for row in rows if row.models_share is not None]
    if len(split) < 2:
        return None

    def curve(name: str, rows: Sequence[Row] = split, scale: float = 1.0) -> dict[str, Series]:
        values = [getattr(row, name) for row in rows]
        return {"all": Series.of(np.array([row.step for row in rows]), scale * np.array(values, float))}

    low, high = (
        {
            "all": Series.of(
                np.array([row.step for row in split]), np.array([row.interval[end] for row in split])
            )
        }
        for end in (0, 1)
    )
    return Lines(
        name="test-set-noise",
        caption=(
            "**What of the spread between runs is the models' own.** Above: mean accuracy. Middle: the standard "
            "deviation of accuracy between runs, in points, and its two parts, whose squares add up. Below: the "
            f"models' share of the variance, between the ends of its 95% interval.{_unsplit(rows)}"
        ),
        alt="Accuracy, its spread between runs and the share of it that is the models' own, over training",
        panels=[
            Panel(title="accuracy on held-out examples", curves={"test": curve("accuracy", rows)}),
            Panel(
                title="standard deviation between runs, points",
                curves={
                    "observed": curve("accuracy_sd", scale=100),
                    "models": curve("models_sd", scale=100),
                    "test set": curve("test_set_sd", scale=100),
                },
            ),
            Panel(
                title="models' share of the variance",
                curves={"share": curve("models_share"), "low end": low, "high end": high},
                level=0.5,
            ),
        ],
    )


def _unsplit(rows: Sequence[Row]) -> str:
    """Return which rows are not split, and why; empty where all are."""
    reasons: dict[str, list[int]] = {}
    for row in rows:
        if row.models_share is None:
            reasons.setdefault(row.reason, []).append(row.step)
    left = [f"{steps_words(steps)} ({reason})" for reason, steps in reasons.items()]
    return f" In the upper panel alone, for they are not split: {'; '.join(left)}." if left else ""


def _examples(name: str, examples: Sequence[Difficulty], common: float | None) -> Table:
    """Return a table of examples; runs are named where each has its own."""
    apart = common is not None and common < 1
    rows = [
        [
            Cell(
                f"{item.example:,}",
                f"{item.example:,} of {item.run.rpartition('/')[2]}" if apart else f"{item.example:,}",
            ),
            *(item.runs, _percent(item.right), _percent(item.right_at_end), round(item.forgotten, 2)),
        ]
        for item in examples
    ]
    header = ["example", "runs", "right, over rows", "right at the end", "times forgotten"]
    return Table(header, rows, f"The {name} examples", folded=name == "easiest")


def _thinned(rows: Sequence[Row]) -> list[Row]:
    """Return at most `SHOWN` rows, the first and the last among them."""
    places = np.unique(np.linspace(0, len(rows) - 1, min(SHOWN, len(rows))).round().astype(int))
    return [rows[place] for place in places]


def _share(row: Row) -> Cell:
    if row.models_share is None:
        return Cell(None)
    return Cell(row.models_share, f"{row.models_share:.0%} [{_bounds(row.interval)}]")


def _bounds(bounds: Bounds) -> str:
    return " to ".join("?" if value is None else f"{value:.0%}" for value in bounds)


def _points(value: float | None) -> str | None:
    return None if value is None else f"{100 * value:.2f}"


def _percent(value: float | None) -> Cell:
    return Cell(value, "" if value is None else f"{value:.1%}")
