"""From the store to arrays: what one ensemble's part of the page is made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dynalab.core.plugins import PluginError, naming
from dynalab.core.progress import counted
from dynalab.core.stats import quantile
from dynalab.core.words import count, safe
from dynalab.show.plots import thin
from dynalab.show.plots.style import is_log_spaced
from dynalab.store.read import number, text
from dynalab.store.reader import Ensemble, StoredRun
from dynalab.store.results import Result
from dynalab.store.runfile import FINAL

# Label of a curve -> metric.
AVERAGE = "averaged"
ACCURACIES = {"train": "train_accuracy", "test": "test_accuracy", AVERAGE: "average_test_accuracy"}
LOSSES = {"train": "train_loss", "test": "test_loss", AVERAGE: "average_test_loss"}
# What an ensemble is judged by, the first that it has.
JUDGED = ("test_accuracy", "test_loss", "train_accuracy", "train_loss")
LANDMARKS = {"memorised": "memorised_step", "generalised": "generalised_step"}
LANDMARK_METRICS = {"memorised": "train_accuracy", "generalised": "test_accuracy"}
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
    broken: list[PluginError] = field(default_factory=list)  # errors in plug-ins, whose part the page lacks

    def leave_out(self, error: PluginError) -> None:
        """Note that something is not on the page because of an error in a plug-in."""
        self.broken.append(error)
        self.warnings.append(str(error))

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
        return np.array([run.diverged_step for run in self.runs], float)

    @property
    def first_step(self) -> int:
        """The smallest step that was recorded: above 0 in a training that goes on from elsewhere."""
        return min((int(steps[0]) for steps in self.steps.values()), default=0)

    def facts(self) -> dict[str, object]:
        """Return what its analyses have for a table of ensembles, the first that says something."""
        facts: dict[str, object] = {}
        for result in self.results:
            if hasattr(result.value, "facts"):
                try:
                    with naming(result.value):
                        facts = {**result.value.facts(), **facts}
                except PluginError as error:
                    self.leave_out(error)
        return facts

    def landmarks(self) -> dict[str, list[float | None]]:
        """Return name -> steps, of every run with a summary, of the landmarks that apply; None: it never came.

        Those apply that some run reached, or whose metric is there; of imported runs only those whose level was given.
        """
        imported, levels = self.ensemble.imported, self.ensemble.config.get("levels") or {}
        landmarks = {}
        for name, metric in LANDMARK_METRICS.items():
            steps = [(run.summary or {}).get(LANDMARKS[name]) for run in self.finished]
            applies = metric in self.values or any(step is not None for step in steps)
            if steps and applies and (metric in levels or not imported):
                landmarks[name] = steps
        return landmarks

    def medians(self) -> dict[str, float | None]:
        """Return name -> median step of the landmarks; None where half of the runs never got there."""
        return {name: quantile(steps, 0.5) for name, steps in self.landmarks().items()}

    @property
    def log_steps(self) -> bool:
        """Whether steps are shown on a logarithmic axis, unless a figure has a rule of its own.

        They are where a metric was recorded on a log-spaced grid, and where a median landmark lies in the first
        twentieth of training. The axis' label says so.
        """
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
    """Read everything that is shown of an ensemble: wanted runs, analyses to show with it, and others that it has.

    Raises:
        StoreError: Its configuration is damaged.
    """
    # One whose configuration is damaged is not shown at all.
    _ = ensemble.config
    wanted = {run.id for run in runs}
    steps, arrays, fewer = {}, {}, {}
    most = max(CELLS // max(len(ensemble.runs), 1), thin.POINTS)
    for metric in counted(ensemble.metrics, "metrics", f"reading {ensemble.id}"):
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
    kept, values = {}, {}
    for metric, array in arrays.items():
        recorded = np.flatnonzero(np.isfinite(array[rows]).any(axis=0))
        if len(recorded):
            # Beyond the last step that any shown run reached there is nothing to draw.
            end = int(recorded[-1]) + 1
            kept[metric], values[metric] = steps[metric][:end], array[rows][:, :end]
    return Shown(
        ensemble, [ensemble.runs[index] for index in rows], kept, values, list(results), len(ensemble.runs),
        warnings=list(ensemble.warnings), others=others, fewer=fewer,
    )  # fmt: skip


def stale(shown: Shown, result: Result) -> list[str]:
    """Return lines about runs that have changed or come since an analysis was made."""
    inputs = result.data.get("inputs") or []
    used = {item.get("run"): (item.get("steps"), item.get("attempt")) for item in inputs}
    # An analysis of chosen runs leaves the others out on purpose, so only later ones are news.
    created, later, changed = str(result.data.get("created", "")), [], []
    prefix = (result.data.get("config") or {}).get("steps")
    for run in shown.ensemble.runs:
        if run.shard.root.name in shown.ensemble.damaged:
            continue
        steps, attempt = used.get(run.id, (None, None))
        if run.id not in used:
            if run.status == "done" and (run.record.attempts or [{}])[-1].get("ended", "") > created:
                later.append(run)
        elif steps and not (isinstance(prefix, int) and run.steps >= prefix):
            # Of a run that trains, an analysis may have seen more rows than its run.json counts yet.
            shortened = run.status in FINAL and run.steps < steps
            if attempt != run.attempt or run.steps > steps or shortened:
                changed.append(run)
    lines = []
    kinds = ((later, ("was", "were"), "trained after"), (changed, ("has", "have"), "other steps than when"))
    for runs, (one, several), what in kinds:
        if runs:
            names = ", ".join(run.label for run in runs[:3]) + (" ..." if len(runs) > 3 else "")
            which = f"{count(len(runs), 'run')} ({names}) {one if len(runs) == 1 else several} {what}"
            again = f"`dynalab analyze {result.kind} {shown.ensemble.id}` makes a new one"
            lines.append(f"{which} this analysis was made: {again}")
    return lines


def group_of(metric: str) -> str:
    """Return the group of a metric, by its name."""
    group = next((group for group, names in _GROUPS.items() if metric in names), "other")
    return "accuracy" if metric.endswith("accuracy") else group


_GROUPS: dict[str, Any] = {
    "loss": {
        "train_loss", "test_loss", "batch_loss", "train_loss_max", "average_train_loss", "average_test_loss",
    },
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
