"""How many states: held-out likelihood of whole runs, and BIC beside it.

Runs, not frames, are the independent units, so folds are made of runs, and a standard error is that of a mean
over runs (each run is held out exactly once and weighs the same). Chosen is the smallest K that lies within one
standard error of the best (Breiman et al., 1984, section 3.4.3), the error being that of the difference: every K is
held out on the same runs, and how much some runs are likelier than others under any K says nothing of
which K is better. On simulated ensembles the error of the mean itself is three to fifty times as wide, and
hides states that every single run speaks for.

By chance alone a larger K that is no better is ahead by more than one standard error in one of six ensembles, and of
many short runs, where the error is small, so is one with a state split in two. So a smaller K is kept, too, where the
best says less than one nat more of a run that it has not seen. Of 530 simulated ensembles of 8 to 40 runs of 40 to 100
rows, 6 features and 1 to 4 states, K was right in 80% (by the error alone in 72%), too large in 14% (23%) and too small
in 6% (6%). It was right in 100% (86%) where rows scatter about levels independently and in 83% (76%) of those of
dynamics.

Of 128 ensembles of 1 to 4 states whose rows depend on each other as their law says (5 to 100 runs of 16 to 150 rows,
6 features; one level whose scatter depends on the row before by .6 or .9 among them: one state of dynamics) K was too
large in 1. Where they depend otherwise (levels that jump, or dynamics, and noise of which the next row keeps .6 or
.9), it was in 107 of 136: those states do say more of unseen runs. It is said so, or which of them are jumps, in 105
of the 107 and in none of the 127 (`residuals.depend`, `tables.jumps`; the limits were fixed on other ensembles).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from dynalab.analysis.hmm import em, merging, starts, workers
from dynalab.analysis.hmm.config import Config
from dynalab.analysis.hmm.emissions import log_density, make_prior
from dynalab.analysis.hmm.features import fit_scaler
from dynalab.analysis.hmm.findings import Candidate
from dynalab.analysis.hmm.frames import silent, stack, thin
from dynalab.analysis.hmm.tasks import Fitted, Task, bic, cost, decode, extend, solve
from dynalab.core.words import count


@dataclass(frozen=True)
class Selection:
    """The choice of K.

    Attributes:
        rows: One per K that was tried.
        fit: The fit on all runs with the chosen K.
        unit: Spread of the regression targets over all runs, shape (M,).
        curve: K -> held-out log-likelihood per frame of every run in order; empty for one run.
        fell: Largest relative fall of any objective between re-seedings.
        fitted: All fits, for a selection that goes on from here.
    """

    n_states: int
    rows: list[Candidate]
    fit: em.Fit
    unit: np.ndarray
    curve: dict[int, np.ndarray]
    fell: float
    warnings: list[str]
    fitted: tuple[Fitted, ...]

    @property
    def held_out(self) -> np.ndarray:
        """The curve at the chosen K; empty for one run."""
        return self.curve.get(self.n_states, np.empty(0))

    @property
    def folds(self) -> tuple[Fitted, ...]:
        """The fits of the folds with the chosen K; none for one run."""
        return tuple(
            one for one in self.fitted if one.task.fold is not None and one.task.n_states == self.n_states
        )


def assign_folds(n_runs: int, folds: int, seed: int) -> np.ndarray:
    """Fold of every run, shape (S,): a seeded shuffle dealt out in turn; with few runs, one run a fold."""
    fold = np.empty(n_runs, dtype=np.int64)
    order = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,))).permutation(n_runs)
    fold[order] = np.arange(n_runs) % min(folds, n_runs)
    return fold


def descend(
    found: Mapping[int, Fitted], values: Sequence[np.ndarray], steps: Sequence[np.ndarray], config: Config
) -> dict[int, Fitted]:
    """Try every K once more, from the next larger one's states of which some are merged or one is given up.

    Held-out likelihoods of several K only compare where each is at its best: a K that got stuck makes the next look
    needed. From and to: K -> its fit on all runs, of features, not normalised (T, M), and steps (T,).
    """
    seeds = np.random.SeedSequence(config.seed, spawn_key=(3, 0))
    inside = thin([len(x) for x in values], config.settings.fit_frames, seeds)
    scaler = fit_scaler(values)
    frames = stack([scaler(values[i]) for i in inside], config.emission)
    positions = np.concatenate([steps[i] for i in inside])
    prior = make_prior(frames, config)
    better: dict[int, Fitted] = {}
    for larger, k in pairwise(sorted(found, reverse=True)):
        if k == 1:
            continue
        above = better.get(larger, found[larger])
        labels = np.concatenate(decode(above, [values[i] for i in inside], config))
        ways = [merging.merge(frames, prior, labels, larger, k)]
        if k == larger - 1:
            ways.append(merging.give_up(log_density(frames, above.fit.parameters.emission), labels))
        fits = []
        for way in ways:
            ordered = starts.in_order(way, positions, k) if prior.ordered else way
            begun = em.begin(frames, prior, ordered, k)
            reseedings = config.settings.reseedings
            fits.append(em.run(frames, prior, reseedings, begun, config.iterations, config.tolerance))
        fit = max(fits, key=lambda one: one.objective)
        # A gain within what EM was told to leave is none.
        if fit.objective > found[k].fit.objective + config.tolerance * len(frames.levels):
            better[k] = Fitted(Task(k, None), fit, scaler, frames.unit, np.empty(0), bic(fit, frames, config))
    return better


def difference(ahead: np.ndarray, behind: np.ndarray) -> tuple[float, float]:
    """Mean of the differences of the same runs, shapes (S,), and its standard error (0 for one run)."""
    gap = ahead - behind
    return float(gap.mean()), float(gap.std(ddof=1) / np.sqrt(len(gap))) if len(gap) > 1 else 0.0


def smallest(held_out: Sequence[np.ndarray], rows: float) -> int:
    """Index of the smallest model that is not behind the best by more than one standard error of that difference.

    Nor is it where it is behind by less than one nat a run. Of what every model says of the same runs, nats a frame,
    shapes (S,), smallest model first, and how many of them a run has, in the mean.
    """
    best = int(np.argmax([x.mean() for x in held_out]))
    for index in range(best):
        gap, error = difference(held_out[best], held_out[index])
        if gap <= max(error, 1 / rows):
            return index
    return best


def candidates(config: Config) -> list[int]:
    """Numbers of states to try."""
    return [config.n_states] if config.n_states is not None else list(range(1, config.max_states + 1))


def fold_scores(found: Sequence[Fitted], fold: np.ndarray) -> np.ndarray:
    """Held-out log-likelihood per frame of every run in the runs' order, shape (S,), from the fits of all folds."""
    out = np.empty(len(fold))
    for one in found:
        out[fold == one.task.fold] = one.held_out
    return out


def select(
    values: Sequence[np.ndarray],
    steps: Sequence[np.ndarray],
    config: Config,
    tried: Sequence[int] | None = None,
    known: Sequence[Fitted] = (),
) -> Selection:
    """Fit every K on all runs and on every fold, and choose; arguments as of `selecting`."""
    (found,) = workers.abreast([selecting(values, steps, config, tried, known)], config.workers)
    return found


def selecting(
    values: Sequence[np.ndarray],
    steps: Sequence[np.ndarray],
    config: Config,
    tried: Sequence[int] | None = None,
    known: Sequence[Fitted] = (),
) -> Generator[workers.Wave, list[Any], Selection]:
    """Fit every K on all runs and on every fold, and choose, beside other searches (`workers.abreast`).

    Of features of every run, not normalised (T, M), and steps (T,). `tried` are numbers of states, smallest first; None
    for all that the keys allow. `known` are fits that an earlier selection of the same runs and keys made.
    """
    n_runs, size = len(values), values[0].shape[1]
    n_frames = sum(len(x) for x in values)
    tried = candidates(config) if tried is None else list(tried)
    made = {one.task.n_states for one in known}
    missing = [k for k in tried if k not in made]
    fold = assign_folds(n_runs, config.folds, config.seed)
    costs = [cost(n_frames, size, config, k) for k in missing]
    work = partial(solve, values=list(values), steps=list(steps), fold=fold, config=config)
    fitted = [*known, *(yield workers.Wave(work, [Task(k, None) for k in missing], costs))]
    whole = {one.task.n_states: one for one in fitted if one.task.fold is None}
    if len(tried) > 1:
        again = partial(descend, values=list(values), steps=list(steps), config=config)
        # One start in place of several, of every K but the largest.
        descent = sum(cost(n_frames, size, config, k) for k in tried[:-1]) / (2 + config.restarts)
        (better,) = yield workers.Wave(again, [whole], [descent])
        whole |= better
        # Their folds begin elsewhere.
        missing = [k for k in tried if k in missing or k in better]
        held = [one for one in known if one.task.fold is not None and one.task.n_states not in better]
        fitted = [*whole.values(), *held]
    if n_runs > 1:
        begun = {k: decode(whole[k], values, config) for k in missing}
        tasks = [Task(k, f) for k in missing for f in range(int(fold.max()) + 1)]
        # One start in place of several, and it begins near its end.
        costs = [cost(n_frames, size, config, task.n_states) / (2 + config.restarts) for task in tasks]
        fitted = [*fitted, *(yield workers.Wave(partial(work, begun=begun), tasks, costs))]
    held_out: list[np.ndarray] = []
    notes = []
    if n_runs > 1:
        folds = [one for one in fitted if one.task.fold is not None]
        held_out = [fold_scores([one for one in folds if one.task.n_states == k], fold) for k in tried]
        evaluated = n_frames - sum(int(silent(x).sum()) for x in values)
        place = smallest(held_out, evaluated / n_runs)
        if n_runs < config.folds:
            notes.append(f"{count(n_runs, 'run')} for {config.folds} folds: each run is held out alone")
    else:
        place = int(np.argmin([whole[k].bic for k in tried]))
        notes.append("one run only: nothing can be held out; the number of states follows BIC")
    chosen = tried[place]
    if len(tried) > 1 and chosen == tried[-1]:
        notes.append(f"the largest number of states tried ({chosen}) was chosen: raise max_states")
    fit, unit = whole[chosen].fit, whole[chosen].unit
    if n_frames > config.settings.fit_frames:
        fit, unit = extend(whole[chosen], values, config)
        notes.append(
            f"{n_frames:,} frames: fits of the selection saw whole runs of at most "
            f"{config.settings.fit_frames:,} frames, drawn by the seed; all held-out runs were scored, and the "
            f"model with {chosen} states was carried on over all runs"
        )
    if not fit.converged:
        notes.append(f"the fit with {chosen} states has not converged: raise n_iter")
    fell = max(fit.fell, *(one.fit.fell for one in fitted))
    if fell > em.SLACK:
        notes.append(f"a fit's objective fell by {fell:.1g} of its size: rounding on badly scaled data")
    none = dict.fromkeys(("heldout_ll_per_frame", "se", "behind_best", "behind_se"))
    rows = [
        Candidate(
            n_states=k,
            **(_of_unseen_runs(held_out, i) if held_out else none),
            bic=float(whole[k].bic),
            converged=whole[k].fit.converged,
        )
        for i, k in enumerate(tried)
    ]
    curve = dict(zip(tried, held_out, strict=bool(held_out)))
    return Selection(chosen, rows, fit, unit, curve, fell, notes, tuple(fitted))


def _of_unseen_runs(held_out: Sequence[np.ndarray], index: int) -> dict[str, float | None]:
    """What a model says of unseen runs, by itself and beside the best."""
    mean, error = difference(held_out[index], np.zeros_like(held_out[index]))
    best = int(np.argmax([x.mean() for x in held_out]))
    behind, behind_error = difference(held_out[best], held_out[index])
    return {"heldout_ll_per_frame": mean, "se": error, "behind_best": behind, "behind_se": behind_error}
