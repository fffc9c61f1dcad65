"""The frames of all runs stacked as one regression problem: what is predicted, and from what.

Both emissions are linear regressions with Gaussian noise, y | z=k ~ N(W_k u, Sigma_k):

- `level`: y is the frame itself and u = (1), so W_k is the state's mean;
- `ar`: y = x_t - x_{t-1} and u = (x_{t-1}, 1), so W_k = (A_k - I, b_k) and the random walk is W = 0.

Written with increments, the ridge toward the random walk is a ridge toward 0, and smooth curves lose no
digits to cancellation. Targets are divided by their own pooled spread, so every floor and prior is relative
and every covariance well scaled whatever the features' units.

The first frame of a run has no predecessor. Under `ar` it gets one Gaussian of its own, shared by all states,
so that both emissions are densities of the same frames, all of them, and their likelihoods per frame compare.

A row that is missing between others is a frame that says nothing, so the chain goes on over it. Nor does the row after
it: what it is expected to be from the row before the gap is not what a state says of one row from the next. Under
`level` it could be asked, but then the two emissions would not be densities of the same frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

# A feature that the training runs of a fold hardly move must not get an infinitely fine unit.
LEAST_UNIT = 1e-4
# Products of columns are kept while they take at most this many numbers (40 MB). Larger tables take as long to read as
# sums state by state, and several times as long to make (20,000 rows, 29 columns: 10 ms, 2.8 ms a state, 56 ms).
MOST_PRODUCTS = 5_000_000
# Weights that rounding would lose beside a frame of weight 1 are left out of sums over frames.
NEGLIGIBLE = float(np.finfo(np.float64).eps)
# Up to this many states with a part of a frame (mean over frames), sums are made state by state.
MOST_SHARES = 2.0
# Multiplications of one matrix product: above, OpenBLAS packs its factors first, which takes it longer than to multiply
# them where one side is short (sums over 20,000 frames of 29 columns: 18 ms at once, 3.1 ms in parts).
MOST_MULTIPLICATIONS = 1_000_000


@dataclass(frozen=True)
class Frames:
    """Stacked frames of several runs.

    Attributes:
        emission: `ar` or `level`.
        levels: Normalised features, shape (N, M); those of a missing row are of the row before.
        lengths: Frames per run, summing to N.
        unit: Spread that targets are divided by, shape (M,).
        regressed: Rows of `levels` that are predicted by the regression, shape (R,): all, or all but first frames, less
            those skipped.
        design: Inputs and targets side by side, (u, y / unit), shape (R, P + M).
        inputs: P, the number of columns of u.
        skipped: Rows that say nothing of states: missing ones and the first after them.
    """

    emission: str
    levels: np.ndarray
    lengths: tuple[int, ...]
    unit: np.ndarray
    regressed: np.ndarray
    design: np.ndarray
    inputs: int
    skipped: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    @cached_property
    def evaluated(self) -> np.ndarray:
        """Frames of each run that have a density, shape (S,)."""
        run = np.searchsorted(self.firsts, self.skipped, side="right") - 1
        return np.array(self.lengths) - np.bincount(run, minlength=len(self.lengths))

    @cached_property
    def firsts(self) -> np.ndarray:
        """Rows of the first frame of each run, shape (S,)."""
        return np.concatenate([[0], np.cumsum(self.lengths)[:-1]]).astype(np.int64)

    @cached_property
    def columns(self) -> np.ndarray:
        """`design` by columns, shape (P + M, N): zeros where a frame is not predicted."""
        if len(self.regressed) == len(self.levels):
            return np.ascontiguousarray(self.design.T)
        out = np.zeros((self.design.shape[1], len(self.levels)))
        out[:, self.regressed] = self.design.T
        return out

    @cached_property
    def blocks(self) -> np.ndarray:
        """`columns` in blocks of frames, filled up with zeros, shape (ceil(N / 32), P + M, 32): for em.cpp."""
        width, n_frames = self.columns.shape
        out = np.zeros((-(-n_frames // 32), width, 32))
        whole = n_frames // 32
        out[:whole] = self.columns[:, : 32 * whole].reshape(width, whole, 32).transpose(1, 0, 2)
        out[whole:, :, : n_frames % 32] = self.columns[:, 32 * whole :]
        return out

    @cached_property
    def rows(self) -> np.ndarray:
        """`design` by frames, its columns filled up to eights: zeros where a frame is not predicted; as `blocks`."""
        width = self.design.shape[1]
        out = np.zeros((len(self.levels), -(-width // 8) * 8))
        out[self.regressed, :width] = self.design
        return out

    @cached_property
    def room(self) -> dict[int, Any]:
        """What compiled code works in, by the number of states: kept from one start to the next."""
        return {}

    @cached_property
    def variances(self) -> np.ndarray:
        """Of the levels over all frames, shape (M,)."""
        return np.asarray(self.levels.var(axis=0))

    def only(self, runs: Sequence[int]) -> Frames:
        """The frames of some runs, given in order, in the same units."""
        kept = np.zeros(len(self.levels), bool)
        for run in runs:
            kept[self.firsts[run] : self.firsts[run] + self.lengths[run]] = True
        inside, place = kept[self.regressed], np.cumsum(kept) - 1
        return replace(
            self,
            levels=self.levels[kept],
            lengths=tuple(self.lengths[run] for run in runs),
            regressed=place[self.regressed[inside]],
            design=self.design[inside],
            skipped=place[self.skipped[kept[self.skipped]]],
        )

    def predicted(self, values: np.ndarray) -> np.ndarray:
        """Of values of every frame, (N, ...), those of the frames that are predicted, (R, ...)."""
        # Along rows of the transpose: values of states lie in memory by states.
        return values if len(self.regressed) == len(values) else values.T.take(self.regressed, axis=-1).T

    @cached_property
    def _products(self) -> np.ndarray | None:
        """Products of all pairs of columns of `design`, shape (R, (P+M)(P+M+1)/2), if they are not too many."""
        size = self.design.shape[1]
        out = np.empty((len(self.design), size * (size + 1) // 2))
        if out.size > MOST_PRODUCTS:
            return None
        # Column by column with those from it on: to gather the pairs takes three times as long.
        end = 0
        for column in range(size):
            begin, end = end, end + size - column
            np.multiply(self.design[:, column : column + 1], self.design[:, column:], out=out[:, begin:end])
        return out

    def grams(self, weights: np.ndarray) -> np.ndarray:
        """Weighted products sum_r w_rk d_r d_r^T of the rows of `design`, (K, P + M, P + M); weights (R, K), 0 to 1.

        Most posteriors are nearly certain, so state by state over the rows that a state has any part of: what is left
        out is below rounding. Where states share many rows, one matrix product for all states is faster (7,648 rows, 29
        columns, 8 states: 1.3 against 3.3 ms with one state a row, 9.3 against 3.5 ms with all in each row). To sum
        only what moved since the iteration before is no faster: in the main job half of the entries move and more.
        """
        by_state = np.ascontiguousarray(weights.T)
        some = by_state > NEGLIGIBLE
        size = self.design.shape[1]
        out = np.zeros((len(by_state), size, size))
        if np.count_nonzero(some) > MOST_SHARES * len(weights) and self._products is not None:
            rows, columns = np.triu_indices(size)
            out[:, rows, columns] = out[:, columns, rows] = by_state @ self._products
            return out
        block = max(1, MOST_MULTIPLICATIONS // size**2)
        for state, shares in enumerate(by_state):
            rows = np.flatnonzero(some[state])
            for begin in range(0, len(rows), block):
                part = rows[begin : begin + block]
                chosen = self.design.take(part, axis=0)
                # Of two arrays, since numpy has a slower product for one and its transpose.
                out[state] += (chosen * shares.take(part)[:, None]).T @ chosen
        return out


def thin(lengths: Sequence[int], most: int, seeds: np.random.SeedSequence, least: int = 2) -> list[int]:
    """Runs of at most `most` frames together (`least` runs at least), drawn at random, in order; all if they fit."""
    if sum(lengths) <= most or len(lengths) <= least:
        return list(range(len(lengths)))
    order = np.random.default_rng(seeds).permutation(len(lengths))
    within = int(np.searchsorted(np.cumsum(np.asarray(lengths)[order]), most, side="right"))
    return sorted(order[: max(least, within)].tolist())


def silent(x: np.ndarray) -> np.ndarray:
    """Which rows of x (T, M) say nothing of states, shape (T,): missing ones and the first after them."""
    missing = np.isnan(x[:, 0])
    return np.asarray(missing | np.append(False, missing[:-1]))


def stack(runs: Sequence[np.ndarray], emission: str, unit: np.ndarray | None = None) -> Frames:
    """Stack runs of normalised features, shapes (T, M); T may differ and is 1 or more. Missing rows are NaN, ends not.

    `unit` is the spread of the targets (M,), from the runs a model is fitted to; None measures it on these.
    """
    levels = np.concatenate(runs)
    lengths = tuple(len(x) for x in runs)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
    missing, every = np.isnan(levels[:, 0]), np.arange(len(levels))
    skipped = np.flatnonzero(silent(levels))
    if len(skipped):
        levels = levels[np.maximum.accumulate(np.where(missing, 0, every))]
    if emission == "ar":
        regressed = np.delete(every, np.concatenate([starts, skipped]))
        before = levels.take(regressed - 1, axis=0)
        targets = levels.take(regressed, axis=0) - before
        inputs = np.column_stack([before, np.ones(len(before))])
    else:
        regressed = np.delete(every, skipped)
        targets = levels[regressed] if len(skipped) else levels
        inputs = np.ones((len(targets), 1))
    if unit is None:
        centre = targets.mean(axis=0) if emission == "level" else 0.0
        spread = (
            np.sqrt(np.mean((targets - centre) ** 2, axis=0)) if len(targets) else np.ones(levels.shape[1])
        )
        unit = np.maximum(spread, LEAST_UNIT)
    design = np.ascontiguousarray(np.column_stack([inputs, targets / unit]))
    return Frames(emission, levels, lengths, unit, regressed, design, inputs.shape[1], skipped)
