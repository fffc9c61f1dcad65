"""What the suite tries on a few cases and `scripts/verify` on many: hostile inputs, and the presets compared."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
from hmm_simulate import simulate

from dynalab.analysis import hmm
from dynalab.analysis.base import Trajectories, Trajectory
from dynalab.analysis.hmm import compiled, fitting
from dynalab.analysis.hmm.outcome import infer
from dynalab.analysis.hmm.tasks import score
from dynalab.core.records import plain
from dynalab.errors import DynalabError
from dynalab.show import terminal

KINDS = (
    "constant columns", "duplicated columns", "fewer rows than states", "one run", "one frame", "huge scales",
    "outliers", "exact mixtures", "missing values", "identical runs", "big offset", "steps", "only one run moves",
    "ragged", "tiny", "everything constant", "mixed scales",
)  # fmt: skip
VARIANTS: tuple[dict[str, Any], ...] = (
    {}, {"emission": "level"}, {"preset": "paper"}, {"covariance": "lowrank", "rank": 2},
    {"covariance": "tied", "emission": "level"}, {"covariance": "diag"}, {"left_to_right": True, "sticky": 2.0},
    {"preset": "paper", "covariance": "diag"},
)  # fmt: skip


def hostile_runs(number: int) -> tuple[str, list[np.ndarray]]:
    """Return the kind and the runs of a case, shapes (T, M)."""
    kind = KINDS[number % len(KINDS)]
    rng = np.random.default_rng([7, number])
    n_runs, rows, size = int(rng.integers(2, 6)), int(rng.integers(8, 40)), int(rng.integers(2, 6))
    runs = [rng.normal(size=(rows, size)).cumsum(axis=0) for _ in range(n_runs)]
    if kind == "constant columns":
        for x in runs:
            x[:, : size // 2] = rng.choice([0.0, 1.0, -1e300])
    elif kind == "duplicated columns":
        runs = [np.concatenate([x, -2 * x, x + 1], axis=1) for x in runs]
    elif kind == "fewer rows than states":
        runs = [x[: rng.integers(1, 4)] for x in runs]
    elif kind == "one run":
        runs = runs[:1]
    elif kind == "one frame":
        runs = [x[:1] for x in runs[: rng.integers(1, 4)]]
    elif kind == "huge scales":
        runs = [x * 10.0 ** float(rng.integers(100, 300)) for x in runs]
    elif kind == "outliers":
        for x in runs:
            x[rng.integers(len(x)), rng.integers(size)] = 1e6 * rng.choice([-1, 1])
    elif kind == "exact mixtures":
        mix = rng.normal(size=(size, 3 * size))
        runs = [x @ mix for x in runs]
    elif kind == "missing values":
        for x in runs:
            x[rng.random(x.shape) < 0.1] = np.nan
    elif kind == "identical runs":
        runs = [runs[0]] * n_runs
    elif kind == "big offset":
        runs = [1e9 + 1e-3 * x for x in runs]
    elif kind == "steps":
        runs = [np.floor(x) for x in runs]
    elif kind == "only one run moves":
        runs = [np.ones_like(x) for x in runs[1:]] + runs[:1]
    elif kind == "ragged":
        runs = [x[: rng.integers(1, rows + 1)] for x in runs]
    elif kind == "tiny":
        runs = [x * 1e-290 for x in runs]
    elif kind == "everything constant":
        runs = [np.full_like(x, 3.0) for x in runs]
    elif kind == "mixed scales":
        scales = 10.0 ** rng.integers(-150, 150, size=size)
        runs = [x * scales for x in runs]
    return kind, runs


def hostile(number: int, max_states: int = 4) -> str:
    """Analyse a hostile case and return how it ended: `result`, `refused`, or what went wrong."""
    kind, runs = hostile_runs(number)
    names = tuple(f"m{i}" for i in range(runs[0].shape[1]))
    ensemble = Trajectories(
        "e", names, tuple(Trajectory(f"e/{i}", np.arange(len(x)) * 10, x) for i, x in enumerate(runs))
    )
    # Every kind meets every variant: 17 kinds and 8 variants have no common factor.
    keys = VARIANTS[number % len(VARIANTS)]
    extras = number % 5 == 0
    config = hmm.Config(
        metrics=list(names), max_states=max_states, restarts=2, folds=3, workers=1, n_iter=25, stability=extras,
        baselines=extras, **keys,
    )  # fmt: skip
    try:
        with np.errstate(all="ignore"):
            outcome = infer(ensemble, config)
        json.dumps(plain(outcome), allow_nan=False)
        assert list(terminal.lines(hmm.show(outcome, ())))
    except DynalabError as error:
        return "refused" if "\n" not in str(error) else f"{kind} {keys}: {error}"
    except Exception as error:
        return f"{kind} {keys}: {type(error).__name__}: {error}"
    return "result"


def few_rows(number: int, least: float = 5.0, most: float = 26.0, **keys: Any) -> tuple[float, int, int]:
    """Rows of all runs for each feature and one more, and how many states there are, 2 to 4, and how many are found.

    Of one ensemble of levels or of dynamics, of 3 to 40 runs of 10 to 100 rows and 2 to 14 features.
    """
    rng = np.random.default_rng([13, number])
    size, n_states = int(rng.integers(2, 15)), int(rng.integers(2, 5))
    a_feature, n_rows = np.exp(rng.uniform(np.log([least, 10.0]), np.log([most, 100.0])))
    n_runs = int(np.clip(np.ceil(a_feature * (size + 1) / n_rows), 3, 40))
    n_rows = int(np.clip(np.ceil(a_feature * (size + 1) / n_runs), 10, 100))
    runs = simulate(("level", "ar")[number % 2], n_states, n_runs, n_rows, seed=number).trajectories
    some = [replace(run, values=run.values[:, :size]) for run in runs.runs]
    config = hmm.Config(workers=1, stability=False, baselines=False, **keys)
    with compiled.using(compiled.library()):
        found = fitting.robust(replace(runs, metrics=runs.metrics[:size], runs=tuple(some)), config)
    return n_runs * n_rows / (len(found.features.names) + 1), n_states, found.n_states


def presets(trajectories: Trajectories, **keys: Any) -> tuple[float, float]:
    """Held-out log-likelihood per frame of both presets as densities of the same raw metrics of the same runs.

    The published pipeline holds out a fifth of the runs; the robust model is fitted to the other runs alone. Per-run
    z-scores of the published one use mean and spread of the run that is held out, to its advantage.

    Args:
        trajectories: The runs.
        keys: For both analyses.

    Returns:
        (robust, paper), nats per frame.
    """
    bare = {"stability": False, "baselines": False, **keys}
    # Both see the columns that the robust one keeps.
    robust = hmm.Config(**bare)
    names = list(fitting.extract(trajectories, robust).names)
    published = fitting.published(trajectories, hmm.Config(preset="paper", metrics=names, **bare))
    held = [published.features.runs[i] for i in np.flatnonzero(published.fold == 0)]
    columns = [trajectories.metrics.index(name) for name in published.features.names]
    raw = {run.run: np.asarray(run.values)[:, columns] for run in trajectories.runs}
    paper = np.mean(
        [
            value - np.log(raw[run].std(axis=0)).sum()
            for run, value in zip(held, published.held_out, strict=True)
        ]
    )
    train = replace(trajectories, runs=tuple(run for run in trajectories.runs if run.run not in held))
    chosen = fitting.robust(train, replace(robust, metrics=list(published.features.names)))
    model = chosen.model
    assert model.names == published.features.names
    logged = np.array([name in model.logged for name in model.names])
    total = []
    for run in held:
        x = raw[run].copy()
        x[:, logged] = np.log(x[:, logged])
        frames = model.frames([x])
        jacobian = np.log(model.scaler.sd).sum() + x[:, logged].sum(axis=1).mean()
        total.append(score(model.parameters, frames)[0] / len(x) - jacobian)
    return float(np.mean(total)), float(paper)
