"""Makers of runs with nothing to find, for tests of how often an analysis finds something in them."""

from __future__ import annotations

from typing import Any

import numpy as np

SPACING = 10


def convergence(steps: list[int | None], ensemble: str = "e") -> list[dict[str, Any]]:
    """Rows `{run, step, censored}`."""
    return [
        {"run": f"{ensemble}/{i}", "step": step, "censored": step is None} for i, step in enumerate(steps)
    ]


def walks(
    seed: int, kind: str, n: int = 20, rows: int = 100
) -> tuple[list[np.ndarray], list[np.ndarray], list[dict[str, Any]]]:
    """Paths of states, steps and convergence of runs on which no way delays.

    Args:
        seed: Of the draws.
        kind: `clock`: all walk the same way, each at its own speed, and converge on it. `forward`, `random`: states
            that are entered in order, or at random, and know nothing of convergence. `lengths`: like `random`, and runs
            are cut off at lengths of their own. `late`: a state is passed or not; who does not stays longer before it.
        n: Runs.
        rows: Of the longest run.
    """
    rng = np.random.default_rng(seed)
    paths, steps, met = [], [], []
    for _ in range(n):
        length = int(rng.integers(rows // 3, rows)) if kind == "lengths" else rows
        at = 1 + int(rng.exponential(rows * 0.7))
        if kind == "clock":
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
            moves = rng.random(length) < 5 / rows
            path = np.zeros(length, dtype=int)
            for row in range(1, length):
                path[row] = rng.integers(4) if moves[row] else path[row - 1]
        paths.append(path.astype(int))
        steps.append(np.arange(length) * SPACING)
        met.append(at * SPACING if at < length else None)
    return paths, steps, convergence(met)


def setting(
    seed: int, n: int = 24, watched: float = np.inf, grid: int = 10, ways: int = 1, detour: bool = False
) -> dict[str, Any]:
    """Plain values of an analysis whose runs converge by one law: lognormal steps on a grid, ways by lot.

    Args:
        seed: Of the draws.
        n: Runs.
        watched: Step at which training ends.
        grid: Distance of rows.
        ways: Number of ways that are taken alike often.
        detour: Whether half of the runs pass through a state that doubles their step.
    """
    rng = np.random.default_rng(seed)
    around = detour * (rng.random(n) < 0.5)
    at = np.ceil(np.exp(6 + 0.5 * rng.normal(size=n)) * (1 + around) / grid) * grid
    way = rng.integers(ways, size=n) if ways > 1 else around.astype(int)
    return {
        "states": [
            {"run": f"e/{i}", "states": [0, int(k) + 1], "steps": [0, grid]} for i, k in enumerate(way)
        ],
        "convergence": [
            {
                "run": f"e/{i}",
                "step": None if step > watched else int(step),
                "censored": bool(step > watched),
                "last": 10**9 if watched == np.inf else int(watched),
            }
            for i, step in enumerate(at)
        ],
    }
