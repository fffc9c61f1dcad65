"""The analysis from trajectories to result: each part does its job, this file puts them in a row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from dynalab.analysis import convergence as watch
from dynalab.analysis.base import Outcome, Trajectories, Trajectory
from dynalab.analysis.hmm import states
from dynalab.analysis.hmm.config import Config, describe
from dynalab.analysis.hmm.consequences import consequences
from dynalab.analysis.hmm.features import Features, extract, fit_scaler
from dynalab.analysis.hmm.model import Model, to_plain
from dynalab.analysis.hmm.paths import path_table
from dynalab.analysis.hmm.selection import Selection, score, select


def analyse(trajectories: Trajectories, config: Config) -> Outcome:
    """Fit, choose, decode and describe.

    Args:
        trajectories: Runs of one ensemble.
        config: Keys of the analysis.

    Returns:
        Result, tables (`states`, `selection`, `transitions`, `convergence`) and warnings.
    """
    watched, notes = watch.resolve(config.convergence, trajectories)
    features = extract(trajectories, config)
    selection = select(features.values, features.steps, config)
    fit = selection.fits[selection.n_states]
    scaler = fit_scaler(features.values)
    model = Model(features.names, features.logged, scaler, config.emission, selection.unit, fit.parameters)
    model = model.reorder(
        states.canonical_order(model.decode(features.values), features.steps, selection.n_states)
    )
    paths = model.decode(features.values)
    found = watch.converge(_prefix(trajectories, config.steps), watched) if watched else None
    result = _result(features, selection, model, paths, found)
    more, lines = consequences(paths, features.steps, found, selection.n_states, config)
    result |= more
    notes = [*notes, *lines]
    result["convergence_rule"] = None if watched is None else vars(watched)
    result["settings"] = describe(config)
    warnings = [*trajectories.warnings, *features.warnings, *selection.warnings, *notes]
    unvisited = [k for k in range(selection.n_states) if not any((path == k).any() for path in paths)]
    if unvisited:
        warnings.append(f"states that no run visits: {', '.join(map(str, unvisited))}")
    return Outcome(result, _tables(features, paths, selection, result, found), warnings)


def _prefix(trajectories: Trajectories, last: int | None) -> Trajectories:
    """The runs up to a step; None keeps all."""
    if last is None:
        return trajectories
    runs = []
    for run in trajectories.runs:
        inside = np.asarray(run.steps) <= last
        runs.append(
            Trajectory(run.run, np.asarray(run.steps)[inside], run.values[inside], run.seed, run.status)
        )
    return Trajectories(trajectories.ensemble, trajectories.metrics, tuple(runs), trajectories.convergence)


def _result(
    features: Features,
    selection: Selection,
    model: Model,
    paths: list[np.ndarray],
    convergence: list[dict[str, Any]] | None,
) -> dict[str, Any]:
    """Plain values with the keys of `analyze hmm --json`."""
    n_states = selection.n_states
    z = [model.scaler(x) for x in features.values]
    levels, drifts = states.profiles(paths, z, n_states)
    characteristic = levels if model.emission == "level" else drifts
    frames = model.frames(features.values)
    steps = [s.tolist() for s in features.steps]
    result: dict[str, Any] = {
        "n_states": n_states,
        "selection": selection.rows,
        "state_order": list(range(n_states)),
        "states": [
            {"run": run, "steps": s, "states": path.tolist()}
            for run, s, path in zip(features.runs, steps, paths, strict=True)
        ],
        "state_profiles": [
            {
                "state": k,
                "runs": sum(bool((path == k).any()) for path in paths),
                "rows": sum(int((path == k).sum()) for path in paths),
                "mean_first_step": states.first_entry(paths, features.steps, k),
                "level": _named(features.names, levels[k]),
                "drift": _named(features.names, drifts[k]),
            }
            for k in range(n_states)
        ],
        "transitions": {
            "counts": states.transition_counts(paths, n_states).tolist(),
            "probabilities": model.parameters.transitions.tolist(),
        },
        "edge_change": "level, z-units" if model.emission == "level" else "drift, z-units per row",
        "edges": states.edges(paths, features.names, characteristic),
        "paths": path_table(paths, features.steps, features.runs, convergence),
        "metrics": list(features.names),
        "emission": model.emission,
        "log_likelihood": float(score(model.parameters, frames).sum()),
        "model": to_plain(model),
    }
    result["convergence"] = convergence
    # Keys of the result that this version does not compute: null, which is not the same as nothing found.
    return {**result, "stability": None, "baselines": None}


def _named(names: tuple[str, ...], values: np.ndarray) -> dict[str, float] | None:
    """Feature -> value; None for a state without rows."""
    if np.isnan(values).any():
        return None
    return {name: float(value) for name, value in zip(names, values, strict=True)}


def _tables(
    features: Features,
    paths: list[np.ndarray],
    selection: Selection,
    result: dict[str, Any],
    convergence: list[dict[str, Any]] | None,
) -> dict[str, pd.DataFrame]:
    """Data frames to be stored beside the result."""
    n_states = selection.n_states
    tables = {
        "states": pd.DataFrame(
            {
                "run": np.repeat(np.array(features.runs, dtype=object), [len(s) for s in features.steps]),
                "step": np.concatenate(features.steps),
                "state": np.concatenate(paths),
            }
        ),
        "selection": pd.DataFrame(selection.rows).astype({"heldout_ll_per_frame": float, "se": float}),
        "transitions": pd.DataFrame(
            {
                "from": np.repeat(np.arange(n_states), n_states),
                "to": np.tile(np.arange(n_states), n_states),
                "count": np.ravel(result["transitions"]["counts"]),
                "probability": np.ravel(result["transitions"]["probabilities"]),
            }
        ),
    }
    if convergence is not None:
        tables["convergence"] = pd.DataFrame(convergence).astype({"step": "Int64"})
    return tables
