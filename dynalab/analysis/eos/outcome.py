"""From trajectories to the result of `analyze eos`."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd

from dynalab.analysis.base import Outcome, Trajectories, Trajectory
from dynalab.analysis.cycle import at_ends, cycle_of
from dynalab.analysis.eos.config import Config
from dynalab.analysis.eos.corroborate import loss_before_and_after, raw_sharpness
from dynalab.analysis.eos.edge import Edge, edge_of
from dynalab.analysis.eos.ratios import NEEDED, Ratios, ratios_of
from dynalab.analysis.missing import not_recorded
from dynalab.core.stats import quartiles

# Verdicts that leave open whether a run arrived.
UNTOLD = ("insufficient_data", "unknown")


def analyse(trajectories: Trajectories, config: Config) -> Outcome:
    """Judge every run; see `dynalab.analysis.eos`."""
    if not set(NEEDED) & set(trajectories.metrics):
        columns = ("sharpness", "stability_threshold (or edge_ratio alone)")
        raise not_recorded(
            trajectories, "eos", "sharpness", columns, "'probes=[weights,gradients,curvature]'"
        )
    trajectories, _, warnings = at_ends(trajectories.until(config.steps), NEEDED)
    runs, frames = [], []
    for run in trajectories.runs:
        ratios = ratios_of(run, trajectories.metrics)
        runs.append(one_run(run, trajectories.metrics, ratios, config))
        frames.append(pd.DataFrame({"run": run.run, "step": ratios.steps, "ratio": ratios.values}))
        if ratios.dropped:
            warnings.append(f"{run.run}: {ratios.dropped} rows left out, their eigenvalues had not converged")
    table = (
        pd.concat(frames, ignore_index=True) if frames else pd.DataFrame({"run": [], "step": [], "ratio": []})
    )
    return Outcome({"runs": runs, "summary": over_runs(runs)}, {"ratios": table}, warnings)


def one_run(run: Trajectory, metrics: tuple[str, ...], ratios: Ratios, config: Config) -> dict[str, Any]:
    """Return a run's entry of the result."""
    if ratios.reason:
        edge = Edge("unknown", reason=ratios.reason)
    elif ratios.dropped > len(ratios.steps):
        edge = Edge(
            "unknown",
            reason=f"{ratios.dropped} of {ratios.dropped + len(ratios.steps)} eigenvalues had not converged",
        )
    else:
        edge = edge_of(ratios.steps, ratios.values, config, adaptive=ratios.adaptive)
    entry: dict[str, Any] = {
        "run": run.run,
        "verdict": edge.verdict,
        "adaptive": ratios.adaptive,
        "onset_step": None if edge.onset is None else round(edge.onset),
        "end_step": None if edge.end is None else round(edge.end),
        "median_ratio": edge.median,
        "iqr_ratio": edge.spread,
        "fraction_at_edge": edge.fraction,
        "reason": edge.reason,
        "sharpening_rate": edge.rate,
        "rise": edge.rise,
        "stays": [{"first": round(first), "last": round(last)} for first, last in edge.stays],
        "loss": None,
        "raw_sharpness": None,
        **measured_on(run, metrics, ratios.adaptive),
    }
    if edge.onset is None:
        return entry
    # Within a cycle the loss of the weights that rows show does not move.
    every = cycle_of(run.config) == 1
    full = every and (run.config.get("train") or {}).get("batch_size") in (None, "full")
    loss = run.column(metrics, "train_loss")
    if full and loss is not None:
        entry["loss"] = loss_before_and_after(*loss, edge.stays)
    raw = run.column(metrics, "sharpness")
    if ratios.adaptive and raw is not None:
        entry["raw_sharpness"] = raw_sharpness(*raw, edge.stays)
    return entry


def measured_on(run: Trajectory, metrics: tuple[str, ...], adaptive: bool) -> dict[str, Any]:
    """Return what a run's sharpness was measured on and how well: examples, mode, and residuals over eigenvalues.

    What was not recorded is None.
    """
    examples, training = (
        run.column(metrics, name) for name in ("curvature_probe_size", "curvature_probe_training")
    )
    found: dict[str, Any] = {
        "probe_size": None if examples is None else int(examples[1][-1]),
        "probe_mode": None if training is None else ("training" if training[1][-1] else "evaluation"),
        "residual_median": None,
        "residual_max": None,
    }
    name, residual = (
        ("preconditioned_sharpness", "preconditioned_residual")
        if adaptive
        else ("sharpness", "sharpness_residual")
    )
    sharp, left = run.column(metrics, name), run.column(metrics, residual)
    if sharp is not None and left is not None:
        _, mine, theirs = np.intersect1d(sharp[0], left[0], return_indices=True)
        shares = left[1][theirs] / np.maximum(np.abs(sharp[1][mine]), 1e-300)
        if len(shares):
            found |= {"residual_median": float(np.median(shares)), "residual_max": float(shares.max())}
    return found


def over_runs(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return counts of verdicts, and quartiles over runs of onset and of the ratio at the edge.

    A run that never arrived counts as later than all others; one of which that is not known does not count.
    """
    known = [run["onset_step"] for run in runs if run["verdict"] not in UNTOLD]
    arrived = any(step is not None for step in known)
    ratios = [run["median_ratio"] for run in runs if run["onset_step"] is not None]
    return {
        "verdicts": dict(Counter(run["verdict"] for run in runs)),
        "onset": list(quartiles(known)) if arrived else None,
        "ratio": [float(x) for x in np.quantile(ratios, [0.25, 0.5, 0.75])] if ratios else None,
    }
