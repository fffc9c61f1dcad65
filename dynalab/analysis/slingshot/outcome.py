"""From trajectories to the result: spikes, what the norm did around them, what each was, and the run's period."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from dynalab.analysis import slingshot
from dynalab.analysis.base import Outcome, Trajectories, Trajectory
from dynalab.analysis.cycle import at_ends
from dynalab.analysis.missing import not_recorded
from dynalab.analysis.rates import decay_a_step, rate_changes
from dynalab.analysis.slingshot.config import Config
from dynalab.analysis.slingshot.kinds import Column, Evidence, Named, name
from dynalab.analysis.slingshot.norms import Cycle, cycles
from dynalab.analysis.slingshot.spikes import Spike, find_spikes, log_loss
from dynalab.core.stats import quartiles

# A run is fitted when its accuracy has been 1 for so many steps.
FITTED = 100
EVENT_COLUMNS = ("run", "kind", "confidence", "onset_step", "peak_step", "end_step", "amplitude_decades")


def analyse(trajectories: Trajectories, config: Config) -> Outcome:
    """Find and name the events of every run; see `dynalab.analysis.slingshot`."""
    absent = [column for column in slingshot.NEEDED if column not in trajectories.metrics]
    if absent:
        missing, words = " and no ".join(absent), "'probes=[gradients,numerics]'"
        raise not_recorded(trajectories, "slingshot", missing, slingshot.NEEDED, words)
    trajectories, _, warnings = at_ends(trajectories.until(config.steps), slingshot.NEEDED)
    runs, rows = [], []
    for run in trajectories.runs:
        entry, notes = one_run(run, trajectories.metrics, config)
        runs.append(entry)
        rows += [
            {"run": run.run, **{key: event[key] for key in EVENT_COLUMNS[1:]}} for event in entry["events"]
        ]
        warnings += notes
    table = pd.DataFrame(rows, columns=list(EVENT_COLUMNS)).astype(
        {"onset_step": "int64", "peak_step": "int64", "end_step": "Int64", "confidence": float}
    )
    return Outcome({"runs": runs, "summary": over_runs(runs)}, {"events": table}, warnings)


def one_run(run: Trajectory, metrics: tuple[str, ...], config: Config) -> tuple[dict[str, Any], list[str]]:
    """Return a run's entry of the result, and warnings."""
    columns = {
        column: found for column in slingshot.COLUMNS if (found := run.column(metrics, column)) is not None
    }
    missing = missing_channels(run, columns)
    empty: dict[str, Any] = {
        **{
            "run": run.run,
            "verdict": "insufficient_data",
            "events": [],
            "period_steps": None,
            "period_cv": None,
        },
        "missing_channels": missing,
    }
    if any(column not in columns or len(columns[column][0]) < 10 for column in slingshot.NEEDED):
        return empty, [f"{run.run}: fewer than 10 rows of {' or '.join(slingshot.NEEDED)}"]
    steps, loss, ended = _loss(columns, float(run.steps[-1]))
    norm_steps, norms = columns["last_layer_norm"]
    norm = np.interp(steps, norm_steps, norms)
    start = fitted_from(steps, loss, columns.get("train_accuracy"))
    if start is None:
        return {**empty, "verdict": "no_events"}, []
    spikes = find_spikes(steps, loss, armed_from=start, window=config.window, rise=config.rise)
    around = cycles(steps, log_loss(loss), norm, spikes, config.window)
    events = []
    shrunk = columns.get("scale_invariant_norm")
    decay = None if shrunk is None or not spikes else decay_a_step(run.config, shrunk[0])
    batch = (run.config.get("train") or {}).get("batch_size")
    for spike, cycle in zip(spikes, around, strict=True):
        evidence = Evidence(
            onset=float(steps[spike.onset]),
            peak=float(steps[spike.peak]),
            window=float(config.window),
            columns=columns,
            cycle=cycle,
            optimizer=run.config.get("optimizer") or {},
            rates=rate_changes(run.config, float(steps[-1])),
            ended=(ended or run.status == "diverged") and spike is spikes[-1] and spike.end is None,
            full_batch=None if batch is None else batch == "full",
            decay=decay,
        )
        events.append(_event(steps, spike, cycle, name(evidence, config)))
    mine = [event for event in events if event["kind"] == "slingshot"]
    verdict = "slingshot" if 2 * len(mine) > len(events) else "other_spikes" if events else "no_events"
    period, spread = period_of(
        [event["onset_step"] for event in (mine if verdict == "slingshot" else events)]
    )
    notes = []
    spacing = float(np.median(np.diff(steps)))
    if spacing > (period or np.inf) / 5 or (spacing > 50 and "train_loss_max" not in columns):
        notes.append(
            f"{run.run}: a row every {spacing:g} steps is coarse for spikes that last 6 to 670: some may be missed; "
            "record with eval.every=10"
        )
    entry = {**empty, "verdict": verdict, "events": events, "period_steps": period, "period_cv": spread}
    return entry, notes


def missing_channels(run: Trajectory, columns: Mapping[str, Column]) -> list[str]:
    """Return what would have told more: columns, and the optimizer where the configuration is not known."""
    wanted = [*slingshot.CHANNELS, "edge_ratio"]
    return [column for column in wanted if column not in columns] + (
        [] if run.config.get("optimizer") else ["optimizer"]
    )


def _loss(columns: Mapping[str, Column], last: float) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return the steps (T,), the largest loss known at each (T,), and whether it ended in NaN or infinity.

    A column leaves NaN out: the loss ended in it where the run has rows beyond the next one that the loss was due at.

    Args:
        columns: Channel -> (steps, values).
        last: Step of the run's last row.
    """
    steps, loss = columns["train_loss"]
    missing = last - steps[-1] >= np.median(np.diff(steps))
    if "train_loss_max" in columns:
        # Short spikes between two rows stand only here.
        largest_steps, largest = columns["train_loss_max"]
        place = np.searchsorted(steps, largest_steps)
        inside = place < len(steps)
        same = np.flatnonzero(inside)[steps[place[inside]] == largest_steps[inside]]
        loss = loss.copy()
        loss[place[same]] = np.fmax(loss[place[same]], largest[same])
    bad = np.flatnonzero(~np.isfinite(loss))
    end = int(bad[0]) if len(bad) else len(loss)
    return steps[:end], loss[:end], bool(len(bad) or missing)


def fitted_from(steps: np.ndarray, loss: np.ndarray, accuracy: Column | None) -> float | None:
    """Return the step from which spikes count: 100 steps after the run has fitted its training data.

    With accuracies: the first row after 100 steps of accuracy 1. Without (or where it is never 1, as with wrong
    labels): from 100 steps after the first time that the median of five rows is a twentieth of the loss at the
    beginning or .05, at once where the series begins so low. None where it is never reached.
    """
    if accuracy is not None and len(accuracy[0]):
        at, values = accuracy
        wrong = at[values < 1.0]
        for began in at[values >= 1.0]:
            later = wrong[wrong >= began]
            if not len(later) or later[0] - began >= FITTED:
                return float(began + FITTED)
    if len(loss) < 5:
        return None
    level = np.array([np.median(loss[max(row - 4, 0) : row + 1]) for row in range(len(loss))])
    low = np.flatnonzero(level <= max(0.05, 0.05 * loss[0]))
    if not len(low):
        return None
    if low[0] == 0:
        return float(steps[0])
    # Steps, but no more rows than a spike's level needs: a series may count rows.
    spacing = float(np.median(np.diff(steps)))
    return float(steps[low[0]] + min(FITTED, 40 * spacing))


def _event(steps: np.ndarray, spike: Spike, cycle: Cycle, named: Named) -> dict[str, Any]:
    ratio = cycle.ratio
    return {
        "kind": named.kind,
        "confidence": round(named.confidence, 3),
        "onset_step": int(steps[spike.onset]),
        "peak_step": int(steps[spike.peak]),
        "end_step": None if spike.end is None else int(steps[spike.end]),
        "amplitude_decades": round(spike.decades, 3),
        "norm_growth": round(float(np.expm1(cycle.growth)), 5) if np.isfinite(cycle.growth) else None,
        "norm_slope_ratio": round(ratio, 4) if ratio is not None else None,
        "reason": named.reason,
    }


def period_of(onsets: list[int]) -> tuple[float | None, float | None]:
    """Return the median distance of onsets in steps (from two on), and its coefficient of variation (from three on)."""
    gaps = np.diff(np.asarray(onsets, dtype=float))
    if not len(gaps):
        return None, None
    return float(np.median(gaps)), float(gaps.std(ddof=1) / gaps.mean()) if len(gaps) > 1 else None


def over_runs(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return how many runs have which verdict, how many events there are of each kind, and quartiles over runs.

    Of the first slingshot's step, where a run without one counts as later than all others (one with too few rows does
    not count), and of the period of the runs that have one.
    """
    first = [
        min((event["onset_step"] for event in run["events"] if event["kind"] == "slingshot"), default=None)
        for run in runs
        if run["verdict"] != "insufficient_data"
    ]
    periods = [run["period_steps"] for run in runs if run["verdict"] == "slingshot" and run["period_steps"]]
    return {
        "verdicts": dict(Counter(run["verdict"] for run in runs)),
        "kinds": dict(Counter(event["kind"] for run in runs for event in run["events"])),
        "first_onset": list(quartiles(first)) if any(step is not None for step in first) else None,
        "period": list(quartiles(periods)) if periods else None,
    }
