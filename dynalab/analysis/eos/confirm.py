"""Whether it is the threshold that holds the sharpness: runs against forks with half the rate from a step on.

At half the rate the threshold is twice as high. Where the sharpness had stopped because it met the threshold it then
rises again (Cohen et al. 2021, arXiv 2103.00065, section 3.2, figure 5: the rate is cut during training); where it had
stopped for another reason it stays. The rule, on the rows after the fork's rate was halved:

- the fork's ratio falls below `FALLS`, so that the threshold has risen indeed (the median of the first three rows;
  half of about 1 is expected), and
- the fork's sharpness rises over its level at the halving `RISES` times as far as the parent's does over the same
  steps. Level: the median of the parent's last five rows up to the halving. Rise: the largest running median of five
  rows, over the level.

Both hold: `confirmed`. Else: `not_confirmed`; with fewer than `FEWEST` rows after the halving in either: `undecided`.
For an adaptive optimizer the sharpness is the preconditioned one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dynalab.analysis.base import Trajectories, Trajectory
from dynalab.analysis.cycle import at_ends
from dynalab.analysis.eos.config import Config
from dynalab.analysis.eos.edge import AFTER, edge_of
from dynalab.analysis.eos.ratios import NEEDED, ratios_of

FALLS, RISES, FEWEST = 0.75, 1.25, 10
# The fork is prolonged beyond its parent's end, up to this many times its length, where the parent arrived late.
LONGEST = 2


@dataclass(frozen=True)
class Halving:
    """A fork that is to be made.

    Attributes:
        runs: Ids of its runs.
        at: First update at half the rate.
        steps: Length that it needs.
    """

    runs: tuple[str, ...]
    at: int
    steps: int


def halvings(
    result: Mapping[str, Any], curves: Mapping[str, tuple[np.ndarray, np.ndarray]], config: Config
) -> list[Halving]:
    """Return the forks that tell of every run that arrived, as few as can be.

    A run is ready five rows after its arrival. Runs share a step of halving where all of them are at the edge.

    Args:
        result: The analysis.
        curves: Run -> (steps, ratios) of its rows, each (N,).
        config: Keys of the analysis.
    """
    ready: dict[str, int] = {}
    for run in result["runs"]:
        if run["onset_step"] is None:
            continue
        steps, _ = curves[run["run"]]
        after = steps[steps >= run["onset_step"]]
        if len(after) > AFTER:
            ready[run["run"]] = int(after[AFTER])
    found = []
    onsets = {run["run"]: run["onset_step"] for run in result["runs"]}
    while ready:
        at = max(ready.values())
        together = tuple(
            name
            for name, step in sorted(ready.items())
            if step == at or (step < at and _holds(*curves[name], at, config))
        )
        last = max(int(curves[name][0][-1]) for name in together)
        # At half the rate the way from half of the threshold on takes twice as many steps, and some more.
        way = max(onsets[name] - _halfway(*curves[name], onsets[name]) for name in together)
        found.append(Halving(together, at, int(min(max(last, at + 4 * way), LONGEST * last))))
        for name in together:
            del ready[name]
    return found


def _holds(steps: np.ndarray, ratios: np.ndarray, at: int, config: Config) -> bool:
    """Return whether a run is at the edge in the rows up to a step."""
    before = ratios[steps <= at][-AFTER:]
    return bool(len(before) and steps[-1] > at and config.low <= np.median(before) <= config.high)


def _halfway(steps: np.ndarray, ratios: np.ndarray, onset: float) -> float:
    """Return the last step before the arrival with a ratio of at most a half, else the first step."""
    low = steps[(steps <= onset) & (ratios <= 0.5)]
    return float(low[-1]) if len(low) else float(steps[0])


def compare(
    parents: Trajectories, forks: Trajectories, at: int, config: Config
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return what forks say of their parents' arrival.

    Args:
        parents: The runs.
        forks: Their forks, of the same labels; runs without one are left out.
        at: First update at half the rate.
        config: Keys of the analysis.

    Returns:
        An entry for every fork, and the rows from `at` on that it rests on: run, fork, step, sharpness, threshold (both
        of the fork), parent_sharpness.
    """
    parents, forks = (at_ends(runs, NEEDED)[0] for runs in (parents, forks))
    theirs = {run.run.rpartition("/")[2]: run for run in forks.runs}
    entries, rows = [], []
    for run in parents.runs:
        other = theirs.get(run.run.rpartition("/")[2])
        if other is None:
            continue
        entries.append(_judge(run, parents.metrics, other, forks.metrics, at, config))
        rows += _rows(run, parents.metrics, other, forks.metrics, at)
    return entries, rows


def _judge(
    run: Trajectory,
    metrics: tuple[str, ...],
    other: Trajectory,
    fork_metrics: tuple[str, ...],
    at: int,
    config: Config,
) -> dict[str, Any]:
    ratios, forked = ratios_of(run, metrics), ratios_of(other, fork_metrics)
    entry: dict[str, Any] = {
        "run": run.run,
        "fork": other.run,
        "at_step": at,
        "verdict": "undecided",
        "confirmed": None,
        "ratio_after": None,
        "rise": None,
        "parent_rise": None,
        "fork_onset_step": None,
        "fork_last_ratio": None,
        "reason": "",
    }
    steps, values = _sharpness(run, metrics, ratios.adaptive)
    fork_steps, fork_values = _sharpness(other, fork_metrics, ratios.adaptive)
    before = values[steps <= at][-AFTER:]
    # Row `at` was measured before the halving.
    after, fork_after = values[steps > at], fork_values[fork_steps > at]
    later = forked.steps > at
    least = min(len(after), len(fork_after), int(later.sum()))
    if not len(before) or least < FEWEST:
        return {**entry, "reason": f"{least} rows after step {at:,}, at least {FEWEST} are needed"}
    level = float(np.median(before))
    shared = fork_after[fork_steps[fork_steps > at] <= steps[-1]]
    rise, parent_rise = _highest(fork_after) / level, _highest(after[: max(len(shared), FEWEST)]) / level
    fell = float(np.median(forked.values[later][:3]))
    # From here on the ratio begins anew: an arrival is one at the new threshold.
    arrival = edge_of(forked.steps[later], forked.values[later], config)
    good = fell < FALLS and rise >= RISES * parent_rise
    said = (
        f"the ratio fell to {fell:.2f}, then the sharpness rose {rise:.2f} times (parent: {parent_rise:.2f})"
    )
    return {
        **entry,
        "verdict": "confirmed" if good else "not_confirmed",
        "confirmed": good,
        "ratio_after": fell,
        "rise": rise,
        "parent_rise": parent_rise,
        "fork_onset_step": None if arrival.onset is None else round(arrival.onset),
        "fork_last_ratio": float(np.median(forked.values[-AFTER:])),
        "reason": said,
    }


def _sharpness(run: Trajectory, metrics: tuple[str, ...], adaptive: bool) -> tuple[np.ndarray, np.ndarray]:
    found = run.column(metrics, "preconditioned_sharpness" if adaptive else "sharpness")
    return (np.empty(0), np.empty(0)) if found is None else found


def _highest(values: np.ndarray) -> float:
    """Return the largest running median of five rows."""
    windows = np.lib.stride_tricks.sliding_window_view(values, min(AFTER, len(values)))
    return float(np.median(windows, axis=1).max())


def _rows(
    run: Trajectory, metrics: tuple[str, ...], other: Trajectory, fork_metrics: tuple[str, ...], at: int
) -> list[dict[str, Any]]:
    """Return what a figure is drawn from."""
    adaptive = ratios_of(run, metrics).adaptive
    steps, values = _sharpness(other, fork_metrics, adaptive)
    mine = dict(zip(*(list(part) for part in _sharpness(run, metrics, adaptive)), strict=True))
    limit = other.column(fork_metrics, "stability_threshold")
    limits = np.full(len(steps), np.nan) if limit is None else np.interp(steps, *limit)
    return [
        {
            "run": run.run,
            "fork": other.run,
            "step": int(step),
            "sharpness": float(value),
            "threshold": float(most),
            "parent_sharpness": float(mine.get(step, np.nan)),
        }
        for step, value, most in zip(steps, values, limits, strict=True)
    ]


def words(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return what the forks say of all runs, in a line."""
    good = sum(row["verdict"] == "confirmed" for row in rows)
    open_ = sum(row["verdict"] == "undecided" for row in rows)
    rises = [row["rise"] for row in rows if row["rise"] is not None]
    said = f"confirmed in {good} of {len(rows)} runs"
    if rises:
        said += f": at half the rate the sharpness rose {min(rises):.2f} to {max(rises):.2f} times"
    return said + (f"; {open_} undecided" if open_ else "")
