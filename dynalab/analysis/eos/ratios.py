"""The ratio r of a run's sharpness to its optimizer's stability threshold: 1 is the edge, for every optimizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dynalab.core.errors import ConfigError
from dynalab.core.runs import Run, Series
from dynalab.optim.rates import rate_factors

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
    """The ratio at every row that has one."""

    steps: np.ndarray  # shape (N,)
    values: np.ndarray  # shape (N,), at least `FLAT`
    adaptive: bool  # whether it is of the preconditioned sharpness
    dropped: int = 0  # rows that were left out because their eigenvalue had not converged
    reason: str = ""  # why there is none; empty where there is


def ratios_of(run: Run) -> Ratios:
    """Return a run's ratios: recorded ones, or sharpness over a threshold that is recorded or the optimizer's."""
    from dynalab.curvature.thresholds import displaced, is_adaptive

    optimizer = run.config.get("optimizer") or {}
    # Of a run that was trained elsewhere only the columns tell.
    unknown = run.first("preconditioned_sharpness") is not None
    adaptive = bool(is_adaptive(optimizer)) if optimizer else unknown
    if why := displaced(optimizer, run.config.get("train") or {}):
        return _none(adaptive, f"no stability threshold is known with {why}")
    sharp, left = eigenvalue(run, adaptive)
    recorded = run.first("edge_ratio")
    if recorded is not None:
        steps, values = recorded.steps, recorded.values
    elif sharp is not None:
        steps = sharp.steps
        threshold, reason = _threshold(run, optimizer, steps)
        if reason:
            return _none(adaptive, reason)
        with np.errstate(divide="ignore", invalid="ignore"):
            values = sharp.values / threshold
    else:
        why = "preconditioned_sharpness" if adaptive else "sharpness"
        also = ", and the optimizer is adaptive" if adaptive else ""
        return _none(adaptive, f"{why} was not recorded{also}")
    keep = np.isfinite(values)
    dropped = 0
    if left is not None and sharp is not None:
        share = _between(left, steps) / np.maximum(_between(sharp, steps), 1e-300)
        # Far below the edge a small error of the ratio is enough: the eigenvalue of a flat network is hardly known.
        known = (share <= CONVERGED) | (share * np.maximum(values, 0) <= CONVERGED * CERTAIN)
        dropped = int((keep & ~known).sum())
        keep &= known
    return Ratios(steps[keep], np.maximum(values[keep], FLAT), adaptive, dropped)


def eigenvalue(run: Run, adaptive: bool) -> tuple[Series | None, Series | None]:
    """Return the sharpness that counts and its residual; None where it was not recorded."""
    if adaptive:
        return run.first("preconditioned_sharpness"), run.first("preconditioned_residual")
    return run.first("sharpness"), run.first("sharpness_residual")


def _between(series: Series, steps: np.ndarray) -> np.ndarray:
    return np.interp(steps, series.steps, series.values)


def _threshold(run: Run, optimizer: Any, steps: np.ndarray) -> tuple[np.ndarray, str]:
    """Return the threshold at some steps, and why there is none where there is none."""
    from dynalab.curvature.thresholds import ascended_threshold, recurrence, threshold

    nothing = np.empty(0)
    stored = run.first("stability_threshold")
    if stored is not None:
        return _between(stored, steps), ""
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
        why = f"stability_threshold was not recorded, and the rates of schedule={name} are not known here"
        return nothing, why
    limits = np.array([threshold(recurrence(optimizer, factor)) for factor in factors])  # type: ignore[arg-type]
    if optimizer.get("name") == "sam":
        norms = run.first("grad_norm")
        if norms is None:
            return nothing, "the threshold of sam depends on the gradient's norm, which was not recorded"
        limits = ascended_threshold(limits, float(optimizer.get("rho") or 0.0), _between(norms, steps))
    return limits, ""


def _none(adaptive: bool, reason: str) -> Ratios:
    return Ratios(np.empty(0, np.int64), np.empty(0), adaptive, reason=reason)
