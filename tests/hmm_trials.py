"""What the suite tries on a few cases and `scripts/verify` on many: hostile inputs, and the presets compared."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hmm_simulate import Simulated, simulate
from nulls.hmm import states_of

from dynalab.analysis import hmm
from dynalab.analysis.base import Trajectories, Trajectory
from dynalab.analysis.hmm import compiled, fitting, tables
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


@dataclass(frozen=True)
class Jumping:
    """A simulated ensemble, and what is said of states that last a row or two.

    Attributes:
        about: What it is simulated with.
        emission: Of the states that are found, and how many these are.
        n_states: That.
        said: Number of states that are called jumps.
        wrong: Of these, those that are none: most of their stays hold no row of a jump and, where levels jump and
            states are of dynamics, lie beside no change of level.
        found: Whether one of them is the jump that is there.
    """

    about: dict[str, Any]
    emission: str
    n_states: int
    said: int
    wrong: int
    found: bool


def jumping(number: int, jumps: bool, **keys: Any) -> Jumping:
    """Analyse an ensemble of 2 to 4 states, of level or of dynamics, with or without jumps between two of them.

    Of 5 to 40 runs of 60 to 300 rows and six features; stays are even, geometric, or of 10 to 40 rows on average and
    come again; noise is new in every row, or .6 of it is kept; lengths are equal or not.
    """
    rng = np.random.default_rng([17, number])
    pick = lambda *choices: choices[int(rng.integers(len(choices)))]  # noqa: E731
    about = {
        "kind": ("level", "ar")[number % 2],
        "n_states": pick(2, 3, 4),
        "n_runs": pick(5, 10, 20, 40),
        "n_rows": pick(60, 100, 180, 300),
        "kept": pick(0.0, 0.6),
        "ragged": pick(False, True),
        **pick({"even": 12.0}, {"even": 1.0}, {"stay": 10.0}, {"stay": 20.0}, {"stay": 40.0}),
    }
    truth = simulate(seed=number, jumps=jumps, **about)
    some = [replace(run, values=run.values[:, :6]) for run in truth.trajectories.runs]
    runs = replace(truth.trajectories, metrics=truth.trajectories.metrics[:6], runs=tuple(some))
    config = hmm.Config(workers=1, stability=False, baselines=False, **keys)
    with compiled.using(compiled.library()):
        found = fitting.robust(runs, config)
    paths = found.model.decode(found.features.values)
    courses = [
        {"run": run, "steps": steps.tolist(), "states": path.tolist()}
        for run, steps, path in zip(found.features.runs, found.features.steps, paths, strict=True)
    ]
    said, _ = tables.short(states_of(n_states=found.n_states, states=courses))
    said = said if found.n_states > 1 else []
    kinds = [_of(state, courses, truth, about["n_states"], found.model.emission) for state in said]
    return Jumping(
        about, found.model.emission, found.n_states, len(said), kinds.count("wrong"), "jump" in kinds
    )


def _of(state: int, courses: list[dict[str, Any]], truth: Simulated, n_states: int, emission: str) -> str:
    """Return what most of a state's stays are: of a `jump`, at a `change` of level, or neither, `wrong`."""
    true = {f"simulated/s{index:04d}": path for index, path in enumerate(truth.states)}
    levels = emission == "ar" and truth.kind == "level"
    at = {"jump": 0, "change": 0, "wrong": 0}
    for course in courses:
        path, there = np.asarray(course["states"]), true[course["run"]]
        rows = np.asarray(course["steps"]) // 10
        begins = np.flatnonzero(np.diff(path, prepend=-1))
        for begin, end in zip(begins, [*begins[1:], len(path)], strict=True):
            if path[begin] != state:
                continue
            first, last = int(rows[begin]), int(rows[end - 1])
            near = there[max(first - 1, 0) : last + 2]
            if (there[first : last + 1] == n_states).any():
                at["jump"] += 1
            else:
                at["change" if levels and (near != near[0]).any() else "wrong"] += 1
    return max(at, key=lambda kind: at[kind])


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
