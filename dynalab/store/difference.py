"""Two stored things beside each other: in which keys they differ, and what became of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dynalab.config.typed import flat
from dynalab.core.errors import StoreError
from dynalab.core.stats import quartiles
from dynalab.store.reader import Ensemble
from dynalab.store.stored import StoredRun

LANDMARKS = ("memorised_step", "generalised_step", "diverged_step")


def configuration(one: Ensemble, other: Ensemble) -> list[dict[str, Any]]:
    """Return the keys in which two configurations differ, `{key, a, b}`; null where a side has no such key."""
    left, right = flat(one.config), flat(other.config)
    pairs = {key: (left.get(key), right.get(key)) for key in [*left, *right]}
    return [{"key": key, "a": a, "b": b} for key, (a, b) in pairs.items() if a != b]


def results(one: Sequence[StoredRun], other: Sequence[StoredRun]) -> list[dict[str, Any]]:
    """Return what became of two sets of runs.

    Returns:
        `{what, a, b, difference}`: number of runs, how many of each status, steps, then landmarks and final metrics as
        `{median, quartiles, runs}` (null where no run has them): metrics over the runs that have them, landmarks over
        all runs (null where a quantile falls among runs that never got there), `runs` those that got there.
        `difference` of final metrics is that of the means, b - a, `{estimate, interval, paired}` with its 95% interval
        by Student's t: of pairs where both sides have the same labels, else by Welch; null of anything else, below
        two runs a side, and where the sides end at other steps.
    """
    sides = (one, other)
    values: dict[str, list[Any]] = {
        "runs": [len(runs) for runs in sides],
        "status": [dict(Counter(run.status for run in runs).most_common()) for runs in sides],
        "steps": [sorted({run.steps for run in runs}) for runs in sides],
    }
    for name in LANDMARKS:
        known = [[run.summary for run in runs if run.summary is not None] for runs in sides]
        values[name] = [_landmark([summary.get(name) for summary in summaries]) for summaries in known]
    finals = [[(run.summary or {}).get("final") or {} for run in runs] for runs in sides]
    last = [{row.get("step") for row in rows} for rows in finals]
    differences: dict[str, dict[str, Any] | None] = {}
    for name in dict.fromkeys(name for rows in finals for row in rows for name in row if name != "step"):
        what, ends = f"final {name}", [[row.get(name) for row in rows] for rows in finals]
        values[what] = [_middle(some) for some in ends]
        left, right = (
            {run.label: end for run, end in zip(runs, some, strict=True)}
            for runs, some in zip(sides, ends, strict=True)
        )
        differences[what] = _of_means(left, right) if last[0] == last[1] else None
    return [
        {"what": name, "a": a, "b": b, "difference": differences.get(name)}
        for name, (a, b) in values.items()
        if (a, b) != (None, None)
    ]


def _of_means(left: Mapping[str, float | None], right: Mapping[str, float | None]) -> dict[str, Any] | None:
    """Return the difference of two means over runs by label, with its interval."""
    x, y = ({key: value for key, value in side.items() if value is not None} for side in (left, right))
    if min(len(x), len(y)) < 2:
        return None
    from scipy import stats

    paired = x.keys() == y.keys()
    a, b = np.array([*x.values()]), np.array([y[key] for key in x] if paired else [*y.values()])
    estimate = float(b.mean() - a.mean())
    # Where nothing varies Student's t has no scale.
    spread = np.ptp(b - a) if paired else np.ptp(a) + np.ptp(b)
    if not spread:
        return {"estimate": estimate, "interval": [estimate, estimate], "paired": paired}
    test = stats.ttest_rel(b, a) if paired else stats.ttest_ind(b, a, equal_var=False)
    low, high = test.confidence_interval(0.95)
    return {"estimate": estimate, "interval": [float(low), float(high)], "paired": paired}


def series(one: Ensemble, a: Sequence[StoredRun], other: Ensemble, b: Sequence[StoredRun]) -> dict[str, Any]:
    """Compare the rows of runs that have the same label on both sides.

    Returns:
        `{shared, equal, differing, largest}`: number of labels on both sides; of those, the runs whose rows on the
        evaluation grid, and whose blocks, are the same to the bit, up to the last step that both have; the labels of
        the others; and the largest absolute difference of a metric there, with its name (null where none differs).
    """
    right = {run.label: run for run in b}
    shared = [(run, right[run.label]) for run in a if run.label in right]
    theirs = set(other.grid_metrics())
    metrics = [name for name in one.grid_metrics() if name in theirs]
    differing, equal = [], 0
    gaps: list[dict[str, Any]] = []
    for run, twin in shared:
        try:
            x, y = one.trajectory(run, metrics), other.trajectory(twin, metrics)
            apart = [
                name for name in _common_blocks(one, other) if len(_apart(one, run, other, twin, name)[1])
            ]
        except StoreError as error:
            one.leave_out(run.shard.root.name, str(error))
            continue
        rows = min(len(x.steps), len(y.steps))
        left, same_grid = x.values[:rows], np.array_equal(x.steps[:rows], y.steps[:rows])
        same = same_grid and np.array_equal(left, y.values[:rows], equal_nan=True)
        if same and not apart:
            equal += 1
            continue
        differing.append(run.label)
        if same_grid and metrics and not same:
            gap = np.nan_to_num(np.abs(left - y.values[:rows]), nan=0.0, posinf=0.0)
            sizes = gap.max(axis=0, initial=0.0)
            gaps.append({"difference": float(sizes.max()), "metric": metrics[int(sizes.argmax())]})
    largest = max(gaps, key=lambda gap: gap["difference"], default=None)
    return {"shared": len(shared), "equal": equal, "differing": differing, "largest": largest}


def divergence(
    one: Ensemble, a: Sequence[StoredRun], other: Ensemble, b: Sequence[StoredRun]
) -> dict[str, Any]:
    """Say from which recorded row on the series of runs of the same label differ, by metric, and by block.

    Values are compared to the bit where both have a row, NaN with NaN as equal.

    Returns:
        `{step, metrics}`: the first step at which a value differs (null where none does), and for every metric that
        both recorded, the earliest first, `{metric, step, runs, rows}`: that step of its own, in how many runs a value
        differs, and how many rows, over all runs, were compared.
    """
    twins = {run.label: run for run in b}
    names = [name for name in one.metrics if name in {*other.metrics}]
    names += _common_blocks(one, other)
    rows = dict.fromkeys(names, 0)
    firsts: dict[str, list[int]] = {name: [] for name in names}
    for run in a:
        for name in names if run.label in twins else ():
            try:
                common, apart = _apart(one, run, other, twins[run.label], name)
            except StoreError as error:
                one.leave_out(run.shard.root.name, str(error))
                break
            rows[name] += len(common)
            firsts[name] += apart[:1].tolist()
    metrics = [
        {"metric": name, "step": min(steps, default=None), "runs": len(steps), "rows": rows[name]}
        for name, steps in firsts.items()
        if rows[name]
    ]
    metrics.sort(key=lambda row: (row["step"] is None, row["step"] or 0))
    return {"step": metrics[0]["step"] if metrics else None, "metrics": metrics}


def weights(a: Sequence[StoredRun], b: Sequence[StoredRun]) -> dict[str, Any]:
    """Compare the last snapshot that runs of the same label both have.

    Returns:
        `{compared, differing}`: number of runs of which both have one, and the labels of those whose weights are not
        the same to the bit.
    """
    from safetensors.numpy import load_file

    twins, compared, differing = {run.label: run for run in b}, 0, []
    for run in a:
        twin = twins.get(run.label)
        ours, theirs = (one.shard.snapshots() if one else {} for one in (run, twin))
        if twin is None or not (common := ours.keys() & theirs.keys()):
            continue
        step = max(common)
        compared += 1
        x, y = load_file(ours[step]), load_file(theirs[step])
        same = x.keys() == y.keys() and all(
            x[name][run.index].tobytes() == y[name][twin.index].tobytes() for name in x
        )
        differing += [] if same else [run.label]
    return {"compared": compared, "differing": differing}


def _common_blocks(one: Ensemble, other: Ensemble) -> list[str]:
    # A block of the name of a metric is not told from it.
    return [name for name in one.blocks if name in {*other.blocks} and name not in {*one.metrics}]


def _apart(
    one: Ensemble, run: StoredRun, other: Ensemble, twin: StoredRun, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps at which both of two runs have a row of a metric or block, and those where they differ."""
    (steps, x), (others, y) = _rows(one, run, name), _rows(other, twin, name)
    common, left, right = np.intersect1d(steps, others, return_indices=True)
    x, y = x[left], y[right]
    if x.dtype != y.dtype or x.shape != y.shape:
        return common, common
    # Of floats the bits, so that a zero of another sign differs.
    bits = f"u{x.dtype.itemsize}"
    equal = (np.ascontiguousarray(x).view(bits) == np.ascontiguousarray(y).view(bits)) | ((x != x) & (y != y))
    return common, common[~equal.all(axis=tuple(range(1, equal.ndim)))]


def _rows(ensemble: Ensemble, run: StoredRun, name: str) -> tuple[np.ndarray, np.ndarray]:
    if name in ensemble.metrics:
        return ensemble.rows(run, name)
    rows = ensemble.block(run, name)
    return rows.steps, rows.values


def _landmark(steps: Sequence[float | None]) -> dict[str, Any] | None:
    """A run that never got there counts as later than all others."""
    reached = len(steps) - list(steps).count(None)
    if not reached:
        return None
    low, middle, high = quartiles(steps)
    return {"median": middle, "quartiles": [low, high], "runs": reached}


def _middle(values: Sequence[float | None]) -> dict[str, Any] | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    low, middle, high = quartiles(known)
    return {"median": middle, "quartiles": [low, high], "runs": len(known)}
