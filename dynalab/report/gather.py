"""From the store to arrays: what one ensemble's part of the page is made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dynalab.core.errors import StoreError
from dynalab.core.words import quartiles, safe
from dynalab.show.plots import thin
from dynalab.store.read import number, text
from dynalab.store.reader import Ensemble, StoredRun
from dynalab.store.results import Result
from dynalab.store.runfile import FINAL

ACCURACIES = {"train": "train_accuracy", "test": "test_accuracy"}
LOSSES = {"train": "train_loss", "test": "test_loss"}
LANDMARKS = {"memorised": "memorised_step", "generalised": "generalised_step"}
# Values of one metric that are held at once, of imported runs, which may each be on a grid of its own: beyond, rows
# move to the nearest of so many steps, at least as many as a line has points.
CELLS = 4_000_000
# A landmark in the first twentieth of training would be a sliver on a linear axis.
EARLY = 0.05


@dataclass
class Shown:
    """One ensemble as the page shows it."""

    ensemble: Ensemble  # where it comes from
    runs: list[StoredRun]  # the runs that are shown; those of damaged shards are left out
    steps: dict[str, np.ndarray]  # metric -> steps, shape (T,)
    values: dict[str, np.ndarray]  # metric -> values, shape (S, T), in the order of `runs`
    results: list[Result]  # the analyses that are shown with it
    total: int  # number of runs that the ensemble has
    title: str = ""  # name of the ensemble on the page
    warnings: list[str] = field(default_factory=list)  # what was damaged or odd
    others: Sequence[Result] = ()  # the stored analyses that are not
    # Metric -> number of steps that it was recorded at, where `steps` has fewer.
    fewer: dict[str, int] = field(default_factory=dict)

    @property
    def anchor(self) -> str:
        """Its id on the page."""
        return f"e-{safe(self.ensemble.id)}"

    @property
    def finished(self) -> list[StoredRun]:
        """The runs that have a summary."""
        return [run for run in self.runs if run.summary is not None]

    @property
    def last_step(self) -> int:
        """The largest step that a run reached."""
        return max((run.steps for run in self.runs), default=0)

    @property
    def diverged(self) -> np.ndarray:
        """Step at which each run diverged, NaN for those that did not, shape (S,)."""
        return np.array(
            [np.nan if run.diverged_step is None else run.diverged_step for run in self.runs], float
        )

    @property
    def first_step(self) -> int:
        """The smallest step that was recorded: above 0 in a training that goes on from elsewhere."""
        return min((int(steps[0]) for steps in self.steps.values()), default=0)

    def landmark(self, key: str) -> list[float | None]:
        """Return a landmark of every run that has a summary: its step, or None if it never came."""
        return [(run.summary or {}).get(key) for run in self.finished]

    def landmarks(self) -> dict[str, list[float | None]]:
        """Return name -> steps of the landmarks that apply: those that some run reached, or whose metric is there.

        Of imported runs only those whose level was given.
        """
        metrics = {"memorised": "train_accuracy", "generalised": "test_accuracy"}
        if self.ensemble.imported:
            given = self.ensemble.config.get("levels") or {}
            metrics = {name: metric for name, metric in metrics.items() if metric in given}
        found = {name: self.landmark(key) for name, key in LANDMARKS.items()}
        return {
            name: steps
            for name, steps in found.items()
            if name in metrics
            and steps
            and (metrics[name] in self.values or any(step is not None for step in steps))
        }

    def medians(self) -> dict[str, float | None]:
        """Return name -> median step of the landmarks; None where half of the runs never got there."""
        middles = {}
        for name, steps in self.landmarks().items():
            found = quartiles(steps)
            middles[name] = found[1] if found and np.isfinite(found[1]) else None
        return middles

    @property
    def log_steps(self) -> bool:
        """Whether steps are shown on a logarithmic axis, unless a figure has a rule of its own.

        They are where a metric was recorded on a log-spaced grid, and where a median landmark lies in the first
        twentieth of training. The axis' label says so.
        """
        from dynalab.show.plots.style import is_log_spaced

        if any(is_log_spaced(steps) for steps in self.steps.values()):
            return True
        early = [step for step in self.medians().values() if step]
        return bool(early) and min(early) < EARLY * self.last_step

    def statuses(self) -> dict[str, int]:
        """Return status -> number of runs, the most frequent first."""
        return dict(Counter(run.status for run in self.runs).most_common())

    def convergence(self) -> tuple[dict[str, float | None], Result] | None:
        """Return run -> convergence step (None: not by its end) as the first analysis that says so has it."""
        for result in self.results:
            rows = result.data.get("convergence")
            if rows and _is_convergence(rows):
                shown = {run.id for run in self.runs}
                return {row["run"]: row["step"] for row in rows if row["run"] in shown}, result
        return None


def _is_convergence(rows: Any) -> bool:
    return isinstance(rows, list) and all(
        isinstance(row, dict) and text(row.get("run")) and (row.get("step") is None or number(row["step"]))
        for row in rows
    )


def gather(
    ensemble: Ensemble, runs: Sequence[StoredRun], results: Sequence[Result], others: Sequence[Result] = ()
) -> Shown:
    """Read everything that is shown of an ensemble.

    Args:
        ensemble: The ensemble.
        runs: The runs that are wanted.
        results: The analyses to show with it.
        others: Its analyses that are not shown.

    Raises:
        StoreError: Its configuration is damaged.
    """
    if not ensemble.imported and not isinstance(ensemble.config.get("eval"), dict):
        raise StoreError(f"{ensemble.paths.config} is damaged: it has no section eval")
    wanted = {run.id for run in runs}
    steps, arrays, fewer = {}, {}, {}
    most = max(CELLS // max(len(ensemble.runs), 1), thin.POINTS)
    for metric in ensemble.metrics:
        grid = ensemble.steps(metric)
        # Runs of one configuration share their steps; imported ones need not.
        if ensemble.imported and len(grid) > most:
            fewer[metric], grid = len(grid), grid[thin.evenly(len(grid), most)]
        steps[metric], arrays[metric] = grid, ensemble.array(metric, grid)
    # Reading has found which shards are damaged; their runs are named in the warnings and left out.
    rows = [
        index
        for index, run in enumerate(ensemble.runs)
        if run.id in wanted and run.shard.root.name not in ensemble.damaged
    ]
    kept = [ensemble.runs[index] for index in rows]
    values = {}
    for metric, array in arrays.items():
        some = array[rows]
        if len(rows) and (np.isfinite(some).any() or some.shape[1] == 0):
            recorded = np.isfinite(some).any(axis=0)
            # Beyond the last step that any shown run reached there is nothing to draw.
            end = int(np.flatnonzero(recorded)[-1]) + 1 if recorded.any() else 0
            steps[metric], values[metric] = steps[metric][:end], some[:, :end]
    return Shown(
        ensemble,
        kept,
        {metric: steps[metric] for metric in values if values[metric].shape[1]},
        {metric: array for metric, array in values.items() if array.shape[1]},
        list(results),
        len(ensemble.runs),
        warnings=list(ensemble.warnings),
        others=others,
        fewer=fewer,
    )


def stale(shown: Shown, result: Result) -> list[str]:
    """Return lines about runs that have changed or come since an analysis was made."""
    inputs = result.data.get("inputs") or []
    used = {item.get("run"): (item.get("steps"), item.get("attempt")) for item in inputs}
    mine = {run.id: run for run in shown.ensemble.runs if run.shard.root.name not in shown.ensemble.damaged}
    lines = []
    new = [run for run in mine.values() if run.id not in used and run.status == "done"]
    # An analysis of chosen runs leaves the others out on purpose, so only later ones are news.
    created = str(result.data.get("created", ""))
    later = [run for run in new if (run.record.attempts or [{}])[-1].get("ended", "") > created]
    changed = [
        run
        for key, run in mine.items()
        # Of a run that trains, an analysis may have seen more rows than its run.json counts yet.
        if key in used
        and used[key][0]
        and (used[key][1] != run.attempt or run.steps > used[key][0] or _shortened(run, used[key][0]))
    ]
    prefix = (result.data.get("config") or {}).get("steps")
    changed = [run for run in changed if not isinstance(prefix, int) or run.steps < prefix]
    for runs, what in ((later, "were trained after"), (changed, "have other steps than when")):
        if runs:
            names = ", ".join(run.label for run in runs[:3]) + (" ..." if len(runs) > 3 else "")
            lines.append(
                f"{len(runs)} runs ({names}) {what} this analysis was made: `dynalab analyze {result.kind} "
                f"{shown.ensemble.id}` makes a new one"
            )
    return lines


def _shortened(run: StoredRun, steps: int) -> bool:
    return run.status in FINAL and run.steps < steps


def group_of(metric: str) -> str:
    """Return the group of a metric, by its name."""
    for group, names in _GROUPS.items():
        if metric in names:
            return group
    return "accuracy" if metric.endswith("accuracy") else "other"


_GROUPS: dict[str, Any] = {
    "loss": {"train_loss", "test_loss", "batch_loss", "train_loss_max"},
    "norms": {
        "grad_norm", "update_norm", "param_norm", "last_layer_norm", "last_layer_update_norm",
        "scale_invariant_norm", "effective_gradient_norm",
    },
    "weights": {
        "l1", "l2", "l1_over_l2", "mean_w", "median_w", "var_w", "mean_b", "median_b", "var_b", "trace",
        "lambda_max", "trace_over_lambda_max", "mean_sv", "var_sv",
    },
    "curvature": {
        "sharpness", "preconditioned_sharpness", "stability_threshold", "edge_ratio", "sharpness_residual",
    },
    "numerics": {"zero_loss_fraction", "min_margin", "median_margin", "class_feature_cosine"},
}  # fmt: skip
