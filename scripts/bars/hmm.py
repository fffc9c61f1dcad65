"""The HMM: emissions by task and number of states, hostile inputs, and the two presets on the same runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bars.base import Bar, cases, dynalab

# Default settings, as many seeds as the table was first made with (grokking: the main job's).
TASKS = {"grokking": "seed=0..19", "parity": "seed=0..11", "digits": "seed=0..11", "mlm": "seed=0..11"}
EMISSIONS = (("level", "diag"), ("level", "full"), ("ar", "diag"), ("ar", "full"))
HOSTILE = 200


def curve(case: int, *, work: str, task: str) -> list[float]:
    """Held-out log-likelihood per frame for K = 1 to 8 under one emission."""
    import dynalab as laboratory
    from dynalab.analysis.hmm.config import Config
    from dynalab.analysis.hmm.features import extract
    from dynalab.analysis.hmm.selection import select

    emission, covariance = EMISSIONS[case]
    (ensemble,) = laboratory.train([f"task={task}", TASKS[task]], outputs=work)
    # The case is a process of its own already.
    config = Config(emission=emission, covariance=covariance, folds=3, restarts=4, n_iter=60, workers=1)
    features = extract(ensemble.trajectories(), config)
    curve = select(features.values, features.steps, config).curve
    return [float(held_out.mean()) for held_out in curve.values()]


def table(work: Path, task: str) -> tuple[str, bool]:
    """Repeat the table of emissions on a task: autoregression must explain unseen runs better than levels do."""
    outputs = work / ("main" if task == "grokking" else "tasks")
    dynalab("train", f"task={task}", TASKS[task], outputs=outputs)
    measure = partial(curve, work=str(outputs), task=task)
    curves = cases(work / f"hmm-emissions-{task}.jsonl", range(len(EMISSIONS)), measure)
    lines = [
        f"{emission} {covariance}: {', '.join(f'{value:.1f}' for value in values)}"
        for (emission, covariance), values in zip(EMISSIONS, curves, strict=True)
    ]
    best = {name: max(values) for name, values in zip(EMISSIONS, curves, strict=True)}
    ahead = max(best["ar", "full"], best["ar", "diag"]) > max(best["level", "full"], best["level", "diag"])
    return "; ".join(lines), ahead


def hostile_case(number: int) -> str:
    """How one hostile case ended."""
    from hmm_trials import hostile

    return hostile(number)


def hostile(work: Path) -> tuple[str, bool]:
    """Two hundred hostile inputs."""
    ends = cases(work / "hmm-hostile.jsonl", range(HOSTILE), hostile_case)
    bad = [end for end in ends if end not in ("result", "refused")]
    figure = f"{ends.count('result')} results, {ends.count('refused')} refused in a line, {len(bad)} failed"
    return figure + (f" ({bad[0]})" if bad else ""), not bad


def preset_case(number: int) -> tuple[float, float]:
    """Held-out log-likelihood per frame of both presets on one simulated ensemble, half of levels, half of dynamics."""
    from hmm_simulate import simulate
    from hmm_trials import presets

    truth = simulate("ar" if number % 2 else "level", 2 + number % 4, 20, 120, seed=100 + number)
    return presets(truth.trajectories, workers=1, max_states=6)


def presets(work: Path) -> tuple[str, bool]:
    """The presets on the same held-out runs."""
    pairs: list[Any] = cases(work / "hmm-presets.jsonl", range(12), preset_case)
    gains = sorted(robust - paper for robust, paper in pairs)
    figure = (
        f"robust ahead by {gains[0]:.1f} to {gains[-1]:.1f} nats a frame, median {gains[len(gains) // 2]:.1f}"
    )
    return figure, gains[0] >= 0


SOURCES = (
    "dynalab/core/trajectories.py",
    "dynalab/analysis/hmm",
    "tests/hmm_trials.py",
    "scripts/bars/hmm.py",
)


def _table(task: str) -> Callable[[Path], tuple[str, bool]]:
    return partial(table, task=task)


BARS = [
    *(
        Bar(
            f"hmm-{task}",
            f"default {task}: held-out log-likelihood a frame for K = 1 to 8 by emission and noise",
            "autoregression ahead of levels",
            "test_hmm_analyse.py",
            _table(task),
            (*SOURCES, f"conf/task/{task}.yaml", "dynalab/training", "dynalab/networks", "dynalab/probes"),
        )
        for task in TASKS
    ),
    Bar(
        "hmm-hostile",
        f"{HOSTILE} hostile inputs of 17 kinds under eight settings",
        "none ends in NaN or an exception",
        "test_hmm_trials.py",
        hostile,
        SOURCES,
    ),
    Bar(
        "hmm-presets",
        "robust against the published preset, same held-out runs, same density (12 ensembles)",
        "never behind",
        "test_hmm_trials.py",
        presets,
        SOURCES,
    ),
]
