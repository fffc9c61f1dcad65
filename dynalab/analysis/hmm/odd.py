"""Runs that are unlike the others: those of which a model that was fitted without them says little."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dynalab.analysis.hmm import inference
from dynalab.analysis.hmm.emissions import log_density
from dynalab.analysis.hmm.features import Features, fit_scaler
from dynalab.analysis.hmm.findings import Odd
from dynalab.analysis.hmm.frames import stack
from dynalab.analysis.hmm.tasks import Fitted
from dynalab.core.outliers import LEAST, unlike
from dynalab.core.stats import holm
from dynalab.core.survival import strata_of
from dynalab.core.words import count


def find(features: Features, fold: np.ndarray, fitted: Sequence[Fitted]) -> list[Odd]:
    """Return for every run what a model that did not see it says of it, and whether it is unlike the others.

    The model is that of its fold, with the chosen number of states, fitted to all runs of the other folds. A run is
    compared with the others of its ensemble row by row, at the same steps: how much less likely it is than their median
    there, nats a frame. So a run that was cut off is not odd because early rows differ from late ones. A mean over few
    rows varies more: it counts by the root of the share of rows that it is of. Whether it is odd is asked of what lies
    below only (`core.outliers`).

    Args:
        features: Of every run.
        fold: Fold in which every run was held out, (S,).
        fitted: The fit of every fold.
    """
    rows = _predictive(features, fold, fitted)
    grid, place = np.unique(np.concatenate(features.steps), return_inverse=True)
    table = np.full((len(rows), len(grid)), np.nan)
    ends = np.cumsum([len(x) for x in rows])
    for run, (values, at) in enumerate(zip(rows, np.split(place, ends[:-1]), strict=True)):
        table[run, at] = values
    below, p = np.full((2, len(rows)), np.nan)
    adjusted = np.full(len(rows), np.nan)
    strata = strata_of(features.runs)
    for one in np.unique(strata):
        here = np.flatnonzero(strata == one)
        below[here], p[here] = compared(table[here])
        asked = here[np.isfinite(p[here])]
        adjusted[asked] = holm(p[asked].tolist())
    few = {one: int((strata == one).sum()) for one in np.unique(strata)}
    return [
        Odd(
            run=run,
            ll_per_frame=float(values[~np.isnan(values)].mean()),
            below=None if np.isnan(low) else float(low),
            p=None if np.isnan(chance) else float(chance),
            p_adjusted=None if np.isnan(chance) else float(among),
            reason="" if np.isfinite(chance) else _reason(few[own]),
        )
        for run, values, low, chance, among, own in zip(
            features.runs, rows, below, p, adjusted, strata, strict=True
        )
    ]


def _reason(runs: int) -> str:
    if runs >= LEAST:
        return "its rows are at steps that fewer than half of the runs have"
    return f"{count(runs, 'run')} {'is' if runs == 1 else 'are'} too few"


def _predictive(features: Features, fold: np.ndarray, fitted: Sequence[Fitted]) -> list[np.ndarray]:
    """Log p(x_t | x_1..x_{t-1}) of every row under the fit of the fold without the run, (T,); NaN where skipped."""
    everything = fit_scaler(features.values)
    found: list[np.ndarray] = [np.empty(0)] * len(features.values)
    for one in fitted:
        outside = np.flatnonzero(fold == one.task.fold)
        p, kind = one.fit.parameters, "ar" if one.fit.parameters.emission.first_mean is not None else "level"
        frames = stack([one.scaler(features.values[run]) for run in outside], kind, one.unit)
        density = log_density(frames, p.emission)
        said = inference.predictive(p.start, p.transitions, density, frames.lengths)
        # In the units of the normalisation over all runs, so that folds compare.
        said = said + float(np.log(everything.sd / one.scaler.sd).sum())
        said[frames.skipped] = np.nan
        for run, rows in zip(outside, inference.slices(frames.lengths), strict=True):
            found[run] = said[rows]
    return found


def compared(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return by how much each run is below the others, nats a frame, and how often chance is, (S,); rows (S, T)."""
    there = np.isfinite(table)
    shared = there.sum(axis=0) * 2 >= len(table)
    if not shared.any():
        nothing = np.full(len(table), np.nan)
        return nothing, nothing
    table, there = table[:, shared], there[:, shared]
    lower = np.where(there, np.nanmedian(table, axis=0) - table, 0.0)
    rows = there.sum(axis=1)
    with np.errstate(invalid="ignore"):
        below = np.where(rows > 0, lower.sum(axis=1) / rows, np.nan)
    return below, unlike(-below * np.sqrt(rows / rows.max()), below=True)[1]
