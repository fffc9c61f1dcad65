"""New runs under a stored model, as they could have been decoded while they trained.

Nothing here looks ahead. The normalisation is the stored model's (moments of the runs that it was fitted to), not the
new run's own, and the states come from the filtering posterior p(z_t | x_1..x_t), the forward recursion alone
(Rabiner, 1989, section III.A, scaled), not from smoothing or Viterbi, which read a run from its end. So row t says the
same whether the run stopped there or went on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from msgspec.structs import replace

from dynalab.analysis.base import Trajectories
from dynalab.analysis.hmm import inference, states
from dynalab.analysis.hmm.config import Config
from dynalab.analysis.hmm.features import missing_rows, with_missing
from dynalab.analysis.hmm.findings import Candidate, Course, Findings, Transitions, known
from dynalab.analysis.hmm.model import Model, from_plain
from dynalab.analysis.hmm.paths import path_table
from dynalab.config.keys import Stored
from dynalab.config.suggest import listing
from dynalab.core import convergence as watch
from dynalab.core.convergence import Passage
from dynalab.core.errors import ConfigError, NothingMatched
from dynalab.core.words import count

# Standard deviations of the model's own held-out runs below which a run is none of theirs.
FAR = 5.0


@dataclass(frozen=True)
class Decoded:
    """One run under a stored model.

    Attributes:
        posterior: p(z_t | x_1..x_t), shape (T, K); rows sum to 1.
        states: The most probable state of each row of it, shape (T,).
        predictive: log p(x_t | x_1..x_{t-1}), shape (T,), nats in the model's normalised features; NaN of
            a missing row and the one after it.
    """

    posterior: np.ndarray
    states: np.ndarray
    predictive: np.ndarray


def filter_runs(model: Model, values: Sequence[np.ndarray]) -> list[Decoded]:
    """Decode runs without looking ahead, from features chosen and logged but not normalised, shapes (T, M)."""
    frames = model.frames(values)
    p = model.parameters
    found = inference.expect(p.start, p.transitions, model.log_density(frames), frames.lengths)
    found.predictive[frames.skipped] = np.nan
    return [
        Decoded(found.filtered[rows], found.filtered[rows].argmax(axis=1), found.predictive[rows])
        for rows in inference.slices(frames.lengths)
    ]


def decode(trajectories: Trajectories, config: Config) -> Findings:
    """Decode runs, whole or still training, against the stored analysis that `decode_with` names.

    Raises:
        ConfigError: A key of the fit is set, there is no model, or it cannot be applied without looking ahead.
        NothingMatched: The runs lack a metric of the model, or have no row with all of them.
    """
    _check(config)
    if not isinstance(config.decode_with, Stored):
        raise ConfigError(f"decode_with={config.decode_with}: the stored analysis is not at hand")
    fit: Findings = config.decode_with.findings
    if not fit.model:
        raise ConfigError(
            f"decode_with={config.decode_with}: it holds no model (it was decoded with another one)"
        )
    if fit.model.get("normalisation", "pooled") != "pooled":
        raise ConfigError(
            f"decode_with={config.decode_with}: its preset normalises every run over the whole of it, which looks "
            "ahead; fit with preset=robust"
        )
    model = from_plain(fit.model)
    # The rows that the model was fitted to; one of before saw all.
    kept, steps, values, notes = _rows(trajectories.at_multiples(known(fit.cycle) or 1), model)
    decoded = filter_runs(model, values)
    notes += _doubts(fit, kept, steps)
    fitted = {item.run for item in fit.states}
    n_states = len(model.parameters.start)
    paths = [item.states for item in decoded]
    watched, more = watch.resolve(config.convergence, trajectories)
    passages = None
    if watched is not None:
        converged = {item["run"]: item for item in watch.follow(trajectories, watched)}
        # A run that is still training is censored at its last row, as any other that has not converged.
        passages = [converged[run] for run in kept]
    per_run = [float(np.nanmean(item.predictive)) for item in decoded]
    new = [value for run, value in zip(kept, per_run, strict=True) if run not in fitted]
    chosen = next((row for row in fit.selection if row.n_states == n_states), None)
    notes += _unlike(new, chosen, len(fitted))
    edges = states.edges(paths, model.names, _means(fit, n_states, model.names))
    # One model, one account of what tells two states apart.
    told = {(edge.start, edge.end): edge.features for edge in fit.edges}
    return Findings(
        decoded_with=config.decode_with.rpartition("-")[2],
        missing_rows=missing_rows(values),
        n_states=n_states,
        state_order=list(range(n_states)),
        states=[
            Course(
                run=run,
                steps=s.tolist(),
                states=item.states.tolist(),
                posterior=item.posterior.tolist(),
                ll_per_frame=value,
                held_out=run not in fitted,
            )
            for run, s, item, value in zip(kept, steps, decoded, per_run, strict=True)
        ],
        heldout_ll_per_frame=float(np.mean(new)) if new else None,
        heldout_se=float(np.std(new, ddof=1) / np.sqrt(len(new))) if len(new) > 1 else None,
        model_heldout_ll_per_frame=chosen.heldout_ll_per_frame if chosen else None,
        transitions=Transitions(
            counts=states.transition_counts(paths, n_states).tolist(),
            probabilities=model.parameters.transitions.tolist(),
        ),
        edges=[replace(edge, features=told.get((edge.start, edge.end), edge.features)) for edge in edges],
        state_profiles=fit.state_profiles,
        edge_change=fit.edge_change,
        paths=path_table(paths, steps, kept, passages),
        metrics=list(model.names),
        emission=model.emission,
        convergence=None if passages is None else [Passage(**row) for row in passages],
        convergence_rule=watched,
        # Runs that still train have come differently far: their shares of rows cannot be compared.
        dissimilarity=None,
        warnings=(*trajectories.warnings, *notes, *more),
        states_table=_table(kept, steps, decoded),
        convergence_table=states.passage_table(passages),
    )


def _rows(
    trajectories: Trajectories, model: Model
) -> tuple[list[str], list[np.ndarray], list[np.ndarray], list[str]]:
    """Runs, steps (T,) and features (T, M) of the rows that have every feature of the model, and notes."""
    if missing := [name for name in model.names if name not in trajectories.metrics]:
        raise NothingMatched(
            f"decode_with: these runs do not have {listing(missing)}, which the model needs "
            f"(it was fitted to {', '.join(model.names)})"
        )
    columns = [trajectories.metrics.index(name) for name in model.names]
    logged = np.array([name in model.logged for name in model.names])
    kept, steps, values, without, lost, total = [], [], [], [], 0, 0
    for run in trajectories.runs:
        x = np.array(run.values[:, columns], dtype=np.float64)
        s = np.asarray(run.steps, dtype=np.int64)
        recorded = np.isfinite(x).any(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            x[:, logged] = np.log(x[:, logged])
        whole = np.isfinite(x).all(axis=1)
        lost, total = lost + int((recorded & ~whole).sum()), total + int(recorded.sum())
        if not whole.any():
            without.append(run.run)
            continue
        kept.append(run.run)
        s, x = with_missing(s[whole], x[whole], s[recorded], ahead=False)
        steps.append(s)
        values.append(x)
    if not kept:
        raise NothingMatched(f"decode_with: no run has a row with all of {', '.join(model.names)} yet")
    notes = []
    if lost:
        notes.append(f"{lost:,} of {count(total, 'row')} left out: a feature is missing, or has no logarithm")
    if without:
        notes.append(f"no row with every feature yet, left out: {listing(without, 5)}")
    return kept, steps, values, notes


def _doubts(fit: Findings, runs: Sequence[str], steps: Sequence[np.ndarray]) -> list[str]:
    """What makes the numbers mean less than they seem to."""
    notes = []
    fitted = {item.run for item in fit.states}
    if again := [run for run in runs if run in fitted]:
        notes.append(
            f"{len(again)} of {count(len(runs), 'run')} took part in the fit of the model: their likelihood is not "
            "held out"
        )
    ours, theirs = _spacing(steps), _spacing([np.asarray(item.steps) for item in fit.states])
    if ours is not None and theirs is not None and ours != theirs:
        notes.append(
            f"rows are {ours:g} steps apart, those that the model was fitted to {theirs:g}: "
            "its transitions and drifts are per row, so states and likelihoods do not carry over"
        )
    return notes


def _unlike(new: Sequence[float], chosen: Candidate | None, n_fitted: int) -> list[str]:
    """Whether the model knows what the runs do, by their nats a frame beside those of its selection's row."""
    if not new or chosen is None or chosen.se is None or chosen.heldout_ll_per_frame is None:
        return []
    own, spread = chosen.heldout_ll_per_frame, chosen.se * np.sqrt(n_fitted)
    far = [value for value in new if value < own - FAR * spread]
    if not far:
        return []
    return [
        f"{len(far)} of {count(len(new), 'run')} {'does' if len(far) == 1 else 'do'} what the model has not seen: "
        f"{float(np.median(far)):.4g} nats a frame (median), where its own held-out runs have {own:.4g} (standard "
        f"deviation {spread:.2g}); their states mean little, however sure the posterior"
    ]


def _spacing(steps: Sequence[np.ndarray]) -> float | None:
    """Median distance of neighbouring rows in steps."""
    gaps = [np.diff(s) for s in steps if len(s) > 1]
    return float(np.median(np.concatenate(gaps))) if gaps else None


def _means(fit: Findings, n_states: int, names: Sequence[str]) -> np.ndarray:
    """What characterises each state of the stored analysis, shape (K, M); NaN where it does not say."""
    means = np.full((n_states, len(names)), np.nan)
    for item in fit.state_profiles or ():
        if values := item.level if fit.emission == "level" else item.drift:
            means[item.state] = [values.get(name, np.nan) for name in names]
    return means


def _table(runs: Sequence[str], steps: Sequence[np.ndarray], decoded: Sequence[Decoded]) -> pd.DataFrame:
    posterior = np.concatenate([item.posterior for item in decoded])
    more = {f"posterior_{k}": posterior[:, k] for k in range(posterior.shape[1])}
    return states.table(runs, steps, [item.states for item in decoded]).assign(
        log_predictive=np.concatenate([item.predictive for item in decoded]), **more
    )


def _check(config: Config) -> None:
    """Refuse keys of the fit beside `decode_with`: the model is given, nothing is fitted."""
    free = ("decode_with", "steps", "convergence", "workers", "seed")
    default = Config()
    for name in vars(config):
        if name not in free and getattr(config, name) != getattr(default, name):
            raise ConfigError(
                f"{name}={getattr(config, name)}: nothing is fitted with decode_with=; "
                "only steps and convergence.* may be given beside it"
            )
