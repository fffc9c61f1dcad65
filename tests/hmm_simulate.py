"""Simulated ensembles with known states: what recovery is tested on, and a user's own power analysis.

Fourteen metrics move with four latent factors, as the real ones do (they are nearly collinear). Sizes are
exponentials, so that the features of the analysis are the simulated curves themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dynalab.analysis.base import Trajectories, Trajectory
from dynalab.analysis.hmm.features import WEIGHT_METRICS, is_size

FACTORS = 4
# Share of the way to its target that a state of a row or two pulls the curves a row, where they are continuous.
KICK = 0.8


@dataclass(frozen=True)
class Simulated:
    """An ensemble and the truth behind it.

    Attributes:
        trajectories: The runs, with the fourteen weight metrics.
        states: True state of every row of every run, shapes (T,).
        kind: What states are, as of `simulate`.
    """

    trajectories: Trajectories
    states: tuple[np.ndarray, ...]
    kind: str


def paths(
    n_states: int,
    lengths: list[int],
    detour: int | None,
    share: float,
    rng: np.random.Generator,
    *,
    even: float = 12.0,
) -> tuple[np.ndarray, ...]:
    """State paths that go from the first state to the last, each run in its own time.

    Args:
        n_states: K.
        lengths: Rows per run.
        detour: A state that only some runs pass through; None for none.
        share: Share of the runs that pass through it.
        rng: Source of dwell times.
        even: How even they are, the parameter of a Dirichlet distribution; of 1 they are geometric, given their sum.
    """
    out = []
    for length in lengths:
        visited = [k for k in range(n_states) if k != detour or rng.uniform() < share]
        dwell = rng.dirichlet(np.full(len(visited), even))
        ends = np.round(np.cumsum(dwell) * length).astype(int)
        out.append(
            np.array(visited)[np.minimum(np.searchsorted(ends, np.arange(length), "right"), len(visited) - 1)]
        )
    return tuple(out)


def recurrent(
    n_states: int, lengths: list[int], stay: float, rng: np.random.Generator
) -> tuple[np.ndarray, ...]:
    """State paths that begin in the first state and come back to others, in geometric stays of so many rows on average.

    With one state they stay there.
    """
    out = []
    for length in lengths:
        path, state = [], 0
        while len(path) < length:
            path += [state] * int(rng.geometric(1 / stay))
            state = (state + int(rng.integers(1, n_states))) % n_states if n_states > 1 else 0
        out.append(np.array(path[:length]))
    return tuple(out)


def with_jumps(
    truth: tuple[np.ndarray, ...], n_states: int, rng: np.random.Generator
) -> tuple[np.ndarray, ...]:
    """State paths that pass, at their changes from a state that is drawn, through one more for a row or two."""
    before = int(rng.integers(max(n_states - 1, 1)))
    out = []
    for path in truth:
        made = path.copy()
        for at in np.flatnonzero((path[:-1] == before) & (path[1:] != before)) + 1:
            made[at : at + int(rng.integers(1, 3))] = n_states
        out.append(made)
    return tuple(out)


def simulate(
    kind: str,
    n_states: int = 3,
    n_runs: int = 12,
    n_rows: int = 120,
    seed: int = 0,
    detour: int | None = None,
    share: float = 0.5,
    ragged: bool = False,
    *,
    even: float = 12.0,
    stay: float | None = None,
    jumps: bool = False,
    kept: float = 0.0,
) -> Simulated:
    """Simulate an ensemble.

    Args:
        kind: `level` (each state has its own mean, runs jump between them) or `ar` (each state pulls the
            curves toward its own target at its own rate; curves are continuous).
        n_states: K.
        n_runs: S.
        n_rows: T of every run, or the longest T if ragged.
        seed: Of everything.
        detour: A state that only some runs pass through.
        share: Share of the runs that do.
        ragged: Give the runs between 70% and 100% of the rows.
        even: As of `paths`.
        stay: Mean rows of a stay where states come again, as of `recurrent`; None: each comes once.
        jumps: Pass through one more state of a row or two, as of `with_jumps`: of a level, or a pull, of its own.
        kept: Share of the noise of a row that the next one keeps.
    """
    rng = np.random.default_rng(seed)
    size = len(WEIGHT_METRICS)
    loading, _ = np.linalg.qr(rng.normal(size=(size, FACTORS)))
    # Factors of unequal size, and some noise in every metric: strongly, not perfectly, collinear.
    loading = loading * np.array([3.0, 2.0, 1.5, 1.0])
    every = n_states + jumps
    centres = rng.normal(size=(every, FACTORS))
    noise = 0.3 * rng.uniform(0.5, 1.0, size=(every, FACTORS))
    rates = np.geomspace(0.15, 0.03, n_states)[rng.permutation(n_states)]
    rates = np.append(rates, [KICK] * jumps)
    lengths = [n_rows if not ragged else int(n_rows * rng.uniform(0.7, 1.0)) for _ in range(n_runs)]
    if stay is None:
        truth = paths(n_states, lengths, detour, share, rng, even=even)
    else:
        truth = recurrent(n_states, lengths, stay, rng)
    truth = with_jumps(truth, n_states, rng) if jumps else truth
    inverse = np.linalg.pinv(loading)
    runs = []
    for index, states in enumerate(truth):
        scatter = rng.normal(size=(len(states), FACTORS))
        for t in range(1, len(states) if kept else 0):
            scatter[t] = kept * scatter[t - 1] + np.sqrt(1 - kept**2) * scatter[t]
        factors = noise[states] * scatter
        if kind == "level":
            x = (centres[states] + factors) @ loading.T + 0.03 * rng.normal(size=(len(states), size))
        else:
            x = np.empty((len(states), size))
            x[0] = 2.0 * loading.sum(axis=1) + 0.1 * rng.normal(size=size)
            for t in range(1, len(states)):
                pull = rates[states[t]] * (centres[states[t]] - inverse @ x[t - 1]) + 0.1 * factors[t]
                x[t] = x[t - 1] + loading @ pull + 0.003 * rng.normal(size=size)
        for column, name in enumerate(WEIGHT_METRICS):
            if is_size(name):
                x[:, column] = np.exp(x[:, column])
        runs.append(Trajectory(f"simulated/s{index:04d}", np.arange(len(states)) * 10, x, index))
    return Simulated(Trajectories("simulated", WEIGHT_METRICS, tuple(runs)), truth, kind)
