"""The analysis from trajectories to findings: each part does its job, this file puts them in a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from msgspec import to_builtins

from dynalab.analysis.base import Trajectories
from dynalab.analysis.hmm import compiled, detours, dissimilarity, edges, fitting, odd, states
from dynalab.analysis.hmm import paths as ways
from dynalab.analysis.hmm.claims import claims
from dynalab.analysis.hmm.config import Config, describe
from dynalab.analysis.hmm.features import collinearity, missing_rows, whole
from dynalab.analysis.hmm.findings import Collinearity, Course, Findings, Profile, Transitions
from dynalab.analysis.hmm.fitting import Chosen
from dynalab.analysis.hmm.model import to_plain
from dynalab.analysis.hmm.residuals import Residuals, residuals
from dynalab.analysis.hmm.tasks import score
from dynalab.core import convergence as watch
from dynalab.core.convergence import Passage

# Beyond this the least direction of the features is a millionth of the largest.
ILL_CONDITIONED = 1e12
FUTURE = "z-scores over whole runs make states of what comes later; preset=robust tests"


def infer(trajectories: Trajectories, config: Config) -> Findings:
    """Fit, choose, decode and describe; raises as `hmm.analyse` does."""
    with compiled.using(compiled.library()):
        return _infer(trajectories, config)


def _infer(trajectories: Trajectories, config: Config) -> Findings:
    watched, notes = watch.resolve(config.convergence, trajectories)
    published = config.preset == "paper"
    chosen = (fitting.published if published else fitting.robust)(trajectories, config)
    features, n_states = chosen.features, chosen.n_states
    # Beside the model, its own emission is the emission.
    own = replace(config, emission=chosen.model.emission, ridge=chosen.ridge, common=chosen.common)
    model = chosen.model.reorder(
        states.canonical_order(chosen.model.decode(features.values), features.steps, n_states)
    )
    paths = model.decode(features.values)
    entered = set(features.runs)
    followed = watch.follow(trajectories, watched) if watched else None
    passages = followed and [row for row in followed if row["run"] in entered]
    stability, unstable = fitting.stability(chosen, paths, own) if own.stability else (None, [])
    # What was chosen for the model's states is not imposed on models of another kind.
    beside = fitting.compare(chosen, replace(own, common=config.common)) if own.baselines else None
    more, untested = consequences(paths, features.steps, passages, n_states, own)
    z = [model.normalise(x) for x in features.values]
    nearness = collinearity(whole(z))
    frames = model.frames(features.values)
    counts, chances = states.transition_counts(paths, n_states), model.parameters.transitions
    left = residuals(model, frames, paths)
    changes, edge_table = edges.describe(
        model,
        frames,
        paths,
        means=model.parameters.emission.weights[:, :, 0] if published else None,
        resamples=config.settings.resamples,
        seed=config.seed,
    )
    transitions = Transitions(counts=counts.tolist(), probabilities=chances.tolist())
    selected = pd.DataFrame(to_builtins(chosen.rows))
    findings = Findings(
        n_states=n_states,
        selection=chosen.rows,
        state_order=list(range(n_states)),
        states=[
            Course(run=run, steps=steps.tolist(), states=path.tolist())
            for run, steps, path in zip(features.runs, features.steps, paths, strict=True)
        ],
        state_profiles=_profiles(chosen, paths, z),
        transitions=transitions,
        edges=changes,
        edge_change="level, z-units" if model.emission == "level" else "drift, z-units per row",
        paths=ways.path_table(paths, features.steps, features.runs, passages),
        dissimilarity=dissimilarity.describe(paths, n_states),
        metrics=list(features.names),
        collinearity=nearness,
        preset=config.preset,
        emission=model.emission,
        emissions=chosen.emissions,
        ridge=chosen.ridge if model.emission == "ar" else None,
        common=chosen.common,
        log_likelihood=float(score(model.parameters, frames).sum()),
        residual_correlation=left.correlation,
        model=to_plain(model),
        stability=stability,
        baselines=beside and beside[0],
        odd=odd.find(features, chosen.fold, chosen.folds) if chosen.folds else None,
        settings=describe(config),
        cycle=features.cycle,
        missing_rows=missing_rows(features.values),
        convergence=None if passages is None else [Passage(**row) for row in passages],
        convergence_rule=watched,
        warnings=(
            *(*trajectories.warnings, *features.warnings, *chosen.warnings, *unstable, *notes, *untested),
            *(*_collinear(nearness, len(features.names)), *_unvisited(paths, n_states)),
            *_dependent(left, n_states, model.emission, published, imported=trajectories.imported),
        ),
        states_table=states.table(features.runs, features.steps, paths),
        selection_table=selected.astype(dict.fromkeys(selected.columns[1:-1], float)),
        transitions_table=_transition_table(transitions),
        edges_table=edge_table,
        baselines_table=beside and beside[1],
        convergence_table=states.passage_table(passages),
        **more,
    )
    return replace(findings, claims=claims(findings))


def consequences(
    paths: Sequence[np.ndarray],
    steps: Sequence[np.ndarray],
    convergence: list[dict[str, Any]] | None,
    n_states: int,
    config: Config,
) -> tuple[dict[str, Any], list[str]]:
    """Return `path_comparison`, `detours` and `detour_model` of findings, and warnings; None where nothing is watched.

    Tests count runs from the entry into a state on: what a state is must not hang on what comes after it. A z-score
    over the whole run (preset=paper) hangs on how long it was trained and on when it converged; with runs of unequal
    lengths tests of its states find detours in most ensembles without any. States and steps of every row have shapes
    (T,).
    """
    if convergence is None:
        return {"path_comparison": None, "detours": None, "detour_model": None}, []
    untested = FUTURE if config.preset == "paper" else None
    comparison, notes = (
        (None, [f"paths not compared: {untested}"])
        if untested
        else ways.compare(paths, steps, convergence, config.seed)
    )
    found = detours.find(
        paths,
        steps,
        convergence,
        n_states,
        log_time=config.log_time,
        untested=untested,
        undecided=int(config.emission == "ar"),
        seed=config.seed,
    )
    keys = {"path_comparison": comparison, "detours": found.rows, "detour_model": found.model}
    return keys, [*notes, *found.warnings]


def _unvisited(paths: list[np.ndarray], n_states: int) -> list[str]:
    lost = [str(k) for k in range(n_states) if not any((path == k).any() for path in paths)]
    return [f"no run visits {'state' if len(lost) == 1 else 'states'} {', '.join(lost)}"] if lost else []


def _dependent(
    left: Residuals, n_states: int, emission: str, published: bool, *, imported: bool
) -> list[str]:
    """Warn where states may be pieces of one phase, since rows go on from those before as no state describes."""
    if n_states == 1 or not left.depend:
        return []
    how = "import every second row, or fewer" if imported else "set eval.every higher"
    law, advice = "a linear law", f"{how}, so that rows depend less on each other"
    if emission == "level":
        key = "preset=robust" if published else "emission=ar"
        law, advice = "a level", f"{key} has states of dynamics, which may describe it"
    return [
        f"the number of states may be too large, and several of them one phase: within a state, what {law} leaves of "
        f"a row goes with what it leaves of the row before (correlation {left.correlation:.2f}); {advice}"
    ]


def _collinear(nearness: Collinearity, size: int) -> list[str]:
    """Warn where covariances rest on the prior in some directions."""
    if nearness.condition_number < ILL_CONDITIONED:
        return []
    return [
        f"the {size} metrics are nearly collinear (condition number {nearness.condition_number:.0e}, effective rank "
        f"{nearness.effective_rank:.1f}): in some directions covariances rest on the prior and the floor"
    ]


def _profiles(chosen: Chosen, paths: list[np.ndarray], z: list[np.ndarray]) -> list[Profile]:
    features = chosen.features
    levels, drifts = states.profiles(paths, z, chosen.n_states)
    return [
        Profile(
            state=k,
            runs=sum(bool((path == k).any()) for path in paths),
            rows=sum(int((path == k).sum()) for path in paths),
            mean_first_step=states.first_entry(paths, features.steps, k),
            level=_named(features.names, levels[k]),
            drift=_named(features.names, drifts[k]),
        )
        for k in range(chosen.n_states)
    ]


def _named(names: tuple[str, ...], values: np.ndarray) -> dict[str, float] | None:
    """Feature -> value; None for a state without rows."""
    if np.isnan(values).any():
        return None
    return {name: float(value) for name, value in zip(names, values, strict=True)}


def _transition_table(transitions: Transitions) -> pd.DataFrame:
    n_states = len(transitions.counts)
    return pd.DataFrame(
        {
            "from": np.repeat(np.arange(n_states), n_states),
            "to": np.tile(np.arange(n_states), n_states),
            "count": np.ravel(transitions.counts),
            "probability": np.ravel(transitions.probabilities),
        }
    )
