"""From trajectories to the result of `analyze periods`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from dynalab.analysis.base import Outcome, Trajectories, Trajectory
from dynalab.analysis.cycle import at_ends
from dynalab.analysis.missing import not_recorded
from dynalab.analysis.periods import Config
from dynalab.analysis.periods.jumps import Jump, find_jumps, slopes_between
from dynalab.analysis.periods.regimes import regime_of
from dynalab.analysis.rates import decay_a_step, drag, learning_rates, rate_changes
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
    trajectories, _, warnings = at_ends(trajectories.until(config.steps), ("scale_invariant_norm",))
    runs = [one_run(run, trajectories.metrics, config) for run in trajectories.runs]
    rows = [{"run": run["run"], **event} for run in runs for event in run["events"]]
    names = ("run", "onset_step", "end_step", "norm_rise", "loss_rise_decades", "effective_rate")
    return Outcome({"runs": runs}, {"events": pd.DataFrame(rows, columns=list(names))}, warnings)


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
    rates, decay = learning_rates(run.config, steps), decay_a_step(run.config, steps)
    effective = None if rates is None else rates / norm**2
    projected = (run.config.get("train") or {}).get("sphere")
    # Where weight decay pulls and nothing projects, a norm at rest is one where decay and growth balance.
    if float(norm.max() / norm.min()) < 1 + FIXED and (projected or not _decays(run.config)):
        return entry | _on_the_sphere(run, columns, effective)
    jumps = find_jumps(steps, norm, config.jump, config.window)
    # A jump of the rate moves the norm as well.
    changes = rate_changes(run.config, float(steps[-1]))
    jumps = [
        jump for jump in jumps if not any(abs(steps[jump.onset] - at) <= config.window for at in changes)
    ]
    loss = columns.get("train_loss_max") or columns.get("train_loss")
    events = [_event(steps, norm, jump, loss, effective) for jump in jumps]
    kept = [
        (jump, event)
        for jump, event in zip(jumps, events, strict=True)
        if event["loss_rise_decades"] is None or event["loss_rise_decades"] >= LOSS_RISE
    ]
    entry["events"] = [event for _, event in kept]
    jumps = [jump for jump, _ in kept]
    if not jumps:
        return entry | _settled(run, steps, norm, decay, effective, columns)
    return entry | _verdict(steps, norm, jumps, decay, config)


def _verdict(
    steps: np.ndarray, norm: np.ndarray, jumps: list[Jump], decay: np.ndarray | None, config: Config
) -> dict[str, Any]:
    """Judge a run with events by how its norm falls between them."""
    gaps = np.diff(steps[[jump.onset for jump in jumps]].astype(float))
    if not len(gaps):
        return {"verdict": "single_event", "reason": "one event: a period needs two"}
    found: dict[str, Any] = {
        "period_steps": float(np.median(gaps)),
        "period_cv": float(gaps.std(ddof=1) / gaps.mean()) if len(gaps) > 1 else None,
    }
    if decay is None:
        why = "the learning rate is not known, or weight decay alone does not say how the norm falls"
        return {**found, "verdict": "unknown", "reason": why}
    slopes = slopes_between(steps, norm, jumps, -decay)
    if not slopes:
        return {**found, "verdict": "unknown", "reason": "fewer than 4 rows between events: no slope"}
    ratio = float(np.median(slopes))
    said = f"between events the log norm falls by {ratio:.2f} times rate times weight decay"
    verdict = "periodic" if abs(ratio - 1) <= config.tolerance else "unknown"
    return {**found, "verdict": verdict, "slope_ratio": ratio, "reason": said}


def _decays(config: Mapping[str, Any]) -> bool:
    return bool((config.get("optimizer") or {}).get("weight_decay"))


def _settled(
    run: Trajectory,
    steps: np.ndarray,
    norm: np.ndarray,
    decay: np.ndarray | None,
    effective: np.ndarray | None,
    columns: Any,
) -> dict[str, Any]:
    """Judge a run without events: whether it has come to rest where decay and growth balance.

    The norm of weights that are orthogonal to their gradients grows by (eta g / rho)^2 and shrinks by 2 eta w rho^2;
    with heavy ball both act 1 / (1 - mu) times as long, and growth once more so (Wan et al. 2021, arXiv 2006.08419):
    eta / rho^2 = sqrt(2 eta w (1 - mu)) / g. Of AdamW no such balance is taken for known.
    """
    if not _decays(run.config):
        return {"verdict": "no_period", "reason": "no events, and no weight decay that would make them"}
    if decay is None or effective is None:
        why = "no events; the rate is not known, or weight decay alone does not say how the norm falls"
        return {"verdict": "no_period", "reason": why}
    last = float(decay[-1])
    length = 3 / last if last > 0 else math.inf
    tail = steps >= steps[-1] - length
    if steps[-1] - steps[0] < 2 * length or tail.sum() < 8:
        return {
            "verdict": "no_period",
            "reason": f"no events; too short to settle, which takes some {2 * length:,.0f} steps",
        }
    tilt, _ = slope(steps[tail].astype(float), np.log(norm[tail]), 0.0)
    gradient, optimizer = columns.get("effective_gradient_norm"), run.config["optimizer"]
    pull = None if gradient is None else gradient[1][gradient[0] >= steps[-1] - length]
    if abs(tilt) < 0.1 * last and pull is not None and len(pull) and optimizer["name"] in ("sgd", "sam"):
        here = float(np.median(effective[tail]))
        balance = math.sqrt(2 * float(np.median(decay[tail]))) * drag(optimizer) / float(np.median(pull))
        if 0.5 <= here / balance <= 2:
            said = f"effective rate {here:.3g}, where decay and growth balance {balance:.3g}"
            return {"verdict": "equilibrium", "reason": said}
    return {"verdict": "no_period", "reason": "no events"}


def _event(
    steps: np.ndarray, norm: np.ndarray, jump: Jump, loss: Any, effective: np.ndarray | None
) -> dict[str, Any]:
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
        "effective_rate": None if effective is None else float(effective[jump.onset]),
    }


def _on_the_sphere(run: Trajectory, columns: Any, effective: np.ndarray | None) -> dict[str, Any]:
    # The loss of the updates: of the network as it is trained, with the batch's statistics.
    loss = columns.get("batch_loss") or columns.get("train_loss")
    gradient = columns.get("effective_gradient_norm")
    if loss is None or gradient is None or effective is None:
        return {"verdict": "unknown", "reason": "the norm is fixed, but loss, gradient or rate are not known"}
    task = run.config.get("task") or {}
    classes = task.get("classes") or CLASSES.get(str(task.get("name")))
    finite = loss[1][np.isfinite(loss[1])]
    if run.status == "diverged":
        return {"verdict": "fixed_norm", "regime": "divergence", "reason": "the run diverged"}
    rate = float(np.median(effective))
    regime, why = regime_of(finite, rate * float(np.median(gradient[1])), classes, gradient[1])
    return {"verdict": "fixed_norm", "regime": regime, "reason": why, "effective_rate": rate}
