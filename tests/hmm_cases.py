"""Numbered simulated ensembles with a convergence step, and a detour that is planted or costs nothing.

A case is a function of its number alone: half of them have states of level (`level`: each state has a mean, rows
scatter about it), half states of dynamics (`ar`: each state pulls the continuous curves toward its own target at its
own rate). A number also decides K (2 to 6), the runs (20 or 40), the rows (100 to 300), the spacing of the states, and
how the optional state lies in the map:

- `loop`: some runs leave a state for it and come back;
- `insertion`: some runs pass through it between two states;
- `branch`: the others pass through another state instead, a fork.

Runs converge when they enter the last state, after a few rows. Dwell times vary by a factor of 2, and training ends
before the slowest tenth of the runs has converged: these are censored.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hmm_simulate import FACTORS

from dynalab.analysis.base import Convergence, Trajectories, Trajectory
from dynalab.analysis.hmm.features import WEIGHT_METRICS, is_size

SPACING = 10
LEVEL = 0.9
CENSORED = 0.1
# Size of the four factors in the metrics, and of each metric's own noise: the covariance of the metrics has a
# condition number of 1e4 and more.
SCALES = np.array([3.0, 2.0, 1.5, 1.0])
OWN_NOISE = {"level": 0.03, "ar": 0.001}
FACTOR_NOISE = {"level": 1.0, "ar": 0.02}
# A dwell time is its mean times 2^u, u uniform on (-1/2, 1/2): largest over smallest is 2.
DWELL_MEAN = (2**0.5 - 2**-0.5) / np.log(2)
DWELL_SD = float(np.sqrt(1.5 / (2 * np.log(2)) - DWELL_MEAN**2) / DWELL_MEAN)


@dataclass(frozen=True)
class Case:
    """What a number stands for.

    Attributes:
        number: The number.
        kind: `level` or `ar`.
        n_states: K.
        n_runs: S.
        n_rows: T, of every run.
        optional: The state that only some runs visit.
        shape: `loop`, `insertion` or `branch`.
        share: Share of the runs that visit it.
        delay: Mean delay of the runs that visit it, in standard deviations of the convergence step without it; 0
            makes a state without a cost.
    """

    number: int
    kind: str
    n_states: int
    n_runs: int
    n_rows: int
    optional: int
    shape: str
    share: float
    delay: float


@dataclass(frozen=True)
class Planted:
    """An ensemble and the truth behind it.

    Attributes:
        case: What it was made from.
        trajectories: The runs: the fourteen weight metrics and `test_accuracy`, which the convergence watches.
        states: True state of every row of every run, shapes (T,).
        visits: Whether each run passes through the optional state, shape (S,).
        convergence: `{run, step, censored}` of every run.
    """

    case: Case
    trajectories: Trajectories
    states: tuple[np.ndarray, ...]
    visits: np.ndarray
    convergence: list[dict[str, Any]] = field(default_factory=list)


def describe_case(number: int, *, delay: float | None = None) -> Case:
    """Return what a number stands for.

    Args:
        number: 0 or more.
        delay: The delay in standard deviations; None draws it from 2 to 4, and 0 is a case without an effect, with
            draws of its own.
    """
    rng = np.random.default_rng([number, 0, int(delay == 0)])
    n_states = 2 + number % 5
    kind = ("level", "ar")[number // 5 % 2]
    shapes = {2: ("loop",), 3: ("loop", "insertion")}.get(n_states, ("insertion", "branch"))
    shape = shapes[number // 20 % len(shapes)]
    drawn = rng.uniform(2, 4)
    return Case(
        number,
        kind,
        n_states,
        (20, 40)[number // 10 % 2],
        int(rng.integers(100, 301)),
        n_states - 1 if shape == "loop" else int(rng.integers(1, n_states - 1)),
        shape,
        float(rng.uniform(0.3, 0.7)),
        float(drawn if delay is None else delay),
    )


def routes(case: Case) -> tuple[list[int], list[int]]:
    """Return the states in order of a run that does not visit the optional one, and of a run that does."""
    k = case.optional
    if case.shape == "loop":
        straight = list(range(case.n_states - 1))
        turn = max(len(straight) - 2, 0)
        return straight, [*straight[: turn + 1], k, *straight[turn:]]
    if case.shape == "insertion":
        return [i for i in range(case.n_states) if i != k], list(range(case.n_states))
    other = k + 1 if k + 1 < case.n_states - 1 else k - 1
    everything = range(case.n_states)
    return [i for i in everything if i != k], [i for i in everything if i != other]


def _timeline(
    case: Case, visits: bool, mean: np.ndarray, rng: np.random.Generator
) -> tuple[list[int], np.ndarray]:
    """Return one run's states in order and the time it leaves each before the last for good (arbitrary units)."""

    def dwell(size: int) -> np.ndarray:
        return np.asarray(2.0 ** rng.uniform(-0.5, 0.5, size) / DWELL_MEAN)

    straight, around = routes(case)
    # A lone state is left for the detour and entered again; the run converges in it.
    base = mean[: max(len(straight) - 1, 1)] * dwell(max(len(straight) - 1, 1))
    if not visits:
        return straight, np.cumsum(base)[: len(straight) - 1] if len(straight) > 1 else base
    delay = case.delay * DWELL_SD * float(np.sqrt((mean[: len(base)] ** 2).sum())) * dwell(1)[0]
    if case.shape == "branch":
        place = around.index(case.optional)
        stays = base.copy()
        stays[place] += delay
        return around, np.cumsum(stays)
    # What the state takes: the delay, or without one a share of the run's own time.
    share = float(rng.uniform(0.15, 0.3))
    own = delay if case.delay else share * base.sum()
    rest = base if case.delay else base * (1 - share)
    if case.shape == "insertion":
        return around, np.cumsum(np.insert(rest, around.index(case.optional), own))
    place = around.index(case.optional)
    cut = float(rng.uniform(0.4, 0.6)) * rest[place - 1]
    stays = np.concatenate([rest[: place - 1], [cut, own, rest[place - 1] - cut], rest[place:]])
    return around, np.cumsum(stays)


def make(case: Case) -> Planted:
    """Simulate a case."""
    rng = np.random.default_rng([case.number, 1, int(case.delay == 0)])
    n = case.n_runs
    visits = rng.permutation(n) < round(case.share * n)
    mean = 2.0 ** rng.uniform(-0.5, 0.5, case.n_states)
    timelines = [_timeline(case, bool(visit), mean, rng) for visit in visits]
    totals = np.array([ends[-1] for _, ends in timelines])
    lag = rng.uniform(1, 4, n)
    # Training ends between the last run that converges in time and the first that does not.
    late = round(CENSORED * n)
    ordered = np.sort(totals)
    end = (ordered[n - late - 1] + ordered[n - late]) / 2
    rate = (case.n_rows - 5) / end
    truth, reached = [], []
    for (route, ends), total, wait in zip(timelines, totals, lag, strict=True):
        changes = np.maximum.accumulate(np.round(ends * rate).astype(int))[: len(route) - 1]
        rows = np.searchsorted(changes, np.arange(case.n_rows), "right")
        truth.append(np.asarray(route)[rows])
        met = round(total * rate + wait)
        reached.append(met if total < end and met < case.n_rows else None)
    x = _curves(case, truth, rng)
    steps = np.arange(case.n_rows) * SPACING
    runs, convergence = [], []
    for index, row in enumerate(reached):
        name = f"simulated/s{index:04d}"
        at = case.n_rows + 20.0 if row is None else float(row)
        accuracy = LEVEL + 0.09 * np.tanh((np.arange(case.n_rows) - at) / 10)
        values = np.column_stack([x[index], accuracy])
        runs.append(Trajectory(name, steps, values, index))
        convergence.append(
            {"run": name, "step": None if row is None else row * SPACING, "censored": row is None}
        )
    watched = Convergence("test_accuracy", LEVEL)
    together = Trajectories("simulated", (*WEIGHT_METRICS, "test_accuracy"), tuple(runs), watched)
    return Planted(case, together, tuple(truth), visits, convergence)


def centres(n_states: int, least: float, rng: np.random.Generator) -> np.ndarray:
    """Return points (K, 4) of which the nearest pair is `least` apart and no pair more than 6."""
    while True:
        points = rng.normal(size=(n_states, FACTORS))
        gaps = np.linalg.norm(points[:, None] - points[None], axis=2)
        gaps = gaps[np.triu_indices(n_states, 1)]
        points *= least / gaps.min()
        if least * gaps.max() / gaps.min() <= 6:
            return points


def _curves(case: Case, truth: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Return the fourteen metrics of every run, shapes (T, 14)."""
    size = len(WEIGHT_METRICS)
    mixing, _ = np.linalg.qr(rng.normal(size=(size, FACTORS)))
    loading = mixing * SCALES
    inverse = mixing.T / SCALES[:, None]
    own = OWN_NOISE[case.kind]
    noise = FACTOR_NOISE[case.kind]
    # Rates are geometric, so that no two states pull alike.
    rates = np.geomspace(0.06, 0.2, case.n_states)[rng.permutation(case.n_states)]
    # The more points, the wider their gaps differ: so that the farthest pair can still be within 6.
    least = rng.uniform(2, {2: 6.0, 3: 4.5, 4: 3.6, 5: 3.0, 6: 2.6}[case.n_states])
    middle = centres(case.n_states, least, rng)
    states = np.stack(truth)
    n_runs, rows = states.shape
    scatter = noise * rng.normal(size=(n_runs, rows, FACTORS))
    apart = own * rng.normal(size=(n_runs, rows, size))
    if case.kind == "level":
        x = (middle[states] + scatter) @ loading.T + apart
    else:
        x = np.empty((n_runs, rows, size))
        x[:, 0] = (middle[states[:, 0]] + 3 + 0.1 * rng.normal(size=(n_runs, FACTORS))) @ loading.T
        for t in range(1, rows):
            now = states[:, t]
            pull = rates[now, None] * (middle[now] - x[:, t - 1] @ inverse.T)
            x[:, t] = x[:, t - 1] + (pull + scatter[:, t]) @ loading.T + apart[:, t]
    sizes = np.array([is_size(name) for name in WEIGHT_METRICS])
    x[..., sizes] = np.exp(x[..., sizes])
    return list(x)
