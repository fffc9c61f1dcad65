"""What holds of the published claims on latent states of training, with intervals.

Hu et al., "Latent State Models of Training Dynamics" (TMLR, 2023, arXiv 2308.09543) claim that some settings fork (runs
take different ways through the states), that some states are detours (optional, and they delay convergence), and that
stabilising a setting removes both and narrows the spread of convergence times. The claims were made without
intervals. Here each comes with one, and two settings are compared with tests that respect censoring. Where convergence
is watched, paths end with it, and those of runs that never converged are not known.

Everything is a pure function of findings (`states`, `convergence`, `detours`); nothing is read or drawn.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from msgspec import UNSET, UnsetType

from dynalab.core.stats import clopper_pearson, quartiles

if TYPE_CHECKING:
    from dynalab.analysis.hmm.findings import Findings
    from dynalab.core.convergence import Passage

# A direction that a single run takes is no fork: one odd run would make a claim about a task.
LEAST_RUNS = 2
# Times of fewer runs have no spread to speak of.
LEAST_TIMES = 3
# What states are held against: `Agreement.over`.
RESAMPLED = "bootstrap of runs"
# Median adjusted Rand index with resampled runs below which states are not stable. Of 224 simulated ensembles of
# which two or more states were found, 2 to 4 there, none of the 181 whose states agree with the true ones by .9 or
# more lies below and 85% of the 34 that agree by less than .8 do (at .5: none and 82%; at .8 and .9: 2% and 85%):
# nearly all are below .5 or above .93. Of those above it 2.6% agree by less than .8: states that every resample
# merges alike are stable.
STABLE = 0.7
# Changes of state per state from which on states are said to flicker.
FLICKER = 4
# Two-sided 95% point of the normal distribution.
Z95 = 1.959963984540054
# Beyond it a float holds no coefficient of variation.
LARGEST = math.log(700.0)


@dataclass(frozen=True)
class Direction:
    """A way out of a state: the runs that leave it first this way, and the exact 95% interval of their share."""

    to: int  # the state that is entered
    runs: int  # runs that leave this way first
    share: float  # their share of those that leave
    interval: Sequence[float]  # its exact 95% interval


@dataclass(frozen=True)
class Fork:
    """A state that is left in two directions or more, the most common first.

    `fork` is True where at least two directions are taken by two runs or more each.
    """

    state: int  # its number
    runs: int  # runs that leave it
    directions: Sequence[Direction]  # the ways out, the most common first
    fork: bool  # whether at least two are taken by two runs or more each


@dataclass(frozen=True)
class OffPath:
    """How many runs do not take the most common path; share and interval are None without runs."""

    runs: int  # runs that do not take it
    of: int  # runs that converged
    share: float | None  # the first over the second
    interval: Sequence[float] | None  # its exact 95% interval, over all paths at once
    paths: int  # number of distinct paths


@dataclass(frozen=True)
class DetourCount:
    """How many states could be tested as detours, and which of them delay."""

    tested: int  # states that could be tested
    states: Sequence[int]  # those that delay


@dataclass(frozen=True)
class Spread:
    """Spread of the convergence step over runs: see `spread`."""

    runs: int  # how many runs
    censored: int  # how many of them did not converge
    median: float | None  # median step; null where it falls among runs that did not converge
    quartiles: Sequence[float | None]  # lower and upper quartile, likewise
    cv: float | None  # coefficient of variation, ddof 1; null where some run did not converge
    cv_interval: Sequence[float] | None  # its 95% interval (Bonett 2006)


@dataclass(frozen=True)
class Claims:
    """What an analysis says of the claims.

    Forks are of runs up to their last rows, `off_path` is of converged runs; `detours` is None where the analysis has
    no such test, `spread` where nothing is watched. What is counted is of the states of this fit: `cannot_tell` says
    where another fit would have others.
    """

    forks: Sequence[Fork]  # states that are left in two directions or more
    off_path: OffPath  # converged runs that do not take the most common path
    detours: DetourCount | None  # states that delay; null where there is no such test
    spread: Spread | None  # of the convergence step; null where nothing is watched
    # why nothing that rests on the states can be told, forks, paths and detours; null where it can
    cannot_tell: str | UnsetType | None = UNSET


def claims(findings: Findings) -> Claims:
    """Return what findings say of the claims."""
    rows, tested = findings.detours, None
    if rows is not None:
        states = [row.state for row in rows if row.verdict]
        tested = DetourCount(sum(row.p_adjusted is not None for row in rows), states)
    return Claims(
        forks(paths(findings)),
        off_path([run.path for run in ways_of(findings) if run.step < math.inf]),
        tested,
        spread(findings.convergence) if findings.convergence else None,
        doubt(findings) or None,
    )


def doubt(findings: Findings) -> str:
    """Return why forks, paths and detours cannot be told from these states; empty where they can."""
    return " and ".join(filter(None, [unstable(findings), flickering(findings)]))


def unstable(findings: Findings) -> str:
    """Return that states are not those of resampled runs; empty where they are, or where that is not known."""
    # Any two fits of a single state agree.
    if findings.n_states == 1:
        return ""
    rand = [row.adjusted_rand for row in findings.stability or () if row.over == RESAMPLED]
    return f"states are not stable (Rand {rand[0]:.2f})" if rand and rand[0] < STABLE else ""


def flickering(findings: Findings) -> str:
    """Return that runs enter states over and over; empty where they do not."""
    changes = [sum(a != b for a, b in pairwise(run.states)) for run in findings.states]
    middle = statistics.median(changes) if changes else 0
    if middle <= FLICKER * len({state for run in findings.states for state in run.states}):
        return ""
    return f"states flicker ({middle:,.0f} changes a run on the median)"


def paths(findings: Findings) -> list[tuple[int, ...]]:
    """Return the states that each run passes through, without stays, up to its last row."""
    return [_visited(run.states) for run in findings.states]


def forks(paths: Sequence[Sequence[int]]) -> list[Fork]:
    """States that runs, given by the states that they pass through, without stays, leave in different directions.

    A run counts once a state, by the way it leaves it first, so that the shares of a state add up to 1 and returning to
    and fro is no fork.
    """
    ways: dict[int, Counter[int]] = {}
    for path in paths:
        left = set()
        for here, there in pairwise(path):
            if here not in left:
                left.add(here)
                ways.setdefault(here, Counter())[there] += 1
    found = []
    for state, counts in sorted(ways.items()):
        if len(counts) < 2:
            continue
        total = counts.total()
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        directions = [Direction(to, n, n / total, clopper_pearson(n, total)) for to, n in ordered]
        split = sum(n >= LEAST_RUNS for _, n in ordered) >= 2
        found.append(Fork(state, total, directions, split))
    return found


def off_path(paths: Sequence[Sequence[int]]) -> OffPath:
    """Return how many runs do not take the most common path.

    Which path is the most common one is read off the same runs, which makes it look more common than it is: the
    interval is that of the largest of several shares, from exact intervals (Clopper and Pearson, 1934) of all paths at
    once (95% over the number of paths, Bonferroni).
    """
    counts = Counter(tuple(path) for path in paths)
    off = len(paths) - max(counts.values(), default=0)
    if not paths:
        return OffPath(0, 0, None, None, 0)
    low, high = clopper_pearson(off, len(paths), 0.025 / len(counts))
    return OffPath(off, len(paths), off / len(paths), [low, high], len(counts))


def spread(convergence: Sequence[Passage]) -> Spread:
    """Return the spread of the convergence step over runs.

    A run that did not converge counts as later than all others in median and quartiles (None where they fall among such
    runs). The coefficient of variation (standard deviation with n - 1 over mean) is None where some run did not
    converge: how much later it does is not known. Its 95% interval is that of the standard deviation of the logarithms,
    for any kurtosis (Bonett, 2006), told as the coefficient of a lognormal law; None with under three runs, where all
    converge at the same step, or one at step 0. (Bootstraps of the coefficient miss it four times as often as they say
    with ten runs.)
    """
    steps = [None if row.step is None else float(row.step) for row in convergence]
    known = [step for step in steps if step is not None]
    value = coefficient_of_variation(known) if len(known) == len(steps) else None
    low, middle, high = quartiles(steps)
    interval = cv_interval(known) if value else None
    return Spread(len(steps), len(steps) - len(known), middle, [low, high], value, interval)


def coefficient_of_variation(steps: Sequence[float]) -> float | None:
    """Standard deviation (n - 1) over mean; None for under two values or a mean of 0."""
    import numpy as np

    if len(steps) < 2 or np.mean(steps) == 0:
        return None
    return float(np.std(steps, ddof=1) / np.mean(steps))


def cv_interval(steps: Sequence[float]) -> list[float] | None:
    """Interval of the coefficient of variation by Bonett's (2006) of the variance of the logarithms."""
    import numpy as np

    n = len(steps)
    if n < LEAST_TIMES or min(steps) <= 0:
        return None
    logs = np.sort(np.log(np.asarray(steps, dtype=np.float64)))
    # The kurtosis is taken about a trimmed mean: long tails pull the plain one.
    cut = int(n * 0.5 / math.sqrt(n - 4)) if n > 5 else 0
    centre = logs[cut : n - cut].mean() if n > 5 else np.median(logs)
    squares = float(((logs - logs.mean()) ** 2).sum())
    kurtosis = n * float(((logs - centre) ** 4).sum()) / squares**2
    inflation = n / (n - Z95)
    error = inflation * math.sqrt(max(kurtosis - (n - 3) / n, 0.0) / (n - 1))
    middle = math.log(inflation * squares / (n - 1))
    # Of a lognormal law, from the logarithm of the variance of its logarithm.
    bounds = (min(middle + side * Z95 * error, LARGEST) for side in (-1, 1))
    low, high = (math.sqrt(math.expm1(math.exp(bound))) for bound in bounds)
    value = coefficient_of_variation(steps) or 0.0
    return [min(low, value), max(high, value)]


@dataclass(frozen=True)
class Way:
    """A run of a setting: the states it passes through, without stays, up to convergence.

    `step` is when it converged, infinity where it did not, 0 where nothing is watched; `last` how far it was watched.
    """

    path: tuple[int, ...]
    step: float
    last: float


def ways_of(findings: Findings) -> list[Way]:
    """Return the runs of an analysis.

    One of an older version does not say how far they were watched: as far as the last that converged, it is taken, and
    for ever where all did.
    """
    watched = {row.run: row for row in findings.convergence or ()}
    known = [row.step for row in watched.values() if row.step is not None]
    far = float(max(known, default=0)) if len(known) < len(watched) else math.inf
    found = []
    for run in findings.states:
        row, states = watched.get(run.run), run.states
        if row is None:
            found.append(Way(_visited(states), 0.0, math.inf))
            continue
        step, last = math.inf, far if row.last is None else float(row.last)
        if row.step is not None:
            states, step = states[: max(bisect_left(run.steps, row.step), 1)], float(row.step)
            last = max(last, step)
        found.append(Way(_visited(states), step, last))
    return found


def _visited(states: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(k) for i, k in enumerate(states) if i == 0 or k != states[i - 1])
