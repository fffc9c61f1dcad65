"""Distinct paths through the states: how many runs take each, when those converge, and whether that differs.

Where convergence is watched a path ends with it: what a run does afterwards cannot have delayed it, and how far it gets
by the end of training is a matter of how early it converged. The path of a run that never converged is broken off, so
that it is shown and takes no part in a comparison.

For the same reason whole paths are not compared, but runs that part: of those that have come to one place on one way,
the runs that go on in one direction with the runs that go on in another. Of two paths of which one is the beginning of
the other, the longer one converges later by construction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dynalab.analysis.hmm.findings import Comparison, Parting, Path
from dynalab.analysis.hmm.states import visited
from dynalab.core import survival
from dynalab.core.stats import clopper_pearson, quartiles

FEW = 5
# A comparison needs paths that several runs take.
LEAST = 2


def path_table(
    paths: Sequence[np.ndarray],
    steps: Sequence[np.ndarray],
    runs: Sequence[str],
    convergence: list[dict[str, Any]] | None,
) -> list[Path]:
    """Distinct paths, the most common first; of states and steps of every row, shapes (T,).

    `interval` is the exact one of the share of all runs. A run that never converged counts in median and quartiles of
    the convergence step as later than all others; they are null where nothing is watched (`convergence` None). A path
    ends where its run converges, so that one which is a beginning of the most common path, or goes on from its end, is
    `along` it.
    """
    out = []
    groups = _groups(_cut(paths, steps, convergence))
    for states, members in groups:
        known: dict[str, Any] = {}
        if convergence is not None:
            met = [convergence[i]["step"] for i in members]
            low, middle, high = quartiles(met)
            known = {"median_step": middle, "quartiles": [low, high], "censored": met.count(None)}
        out.append(
            Path(
                states=list(states),
                runs=len(members),
                interval=clopper_pearson(len(members), len(paths)),
                members=[runs[i] for i in members],
                along=all(here == there for here, there in zip(states, groups[0][0], strict=False)),
                **known,
            )
        )
    return out


def compare(
    paths: Sequence[np.ndarray],
    steps: Sequence[np.ndarray],
    convergence: list[dict[str, Any]] | None,
    seed: int = 0,
) -> tuple[Comparison | None, list[str]]:
    """Compare the convergence of runs that part: at every place that converged runs leave in two directions or more.

    At each, two tests must agree, and the larger p-value counts: Gehan's scores of the convergence step by permutation
    (a run that takes its way earlier need not be a faster one), and the log-rank test in which a run is at risk from
    its parting on (a run that takes its way later has been longer without converging, "immortal time").

    Runs of several ensembles are compared within each. The comparison is of every place where at least `LEAST` runs
    each go on in different directions, with the least p-value times the number of places (Bonferroni); None where there
    is nothing to compare. And warnings. States and steps of every row have shapes (T,).
    """
    if convergence is None or len({visited(path) for path in paths}) < 2:
        return None, []
    time = np.array([np.nan if row["step"] is None else row["step"] for row in convergence], dtype=np.float64)
    known = np.flatnonzero(~np.isnan(time))
    if not len(known):
        return None, ["paths not compared: none of their runs converged"]
    cut = _cut(paths, steps, convergence)
    strata = survival.strata_of(row["run"] for row in convergence)
    found: list[Parting] = []
    entered: set[int] = set()
    few, apart, least = False, False, 1.0
    for after, ways in _partings(cut, known):
        runs = np.array([run for members in ways.values() for run in members])
        label = np.repeat(np.arange(len(ways)), [len(members) for members in ways.values()])
        kept = survival.mixed(label, strata[runs])
        to, label = np.unique(label[kept], return_inverse=True)
        runs = runs[kept]
        if len(to) < 2 or np.bincount(label).min() < LEAST:
            apart = True
            continue
        entered_at = [np.flatnonzero(np.diff(cut[run], prepend=-1))[len(after)] for run in runs]
        entry = np.array(
            [steps[run][row] for run, row in zip(runs, entered_at, strict=True)], dtype=np.float64
        )
        p, log_rank = survival.several_samples(
            time[runs], np.ones(len(runs), bool), label, seed, entry=entry, strata=strata[runs]
        )
        states = [list(ways)[place] for place in to]
        # Without a moment at which two ways are open side by side nothing speaks against chance.
        p = max(p, 1.0 if log_rank is None else log_rank)
        found.append(Parting(after=list(after), to=states, p=p))
        least = min(least, p)
        entered |= set(runs.tolist())
        few |= bool(np.bincount(label).min() < FEW)
    if not found:
        why = (
            "no ensemble has runs on two of them"
            if apart
            else "at no place do two runs each go on in different ways"
        )
        return None, [f"paths not compared: {why}"]
    notes = []
    if few:
        notes.append(
            f"some of the compared paths have fewer than {FEW} runs: a difference between paths is easily missed"
        )
    comparison = Comparison(
        paths=[i for i, (_, members) in enumerate(_groups(cut)) if entered & set(members)],
        runs=len(entered),
        left_out=len(paths) - len(known),
        partings=found,
        p=min(least * len(found), 1.0),
    )
    return comparison, notes


def _partings(
    paths: Sequence[np.ndarray], runs: np.ndarray
) -> list[tuple[tuple[int, ...], dict[int, list[int]]]]:
    """Beginnings of paths (the states passed) that `LEAST` runs or more each go on from in two directions or more.

    With each, for every state entered next, the runs that enter it.
    """
    ways = {int(run): visited(paths[run]) for run in runs}
    found: list[tuple[tuple[int, ...], dict[int, list[int]]]] = []
    waiting: list[tuple[tuple[int, ...], list[int]]] = [((), list(ways))]
    while waiting:
        after, members = waiting.pop(0)
        out: dict[int, list[int]] = {}
        for run in members:
            if len(ways[run]) > len(after):
                out.setdefault(ways[run][len(after)], []).append(run)
        # What a single run does is no direction.
        out = {state: out[state] for state in sorted(out) if len(out[state]) >= LEAST}
        if len(out) > 1:
            found.append((after, out))
        waiting += [((*after, state), some) for state, some in out.items() if len(some) >= 2 * LEAST]
    return found


def _cut(
    paths: Sequence[np.ndarray], steps: Sequence[np.ndarray], convergence: list[dict[str, Any]] | None
) -> list[np.ndarray]:
    """Paths up to convergence, the first row in any case; whole where a run never converged or nothing is watched."""
    if convergence is None:
        return list(paths)
    return [
        path if row["step"] is None else path[: max(int(np.searchsorted(at, row["step"])), 1)]
        for path, at, row in zip(paths, steps, convergence, strict=True)
    ]


def _groups(paths: Sequence[np.ndarray]) -> list[tuple[tuple[int, ...], list[int]]]:
    """Distinct sequences of states and the places of the runs that take them, the most common first."""
    found: dict[tuple[int, ...], list[int]] = {}
    for index, path in enumerate(paths):
        found.setdefault(visited(path), []).append(index)
    return sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))
