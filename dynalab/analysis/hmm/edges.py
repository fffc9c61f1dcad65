"""The edges of the training map: how often each is taken, and what changes on it, with intervals over runs.

Intervals are percentiles over resampled runs (Efron, 1979) with the fitted model and its states held fixed: they say
how much the runs differ, not how much the fit does (`stability` says that).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from dynalab.analysis.hmm import evidence, inference
from dynalab.analysis.hmm.claims import forks as first_ways
from dynalab.analysis.hmm.frames import Frames
from dynalab.analysis.hmm.model import Model
from dynalab.analysis.hmm.states import TOP_FEATURES, visited, wilson
from dynalab.core.stats import quartiles

# A resampled share needs some runs to be drawn from.
LEAST_RUNS = 3


@dataclass(frozen=True)
class Ratio:
    """A statistic that is a sum over a count, kept by run so that runs can be resampled.

    Attributes:
        sums: Shape (S, M).
        counts: Shape (S,).
    """

    sums: np.ndarray
    counts: np.ndarray

    def value(self, weights: np.ndarray | None = None) -> np.ndarray:
        """The statistic, shape (M,), or of every row of weights (B, S), shape (B, M); NaN without any count."""
        w = np.ones((1, len(self.counts))) if weights is None else weights
        total = w @ self.counts
        with np.errstate(invalid="ignore", divide="ignore"):
            found = np.where(total[:, None] > 0, (w @ self.sums) / total[:, None], np.nan)
        return np.asarray(found[0] if weights is None else found)


def _by_run(rows: list[slice], mask: np.ndarray, values: np.ndarray) -> Ratio:
    """Sums and counts over the frames of a mask (N,) of values (N, M), by run."""
    chosen = np.where(mask[:, None], values, 0.0)
    starts = [one.start for one in rows]
    return Ratio(np.add.reduceat(chosen, starts), np.add.reduceat(mask.astype(np.float64), starts))


@dataclass(frozen=True)
class Statistics:
    """What the frames say, kept for all edges.

    Attributes:
        entered: Frames at which a run enters a state, shape (N,), and `left`, the state before (-1 elsewhere).
        gradient: |g_{t,k}| at the decoded state k, shape (N, M).
        density: Log-density of every feature alone, shape (N, K, M).
        characteristic: Ratio of every state of what characterises it (mean level or mean drift).
        drifts: The model's drift of every state at every frame, shape (N, K, M); None for `level`.
        rests: Fixed points, shape (K, M); None for `level`.
    """

    state: np.ndarray
    left: np.ndarray
    gradient: np.ndarray
    density: np.ndarray
    characteristic: list[Ratio]
    drifts: np.ndarray | None
    rests: np.ndarray | None


def statistics(model: Model, frames: Frames, paths: Sequence[np.ndarray]) -> Statistics:
    """Gather what the edges are described by."""
    state = np.concatenate(paths)
    rows = list(inference.slices(frames.lengths))
    left = np.full(len(state), -1, dtype=np.int64)
    for run in rows:
        changed = np.flatnonzero(np.diff(state[run])) + run.start + 1
        left[changed] = state[changed - 1]
    n_states = model.parameters.n_states
    if model.emission == "level":
        values, inside = frames.levels, np.ones(len(state), bool)
    else:
        values = np.zeros_like(frames.levels)
        values[frames.regressed] = frames.levels[frames.regressed] - frames.levels[frames.regressed - 1]
        inside = np.zeros(len(state), bool)
        inside[frames.regressed] = True
    gradient = np.abs(evidence.posterior_gradient(model, frames)[np.arange(len(state)), state])
    dynamic = model.emission == "ar"
    return Statistics(
        state,
        left,
        gradient,
        evidence.marginal_log_density(model, frames),
        [_by_run(rows, inside & (state == k), values) for k in range(n_states)],
        evidence.model_drifts(model, frames) if dynamic else None,
        evidence.fixed_points(model) if dynamic else None,
    )


def _stay(found: Statistics, rows: list[slice], a: int, b: int) -> np.ndarray:
    """Frames of the stays in b that began from a, mask of shape (N,)."""
    mask = np.zeros(len(found.state), bool)
    for run in rows:
        bounds = [*np.flatnonzero(np.diff(found.state[run])) + run.start + 1, run.stop]
        for begin, end in pairwise(bounds):
            if found.left[begin] == a and found.state[begin] == b:
                mask[begin:end] = True
    return mask


def describe(
    model: Model,
    frames: Frames,
    paths: Sequence[np.ndarray],
    *,
    ranking: str,
    means: np.ndarray | None,
    resamples: int,
    seed: int,
) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    """Every change of state that some run makes.

    Args:
        model: The fitted model, states in canonical order.
        frames: The frames of all runs.
        paths: Decoded states of every run, shapes (T,).
        ranking: `gradient` (as published) or `llr`: what features are ranked by.
        means: What `change` is taken between, shape (K, M) (as published: the model's means); None for the means over
            decoded rows.
        resamples: Resampled ensembles.
        seed: Of resampling.

    Returns:
        `{from, to, runs, interval, features}` by from and to: how many runs take the edge at least once, Wilson's
        interval of their share of all runs, and the three leading features with `change` (of the mean level, or for
        `ar` of the mean drift), its `interval` (null with under three runs), `gradient` (mean |d log p(to | x_1:t) /
        d x_t| at the change), `llr` (mean log-likelihood ratio of `to` over `from` a frame of the stay that follows,
        of this feature alone), `stability` (share of resampled ensembles in which the feature leads as well) and for
        `ar` `drift_at_edge` (change of the model's drift where the run stands) and `fixed_point` (change of where the
        dynamics come to rest; null where they do not). And a table of all features of all edges.
    """
    names = model.names
    size = len(names)
    rows = list(inference.slices(frames.lengths))
    found = statistics(model, frames, paths)
    taken = [set(pairwise(visited(path))) for path in paths]
    # The same resampled ensembles for all edges; rows of counts that sum to S.
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(10,)))
    weights = rng.multinomial(len(paths), np.full(len(paths), 1 / len(paths)), size=resamples).astype(float)
    edges, table = [], []
    for a, b in sorted(set().union(*taken)):
        runs = sum((a, b) in one for one in taken)
        at = (found.left == a) & (found.state == b)
        stay = _stay(found, rows, a, b)
        gradient = _by_run(rows, at, found.gradient)
        llr = _by_run(rows, stay, found.density[:, b] - found.density[:, a])
        change = found.characteristic[b].value() - found.characteristic[a].value()
        moved = found.characteristic[b].value(weights) - found.characteristic[a].value(weights)
        if means is not None:
            change, moved = means[b] - means[a], np.full_like(moved, np.nan)
        leader = gradient if ranking == "gradient" else llr
        score = leader.value()
        order = np.argsort(-score, kind="stable")
        rank = np.empty(size, dtype=np.int64)
        rank[order] = np.arange(size)
        resampled = leader.value(weights)
        drawn = resampled[np.isfinite(resampled).all(axis=1)]
        again = np.argsort(np.argsort(-drawn, axis=1, kind="stable"), axis=1) < TOP_FEATURES
        enough = runs >= LEAST_RUNS
        low, high = _interval(moved) if enough and means is None else (np.full(size, np.nan),) * 2
        columns: dict[str, np.ndarray] = {
            "change": change,
            "low": low,
            "high": high,
            "gradient": gradient.value(),
            "llr": llr.value(),
            "stability": again.mean(axis=0) if enough and len(again) else np.full(size, np.nan),
        }
        for name, ratio in (("gradient", gradient), ("llr", llr)):
            bounds = _interval(ratio.value(weights)) if enough else (np.full(size, np.nan),) * 2
            columns[f"{name}_low"], columns[f"{name}_high"] = bounds
        if found.drifts is not None and found.rests is not None:
            columns["drift_at_edge"] = _by_run(rows, at, found.drifts[:, b] - found.drifts[:, a]).value()
            columns["fixed_point"] = found.rests[b] - found.rests[a]
        table.append(
            pd.DataFrame(
                {"from": a, "to": b, "feature": list(names), "rank": rank + 1, **columns}
            ).sort_values("rank")
        )
        edges.append(
            {
                "from": a,
                "to": b,
                "runs": runs,
                "interval": wilson(runs, len(paths)),
                "features": [_feature(names, i, columns) for i in order[: min(TOP_FEATURES, size)]],
            }
        )
    empty = pd.DataFrame({"from": [], "to": [], "feature": [], "rank": [], "change": []})
    return edges, pd.concat(table, ignore_index=True) if table else empty


def _interval(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """2.5 and 97.5% points of every column of (B, M), over the samples where it exists; NaN where it hardly does."""
    kept = samples[np.isfinite(samples).all(axis=1)]
    if len(kept) < max(2, len(samples) // 2):
        nothing = np.full(samples.shape[1], np.nan)
        return nothing, nothing
    low, high = np.quantile(kept, [0.025, 0.975], axis=0)
    return low, high


def _feature(names: Sequence[str], i: int, columns: dict[str, np.ndarray]) -> dict[str, Any]:
    """One feature of an edge as plain values."""

    def plain(key: str) -> float | None:
        value = float(columns[key][i])
        return value if np.isfinite(value) else None

    bounds = [plain("low"), plain("high")]
    item: dict[str, Any] = {
        "name": names[i],
        "change": plain("change"),
        "interval": None if None in bounds else bounds,
    }
    rest = ("gradient", "llr", "stability", "drift_at_edge", "fixed_point")
    return {**item, **{key: plain(key) for key in rest if key in columns}}


def forks(
    edges: Sequence[dict[str, Any]], paths: Sequence[np.ndarray], steps: Sequence[np.ndarray]
) -> list[dict[str, Any]]:
    """The forks of `claims.forks`, and when runs leave them.

    Args:
        edges: From `describe`; a way that is none of them is not listed.
        paths: Decoded states of every run, shapes (T,).
        steps: Steps of these rows, shapes (T,).

    Returns:
        `{state, successors: [{state, runs, interval}], median_step, quartiles}`, the most used successor first; the
        steps are those of the first row in another state, over the runs that leave.
    """
    known = {(edge["from"], edge["to"]) for edge in edges}
    found = []
    for fork in first_ways([visited(path) for path in paths]):
        if not fork.fork:
            continue
        state = fork.state
        left = [
            at[place + 1]
            for path, at in zip(paths, steps, strict=True)
            if (place := _first_exit(path, state)) is not None
        ]
        low, middle, high = quartiles(left)
        successors = [
            {"state": way.to, "runs": way.runs, "interval": way.interval}
            for way in fork.directions
            if (state, way.to) in known
        ]
        found.append(
            {"state": state, "successors": successors, "median_step": middle, "quartiles": [low, high]}
        )
    return found


def _first_exit(path: np.ndarray, state: int) -> int | None:
    """Row (T,) before the first change from a state to another; None for a run that never leaves it."""
    places = np.flatnonzero((path[:-1] == state) & (path[1:] != state))
    return int(places[0]) if len(places) else None
