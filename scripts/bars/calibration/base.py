"""What every subject of the bar `calibration` is made of, and how often what is printed of it errs."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from state import commit

from bars.base import Bar, cases, workers
from dynalab.core.words import count

NULLS, WHOLE = 1000, 150
MOST = 0.07
# The code before its statistics were mended: what the column "before" was measured at, once, with these files.
BEFORE = "6014725"
# Fewer printed values have no rate to speak of.
LEAST = 100
# For every printed value, whether it errs; empty where none is printed.
Errors = dict[str, list[bool]]


@dataclass(frozen=True)
class Null:
    """Null ensembles, and what is printed of each.

    Attributes:
        runs: The runs, in words.
        errors: From a seed, the errors of every p-value and interval.
        nulls: Number of null ensembles.
        most: The share of a thousand that may err.
    """

    runs: str
    errors: Callable[[int], Errors]
    nulls: int = NULLS
    most: float = MOST


@dataclass(frozen=True)
class Subject:
    """What is measured together: the p-values and intervals of one analysis.

    No value is another subject's as well: a row of the table is measured by one of them.

    Attributes:
        name: Its word for the command line, and the module of this package that has it as `SUBJECT`.
        statistics: The null ensembles that single statistics are asked of; the suite asks some of them.
        sources: Files and folders that its rates depend on, beside `dynalab/core` and its own module.
        analyses: Those that whole analyses are asked of.
        before: Runs in words -> value -> the share that erred at `BEFORE`.
    """

    name: str
    statistics: Sequence[Null]
    sources: tuple[str, ...]
    analyses: Sequence[Null] = ()
    before: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def nulls(self) -> list[Null]:
        """All of them."""
        return [*self.statistics, *self.analyses]

    def bar(self) -> Bar:
        """Return the bar of this subject."""
        return Bar(
            f"calibration:{self.name}",
            "how often p-values are below .05 and 95% intervals miss, where there is nothing to find",
            "at most 7% in 1,000 null ensembles (8% for means of 5 runs), 5% and two standard errors in fewer; "
            "where it is more, in 4 times as many",
            "test_calibration.py",
            partial(measured, self),
            (
                *("dynalab/core", "scripts/bars/calibration/base.py", *self.sources),
                f"scripts/bars/calibration/{self.name}.py",
            ),
        )


def any_called(rows: Sequence[Any] | None) -> bool:
    """Return whether a row is said to differ, adjusted for all."""
    return any(row.p_adjusted is not None and row.p_adjusted < 0.05 for row in rows or ())


def printed(interval: Sequence[float | None] | None, truth: float) -> list[bool]:
    """Return whether an interval misses, if there is one."""
    return [] if interval is None or tuple(interval) == (None, None) else [misses(interval, truth)]


def misses(interval: Sequence[float | None] | None, truth: float) -> bool:
    """Return whether an interval, an end of which may be open, misses the truth."""
    low, high = interval or (None, None)
    return (low is not None and low > truth) or (high is not None and high < truth)


def most(nulls: int, printed: int, many: float = MOST) -> float:
    """The share that may err: two standard errors of chance are granted to fewer than a thousand."""
    return many if nulls >= NULLS else 0.05 + 2 * (0.05 * 0.95 / max(printed, 1)) ** 0.5


def _errors(subject: str, runs: str, seed: int) -> Errors:
    """The errors of one null ensemble; by name, so that it can be sent to a process."""
    nulls = importlib.import_module(f"bars.calibration.{subject}").SUBJECT.nulls
    (null,) = [one for one in nulls if one.runs == runs]
    return {name: list(map(bool, errors)) for name, errors in null.errors(seed).items()}


def _rates(
    subject: str, null: Null, place: Path, pool: ProcessPoolExecutor
) -> tuple[dict[str, list[bool]], bool]:
    """The errors of every value printed of some null runs, and whether none errs too often.

    Of hundreds of rates a few of exact tests lie above the bar by chance. What does is asked of three times as many
    further nulls, and judged by all.
    """
    for nulls in (null.nulls, 4 * null.nulls):
        errors = cases(place, range(nulls), partial(_errors, subject, null.runs), pool=pool)
        names = dict.fromkeys(name for one in errors for name in one)
        every = {name: [error for one in errors for error in one.get(name, ())] for name in names}
        reached = all(
            np.mean(found) <= most(nulls, len(found), null.most)
            for found in every.values()
            if len(found) >= LEAST
        )
        if reached:
            break
    return every, reached


def measured(subject: Subject, work: Path) -> tuple[str, bool, list[list[str]]]:
    """The share of errors of every p-value and interval: a row a value, its least and its most over the null runs."""
    rates: dict[str, list[tuple[float, int, str]]] = {}
    silent: list[str] = []
    reached = True
    with workers() as pool:
        for null in subject.nulls:
            place = work / "calibration" / f"{hashlib.sha256(null.runs.encode()).hexdigest()[:12]}.jsonl"
            every, well = _rates(subject.name, null, place, pool)
            reached = reached and well
            for name, errors in every.items():
                if len(errors) < LEAST:
                    silent.append(name)
                else:
                    rates.setdefault(name, []).append((float(np.mean(errors)), len(errors), null.runs))
    rows = []
    for name, found in sorted(rates.items()):
        worst, times, runs = max(found)
        before = [
            rate for _, _, where in found if (rate := subject.before.get(where, {}).get(name)) is not None
        ]
        rows.append(
            [
                name,
                str(len(found)),
                f"{min(found)[0]:.1%} to {worst:.1%}" if len(found) > 1 else f"{worst:.1%}",
                f"{runs} ({times:,})",
                f"{max(before):.1%}" if before else "",
                commit(),
            ]
        )
    worst = max(rate for found in rates.values() for rate, _, _ in found)
    header = [
        "p-value or interval",
        "kinds of null runs",
        "errs",
        "most in (printed)",
        f"most before ({BEFORE})",
        "at",
    ]
    n = sum(map(len, rates.values()))
    figure = f"{count(n, 'rate')} of {count(len(rows), 'value')}; the worst errs in {worst:.1%}"
    if silent:
        figure += f"; {len(silent)} print too few to tell"
    return figure, reached, [header, *rows]
