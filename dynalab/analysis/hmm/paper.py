"""The published pipeline, formula by formula, to compare with published figures.

Hu et al., "Latent State Models of Training Dynamics" (TMLR, 2023, arXiv 2308.09543v3), sections 3 and 4 and appendix
A: z-scores per run over the whole run, 80 and 20% of the runs, a Gaussian HMM with hmmlearn's M-step, five restarts of
at most 32 iterations, the least mean BIC of the held-out runs chooses K, their best likelihood the restart.

What to know of it: a z-score over the whole run looks into its future and removes what differs between runs; the same
held-out runs choose K and restart; BIC of held-out data penalises twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from dynalab.analysis.base import Trajectories
from dynalab.analysis.hmm import paper_em, workers
from dynalab.analysis.hmm.config import Config
from dynalab.analysis.hmm.emissions import parameter_count
from dynalab.analysis.hmm.features import UNRECORDED, Features, raw
from dynalab.analysis.hmm.findings import Candidate
from dynalab.analysis.hmm.frames import Frames, stack
from dynalab.analysis.hmm.paper_em import PaperFit
from dynalab.analysis.hmm.selection import candidates, difference
from dynalab.analysis.hmm.tasks import score
from dynalab.core.errors import NothingMatched
from dynalab.core.words import count


@dataclass(frozen=True)
class Choice:
    """K and the restart that is kept.

    Attributes:
        rows: One per K; bic and aic are means over restarts of those of the held-out runs, as published.
        fit: The kept restart.
        others: The other restarts with the chosen K.
        validation: Indices of the held-out runs.
        held_out: Log-likelihood per frame of each of them, in order, with the kept restart.
    """

    n_states: int
    rows: list[Candidate]
    fit: PaperFit
    others: list[PaperFit]
    validation: list[int]
    held_out: np.ndarray
    warnings: list[str]


def normalise(x: np.ndarray) -> np.ndarray:
    """Z-scores of one run (T, M) over the whole of it, ddof 0; a column that is constant in it becomes 0."""
    scale = np.maximum(np.abs(x).max(axis=0), np.finfo(np.float64).tiny)
    small = x / scale
    sd = small.std(axis=0)
    return np.asarray(np.where(sd > 1e-12, (small - small.mean(axis=0)) / np.where(sd > 1e-12, sd, 1.0), 0.0))


def extract(trajectories: Trajectories, config: Config) -> Features:
    """The published features: raw metrics, the first 1,000 rows, runs with a missing value left out.

    Raises as `features.extract`.
    """
    trajectories, names, values, notes, cycle = raw(trajectories, config.metrics)
    if not names:
        raise NothingMatched(UNRECORDED)
    runs, steps, kept, dropped = [], [], [], []
    for run, x in zip(trajectories.runs, values, strict=True):
        # Rows with none of the columns belong to the grid of other metrics.
        rows = np.flatnonzero(np.isfinite(x).any(axis=1))[: paper_em.SETTINGS.first_rows]
        if len(rows) and np.isfinite(x[rows]).all():
            runs.append(run.run)
            steps.append(np.asarray(run.steps, dtype=np.int64)[rows])
            kept.append(x[rows])
        else:
            dropped.append(run.run)
    if not runs:
        raise NothingMatched(
            "metrics: every run lacks a value somewhere; preset=robust leaves out rows instead"
        )
    if dropped:
        notes.append(f"{count(len(dropped), 'run')} with missing values left out: {', '.join(dropped[:3])}")
    flat = np.array([(normalise(x) == 0).all(axis=0) for x in kept])
    varies = np.asarray(~flat.all(axis=0))
    if not varies.any():
        raise NothingMatched("metrics: no column varies within a run; there is nothing to model")
    if not varies.all():
        notes.append(f"constant in every run, left out: {', '.join(np.array(names)[~varies])}")
    if flat[:, varies].any():
        some = ", ".join(np.array(names)[flat.any(axis=0) & varies])
        notes.append(f"constant in some runs, taken as 0 there: {some}")
    moving = tuple(name for name, on in zip(names, varies, strict=True) if on)
    whole = tuple(x[:, varies] for x in kept)
    return Features(moving, (), tuple(runs), tuple(steps), whole, tuple(notes), cycle)


def split(n_runs: int, config: Config) -> tuple[list[int], list[int]]:
    """Runs to train on and runs to hold out; a single run is both."""
    from sklearn.model_selection import train_test_split

    if n_runs == 1:
        return [0], [0]
    train, validation = train_test_split(
        list(range(n_runs)), test_size=paper_em.SETTINGS.validation, random_state=config.seed
    )
    return sorted(train), sorted(validation)


def restart(task: tuple[int, int], frames: Frames, config: Config) -> PaperFit:
    """One restart: (K, seed of its start)."""
    begun = paper_em.initialise(frames.levels, *task, config.covariance)
    return paper_em.run(frames, begun, config.iterations, config.tolerance, config.covariance)


def cost(frames: Frames, config: Config, n_states: int) -> float:
    """Rough seconds of one restart on one core."""
    return 1e-7 * len(frames.levels) * config.iterations * (1 + n_states)


def restart_seeds(config: Config, n_states: int) -> list[int]:
    """Seeds of the restarts of one K, integers below 2^32."""
    sequence = np.random.SeedSequence(config.seed, spawn_key=(4, n_states))
    return [int(seed) for seed in sequence.generate_state(config.restarts)]


def select(values: Sequence[np.ndarray], config: Config) -> Choice:
    """Fit every K from every start on the training runs, raw metrics (T, M), and choose on the held-out ones."""
    z = [normalise(x) for x in values]
    size = z[0].shape[1]
    train, validation = split(len(z), config)
    frames = stack([z[i] for i in train], "level", np.ones(size))
    others = stack([z[i] for i in validation], "level", np.ones(size))
    tried = candidates(config)
    tasks = [(k, seed) for k in tried for seed in restart_seeds(config, k)]
    costs = [cost(frames, config, k) for k, _ in tasks]
    fits = workers.spread(partial(restart, frames=frames, config=config), tasks, costs, config.workers)
    rows: list[Candidate] = []
    kept: dict[int, tuple[PaperFit, list[PaperFit], np.ndarray]] = {}
    bics = []
    for k in tried:
        mine = [fit for fit, (n_states, _) in zip(fits, tasks, strict=True) if n_states == k]
        runs = [score(fit.parameters, others) for fit in mine]
        likelihoods = np.array([one.sum() for one in runs])
        count = parameter_count(k, size, "level", config.covariance)
        best = int(np.argmax(likelihoods))
        per_frame = runs[best] / np.array(others.lengths)
        kept[k] = mine[best], [*mine[:best], *mine[best + 1 :]], per_frame
        mean, error = difference(per_frame, np.zeros_like(per_frame))
        bics.append(float(np.mean(-2 * likelihoods + count * np.log(len(others.levels)))))
        rows.append(
            Candidate(
                n_states=k,
                heldout_ll_per_frame=mean,
                se=error if len(per_frame) > 1 else None,
                bic=bics[-1],
                aic=float(np.mean(-2 * likelihoods + 2 * count)),
                converged=mine[best].converged,
            )
        )
    chosen = tried[int(np.argmin(bics))]
    fit, rest, held_out = kept[chosen]
    notes = _notes(len(z), tried, chosen, fit, config, fits)
    return Choice(chosen, rows, fit, rest, validation, held_out, notes)


def _notes(
    n_runs: int, tried: list[int], chosen: int, fit: PaperFit, config: Config, fits: list[PaperFit]
) -> list[str]:
    notes = [
        "preset=paper: z-scores over whole runs look into their future, and one set of runs chooses K and restart"
    ]
    if n_runs == 1:
        notes.append("one run only: it is both training and held-out data")
    if len(tried) > 1 and chosen == tried[-1]:
        notes.append(f"the largest number of states tried ({chosen}) was chosen: raise max_states")
    if not fit.converged:
        notes.append(
            f"the fit with {chosen} states ran out of its {config.iterations} iterations or its likelihood fell "
            "(hmmlearn would call that converged)"
        )
    repaired = sum(one.repairs > 0 for one in fits)
    if repaired:
        notes.append(f"{repaired} of {len(fits)} fits were put right where hmmlearn would have failed")
    return notes
