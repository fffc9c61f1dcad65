"""The ratio r of a run's sharpness to its optimizer's stability threshold: 1 is the edge, for every optimizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dynalab.analysis.base import Trajectory
from dynalab.analysis.rates import rate_factors
from dynalab.errors import ConfigError

# Any of these is enough.
NEEDED = ("sharpness", "preconditioned_sharpness", "edge_ratio")
# A network that is flat has a ratio of 0, or below; it is far below the edge, and its logarithm has to be finite.
FLAT = 1e-3
# A residual above this share of the eigenvalue: the search had not converged.
CONVERGED = 1e-2
# A ratio below this is below the edge, whatever its relative error.
CERTAIN = 0.1


@dataclass(frozen=True)
class Ratios:
    """The ratio at every row that has one.

    Attributes:
        steps: Shape (N,).
        values: Shape (N,), at least `FLAT`.
        adaptive: Whether it is of the preconditioned sharpness.
        dropped: Rows that were left out because their eigenvalue had not converged.
        reason: Why there is none; empty where there is.
    """

    steps: np.ndarray
    values: np.ndarray
    adaptive: bool
    dropped: int = 0
    reason: str = ""


def ratios_of(run: Trajectory, metrics: tuple[str, ...]) -> Ratios:
    """Return a run's ratios: recorded ones, or sharpness over a threshold that is recorded or the optimizer's.

    Args:
        run: The run.
        metrics: Names of its columns.
    """
    optimizer = run.config.get("optimizer") or {}
    adaptive = _adaptive(optimizer, run, metrics)
    name, residual = (
        ("preconditioned_sharpness", "preconditioned_residual")
        if adaptive
        else ("sharpness", "sharpness_residual")
    )
    recorded = run.column(metrics, "edge_ratio")
    sharp = run.column(metrics, name)
    if sharp is None and recorded is None:
        return _none(
            adaptive, f"{name} was not recorded" + (", and the optimizer is adaptive" if adaptive else "")
        )
    if recorded is not None:
        steps, values = recorded
    else:
        assert sharp is not None
        steps, sharpness = sharp
        threshold, reason = _threshold(run, metrics, optimizer, steps)
        if reason:
            return _none(adaptive, reason)
        with np.errstate(divide="ignore", invalid="ignore"):
            values = sharpness / threshold
    keep = np.isfinite(values)
    left = run.column(metrics, residual)
    dropped = 0
    if left is not None and sharp is not None:
        share = np.interp(steps, *left) / np.maximum(np.interp(steps, *sharp), 1e-300)
        # Far below the edge a small error of the ratio is enough: the eigenvalue of a flat network is hardly known.
        known = (share <= CONVERGED) | (share * np.maximum(values, 0) <= CONVERGED * CERTAIN)
        dropped = int((keep & ~known).sum())
        keep &= known
    return Ratios(steps[keep], np.maximum(values[keep], FLAT), adaptive, dropped)


def _adaptive(optimizer: Any, run: Trajectory, metrics: tuple[str, ...]) -> bool:
    from dynalab.curvature.thresholds import is_adaptive

    if optimizer:
        return bool(is_adaptive(optimizer))
    # Of a run that was trained elsewhere only the columns tell.
    return run.column(metrics, "preconditioned_sharpness") is not None


def _threshold(
    run: Trajectory, metrics: tuple[str, ...], optimizer: Any, steps: np.ndarray
) -> tuple[np.ndarray, str]:
    """Return the threshold at some steps, and why there is none where there is none."""
    from dynalab.curvature.thresholds import ascended_threshold, recurrence, threshold

    nothing = np.empty(0)
    stored = run.column(metrics, "stability_threshold")
    if stored is not None:
        return np.interp(steps, *stored), ""
    if not optimizer:
        return nothing, "neither stability_threshold was recorded nor the optimizer is known"
    if recurrence(optimizer) is None:
        return nothing, f"the threshold of {optimizer.get('name')} is not known"
    if (run.config.get("train") or {}).get("clip") is not None:
        return nothing, "gradients were clipped, so that the threshold depends on them; it was not recorded"
    try:
        factors = rate_factors(run.config, steps)
    except ConfigError:
        name = (run.config.get("schedule") or {}).get("name")
        return (
            nothing,
            f"stability_threshold was not recorded, and the rates of schedule={name} are not known here",
        )
    found = np.array([threshold(recurrence(optimizer, factor)) for factor in factors])  # type: ignore[arg-type]
    if optimizer.get("name") == "sam":
        norms = run.column(metrics, "grad_norm")
        if norms is None:
            return nothing, "the threshold of sam depends on the gradient's norm, which was not recorded"
        found = ascended_threshold(found, float(optimizer.get("rho") or 0.0), np.interp(steps, *norms))
    return found, ""


def _none(adaptive: bool, reason: str) -> Ratios:
    return Ratios(np.empty(0), np.empty(0), adaptive, reason=reason)
