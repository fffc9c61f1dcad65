"""What simpler models, and data without order in time, would have given: under the same largest K and the same folds.

- the other emission (`level` beside `ar`, `ar` beside `level`);
- a Gaussian mixture: levels without a chain;
- one metric alone (`l2` where it was recorded: the published HMM-1);
- the chosen emission on the rows of every run in random order.

Held-out log-likelihoods per frame are densities of the same features in the same units, and compare, but for one
metric: its density is of one feature, and only its number of states compares. Baselines get less effort than the
model (`baseline_restarts`, `baseline_iterations`, `baseline_tol`), and only the other emission is held out in
all folds, the rest in `baseline_folds` of them; differences from the model are of the same runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from dynalab.analysis.hmm import workers
from dynalab.analysis.hmm.config import Config
from dynalab.analysis.hmm.features import Features
from dynalab.analysis.hmm.findings import Baseline
from dynalab.analysis.hmm.selection import difference, smallest
from dynalab.analysis.hmm.tasks import Task, cost, solve

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Job:
    """One fit of one baseline."""

    baseline: str
    n_states: int
    fold: int


def _other(config: Config) -> str:
    return "level" if config.emission == "ar" else "ar"


def kinds(config: Config) -> list[str]:
    """Names of the baselines, in order."""
    return [f"{_other(config)} hmm", "gaussian mixture", "one-metric hmm", "time-shuffled"]


def one_metric(names: Sequence[str]) -> int:
    """The metric of the one-metric model: l2 as published, else the first."""
    return list(names).index("l2") if "l2" in names else 0


def shuffled(values: Sequence[np.ndarray], seed: int) -> list[np.ndarray]:
    """Runs with their rows in random order, shapes (T, M); missing ones stay where they are."""
    sequences = np.random.SeedSequence(seed, spawn_key=(5,)).spawn(len(values))
    out = [x.copy() for x in values]
    for x, sequence in zip(out, sequences, strict=True):
        there = np.flatnonzero(~np.isnan(x[:, 0]))
        x[there] = x[there[np.random.default_rng(sequence).permutation(len(there))]]
    return out


def carry_out(
    job: Job,
    values: Sequence[np.ndarray],
    steps: Sequence[np.ndarray],
    names: Sequence[str],
    fold: np.ndarray,
    config: Config,
) -> np.ndarray:
    """Held-out log-likelihood per frame of every run of the job's fold."""
    task = Task(job.n_states, job.fold)
    if job.baseline == "gaussian mixture":
        own = replace(config, emission="level", sticky=0.0, left_to_right=False)
        return solve(task, values, steps, fold, own, independent=True).held_out
    if job.baseline == "one-metric hmm":
        column = one_metric(names)
        return solve(task, [x[:, [column]] for x in values], steps, fold, config).held_out
    if job.baseline == "time-shuffled":
        return solve(task, shuffled(values, config.seed), steps, fold, config).held_out
    return solve(task, values, steps, fold, replace(config, emission=_other(config))).held_out


def reduced(config: Config) -> Config:
    """The robust analysis' keys with the effort of a baseline."""
    settings = config.settings
    return replace(
        config,
        preset="robust",
        restarts=min(config.restarts, settings.baseline_restarts),
        n_iter=min(config.iterations, settings.baseline_iterations),
        tol=settings.baseline_tol,
    )


def compare(
    values: Sequence[np.ndarray],
    features: Features,
    fold: np.ndarray,
    config: Config,
    reference: np.ndarray,
    other: Mapping[int, np.ndarray] | None = None,
) -> tuple[list[Baseline], pd.DataFrame]:
    """Fit every baseline with every K and hold its likelihood beside the model's: a row each, and a table with every K.

    Of features of every run, not normalised (or by run, where the model has them so), shapes (T, M), and folds (S,), -1
    for a run that is never held out. `reference` is the model's held-out log-likelihood per frame of every other run,
    in order; `other` what the other emission says of every run, shape (S,), by K, where that is known already.
    """
    # Not where fits are made: processes that fit need no tables.
    import pandas as pd

    own = reduced(config)
    # One tried K would leave nothing to compare; the cap is what the model may use.
    tried = list(range(1, config.max_states + 1))
    names = kinds(config)
    everywhere = sorted({int(f) for f in fold if f >= 0})
    some = everywhere[: config.settings.baseline_folds]
    folds = {name: everywhere if name == names[0] else some for name in names}
    given = other if other is not None and set(other) == set(tried) else {}
    fitted = names[1:] if given else names
    jobs = [Job(name, k, f) for name in fitted for k in tried for f in folds[name]]
    n_frames, size = sum(len(x) for x in values), values[0].shape[1]
    sizes = [1 if job.baseline == "one-metric hmm" else size for job in jobs]
    costs = [cost(n_frames, size, own, job.n_states) for job, size in zip(jobs, sizes, strict=True)]
    work = partial(
        carry_out, values=list(values), steps=features.steps, names=features.names, fold=fold, config=own
    )
    done = dict(zip(jobs, workers.spread(work, jobs, costs, config.workers), strict=True))
    all_held = np.flatnonzero(fold >= 0)
    rows, table = [], []
    for name in names:
        held = np.concatenate([np.flatnonzero(fold == f) for f in folds[name]])
        if name == names[0] and given:
            scores = [given[k][held] for k in tried]
        else:
            scores = [np.concatenate([done[Job(name, k, f)] for f in folds[name]]) for k in tried]
        means, errors = zip(*(difference(x, np.zeros_like(x)) for x in scores), strict=True)
        n, comparable = len(held), name != "one-metric hmm"
        place = smallest(scores, float(np.mean([len(values[run]) for run in held])))
        less, less_se = np.nan, np.nan
        if comparable and len(reference) == len(all_held):
            less, less_se = difference(reference[np.searchsorted(all_held, held)], scores[place])
        rows.append(
            Baseline(
                name=name if comparable else f"{name} ({features.names[one_metric(features.names)]})",
                n_states=tried[place],
                at_cap=place == len(tried) - 1,
                heldout_ll_per_frame=means[place],
                se=errors[place] if n > 1 else None,
                runs=n,
                comparable=comparable,
                less_than_model=less if np.isfinite(less) else None,
                less_se=less_se if n > 1 and np.isfinite(less) else None,
            )
        )
        table += [
            {"baseline": name, "n_states": k, "heldout_ll_per_frame": m, "se": e}
            for k, m, e in zip(tried, means, errors, strict=True)
        ]
    return rows, pd.DataFrame(table)
