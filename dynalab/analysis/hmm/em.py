"""Expectation maximisation of a penalised HMM, from several seeded starts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from dynalab.analysis.hmm import compiled, inference, starts
from dynalab.analysis.hmm.config import Config, Settings
from dynalab.analysis.hmm.emissions import Emission, Prior, first_frames, make_prior
from dynalab.analysis.hmm.frames import Frames, thin
from dynalab.analysis.hmm.iterations import Parameters

# Rounding may lower the objective by this share of its size between two iterations; more is reported.
SLACK = 1e-8
# Pseudo-frames of the pooled variance behind the Gaussian of first frames: there is one frame a run.
FIRST_SHRINKAGE = 2.0


@dataclass(frozen=True)
class Fit:
    """Where EM arrived: the fitted HMM with its log-likelihood, nats, and the same less the penalty (`objective`).

    Attributes:
        converged: An iteration gained less than the tolerance; False when the iterations ran out first.
        iterations: E-steps taken.
        history: Penalised objective at every E-step.
        reseeded: Positions in `history` before which dead states were given new frames (the objective may fall there).
        fell: Largest fall of the objective between re-seedings, relative to its size; rounding only.
    """

    parameters: Parameters
    objective: float
    log_likelihood: float
    converged: bool
    iterations: int
    history: list[float] = field(default_factory=list)
    reseeded: list[int] = field(default_factory=list)
    fell: float = 0.0


def begin(frames: Frames, prior: Prior, states: np.ndarray, n_states: int) -> Parameters:
    """Parameters from labels (N,); the chain starts neutral, so that no order of states is built in."""
    mean, covariance = first_frames(frames, FIRST_SHRINKAGE, prior.covariance == "diag")
    size = frames.design.shape[1] - frames.inputs
    weights, none = np.zeros((n_states, size, frames.inputs)), np.zeros((n_states, size, size))
    # As if every state was left after 20 frames, to any other.
    pairs = np.full((n_states, n_states), 0.05 / max(1, n_states - 1))
    np.fill_diagonal(pairs, 0.95)
    posterior, pairs = starts.one_hot(states, n_states), pairs * len(states) / n_states
    empty = Emission(weights, none, mean, covariance)
    return compiled.begin(frames, prior, empty, posterior, np.ones(n_states), pairs)


def _with_first_frames(parameters: Parameters, frames: Frames, prior: Prior) -> Parameters:
    """The same parameters with the Gaussian of these first frames."""
    mean, covariance = first_frames(frames, FIRST_SHRINKAGE, prior.covariance == "diag")
    emission = replace(parameters.emission, first_mean=mean, first_covariance=covariance)
    return replace(parameters, emission=emission)


def run(
    frames: Frames,
    prior: Prior,
    reseedings: int,
    parameters: Parameters,
    n_iter: int,
    tol: float,
    beat: float = -np.inf,
) -> Fit:
    """EM from given parameters, over at most `n_iter` E-steps.

    It has converged when the objective gains less than `tol` in nats per frame. Dead states may be given new frames
    `reseedings` times. It is given up where the iterations left would not reach `beat` if each gained as much as the
    better of the last two.
    """
    history: list[float] = []
    reseeded: list[int] = []
    fell, converged, gain = 0.0, False, np.inf
    at, best = compiled.iterations(frames, prior, parameters), parameters
    best_objective = best_likelihood = -np.inf
    for iteration in range(n_iter):
        last = iteration + 1 == n_iter
        likelihood = at.likelihood(last)
        objective = likelihood + at.penalty()
        before, gain = gain, objective - history[-1] if history and iteration not in reseeded else np.inf
        history.append(objective)
        if objective > best_objective:
            best, best_objective, best_likelihood = at.parameters, objective, likelihood
        if gain < 0:
            fell = max(fell, -gain / max(1.0, abs(objective)))
        if gain < tol * len(frames.levels):
            converged = fell <= SLACK
            break
        hope = max(gain, before) * (n_iter - iteration - 1)
        if objective + hope < beat or last:
            # Nothing would look at another M-step.
            break
        dead = at.dead()
        if dead and len(reseeded) < reseedings:
            at.reseed(dead)
            reseeded.append(iteration + 1)
        at.advance()
    return Fit(best, best_objective, best_likelihood, converged, len(history), history, reseeded, fell)


def _begin_restart(
    frames: Frames,
    positions: np.ndarray,
    prior: Prior,
    settings: Settings,
    n_states: int,
    kind: str,
    rng: np.random.Generator,
) -> Parameters:
    """Parameters that a restart begins from; of random segmentations the best of a few is taken."""

    def draw() -> Parameters:
        labels = starts.labels(frames, positions, n_states, kind, rng)
        if prior.ordered:
            labels = starts.in_order(labels, positions, n_states)
        return begin(frames, prior, labels, n_states)

    if n_states == 1 or kind not in starts.SEGMENTATIONS:
        return draw()
    # The tolerance is out of reach: two iterations each, to compare like with like.
    tried = [run(frames, prior, settings.reseedings, draw(), 2, 0.0) for _ in range(settings.tries)]
    return max(tried, key=lambda one: one.objective).parameters


def fit(
    frames: Frames,
    positions: np.ndarray,
    n_states: int,
    config: Config,
    seeds: np.random.SeedSequence,
    *,
    independent: bool = False,
    first_kind: int = 0,
) -> Fit:
    """The best of several starts: all run a few iterations, the leading ones run to the end.

    Where there are many frames, the starts are sought and compared on some of the runs, drawn by the seed; only the
    leading ones see all frames, from there on. `positions` is the step of every frame, shape (N,); `independent` fits a
    mixture, frames without a chain; `first_kind` is where in the turn of the kinds of start the first restart stands.
    """
    settings, n_iter, tol = config.settings, config.iterations, config.tolerance
    prior = make_prior(frames, config, independent)
    # One state has one solution, and EM finds it in one step from anywhere.
    streams = seeds.spawn(1 if n_states == 1 else config.restarts)
    seen, where = frames, positions
    if n_states > 1:
        (draw,) = seeds.spawn(1)
        runs = thin(frames.lengths, settings.search_frames, draw, settings.search_runs)
        if len(runs) < len(frames.lengths):
            rows = inference.slices(frames.lengths)
            seen, where = frames.only(runs), np.concatenate([positions[rows[run]] for run in runs])
    some = seen is not frames
    # Of two starts only the better one goes on.
    finalists = max(1, min(settings.finalists, len(streams) - 1))
    short = min(n_iter, settings.screen_iterations) if some or len(streams) > finalists else n_iter
    screened = []
    for restart, stream in enumerate(streams):
        kind = starts.kind(first_kind + restart, frames.emission)
        rng = np.random.default_rng(stream)
        first = _begin_restart(seen, where, prior, settings, n_states, kind, rng)
        screened.append(run(seen, prior, settings.reseedings, first, short, tol))
    screened.sort(key=lambda one: -one.objective)
    finals: list[Fit] = []
    for one in screened[:finalists]:
        ahead = max((final.objective for final in finals), default=-np.inf)
        spent = 0 if some else short
        if some or not (one.converged or spent == n_iter):
            begun = _with_first_frames(one.parameters, frames, prior) if some else one.parameters
            more = run(frames, prior, settings.reseedings, begun, n_iter - spent, tol, ahead)
            one = replace(more, iterations=spent + more.iterations, fell=max(one.fell, more.fell))
        finals.append(one)
    return max(finals, key=lambda one: one.objective)
