"""From recorded metrics to the features that an HMM sees.

Columns are chosen, the logarithm is taken of those that are sizes, rows with missing values are left out and their
places kept, constant and duplicate columns are dropped, and what remains is z-scored over all runs together. Pooling
matters: a z-score per run (as published) removes the differences between runs that the analysis is after, and
looks into the run's future.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np

from dynalab.analysis.base import Trajectories
from dynalab.analysis.cycle import at_ends
from dynalab.analysis.hmm.config import Config
from dynalab.analysis.hmm.findings import Collinearity
from dynalab.core.errors import ConfigError, NothingMatched
from dynalab.core.words import count

# The fourteen weight metrics, in the order of Hu et al. (2023), table 3.
WEIGHT_METRICS = (
    "l1", "l2", "l1_over_l2", "mean_w", "median_w", "var_w", "mean_b", "median_b", "var_b",
    "trace", "lambda_max", "trace_over_lambda_max", "mean_sv", "var_sv",
)  # fmt: skip
OF_BIASES = frozenset(("mean_b", "median_b", "var_b"))

# Sizes: positive by nature, and what changes them (decay, learning rate) acts on them by factors, so that the
# logarithm moves evenly. Means, medians and traces have a sign and stay as they are; so does whatever is
# not known here.
SIZES = frozenset(("l1", "l2", "l1_over_l2", "var_w", "var_b", "lambda_max", "mean_sv", "var_sv"))
SIZE_SUFFIXES = ("_norm", "_loss")

# A column counts as constant when its spread is below this share of its largest value (float64 rounding is 1e-16).
CONSTANT = 1e-12
DUPLICATE = 0.999
# A value this many times farther from the median than the middle 90% is wide dominates every moment.
OUTLIER = 100.0
# Share of a run's rows that must be whole.
LEAST_ROWS = 0.5
UNRECORDED = "metrics: none of the chosen columns has a value in these runs"
# What loggers keep for themselves (`_runtime`, `_timestamp`): clocks, not training.
BOOKKEEPING = "_"


@dataclass(frozen=True)
class Features:
    """The features of all runs, not yet normalised (folds normalise by their own training runs).

    Attributes:
        names: The M features; `logged`: those of which the logarithm was taken.
        steps: Kept steps of each run, shapes (T,).
        values: Features of each run after the logarithm, shapes (T, M): finite, or NaN in all of a row that is missing
            between others.
        warnings: What was left out.
        cycle: What the steps of all rows are multiples of, where rows within a cycle were left out; else 1.
    """

    names: tuple[str, ...]
    logged: tuple[str, ...]
    runs: tuple[str, ...]
    steps: tuple[np.ndarray, ...]
    values: tuple[np.ndarray, ...]
    warnings: tuple[str, ...]
    cycle: int = 1


@dataclass(frozen=True)
class Scaler:
    """Pooled normalisation, z = (x - mean) / sd; both of shape (M,)."""

    mean: np.ndarray
    sd: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Normalise rows of shape (T, M)."""
        return np.asarray((x - self.mean) / self.sd)


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (ddof 0) of columns, shapes (M,); near the largest float as well."""
    scale = np.maximum(np.abs(x).max(axis=0), np.finfo(np.float64).tiny)
    return scale * (x / scale).mean(axis=0), scale * (x / scale).std(axis=0)


def missing_rows(values: Sequence[np.ndarray]) -> int:
    """How many rows of all runs (T, M) are missing between others."""
    return sum(int(np.isnan(x[:, 0]).sum()) for x in values)


def whole(values: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of all runs (T, M) that are not missing, stacked."""
    stacked = np.concatenate(values)
    missing = np.isnan(stacked[:, 0])
    return stacked[~missing] if missing.any() else stacked


def fit_scaler(values: Sequence[np.ndarray], reference: Scaler | None = None) -> Scaler:
    """Normalisation of runs (T, M); a column that hardly moves in them is blown up no more than a thousand times."""
    mean, sd = moments(whole(values))
    least = np.finfo(np.float64).tiny if reference is None else 1e-3 * reference.sd
    return Scaler(mean, np.maximum(sd, least))


def collinearity(z: np.ndarray) -> Collinearity:
    """Condition number and effective rank of normalised features, shape (N, M)."""
    values = np.linalg.eigvalsh(z.T @ z / len(z))
    values = np.maximum(values, np.finfo(np.float64).eps * max(values[-1], np.finfo(np.float64).tiny))
    shares = values / values.sum()
    return Collinearity(
        condition_number=float(values[-1] / values[0]),
        effective_rank=float(np.exp(-(shares * np.log(shares)).sum())),
    )


def is_size(name: str) -> bool:
    """Whether the logarithm of this metric is the feature."""
    return name in SIZES or name.endswith(SIZE_SUFFIXES)


def _in_order(names: Iterable[str]) -> list[str]:
    """Columns in an order of their own, so that nothing depends on the order in which a table has them."""
    place = {name: number for number, name in enumerate(WEIGHT_METRICS)}
    return sorted(names, key=lambda name: (place.get(name, len(place)), name))


def _columns(trajectories: Trajectories, names: Sequence[str]) -> list[np.ndarray]:
    """Values of some columns of every run, shapes (T, M)."""
    columns = [trajectories.metrics.index(name) for name in names]
    return [np.asarray(run.values, dtype=np.float64)[:, columns] for run in trajectories.runs]


def clocks(trajectories: Trajectories, names: Sequence[str]) -> list[str]:
    """Columns that are one function of the step in all runs (an epoch, a scheduled rate), so that they tell none apart.

    Most of their rows must be at steps that several runs have. Where every column is so, the runs are copies, and none
    is a clock.
    """
    steps = np.concatenate([np.asarray(run.steps) for run in trajectories.runs])
    found = []
    for name, x in zip(names, np.concatenate(_columns(trajectories, names)).T, strict=True):
        at, value = steps[np.isfinite(x)], x[np.isfinite(x)]
        order = np.lexsort((value, at))
        at, value = at[order], value[order]
        same = at[1:] == at[:-1]
        apart = np.abs(np.diff(value)) > CONSTANT * np.maximum(np.abs(value[1:]), np.abs(value[:-1]))
        moves = len(value) > 0 and np.ptp(value) > 0
        if moves and 2 * same.sum() >= len(np.unique(at)) and not (same & apart).any():
            found.append(name)
    return [] if len(found) == len(names) else found


def _everything(trajectories: Trajectories) -> tuple[list[str], list[str]]:
    """All columns that most rows have, and warnings: the default for runs that were trained elsewhere."""
    names = [name for name in _in_order(trajectories.metrics) if not name.startswith(BOOKKEEPING)]
    notes = []
    if own := [name for name in trajectories.metrics if name.startswith(BOOKKEEPING)]:
        notes.append(f"a logger's own columns, left out: {', '.join(own)}")
    full = np.ones(len(names), bool)
    for x in _columns(trajectories, names):
        some = np.isfinite(x)
        some = some[some.any(axis=1)]
        if len(some):
            full &= some.mean(axis=0) >= LEAST_ROWS
    if full.any() and not full.all():
        sparse = ", ".join(name for name, kept in zip(names, full, strict=True) if not kept)
        notes.append(f"in under half of the rows of some run, left out: {sparse} (metrics=[...] chooses)")
        names = [name for name, kept in zip(names, full, strict=True) if kept]
    if not names:
        raise NothingMatched(
            f"no metric to take; name columns with metrics=[...]: {', '.join(trajectories.metrics)}"
        )
    return names, notes


def choose(trajectories: Trajectories, wanted: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """The columns to use, and warnings.

    Without a wish: the weight metrics that are there; of runs that were trained elsewhere all columns, unless they have
    most of the fourteen. Clocks are left out then. Raises as `extract`.
    """
    some = set(WEIGHT_METRICS) & set(trajectories.metrics)
    everything = wanted is None and trajectories.imported and 2 * len(some) < len(WEIGHT_METRICS)
    if everything:
        names, notes = _everything(trajectories)
    else:
        names, notes = _choose(trajectories.metrics, wanted)
        if wanted is None and trajectories.imported and (rest := _in_order(set(trajectories.metrics) - some)):
            notes.append(
                f"not of the fourteen weight metrics, left out: {', '.join(rest)} (metrics=[...] chooses)"
            )
    if ticking := clocks(trajectories, names):
        what = f"the same function of the step in all runs, as a clock: {', '.join(ticking)}"
        notes.append(f"{what}; left out" if wanted is None else f"{what}; taken, for metrics= names it")
        if wanted is None:
            names = [name for name in names if name not in ticking]
    if everything:
        notes.append(
            f"{len(some) or 'none'} of the fourteen weight metrics: all columns are taken, {', '.join(names)}"
        )
    return _in_order(names), notes


def _choose(available: tuple[str, ...], wanted: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """The columns to use, and warnings."""
    if wanted is None:
        present = [name for name in WEIGHT_METRICS if name in available]
        absent = [name for name in WEIGHT_METRICS if name not in available]
        if not present:
            raise NothingMatched(
                "these runs have none of the weight metrics; record them with probes=[weights], "
                f"or name columns with metrics=[...]: {', '.join(available)}"
            )
        # A network without biases has none of theirs, and nothing is amiss.
        without_biases = OF_BIASES if {*absent} >= OF_BIASES else frozenset()
        amiss = [name for name in absent if name not in without_biases]
        return present, [f"metrics not recorded, left out: {', '.join(absent)}"] if amiss else []
    for name in wanted:
        if name not in available:
            close = get_close_matches(name, available, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ConfigError(f"metrics={name}: not recorded; legal here: {', '.join(available)}{hint}")
    return list(dict.fromkeys(wanted)), []


def _whole_rows(run: str, x: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Mask (T,) of the rows without missing values; rows with none of the columns are of another grid, and no loss."""
    finite = np.isfinite(x)
    whole = finite.all(axis=1)
    rows = int(finite.any(axis=1).sum())
    if whole.sum() < LEAST_ROWS * rows or not whole.any():
        worst = names[int(np.argmin(finite.sum(axis=0)))]
        raise NothingMatched(
            f"metrics: run {run} has values of all columns in {int(whole.sum())} of {rows} rows "
            f"(half is the least); {worst} is missing most often: leave it out or leave the run out"
        )
    return whole


def usual_steps(steps: Sequence[np.ndarray]) -> np.ndarray:
    """Steps at which most of the runs have a row that have rows before and after it as well."""
    grid, rows = np.unique(np.concatenate(steps), return_counts=True)
    begun = np.searchsorted(np.sort([s[0] for s in steps]), grid, side="right")
    ended = np.searchsorted(np.sort([s[-1] for s in steps]), grid, side="left")
    return np.asarray(grid[2 * rows > begun - ended])


def with_missing(
    steps: np.ndarray, values: np.ndarray, every: np.ndarray, *, ahead: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Steps (T,) and values (T, M) of a run with a row of NaN at each of `every` that it lacks between others.

    A run that lacks rows in half of the places between its own, or more, is on a grid of its own, and nothing is
    missing. Without `ahead` a place is judged by those up to it alone, so that what follows changes nothing before.
    """
    inside = every[(every > steps[0]) & (every < steps[-1])]
    grid = np.union1d(steps, inside)
    if len(grid) == len(steps) or (np.diff(steps) <= 0).any():
        return steps, values
    lacking = np.diff(np.searchsorted(grid, steps)) > 1
    own = 2 * np.cumsum(lacking) >= np.arange(1, len(steps))
    if ahead:
        own[:] = own[-1]
    grid = np.union1d(steps, inside[~own[np.searchsorted(steps, inside, side="right") - 1]])
    out = np.full((len(grid), values.shape[1]), np.nan)
    out[np.searchsorted(grid, steps)] = values
    return grid, out


def _between(
    steps: Sequence[np.ndarray], values: Sequence[np.ndarray], recorded: Sequence[np.ndarray]
) -> tuple[list[np.ndarray], list[np.ndarray], int]:
    """Put rows of NaN where rows are missing between others: steps and values of every run, and how many there are.

    Given the steps and values of whole rows, and the steps at which anything was recorded.
    """
    usual = usual_steps(steps)
    out = [
        with_missing(s, x, np.union1d(usual, own)) for s, x, own in zip(steps, values, recorded, strict=True)
    ]
    missing = sum(len(grid) for grid, _ in out) - sum(map(len, steps))
    return [s for s, _ in out], [x for _, x in out], missing


def _drop(names: list[str], values: list[np.ndarray], keep: np.ndarray) -> tuple[list[str], list[np.ndarray]]:
    if keep.all():
        # Columns that were chosen lie otherwise in memory, and sums over them differ in their last bits.
        return names, values
    return [name for name, kept in zip(names, keep, strict=True) if kept], [x[:, keep] for x in values]


def raw(
    trajectories: Trajectories, wanted: Sequence[str] | None
) -> tuple[Trajectories, list[str], list[np.ndarray], list[str], int]:
    """Runs and the chosen columns with a value somewhere: their names, values (T, M) of every run, notes and the cycle.

    Raises:
        ConfigError: Unknown columns.
        NothingMatched: No runs, or none of the default metrics.
    """
    if not trajectories.runs:
        raise NothingMatched("no finished runs to analyse")
    names, notes = choose(trajectories, wanted)
    trajectories, cycle, more = at_ends(trajectories, names)
    notes += more
    values = _columns(trajectories, names)
    recorded = np.asarray(np.isfinite(np.concatenate(values)).any(axis=0))
    if not recorded.all():
        notes.append(f"metrics without a single value, left out: {', '.join(np.array(names)[~recorded])}")
    return trajectories, *_drop(names, values, recorded), notes, cycle


def extract(trajectories: Trajectories, config: Config) -> Features:
    """Choose, transform and clean the features of all runs, ragged and on different grids if need be.

    Raises as `raw`, and:
        NothingMatched: Too few whole rows, or nothing that varies.
    """
    trajectories, names, values, notes, cycle = raw(trajectories, config.metrics)
    for run in trajectories.runs:
        if not len(run.steps):
            raise NothingMatched(f"steps={config.steps}: run {run.run} has no row up to there")
    if not names:
        raise NothingMatched(UNRECORDED)
    steps = [np.asarray(run.steps, dtype=np.int64) for run in trajectories.runs]
    recorded, lost, total = [], 0, 0
    for index, run in enumerate(trajectories.runs):
        kept = _whole_rows(run.run, values[index], names)
        some = np.isfinite(values[index]).any(axis=1)
        lost, total = lost + int(some.sum()) - int(kept.sum()), total + int(some.sum())
        recorded.append(steps[index][some])
        steps[index], values[index] = steps[index][kept], values[index][kept]
    if lost:
        notes.append(f"{lost:,} of {count(total, 'row')} left out because of missing values")
    values, logged, more = _log(names, values)
    notes += more
    names, values, more = _reduce(names, values, config.emission)
    notes += more
    steps, values, missing = _between(steps, values, recorded)
    if missing:
        notes.append(
            f"{count(missing, 'row')} missing between others: states there are told from the rows around them, and "
            "nothing is predicted across a gap"
        )
    gaps = [np.diff(s) for s in steps if len(s) > 1]
    if config.emission != "level" and gaps and len(np.unique(np.concatenate(gaps))) > 1:
        notes.append(
            "rows are not evenly spaced in steps: the autoregression takes every row as one unit of time"
        )
    taken = tuple(name for name in logged if name in names)
    runs = tuple(run.run for run in trajectories.runs)
    return Features(tuple(names), taken, runs, tuple(steps), tuple(values), tuple(notes), cycle)


def _log(names: list[str], values: list[np.ndarray]) -> tuple[list[np.ndarray], list[str], list[str]]:
    """Take the logarithm of sizes; a size that is 0 or negative somewhere stays as it is, with a note."""
    lowest = np.min([x.min(axis=0) for x in values], axis=0)
    sizes = np.array([is_size(name) for name in names])
    logged = sizes & (lowest > 0)
    notes = []
    if (sizes & ~logged).any():
        raw = ", ".join(np.array(names)[sizes & ~logged])
        notes.append(f"not positive everywhere, taken without the logarithm: {raw}")
    out = [x.copy() for x in values]
    for x in out:
        x[:, logged] = np.log(x[:, logged])
    return out, [name for name, on in zip(names, logged, strict=True) if on], notes


def _reduce(
    names: list[str], values: list[np.ndarray], emission: str
) -> tuple[list[str], list[np.ndarray], list[str]]:
    """Drop columns that say nothing (constant) or nothing new (duplicates), and point at outliers."""
    notes = []
    stacked = np.concatenate(values)
    _, sd = moments(stacked)
    varies = sd > CONSTANT * np.abs(stacked).max(axis=0)
    moves = varies
    if any(len(x) > 1 for x in values):
        # A column that differs between runs but never moves within one tells runs apart, not states. Whichever
        # emission is chosen in the end, all of them see the same features.
        moved = np.max([np.abs(x - x[0]).max(axis=0) for x in values], axis=0)
        moves = varies & (moved > CONSTANT * np.abs(stacked).max(axis=0))
    if not varies.all():
        notes.append(f"constant, left out: {', '.join(np.array(names)[~varies])}")
    if (still := varies & ~moves).any():
        notes.append(f"constant within every run, left out: {', '.join(np.array(names)[still])}")
    names, values = _drop(names, values, moves)
    if not names:
        raise NothingMatched("metrics: no column varies; there is nothing to model")
    if emission != "level" and all(len(x) < 2 for x in values):
        raise NothingMatched(
            "emission=ar: needs a run with two rows or more; emission=level takes single rows"
        )
    z = fit_scaler(values)(np.concatenate(values))
    correlation = np.abs(z.T @ z / len(z))
    keep = np.ones(len(names), bool)
    twins = []
    for j in range(1, len(names)):
        same = np.flatnonzero(keep[:j] & (correlation[j, :j] > DUPLICATE))
        if len(same):
            keep[j] = False
            twins.append(f"{names[j]} (as {names[same[0]]})")
    if twins:
        notes.append(f"correlated above {DUPLICATE} with another column, left out: {', '.join(twins)}")
        names, values = _drop(names, values, keep)
        z = z[:, keep]
    low, middle, high = np.quantile(z, [0.05, 0.5, 0.95], axis=0)
    far = np.abs(z - middle).max(axis=0) > OUTLIER * np.maximum(high - low, CONSTANT)
    if far.any():
        notes.append(f"outliers dominate the scale of: {', '.join(np.array(names)[far])}")
    return names, values, notes
