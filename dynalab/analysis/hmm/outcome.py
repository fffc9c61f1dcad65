"""The analysis from trajectories to result: each part does its job, this file puts them in a row."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from dynalab.analysis import convergence as watch
from dynalab.analysis.base import Outcome, Trajectories
from dynalab.analysis.hmm import dissimilarity, edges, fitting, states
from dynalab.analysis.hmm.config import Config, describe
from dynalab.analysis.hmm.consequences import consequences
from dynalab.analysis.hmm.features import Features, collinearity
from dynalab.analysis.hmm.fitting import Chosen
from dynalab.analysis.hmm.model import Model, to_plain
from dynalab.analysis.hmm.paths import path_table
from dynalab.analysis.hmm.tasks import score

# Beyond this the least direction of the features is a millionth of the largest.
ILL_CONDITIONED = 1e12


def analyse(trajectories: Trajectories, config: Config) -> Outcome:
    """Fit, choose, decode and describe.

    Args:
        trajectories: Runs of one ensemble.
        config: Keys of the analysis.

    Returns:
        Result, tables (`states`, `selection`, `transitions`, `edges`, `baselines`, `convergence`) and warnings.
    """
    trajectories = trajectories.until(config.steps)
    watched, notes = watch.resolve(config.convergence, trajectories)
    chosen = fitting.published(trajectories, config) if config.preset == "paper" else fitting.robust(
        trajectories, config
    )  # fmt: skip
    # Beside the model, its own emission is the emission.
    given = config
    config = replace(config, emission=chosen.model.emission, ridge=chosen.ridge, common=chosen.common)
    features = chosen.features
    model = chosen.model.reorder(
        states.canonical_order(chosen.model.decode(features.values), features.steps, chosen.n_states)
    )
    paths = model.decode(features.values)
    found = watch.follow(trajectories, watched) if watched else None
    if found is not None:
        entered = set(features.runs)
        found = [row for row in found if row["run"] in entered]
    stability, unstable = fitting.stability(chosen, paths, config) if config.stability else (None, [])
    # What was chosen for the model's states is not imposed on models of another kind.
    beside = replace(config, common=given.common)
    baselines = fitting.compare(chosen, beside) if config.baselines else None
    result, edge_table = _result(chosen, model, paths, found, config)
    more, lines = consequences(paths, features.steps, found, chosen.n_states, config)
    result |= more
    notes = [*notes, *lines]
    result["convergence_rule"] = None if watched is None else vars(watched)
    result["settings"] = describe(given)
    result["cycle"] = features.cycle
    result["ridge"] = chosen.ridge if model.emission == "ar" else None
    result["common"] = chosen.common
    result["emissions"] = list(chosen.emissions) or None
    result["stability"] = stability
    result["baselines"] = None if baselines is None else baselines.rows
    warnings = [*trajectories.warnings, *features.warnings, *chosen.warnings, *unstable, *notes]
    warnings += _collinear(result["collinearity"], len(features.names))
    unvisited = [k for k in range(chosen.n_states) if not any((path == k).any() for path in paths)]
    if unvisited:
        word = "state" if len(unvisited) == 1 else "states"
        warnings.append(f"no run visits {word} {', '.join(map(str, unvisited))}")
    tables = _tables(features, paths, chosen, result, found)
    tables["edges"] = edge_table
    if baselines is not None:
        tables["baselines"] = baselines.table
    return Outcome(result, tables, warnings)


def _collinear(found: dict[str, float], size: int) -> list[str]:
    """Warn where covariances rest on the prior in some directions."""
    if found["condition_number"] < ILL_CONDITIONED:
        return []
    return [
        f"the {size} metrics are nearly collinear (condition number {found['condition_number']:.0e}, effective rank "
        f"{found['effective_rank']:.1f}): in some directions covariances rest on the prior and the floor"
    ]


def _result(
    chosen: Chosen,
    model: Model,
    paths: list[np.ndarray],
    convergence: list[dict[str, Any]] | None,
    config: Config,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Plain values with the keys of `analyze hmm --json`, and the table of all features of all edges."""
    n_states, features = chosen.n_states, chosen.features
    published = config.preset == "paper"
    z = [model.normalise(x) for x in features.values]
    levels, drifts = states.profiles(paths, z, n_states)
    frames = model.frames(features.values)
    steps = [s.tolist() for s in features.steps]
    counts = states.transition_counts(paths, n_states)
    transitions = model.parameters.transitions
    found, table = edges.describe(
        model,
        frames,
        paths,
        ranking="gradient" if published else "llr",
        means=model.parameters.emission.weights[:, :, 0] if published else None,
        resamples=config.settings.resamples,
        seed=config.seed,
    )
    result: dict[str, Any] = {
        "n_states": n_states,
        "selection": chosen.rows,
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
            "counts": counts.tolist(),
            "probabilities": transitions.tolist(),
            # The weights of the published map: 0 where no decoded run goes.
            "map": np.where(counts > 0, transitions, 0.0).tolist(),
        },
        "edge_change": "level, z-units" if model.emission == "level" else "drift, z-units per row",
        "edge_ranking": "posterior gradient" if published else "log-likelihood ratio of the feature alone",
        "edges": found,
        "forks": edges.forks(found, paths, features.steps),
        "paths": path_table(paths, features.steps, features.runs, convergence),
        "dissimilarity": dissimilarity.describe(paths, n_states, _means(model), seed=config.seed),
        "metrics": list(features.names),
        "collinearity": vars(collinearity(np.concatenate(z))),
        "preset": config.preset,
        "emission": model.emission,
        "log_likelihood": float(score(model.parameters, frames).sum()),
        "model": to_plain(model),
    }
    result["convergence"] = convergence
    return result, table


def _means(model: Model) -> np.ndarray | None:
    """Means of the states in normalised features, shape (K, M); None for states of dynamics, which have none."""
    return model.parameters.emission.weights[:, :, 0] * model.unit if model.emission == "level" else None


def _named(names: tuple[str, ...], values: np.ndarray) -> dict[str, float] | None:
    """Feature -> value; None for a state without rows."""
    if np.isnan(values).any():
        return None
    return {name: float(value) for name, value in zip(names, values, strict=True)}


def _tables(
    features: Features,
    paths: list[np.ndarray],
    chosen: Chosen,
    result: dict[str, Any],
    convergence: list[dict[str, Any]] | None,
) -> dict[str, pd.DataFrame]:
    """Data frames to be stored beside the result."""
    n_states = chosen.n_states
    tables = {
        "states": pd.DataFrame(
            {
                "run": np.repeat(np.array(features.runs, dtype=object), [len(s) for s in features.steps]),
                "step": np.concatenate(features.steps),
                "state": np.concatenate(paths),
            }
        ),
        "selection": pd.DataFrame(chosen.rows).astype(
            {name: float for row in chosen.rows[:1] for name in row if name not in ("n_states", "converged")}
        ),
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
