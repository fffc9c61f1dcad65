"""From trajectories to the result of `analyze periods`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from dynalab.analysis.base import Outcome, Trajectories, Trajectory
from dynalab.analysis.missing import not_recorded
from dynalab.analysis.periods import Config
from dynalab.analysis.periods.jumps import Jump, find_jumps, slopes_between
from dynalab.analysis.periods.regimes import regime_of
from dynalab.analysis.rates import rate_changes
from dynalab.analysis.slingshot.norms import slope

FEWEST = 20
# A norm that moves by less, relative to itself, is held fixed.
FIXED = 1e-3
# Decades that the loss rises by at a jump of a period.
LOSS_RISE = 1.0
# Classes of the tasks whose configuration does not say.
CLASSES = {"digits": 10, "mnist": 10}


def analyse(trajectories: Trajectories, config: Config) -> Outcome:
    """Judge every run; see `dynalab.analysis.periods`."""
    if "scale_invariant_norm" not in trajectories.metrics:
        words = "model=si_mlp 'probes=[gradients,scale_invariant]'"
        name = "scale_invariant_norm"
        raise not_recorded(trajectories, "periods", name, ("train_loss", name), words)
    runs = [one_run(run, trajectories.metrics, config) for run in trajectories.until(config.steps).runs]
    rows = [{"run": run["run"], **event} for run in runs for event in run["events"]]
    names = ("run", "onset_step", "end_step", "norm_rise", "loss_rise_decades", "effective_rate")
    return Outcome({"runs": runs}, {"events": pd.DataFrame(rows, columns=list(names))})


def one_run(run: Trajectory, metrics: tuple[str, ...], config: Config) -> dict[str, Any]:
    """Return a run's entry of the result."""
    columns = {name: run.column(metrics, name) for name in metrics}
    entry: dict[str, Any] = {
        **{
            "run": run.run,
            "verdict": "insufficient_data",
            "events": [],
            "period_steps": None,
            "period_cv": None,
        },
        **{"regime": None, "slope_ratio": None, "reason": ""},
    }
    norms = columns.get("scale_invariant_norm")
    if norms is None or len(norms[0]) < FEWEST:
        return {**entry, "reason": f"fewer than {FEWEST} rows of scale_invariant_norm"}
    steps, norm = norms
    optimizer = run.config.get("optimizer") or {}
    rate = float(optimizer.get("lr") or math.nan)
    if float(norm.max() / norm.min()) < 1 + FIXED:
        return entry | _on_the_sphere(run, columns, rate / float(np.median(norm)) ** 2)
    jumps = find_jumps(steps, norm, config.jump, config.window)
    # A jump of the rate moves the norm as well.
    changes = rate_changes(run.config, float(steps[-1]))
    jumps = [
        jump for jump in jumps if not any(abs(steps[jump.onset] - at) <= config.window for at in changes)
    ]
    loss = columns.get("train_loss_max") or columns.get("train_loss")
    events = [_event(steps, norm, jump, loss, rate) for jump in jumps]
    kept = [
        (jump, event)
        for jump, event in zip(jumps, events, strict=True)
        if event["loss_rise_decades"] is None or event["loss_rise_decades"] >= LOSS_RISE
    ]
    entry["events"] = [event for _, event in kept]
    wanted = (
        -rate * float(optimizer.get("weight_decay") or 0.0) / (1 - float(optimizer.get("momentum") or 0.0))
    )
    return entry | _verdict(steps, norm, [jump for jump, _ in kept], wanted, columns, rate, config)


def _verdict(
    steps: np.ndarray,
    norm: np.ndarray,
    jumps: list[Jump],
    wanted: float,
    columns: Any,
    rate: float,
    config: Config,
) -> dict[str, Any]:
    onsets = steps[[jump.onset for jump in jumps]].astype(float) if jumps else np.empty(0)
    gaps = np.diff(onsets)
    found: dict[str, Any] = {}
    if len(gaps):
        found["period_steps"] = float(np.median(gaps))
        found["period_cv"] = float(gaps.std(ddof=1) / gaps.mean()) if len(gaps) > 1 else None
        slopes = slopes_between(steps, norm, jumps)
        if not (wanted < 0) or not slopes:
            return {**found, "verdict": "unknown", "reason": "rate and weight decay are not known"}
        ratio = float(np.median(slopes)) / wanted
        said = f"between events the log norm falls by {ratio:.2f} times rate times weight decay"
        verdict = "periodic" if abs(ratio - 1) <= config.tolerance else "unknown"
        return {**found, "verdict": verdict, "slope_ratio": ratio, "reason": said}
    if len(jumps) == 1:
        return {"verdict": "single_event", "reason": "one event: a period needs two"}
    return _settled(steps, norm, wanted, columns, rate)


def _settled(steps: np.ndarray, norm: np.ndarray, wanted: float, columns: Any, rate: float) -> dict[str, Any]:
    """Judge a run without events: whether norm and effective rate have come to rest where decay and growth balance."""
    if not wanted < 0:
        return {"verdict": "no_period", "reason": "no events, and no weight decay that would make them"}
    length = 3 / -wanted
    tail = steps >= steps[-1] - length
    if steps[-1] - steps[0] < 2 * length or tail.sum() < 8:
        return {
            "verdict": "no_period",
            "reason": f"no events; too short to settle, which takes some {2 * length:,.0f} steps",
        }
    tilt, _ = slope(steps[tail].astype(float), np.log(norm[tail]), 0.0)
    gradient = columns.get("effective_gradient_norm")
    if abs(tilt) < 0.1 * -wanted and gradient is not None:
        effective = rate / float(np.median(norm[tail])) ** 2
        balance = math.sqrt(-2 * wanted) / float(np.median(gradient[1][gradient[0] >= steps[-1] - length]))
        if 0.5 <= effective / balance <= 2:
            said = f"effective rate {effective:.3g}, where decay and growth balance {balance:.3g}"
            return {"verdict": "equilibrium", "reason": said}
    return {"verdict": "no_period", "reason": "no events"}


def _event(steps: np.ndarray, norm: np.ndarray, jump: Jump, loss: Any, rate: float) -> dict[str, Any]:
    rise = None
    if loss is not None:
        at, values = loss
        begin, end = steps[jump.onset], steps[jump.end]
        before = values[(at >= begin - 200) & (at <= begin - 20) & (values > 0)]
        during = values[(at >= begin - 20) & (at <= end + 20) & np.isfinite(values)]
        if len(before) and len(during) and during.max() > 0:
            rise = float(np.log10(during.max()) - np.log10(np.median(before)))
    return {
        "onset_step": int(steps[jump.onset]),
        "end_step": int(steps[jump.end]),
        "norm_rise": round(jump.rise, 4),
        "loss_rise_decades": None if rise is None else round(rise, 3),
        "effective_rate": None if math.isnan(rate) else rate / float(norm[jump.onset]) ** 2,
    }


def _on_the_sphere(run: Trajectory, columns: Any, effective: float) -> dict[str, Any]:
    # The loss of the updates: of the network as it is trained, with the batch's statistics.
    loss = columns.get("batch_loss") or columns.get("train_loss")
    gradient = columns.get("effective_gradient_norm")
    if loss is None or gradient is None or not math.isfinite(effective):
        return {"verdict": "unknown", "reason": "the norm is fixed, but loss, gradient or rate are not known"}
    task = run.config.get("task") or {}
    classes = task.get("classes") or CLASSES.get(str(task.get("name")))
    finite = loss[1][np.isfinite(loss[1])]
    if run.status == "diverged":
        return {"verdict": "fixed_norm", "regime": "divergence", "reason": "the run diverged"}
    regime, why = regime_of(finite, effective * float(np.median(gradient[1])), classes, gradient[1])
    return {"verdict": "fixed_norm", "regime": regime, "reason": why, "effective_rate": effective}
