"""Runs with nothing to find for a hidden Markov analysis: ways and states that delay nobody, settings of one law."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from dynalab.analysis.base import Convergence, Trajectories, Trajectory
from dynalab.analysis.hmm import Findings
from dynalab.core.convergence import Passage
from dynalab.core.records import restore

SPACING = 10


def convergence(steps: list[int | None], ensemble: str = "e") -> list[dict[str, Any]]:
    """Rows `{run, step, censored}`."""
    return [
        {"run": f"{ensemble}/{i}", "step": step, "censored": step is None} for i, step in enumerate(steps)
    ]


def passages(steps: list[int | None], ensemble: str = "e") -> list[Passage]:
    """The same, typed."""
    return [Passage(**row) for row in convergence(steps, ensemble)]


def states_of(**keys: Any) -> Findings:
    """Findings of a hidden Markov model that say only what is given, with the keys of its JSON."""
    return restore(Findings, {"n_states": 1, "states": [], **keys})


def walks(
    seed: int, kind: str, n: int = 20, rows: int = 100
) -> tuple[list[np.ndarray], list[np.ndarray], list[dict[str, Any]]]:
    """Paths of states, steps and convergence of runs on which no way delays.

    Args:
        seed: Of the draws.
        kind: `clock`: all walk the same way, each at its own speed, and converge on it; `broken`: the same, and runs
            are cut off at lengths of their own. `forward`, `random`: states that are entered in order, or at random,
            and know nothing of convergence. `lengths`: like `random`, and runs are cut off at lengths of their own.
            `late`: a state is passed or not; who does not stays longer before it.
        n: Runs.
        rows: Of the longest run.
    """
    rng = np.random.default_rng(seed)
    paths, steps, met = [], [], []
    for _ in range(n):
        length = int(rng.integers(rows // 3, rows)) if kind in ("lengths", "broken") else rows
        at = 1 + int(rng.exponential(rows * 0.7))
        if kind in ("clock", "broken"):
            total = rng.uniform(0.6, 1.3) * rows
            path = np.searchsorted(np.array([0.2, 0.5, 1.0]) * total, np.arange(length), "right")
            at = int(0.9 * total)
        elif kind == "forward":
            path = np.minimum(np.cumsum(rng.random(length) < 3 / rows), 3)
        elif kind == "late":
            leave, passes = int(rng.integers(5, rows // 3)), rng.random() < 0.5
            path = np.where(np.arange(length) < leave, 0, 1 if passes else 2)
            path[leave : leave + (0 if passes else rows // 4)] *= passes
            path[leave + rows // 4 :] = 2
        else:
            drawn, moves = rng.integers(4, size=length), rng.random(length) < 5 / rows
            moves[0], drawn[0] = True, 0
            path = drawn[np.maximum.accumulate(np.where(moves, np.arange(length), 0))]
        paths.append(path.astype(int))
        steps.append(np.arange(length) * SPACING)
        met.append(at * SPACING if at < length else None)
    return paths, steps, convergence(met)


def pooled(seed: int, kind: str) -> tuple[list[np.ndarray], list[np.ndarray], list[dict[str, Any]]]:
    """`walks` of two ensembles of 12 runs, of which one takes three times as long."""
    one, other = walks(2 * seed, kind, n=12), walks(2 * seed + 1, kind, n=12, rows=300)
    rows = [*one[2], *({**row, "run": row["run"].replace("e/", "f/")} for row in other[2])]
    return [*one[0], *other[0]], [*one[1], *other[1]], rows


def trajectories(seed: int, kind: str, together: bool = False) -> Trajectories:
    """Four metrics whose level is that of the state in `walks` (or `pooled`), with noise, and the accuracy watched."""
    rng = np.random.default_rng([seed, 1])
    middle = 3 * rng.normal(size=(4, 4))
    runs = []
    for path, steps, row in zip(*(pooled if together else walks)(seed, kind), strict=True):
        late = np.inf if row["step"] is None else row["step"]
        accuracy = np.where(steps >= late, 0.95, 0.1)
        values = np.column_stack([middle[path] + rng.normal(size=(len(path), 4)), accuracy])
        runs.append(Trajectory(row["run"], steps, values))
    names = ("a", "b", "c", "d", "test_accuracy")
    return Trajectories("e", names, tuple(runs), Convergence("test_accuracy", 0.9), (), True)


def setting(
    seed: int,
    n: int = 24,
    watched: float = np.inf,
    grid: int = 10,
    ways: int = 1,
    detour: bool = False,
    cut: float = 0.0,
) -> Findings:
    """Findings whose runs converge by one law: lognormal steps on a grid, ways by lot.

    Args:
        seed: Of the draws.
        n: Runs.
        watched: Step at which training ends.
        grid: Distance of rows.
        ways: Number of ways that are taken alike often.
        detour: Whether half of the runs pass through a state that doubles their step.
        cut: Share of the runs that are cut off, anywhere up to the upper tail of the steps.
    """
    rng = np.random.default_rng(seed)
    around = detour * (rng.random(n) < 0.5)
    at = np.ceil(np.exp(6 + 0.5 * rng.normal(size=n)) * (1 + around) / grid) * grid
    way = rng.integers(ways, size=n) if ways > 1 else around.astype(int)
    last = np.where(rng.random(n) < cut, np.minimum(rng.integers(100, 1200, n), watched), watched)
    data = {
        "n_states": 1 + ways,
        "states": [
            {"run": f"e/{i}", "states": [0, int(k) + 1], "steps": [0, grid]} for i, k in enumerate(way)
        ],
        "convergence": [
            {
                "run": f"e/{i}",
                "step": None if step > end else int(step),
                "censored": bool(step > end),
                "last": 10**9 if end == np.inf else int(end),
            }
            for i, (step, end) in enumerate(zip(at, last, strict=True))
        ],
    }
    return states_of(**data)


def said(law: str, cut: bool, n: int, seed: int, rows: int = 60) -> np.ndarray:
    """Return what models without a run say of its rows, (n, T): what runs differ by is of one law, rows vary besides.

    Of the law `pace` a row falls by the square of what a run's time constant, a lognormal one, is away from the median.
    Early rows say less than late ones; where runs are `cut` off they have a third of the rows or more, and NaN after
    these.
    """
    from nulls.compare import drawn

    rng = np.random.default_rng(seed)
    # A run that the model fits badly is far below; lognormal of a width that likelihoods have.
    if law == "pace":
        own = 30 * np.expm1(0.2 * rng.normal(size=n)) ** 2
    else:
        own = np.exp(0.5 * rng.normal(size=n)) if law == "lognormal" else drawn(law, n, rng)
    table = np.linspace(0, 30, rows) - own[:, None] + rng.normal(size=(n, rows))
    if cut:
        table[np.arange(rows) >= rng.integers(rows // 3, rows + 1, n)[:, None]] = np.nan
    return table


# How many visit a state, and rows of a run: of few, many runs are alike.
VISITS = {
    "half visit a state": (0.5, 1000),
    "seven in ten visit a state": (0.7, 1000),
    "a tenth visit a state": (0.1, 1000),
    "nine tenths visit a state": (0.9, 1000),
    "half visit a state, ten rows": (0.5, 10),
}


def _rows(law: str, n: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of n runs in each of three states, shape (n, 3): .4 of them in the last or none, some in the second."""
    share, rows = VISITS[law]
    last = 0.4 * (rng.random(n) < share)
    counts = np.round(rows * np.stack([rng.normal(0.3, 0.05, n).clip(0, 0.6), last])).astype(int)
    return np.vstack([rows - counts.sum(0), counts]).T


def visits(law: str, n: int, seed: int) -> list[np.ndarray]:
    """Paths of runs of which some visit a state and some do not: what is not among them is not known of."""
    rng = np.random.default_rng(seed)
    while True:
        counts = _rows(law, n, rng)
        if 0 < (counts[:, 2] > 0).sum() < n:
            return [np.repeat(np.arange(3), own) for own in counts]


@cache
def apart(law: str) -> float:
    """Return the mean distance of two such runs, in shares of rows."""
    one, other = (_rows(law, 400_000, np.random.default_rng(seed)) for seed in range(2))
    return float(np.abs(one - other).sum(1).mean() / 2 / VISITS[law][1])
