"""Would the states be the same with other starts, or with other runs?

Both are asked at the chosen number of states, with the adjusted Rand index (Hubert and Arabie, 1985) between the
decoded states of all runs: 1 for the same states up to names, 0 for no more agreement than by chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from dynalab.analysis.hmm import em, inference, workers
from dynalab.analysis.hmm.claims import RESAMPLED, STABLE
from dynalab.analysis.hmm.clustering import adjusted_rand
from dynalab.analysis.hmm.config import Config
from dynalab.analysis.hmm.emissions import log_density
from dynalab.analysis.hmm.features import fit_scaler
from dynalab.analysis.hmm.findings import Agreement
from dynalab.analysis.hmm.frames import stack, thin
from dynalab.analysis.hmm.tasks import cost


@dataclass(frozen=True)
class Refit:
    """One fit: another start on the same runs (`resampled` False), or runs drawn with replacement."""

    number: int
    resampled: bool


def refit(
    task: Refit, values: Sequence[np.ndarray], steps: Sequence[np.ndarray], n_states: int, config: Config
) -> list[np.ndarray]:
    """Fit once more and decode all given runs, shapes (T,)."""
    key = (8 if task.resampled else 7, task.number)
    seeds, draw = np.random.SeedSequence(config.seed, spawn_key=key).spawn(2)
    runs = list(range(len(values)))
    own = replace(config, restarts=1)
    if task.resampled:
        runs = np.random.default_rng(draw).integers(len(values), size=len(values)).tolist()
        own = replace(config, restarts=config.settings.baseline_restarts)
    scaler = fit_scaler([values[i] for i in runs], fit_scaler(values))
    frames = stack([scaler(values[i]) for i in runs], config.emission)
    positions = np.concatenate([steps[i] for i in runs])
    # The kinds of start take turns over the numbers, as they do over the restarts of the model.
    found = em.fit(frames, positions, n_states, own, seeds, first_kind=task.number)
    p = found.parameters
    everything = stack([scaler(x) for x in values], config.emission, frames.unit)
    return inference.viterbi(p.start, p.transitions, log_density(everything, p.emission), everything.lengths)


def agreement(over: str, paths: Sequence[np.ndarray], decoded: Sequence[Sequence[np.ndarray]]) -> Agreement:
    """Agreement of the states of the chosen model, shapes (T,), with those of other fits of the same runs."""
    truth = np.concatenate(paths)
    rand = [adjusted_rand(truth, np.concatenate(one)) for one in decoded]
    low, median, high = map(float, np.quantile(rand, [0.05, 0.5, 0.95]))
    return Agreement(over=over, fits=len(rand), adjusted_rand=median, low=low, high=high)


def measure(
    values: Sequence[np.ndarray],
    steps: Sequence[np.ndarray],
    paths: Sequence[np.ndarray],
    n_states: int,
    config: Config,
) -> tuple[list[Agreement], list[str]]:
    """Refit from other starts and to a bootstrap of runs: agreement with each, and warnings.

    Of features, not normalised (T, M), steps and decoded states (T,) of every run.
    """
    settings, notes = config.settings, []
    seeds = np.random.SeedSequence(config.seed, spawn_key=(9,))
    runs = thin([len(x) for x in values], settings.fit_frames, seeds)
    if len(runs) < len(values):
        notes.append(
            f"stability of the states was measured on {len(runs)} of {len(values)} runs, drawn by the seed"
        )
    values, steps = [values[i] for i in runs], [steps[i] for i in runs]
    truth = [paths[i] for i in runs]
    n_frames = sum(len(path) for path in truth)
    own = replace(
        config, n_iter=min(config.iterations, settings.baseline_iterations), tol=settings.baseline_tol
    )
    tasks = [Refit(i, False) for i in range(config.restarts)]
    if len(values) > 1:
        tasks += [Refit(i, True) for i in range(settings.bootstraps)]
    each = cost(n_frames, values[0].shape[1], replace(own, restarts=2), n_states)
    work = partial(refit, values=values, steps=steps, n_states=n_states, config=own)
    decoded = workers.spread(work, tasks, [each] * len(tasks), config.workers)
    rows = [agreement("restarts", truth, decoded[: config.restarts])]
    if len(values) > 1:
        rows.append(agreement(RESAMPLED, truth, decoded[config.restarts :]))
        if (rand := rows[1].adjusted_rand) < STABLE:
            notes.append(
                f"the states are not stable: with resampled runs the adjusted Rand index is {rand:.2f} (median)"
            )
    return rows, notes
