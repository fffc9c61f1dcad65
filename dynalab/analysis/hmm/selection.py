"""How many states: held-out likelihood of whole runs, and BIC beside it.

Runs, not frames, are the independent units, so folds are made of runs, and the standard error is that of the
mean over runs (each run is held out exactly once and weighs the same). Everything that is learnt from data,
also the normalisation, is learnt from the training runs of the fold; its likelihood is then expressed in the
units of the normalisation over all runs (a constant per fold), so that folds compare.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from dynalab.analysis.hmm import em, inference
from dynalab.analysis.hmm.config import Config
from dynalab.analysis.hmm.emissions import log_density, parameter_count
from dynalab.analysis.hmm.features import fit_scaler
from dynalab.analysis.hmm.frames import Frames, stack

# Frames times states times features squared times fits: below this (about 2 s of work) processes do not pay.
WORTH_PROCESSES = 2e8


@dataclass(frozen=True)
class Task:
    """One fit: K states on all runs but those of a fold (`fold` None: on all runs)."""

    n_states: int
    fold: int | None


@dataclass(frozen=True)
class Fitted:
    """What one task yields.

    Attributes:
        task: Which one.
        fit: The fit.
        unit: Spread of the regression targets, shape (M,).
        held_out: Log-likelihood per frame of each held-out run, in order; empty without a fold.
    """

    task: Task
    fit: em.Fit
    unit: np.ndarray
    held_out: np.ndarray


@dataclass(frozen=True)
class Selection:
    """The choice of K.

    Attributes:
        n_states: The chosen K.
        rows: One per K: `{n_states, heldout_ll_per_frame, se, bic, converged}`.
        fits: K -> fit on all runs.
        unit: Spread of the regression targets over all runs, shape (M,).
        fell: Largest relative fall of any objective between re-seedings.
        warnings: What a reader must know of the choice.
    """

    n_states: int
    rows: list[dict[str, Any]]
    fits: dict[int, em.Fit]
    unit: np.ndarray
    fell: float
    warnings: list[str]


def assign_folds(n_runs: int, folds: int, seed: int) -> np.ndarray:
    """Fold of every run, shape (S,): a seeded shuffle dealt out in turn; with few runs, one run a fold."""
    fold = np.empty(n_runs, dtype=np.int64)
    order = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,))).permutation(n_runs)
    fold[order] = np.arange(n_runs) % min(folds, n_runs)
    return fold


def solve(
    task: Task, values: Sequence[np.ndarray], steps: Sequence[np.ndarray], fold: np.ndarray, config: Config
) -> Fitted:
    """Carry out one task.

    Args:
        task: Which one.
        values: Features of every run, not normalised, shapes (T, M).
        steps: Steps of every run, shapes (T,).
        fold: Fold of every run, shape (S,).
        config: Emission, covariance, restarts, iterations and seed matter here.
    """
    everything = fit_scaler(values)
    inside = [i for i in range(len(values)) if task.fold is None or fold[i] != task.fold]
    scaler = everything if task.fold is None else fit_scaler([values[i] for i in inside], everything)
    frames = stack([scaler(values[i]) for i in inside], config.emission)
    fold_key = 0 if task.fold is None else task.fold + 1
    fit = em.fit(
        frames,
        np.concatenate([steps[i] for i in inside]),
        task.n_states,
        config.settings,
        diagonal=config.covariance == "diag",
        restarts=config.restarts,
        n_iter=config.n_iter,
        tol=config.tol,
        seeds=np.random.SeedSequence(config.seed, spawn_key=(1, fold_key, task.n_states)),
    )
    held_out = np.empty(0)
    if task.fold is not None:
        outside = [i for i in range(len(values)) if fold[i] == task.fold]
        others = stack([scaler(values[i]) for i in outside], config.emission, frames.unit)
        units = float(np.log(everything.sd / scaler.sd).sum())
        held_out = score(fit.parameters, others) / np.array(others.lengths) + units
    return Fitted(task, fit, frames.unit, held_out)


def score(parameters: em.Parameters, frames: Frames) -> np.ndarray:
    """Log-likelihood of every run, shape (S,), nats."""
    density = log_density(frames, parameters.emission)
    return inference.score(parameters.start, parameters.transitions, density, frames.lengths)


def _pinned(work: Callable[[Task], Fitted], task: Task) -> Fitted:
    """Do the work with one thread: more would oversubscribe the cores and change the last bits of sums."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    with threadpool_limits(limits=1):
        return work(task)


def spread(
    work: Callable[[Task], Fitted], tasks: Sequence[Task], workers: int | None, cost: float
) -> list[Fitted]:
    """Do all tasks, in processes where that pays; the results do not depend on how many.

    Processes come from joblib's loky (which scikit-learn brings): the standard library's spawn context runs
    the caller's main module again, which fails in notebooks, in `python -` and in scripts without a guard.

    Args:
        work: What to do with a task; must be picklable.
        tasks: The tasks.
        workers: Processes; None for one per usable core, or none at all for little work.
        cost: Estimate of the work, in units of `WORTH_PROCESSES`.
    """
    import joblib  # type: ignore[import-untyped]

    if workers is None:
        workers = joblib.cpu_count() if cost > WORTH_PROCESSES else 1
    if min(workers, len(tasks)) == 1:
        return [_pinned(work, task) for task in tasks]
    # Longest first, so that no worker sits on the largest K while the others are done.
    order = sorted(range(len(tasks)), key=lambda i: -tasks[i].n_states)
    with joblib.parallel_config("loky", n_jobs=min(workers, len(tasks)), inner_max_num_threads=1):
        done = joblib.Parallel(max_nbytes=None, batch_size=1)(
            joblib.delayed(_pinned)(work, tasks[i]) for i in order
        )
    return [done[order.index(i)] for i in range(len(tasks))]


def one_standard_error(scores: Sequence[float], errors: Sequence[float]) -> int:
    """Index of the smallest model within one standard error of the best (Breiman et al., 1984)."""
    best = int(np.argmax(scores))
    return next(i for i, value in enumerate(scores) if value >= scores[best] - errors[best])


def select(values: Sequence[np.ndarray], steps: Sequence[np.ndarray], config: Config) -> Selection:
    """Fit every K on all runs and on every fold, and choose.

    Args:
        values: Features of every run, not normalised, shapes (T, M).
        steps: Steps of every run, shapes (T,).
        config: The keys of the analysis.
    """
    n_runs, size = len(values), values[0].shape[1]
    n_frames = sum(len(x) for x in values)
    candidates = [config.n_states] if config.n_states is not None else list(range(1, config.max_states + 1))
    fold = assign_folds(n_runs, config.folds, config.seed)
    folds: list[int | None] = [None, *(range(int(fold.max()) + 1) if n_runs > 1 else ())]
    tasks = [Task(k, f) for k in candidates for f in folds]
    cost = n_frames * size**2 * config.restarts * float(sum(task.n_states for task in tasks))
    work = partial(solve, values=list(values), steps=list(steps), fold=fold, config=config)
    fitted = spread(work, tasks, config.workers, cost)
    fits = {one.task.n_states: one.fit for one in fitted if one.task.fold is None}
    # Shape (candidates, S or 0): runs in order of folds, the same order for every K.
    held_out = [
        np.concatenate([one.held_out for one in fitted if one.task.n_states == k]) for k in candidates
    ]
    counts = [parameter_count(k, size, config.emission, config.covariance) for k in candidates]
    bic = [
        -2 * fits[k].log_likelihood + count * np.log(n_frames)
        for k, count in zip(candidates, counts, strict=True)
    ]
    scores = errors = None
    notes = []
    if n_runs > 1:
        scores = [float(x.mean()) for x in held_out]
        errors = [float(x.std(ddof=1) / np.sqrt(n_runs)) for x in held_out]
        chosen = candidates[one_standard_error(scores, errors)]
        if n_runs < config.folds:
            notes.append(f"{n_runs} runs for {config.folds} folds: each run is held out alone")
    else:
        chosen = candidates[int(np.argmin(bic))]
        notes.append("one run only: nothing can be held out; the number of states follows BIC")
    if len(candidates) > 1 and chosen == candidates[-1]:
        notes.append(f"the largest number of states tried ({chosen}) was chosen: raise max_states")
    if not fits[chosen].converged:
        notes.append(f"the fit with {chosen} states has not converged: raise n_iter")
    fell = max(one.fit.fell for one in fitted)
    if fell > em.SLACK:
        notes.append(f"a fit's objective fell by {fell:.1g} of its size: rounding on badly scaled data")
    rows = [
        {
            "n_states": k,
            "heldout_ll_per_frame": scores[i] if scores else None,
            "se": errors[i] if errors else None,
            "bic": float(bic[i]),
            "converged": fits[k].converged,
        }
        for i, k in enumerate(candidates)
    ]
    unit = next(one.unit for one in fitted if one.task.fold is None)
    return Selection(chosen, rows, fits, unit, fell, notes)
