"""The analysis of variance from trajectories to result."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from dynalab.analysis import convergence as watch
from dynalab.analysis.base import Outcome, Trajectories
from dynalab.analysis.variance import components, impute
from dynalab.analysis.variance.config import Config
from dynalab.analysis.variance.design import Design, read
from dynalab.errors import ConfigError

# Below this many levels an interval says little about a source.
FEW = 4


def analyse(trajectories: Trajectories, config: Config) -> Outcome:
    """Split the variance of the convergence step.

    Args:
        trajectories: Runs of one crossed design.
        config: Keys of the analysis.

    Returns:
        `shares` and what is behind them, the table `cells`, and warnings.

    Raises:
        NothingMatched: Not a crossed design.
        ConfigError: Several designs, nothing to watch, or fewer than half of the runs converged.
    """
    design = read([run.run for run in trajectories.runs])
    watched, notes = watch.resolve(config.convergence, trajectories)
    if watched is None:
        raise ConfigError("variance: no metric to watch; give convergence.metric= and convergence.threshold=")
    trajectories = trajectories.until(config.steps)
    found = watch.follow(trajectories, watched)
    values, bounds = _grid(design, found, config.log_time)
    n_unknown = int(np.isnan(values).sum())
    if n_unknown * 2 > values.size:
        raise ConfigError(
            f"variance: {values.size - n_unknown} of {values.size} runs of the design converged; half of them must "
            "(train longer, or lower convergence.threshold)"
        )
    lambdas, estimates, mean = _estimate(values, bounds, config)
    result = _result(design, lambdas, estimates)
    notes += _warnings(design, result, found, trajectories)
    result |= {
        "levels": dict(zip(design.factors, design.shape, strict=True)),
        "seeds": {name: list(seeds) for name, seeds in zip(design.factors, design.levels, strict=True)},
        "cells": len(design.cells),
        "empty_cells": design.empty,
        "mean_step": float(np.exp(mean)) if config.log_time else mean,
        "log_time": config.log_time,
        "convergence_rule": vars(watched),
        "convergence": found,
    }
    table = pd.DataFrame(found).astype({"step": "Int64"})
    for place, name in enumerate(design.factors):
        table[name] = np.array(design.levels[place])[design.cells[:, place]]
    return Outcome(result, {"cells": table}, notes)


def _grid(design: Design, found: list[dict[str, Any]], log_time: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return times and lower bounds of the unknown ones, both of the design's shape."""

    def scale(step: float) -> float:
        return float(np.log(max(step, 1.0))) if log_time else float(step)

    values = np.full(design.shape, np.nan)
    bounds = np.full(design.shape, -np.inf)
    for cell, row in zip(design.cells, found, strict=True):
        if row["censored"]:
            bounds[tuple(cell)] = scale(row["last"])
        else:
            values[tuple(cell)] = scale(row["step"])
    return values, bounds


def _estimate(values: np.ndarray, bounds: np.ndarray, config: Config) -> tuple[np.ndarray, np.ndarray, float]:
    """Return draws of the lambdas (draws, 2^F), components by moments (rounds, 2^F), and the mean of a cell."""
    rng = np.random.default_rng(config.seed)
    if np.isnan(values).any():
        found = impute.augment(values, bounds, max(config.draws // 4, 100), rng)
        return found.lambdas, found.estimates, float(found.means.mean())
    strata = components.strata(values)
    lambdas = components.draw(strata, config.draws, rng)
    estimate = components.solve(values.shape, np.nan_to_num(strata.squares))
    return lambdas, estimate[None], float(values.mean())


def _result(design: Design, lambdas: np.ndarray, estimates: np.ndarray) -> dict[str, Any]:
    """Shares, standard deviations and interactions as plain values."""
    n = len(design.factors)
    drawn = components.solve(design.shape, lambdas)
    point = estimates.mean(axis=0)
    positive = np.maximum(point, 0)
    sources = [*design.factors, "residual"]
    named = components.shares(positive, n)
    spread = components.shares(drawn, n)
    rows = []
    for place, source in enumerate(sources):
        share, interval = float(named[place]), np.quantile(spread[:, place], [0.025, 0.975])
        part = named[place] * positive.sum()
        # The estimate by moments, set to 0 where negative, may fall out of an interval that is all above 0.
        known = bool(np.isfinite(share))
        rows.append(
            {
                "source": source,
                "share": share if known else None,
                "interval": [
                    float(min(interval[0], share)),
                    float(max(interval[1], share)),
                ]
                if known
                else [None, None],
                "sd": float(np.sqrt(part)) if known else None,
                "negative": bool(point[1 << place] < 0) if place < n else False,
            }
        )
    interactions = [
        {
            "sources": [name for place, name in enumerate(design.factors) if mask >> place & 1],
            "share": float(positive[mask] / positive.sum()) if positive.sum() > 0 else None,
            "negative": bool(point[mask] < 0),
        }
        for mask in range(1, 2**n)
        if bin(mask).count("1") > 1
    ]
    return {"shares": rows, "interactions": interactions, "sd": float(np.sqrt(positive.sum()))}


def _warnings(
    design: Design, result: dict[str, Any], found: list[dict[str, Any]], trajectories: Trajectories
) -> list[str]:
    notes = [
        "residual holds the interactions of the crossed streams and whatever else differs between runs",
    ]
    censored = sum(row["censored"] for row in found)
    if censored:
        notes.append(
            f"{censored} of {len(found)} runs never converged: their steps are drawn, above the last one watched, "
            "from the normal model"
        )
    if design.empty:
        cells = ", ".join(design.empty[:3]) + (
            f" and {len(design.empty) - 3} more" if len(design.empty) > 3 else ""
        )
        notes.append(f"cells of the design without a run, drawn from the normal model: {cells}")
    few = [name for name, n in zip(design.factors, design.shape, strict=True) if n < FEW]
    if few:
        notes.append(f"fewer than {FEW} seeds of {', '.join(few)}: the share is hardly known")
    negative = [row["source"] for row in result["shares"] if row["negative"]]
    negative += [" x ".join(item["sources"]) for item in result["interactions"] if item["negative"]]
    if negative:
        notes.append(f"estimated below 0 and set to 0: {', '.join(negative)}")
    if all(row["share"] is None for row in result["shares"]):
        notes.append("all runs converge at the same step: there is no spread to split")
    for place, name in enumerate(design.factors):
        if _idle(design, trajectories, place):
            notes.append(f"{name} has no effect: runs that differ only in it are equal in every row")
    return notes


def _idle(design: Design, trajectories: Trajectories, place: int) -> bool:
    """Whether runs that differ only in one stream recorded the same values."""
    others = np.delete(design.cells, place, axis=1)
    groups: dict[tuple[int, ...], list[np.ndarray]] = {}
    for cell, run in zip(others.tolist(), trajectories.runs, strict=True):
        groups.setdefault(tuple(cell), []).append(np.asarray(run.values))
    compared = False
    for members in groups.values():
        for other in members[1:]:
            compared = True
            if other.shape != members[0].shape or not np.array_equal(other, members[0], equal_nan=True):
                return False
    return compared
