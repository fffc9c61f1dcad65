"""The edges of the training map: how often each is taken, and what changes on it, with intervals over runs.

Intervals are percentiles over resampled runs (Efron, 1979) with the fitted model and its states held fixed: they say
how much the runs differ, not how much the fit does (`stability` says that).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from dynalab.analysis.hmm import evidence, inference
from dynalab.analysis.hmm.findings import Edge, Feature
from dynalab.analysis.hmm.frames import Frames
from dynalab.analysis.hmm.model import Model
from dynalab.analysis.hmm.states import TOP_FEATURES, visited
from dynalab.core.stats import clopper_pearson

# A resampled share needs some runs to be drawn from.
LEAST_RUNS = 3


@dataclass(frozen=True)
class Ratio:
    """A statistic that is sums (S, M) over counts (S,), kept by run so that runs can be resampled."""

    sums: np.ndarray
    counts: np.ndarray

    def value(self, weights: np.ndarray | None = None) -> np.ndarray:
        """The statistic, shape (M,), or of every row of weights (B, S), shape (B, M); NaN without any count."""
        w = np.ones((1, len(self.counts))) if weights is None else weights
        total = w @ self.counts
        with np.errstate(invalid="ignore", divide="ignore"):
            found = np.where(total[:, None] > 0, (w @ self.sums) / total[:, None], np.nan)
        return np.asarray(found[0] if weights is None else found)


def _by_run(rows: Sequence[slice], mask: np.ndarray, values: np.ndarray) -> Ratio:
    """Sums and counts over the frames of a mask (N,) of values (N, M), by run."""
    chosen = np.where(mask[:, None], values, 0.0)
    starts = [one.start for one in rows]
    return Ratio(np.add.reduceat(chosen, starts), np.add.reduceat(mask.astype(np.float64), starts))


def describe(
    model: Model,
    frames: Frames,
    paths: Sequence[np.ndarray],
    *,
    means: np.ndarray | None,
    resamples: int,
    seed: int,
) -> tuple[list[Edge], pd.DataFrame]:
    """Every change of state that some run makes, by from and to, and a table of all features of all of them.

    The model's states are in canonical order, and `paths` the decoded ones of every run, shapes (T,). Features are
    ranked by `llr`, and `change` is between the means over decoded rows; as published, with the model's `means` (K, M),
    by `gradient`, and `change` is between those.

    Returns:
        How many runs take an edge at least once, the exact interval of their share of all runs, and the three leading
        features with `change` (of the mean level, or for `ar` of the mean drift), its `interval` (null with under three
        runs), `gradient` (mean |d log p(to | x_1:t) / d x_t| at the change), `llr` (mean log-likelihood ratio of `to`
        over `from` a frame of the stay that follows, of this feature alone), `stability` (share of resampled ensembles
        in which the feature leads as well) and for `ar` `drift_at_edge` (change of the model's drift where the run
        stands) and `fixed_point` (change of where the dynamics come to rest; null where they do not).
    """
    names, size, dynamic = model.names, len(model.names), model.emission == "ar"
    rows = inference.slices(frames.lengths)
    state = np.concatenate(paths)
    frame = np.arange(len(state))
    # The state of the frame before, -1 at a run's first; and that before the stay that a frame is in.
    before = np.append(-1, state[:-1])
    before[frames.firsts] = -1
    came = before[np.maximum.accumulate(np.where(before != state, frame, 0))]
    values, inside = frames.levels, np.ones(len(state), bool)
    if dynamic:
        values = np.diff(frames.levels, axis=0, prepend=0.0)
        inside[frames.firsts] = False
        drifts, rests = evidence.model_drifts(model, frames), evidence.fixed_points(model)
    inside[frames.skipped] = False
    characteristic = [_by_run(rows, inside & (state == k), values) for k in range(model.parameters.n_states)]
    gradients = np.abs(evidence.posterior_gradient(model, frames)[frame, state])
    density = evidence.marginal_log_density(model, frames)
    taken = [set(pairwise(visited(path))) for path in paths]
    # The same resampled ensembles for all edges; rows of counts that sum to S.
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(10,)))
    weights = rng.multinomial(len(paths), np.full(len(paths), 1 / len(paths)), size=resamples).astype(float)
    resampled = [one.value(weights) for one in characteristic] if means is None else []
    nothing = np.full(size, np.nan)
    edges, table = [], []
    for a, b in sorted(set().union(*taken)):
        runs = sum((a, b) in one for one in taken)
        enough = runs >= LEAST_RUNS
        at = (before == a) & (state == b) & inside
        gradient = _by_run(rows, at, gradients)
        llr = _by_run(rows, (came == a) & (state == b) & inside, density[:, b] - density[:, a])
        if means is None:
            change = characteristic[b].value() - characteristic[a].value()
            low, high = _interval(resampled[b] - resampled[a]) if enough else (nothing, nothing)
        else:
            change, low, high = means[b] - means[a], nothing, nothing
        evident = {"gradient": gradient, "llr": llr}
        leader = "llr" if means is None else "gradient"
        order = np.argsort(-evident[leader].value(), kind="stable")
        rank = np.empty(size, dtype=np.int64)
        rank[order] = np.arange(size)
        samples = {name: ratio.value(weights) for name, ratio in evident.items()}
        drawn = samples[leader][np.isfinite(samples[leader]).all(axis=1)]
        again = np.argsort(np.argsort(-drawn, axis=1, kind="stable"), axis=1) < TOP_FEATURES
        columns: dict[str, np.ndarray] = {
            "change": change,
            "low": low,
            "high": high,
            "gradient": gradient.value(),
            "llr": llr.value(),
            "stability": again.mean(axis=0) if enough and len(again) else nothing,
        }
        for name, several in samples.items():
            bounds = _interval(several) if enough else (nothing, nothing)
            columns[f"{name}_low"], columns[f"{name}_high"] = bounds
        if dynamic:
            columns["drift_at_edge"] = _by_run(rows, at, drifts[:, b] - drifts[:, a]).value()
            columns["fixed_point"] = rests[b] - rests[a]
        every = pd.DataFrame({"from": a, "to": b, "feature": list(names), "rank": rank + 1, **columns})
        table.append(every.sort_values("rank"))
        leading = [_feature(names[i], i, columns) for i in order[:TOP_FEATURES]]
        edges.append(
            Edge(start=a, end=b, runs=runs, interval=clopper_pearson(runs, len(paths)), features=leading)
        )
    empty = pd.DataFrame({"from": [], "to": [], "feature": [], "rank": [], "change": []})
    return edges, pd.concat(table, ignore_index=True) if table else empty


def _interval(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """2.5 and 97.5% points of every column of (B, M), over the samples where it exists; NaN where it hardly does."""
    kept = samples[np.isfinite(samples).all(axis=1)]
    if len(kept) < max(2, len(samples) // 2):
        return (np.full(samples.shape[1], np.nan),) * 2
    low, high = np.quantile(kept, [0.025, 0.975], axis=0)
    return low, high


def _feature(name: str, i: int, columns: dict[str, np.ndarray]) -> Feature:
    """A feature of an edge, the i-th of the columns (M,)."""

    def plain(key: str) -> float | None:
        value = float(columns[key][i])
        return value if np.isfinite(value) else None

    bounds = [plain("low"), plain("high")]
    rest = ("gradient", "llr", "stability", "drift_at_edge", "fixed_point")
    return Feature(
        name=name,
        change=plain("change"),
        interval=None if None in bounds else bounds,
        **{key: plain(key) for key in rest if key in columns},
    )
