"""One fit of the selection: a number of states, on all runs or on those of all folds but one.

Everything that is learnt from data, also the normalisation, is learnt from the training runs of the fold; its
likelihood is then expressed in the units of the normalisation over all runs (a constant per fold), so that folds
compare. Only where a fold's EM begins is taken from the fit on all runs (`solve`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dynalab.analysis.hmm import compiled, em, inference
from dynalab.analysis.hmm.config import Config
from dynalab.analysis.hmm.emissions import log_density, make_prior, parameter_count
from dynalab.analysis.hmm.features import Scaler, fit_scaler
from dynalab.analysis.hmm.frames import Frames, stack, thin
from dynalab.analysis.hmm.iterations import Parameters


@dataclass(frozen=True)
class Task:
    """One fit: K states on all runs but those of a fold (`fold` None: on all runs)."""

    n_states: int
    fold: int | None


@dataclass(frozen=True)
class Fitted:
    """What one task yields.

    Attributes:
        scaler: Normalisation of the runs it was fitted in.
        unit: Spread of the regression targets, shape (M,).
        held_out: Log-likelihood per frame of each held-out run, in order; empty without a fold.
        bic: Of the fit on its own frames; NaN with a fold.
    """

    task: Task
    fit: em.Fit
    scaler: Scaler
    unit: np.ndarray
    held_out: np.ndarray
    bic: float = np.nan


def solve(
    task: Task, values: Sequence[np.ndarray], steps: Sequence[np.ndarray], fold: np.ndarray, config: Config,
    independent: bool = False, begun: Mapping[int, Sequence[np.ndarray]] | None = None,
) -> Fitted:  # fmt: skip
    """Carry out one task, on features of every run, not normalised (T, M), their steps (T,) and folds (S,).

    `independent` fits a mixture instead of a chain. `begun` has by K the states of every row of every run that a fold's
    fit begins from; None starts it anew. With them the numbers of states differ by what they can say of unseen runs,
    and not by the local maximum that a fold fell into; the runs held out decide nothing else.
    """
    everything = fit_scaler(values)
    inside = [i for i in range(len(values)) if task.fold is None or fold[i] != task.fold]
    fold_key = 0 if task.fold is None else task.fold + 1
    # The same runs for every K.
    seeds = np.random.SeedSequence(config.seed, spawn_key=(3, fold_key))
    inside = [inside[i] for i in thin([len(values[i]) for i in inside], config.settings.fit_frames, seeds)]
    scaler = everything if task.fold is None else fit_scaler([values[i] for i in inside], everything)
    frames = stack([scaler(values[i]) for i in inside], config.emission)
    if begun is not None:
        labels = np.concatenate([begun[task.n_states][i] for i in inside])
        prior = make_prior(frames, config, independent)
        start = em.begin(frames, prior, labels, task.n_states)
        fit = em.run(frames, prior, config.settings.reseedings, start, config.iterations, config.tolerance)
    else:
        positions = np.concatenate([steps[i] for i in inside])
        seeds = np.random.SeedSequence(config.seed, spawn_key=(1, fold_key, task.n_states))
        fit = em.fit(frames, positions, task.n_states, config, seeds, independent=independent)
    if task.fold is None:
        return Fitted(task, fit, scaler, frames.unit, np.empty(0), bic(fit, frames, config))
    outside = [i for i in range(len(values)) if fold[i] == task.fold]
    others = stack([scaler(values[i]) for i in outside], config.emission, frames.unit)
    units = float(np.log(everything.sd / scaler.sd).sum())
    held_out = score(fit.parameters, others) / others.evaluated + units
    return Fitted(task, fit, scaler, frames.unit, held_out)


def decode(found: Fitted, values: Sequence[np.ndarray], config: Config) -> list[np.ndarray]:
    """Most probable states of all runs under a fit, shapes (T,)."""
    p = found.fit.parameters
    frames = stack([found.scaler(x) for x in values], config.emission, found.unit)
    return inference.viterbi(p.start, p.transitions, log_density(frames, p.emission), frames.lengths)


def bic(fit: em.Fit, frames: Frames, config: Config) -> float:
    """BIC of a fit on the frames it was fitted to, of which those count that have a density."""
    p = fit.parameters
    size = frames.design.shape[1] - frames.inputs
    count = parameter_count(
        p.n_states, size, frames.emission, config.covariance, config.rank, config.left_to_right
    )
    return -2 * fit.log_likelihood + count * float(np.log(frames.evaluated.sum()))


def score(parameters: Parameters, frames: Frames) -> np.ndarray:
    """Log-likelihood of every run, shape (S,), nats."""
    density = log_density(frames, parameters.emission)
    return inference.score(parameters.start, parameters.transitions, density, frames.lengths)


def cost(n_frames: int, size: int, config: Config, n_states: int) -> float:
    """Rough seconds of one fit on one core, from fits of the main job."""
    columns = size * (2 if config.emission == "ar" else 1) + 1
    settings = config.settings
    ends = min(n_frames, settings.fit_frames) * min(config.iterations, 30) * 2
    search = min(n_frames, settings.search_frames) * 16 * config.restarts
    each = 2e-9 if compiled.used() is None else 5e-10
    return each * (ends + search) * (0.2 * columns**2 + 60) * n_states**0.7


def extend(found: Fitted, values: Sequence[np.ndarray], config: Config) -> tuple[em.Fit, np.ndarray]:
    """Take a fit of some runs on over all runs: the fit and the spread of the regression targets there, shape (M,)."""
    scaler = fit_scaler(values)
    frames = stack([scaler(x) for x in values], config.emission)
    ratio = found.unit / frames.unit
    old = found.fit.parameters.emission
    covariances = old.covariances * np.outer(ratio, ratio)
    moved = replace(old, weights=old.weights * ratio[:, None], covariances=covariances)
    begun = replace(found.fit.parameters, emission=moved)
    prior, reseedings = make_prior(frames, config), config.settings.reseedings
    return em.run(frames, prior, reseedings, begun, config.iterations, config.tolerance), frames.unit
