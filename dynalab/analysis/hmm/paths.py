"""Distinct paths through the states: how many runs take each, when those converge, and whether that differs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dynalab.analysis.hmm import survival
from dynalab.analysis.hmm.states import visited, wilson

FEW = 5
# A comparison needs paths that several runs take.
LEAST = 2


def path_table(
    paths: Sequence[np.ndarray],
    steps: Sequence[np.ndarray],
    runs: Sequence[str],
    convergence: list[dict[str, Any]] | None,
) -> list[dict[str, Any]]:
    """Distinct paths, the most common first.

    Args:
        paths: State of every row of every run, shapes (T,).
        steps: Steps of these rows, shapes (T,).
        runs: Run ids.
        convergence: Convergence of the same runs, or None where nothing is watched.

    Returns:
        `{states, runs, interval, members, median_step, quartiles, censored}`: number of the runs, Wilson's 95%
        interval of their share of all runs, their ids, median and quartiles of their convergence step (by Kaplan and
        Meier where some never converged; null where that leaves a quantile unknown), how many never converged.
    """
    groups = _groups(paths)
    if convergence is not None:
        time, observed = survival.censored_times(convergence, [int(rows[-1]) for rows in steps])
    out = []
    for states, members in groups:
        row: dict[str, Any] = {
            "states": list(states),
            "runs": len(members),
            "interval": wilson(len(members), len(paths)),
            "members": [runs[i] for i in members],
            "median_step": None,
            "quartiles": [None, None],
            "censored": None,
        }
        if convergence is not None:
            own, seen = time[members], observed[members]
            low, middle, high = (survival.quantile(own, seen, share) for share in (0.25, 0.5, 0.75))
            row |= {
                "median_step": middle,
                "quartiles": [low, high],
                "censored": int((~seen).sum()),
            }
        out.append(row)
    return out


def compare(
    paths: Sequence[np.ndarray],
    steps: Sequence[np.ndarray],
    convergence: list[dict[str, Any]] | None,
    seed: int = 0,
) -> tuple[dict[str, Any] | None, list[str]]:
    """Compare the convergence of runs between paths that two runs or more take.

    Args:
        paths: State of every row of every run, shapes (T,).
        steps: Steps of these rows, shapes (T,).
        convergence: Convergence of the same runs, or None.
        seed: Of the permutations.

    Returns:
        `{paths, runs, p, p_log_rank}` (which rows of the path table, how many runs in all, permutation p-value of
        Gehan's scores, asymptotic p-value of the log-rank test), or None where there is nothing to compare; and
        warnings.
    """
    if convergence is None:
        return None, []
    groups = [members for _, members in _groups(paths)]
    large = [i for i, members in enumerate(groups) if len(members) >= LEAST]
    chosen = np.array([run for i in large for run in groups[i]], dtype=np.int64)
    label = np.repeat(np.arange(len(large)), [len(groups[i]) for i in large])
    if len(large) < 2:
        return None, []
    time, observed = survival.censored_times(convergence, [int(rows[-1]) for rows in steps])
    if not observed[chosen].any():
        return None, ["paths not compared: none of their runs converged"]
    p, log_rank = survival.several_samples(time[chosen], observed[chosen], label, seed)
    small = [i for i in large if len(groups[i]) < FEW]
    notes = []
    if small:
        which = f"{len(small)} of the {len(large)} compared paths {'has' if len(small) == 1 else 'have'}"
        notes.append(f"{which} fewer than {FEW} runs: a difference between paths is easily missed")
    return {"paths": large, "runs": len(chosen), "p": p, "p_log_rank": log_rank}, notes


def _groups(paths: Sequence[np.ndarray]) -> list[tuple[tuple[int, ...], list[int]]]:
    """Distinct sequences of states and the places of the runs that take them, the most common first."""
    found: dict[tuple[int, ...], list[int]] = {}
    for index, path in enumerate(paths):
        found.setdefault(visited(path), []).append(index)
    return sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))
