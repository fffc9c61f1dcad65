"""When a run counts as converged: the first step at which a watched metric holds a level.

A run that never holds it is censored (its step is unknown and later than the last one recorded), not late:
the published analysis gave such runs the length of training as their step, which biases every mean and
regression.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dynalab.core.columns import AVERAGED
from dynalab.core.errors import ConfigError
from dynalab.core.words import count, metric_words, number

if TYPE_CHECKING:
    import numpy as np

    from dynalab.core.trajectories import Trajectories

WAYS = ("up", "down")
# Which way training moves dynalab's own metrics, and what the name of any other one suggests.
_EVALUATED = {"train_accuracy": "up", "test_accuracy": "up", "train_loss": "down", "test_loss": "down"}
DIRECTIONS = {
    **_EVALUATED,
    **{f"{AVERAGED}{name}": way for name, way in _EVALUATED.items()},
    **dict.fromkeys(("batch_loss", "train_loss_max"), "down"),
}
ENDINGS = {"loss": "down", "error": "down", "accuracy": "up"}


def direction_of(metric: str) -> str | None:
    """Return `up` or `down`, the way a metric converges, by its name; None where its name does not say."""
    by_ending = (way for ending, way in ENDINGS.items() if metric.endswith(ending))
    return DIRECTIONS.get(metric) or next(by_ending, None)


@dataclass(frozen=True)
class Convergence:
    """When a run counts as converged."""

    metric: str  # Column that is watched.
    threshold: float  # Level to reach.
    direction: str = "up"  # `up` (at least the threshold) or `down` (at most).
    persistence: int = 1  # Number of consecutive rows that must hold the level.

    def words(self) -> str:
        """Return what is watched, `test accuracy at least 0.99 for 5 rows`."""
        sign = "at least" if self.direction == "up" else "at most"
        return f"{metric_words(self.metric)} {sign} {number(self.threshold)} for {count(self.persistence, 'row')}"


@dataclass(frozen=True)
class Passage:
    """When a run converged."""

    run: str  # Its id.
    step: int | None  # Its first passage; None where it is censored.
    censored: bool  # Whether it is not known to have come.
    last: int | None = None  # The last step at which it could have begun.
    held: bool | None = (
        None  # Whether the last value is still on the converged side; None where it is not known.
    )


@dataclass(frozen=True, kw_only=True)
class ConvergenceKeys:
    """The keys `convergence.*` of an analysis, the fields of `Convergence`; None means the task's default.

    Attributes:
        metric: metric that is watched; null: the task's own
        threshold: level that it has to reach; null: the task's own
        direction: up (at least the level) or down (at most); null: the task's own, else as the metric improves
        persistence: rows in a row that hold it; null: the task's own
    """

    metric: str | None = None
    threshold: float | None = None
    direction: str | None = None
    persistence: int | None = None

    def __post_init__(self) -> None:
        """Refuse values that no task could make sense of."""
        if self.direction is not None and self.direction not in WAYS:
            raise ConfigError(f"convergence.direction={self.direction}: must be one of {', '.join(WAYS)}")
        if self.persistence is not None and self.persistence < 1:
            raise ConfigError(f"convergence.persistence={self.persistence}: must be 1 or more")
        if self.threshold is not None and not abs(self.threshold) < float("inf"):
            raise ConfigError(f"convergence.threshold={self.threshold}: must be a finite number")


def resolve(keys: ConvergenceKeys, trajectories: Trajectories) -> tuple[Convergence | None, list[str]]:
    """Return what convergence means for these runs, the user's keys over the task's default, and warnings.

    It is None where there is nothing to watch. The task's threshold, direction and persistence belong to the task's
    metric: when the user names another metric they do not carry over.

    Raises:
        ConfigError: The keys name a metric that was not recorded, no threshold, or no direction where its
            name tells none.
    """
    import numpy as np

    task = trajectories.convergence
    if keys.metric is None and task is None:
        if keys.threshold is not None:
            raise ConfigError(
                f"convergence.threshold={keys.threshold:g}: these runs have no default metric; "
                f"give convergence.metric as well, one of {', '.join(trajectories.metrics)}"
            )
        return None, [
            "convergence left out: no metric to watch (convergence.metric=, convergence.threshold=)"
        ]
    metric = keys.metric if keys.metric is not None else task.metric if task else ""
    if metric not in trajectories.metrics:
        if keys.metric is not None:
            raise ConfigError(
                f"convergence.metric={metric}: not recorded; legal here: {', '.join(trajectories.metrics)}"
            )
        return None, [f"convergence left out: the task's metric {metric} was not recorded"]
    inherited = task if task is not None and task.metric == metric else None
    threshold = keys.threshold if keys.threshold is not None else inherited.threshold if inherited else None
    if threshold is None:
        raise ConfigError(f"convergence.metric={metric}: needs convergence.threshold=NUMBER as well")
    notes = []
    direction = keys.direction or (inherited.direction if inherited else None)
    if direction is None:
        direction = direction_of(metric)
        if direction is None:
            raise ConfigError(f"convergence.metric={metric}: needs convergence.direction=up or down as well")
        if metric not in DIRECTIONS:
            notes.append(f"convergence.direction={direction} is taken from the name {metric}")
    persistence = keys.persistence or (inherited.persistence if inherited else 1)
    watched = Convergence(metric, float(threshold), direction, persistence)
    column = trajectories.metrics.index(metric)
    columns = [np.asarray(run.values)[:, column] for run in trajectories.runs]
    columns = [values[~np.isnan(values)] for values in columns]
    if columns and all(len(values) and _holds(values[0], watched) for values in columns):
        level = f"{'>=' if direction == 'up' else '<='} {watched.threshold:g}"
        notes.append(f"every run has {metric} {level} in its first row: there is nothing to converge")
    return watched, notes


def _holds(value: float, watched: Convergence) -> bool:
    return value >= watched.threshold if watched.direction == "up" else value <= watched.threshold


def convergence_step(
    steps: np.ndarray, values: np.ndarray, threshold: float, direction: str, persistence: int
) -> int | None:
    """Return the first step of the first window of `persistence` rows, one or more, that hold a level; None for none.

    Args:
        steps: Recorded steps, shape (T,), ascending.
        values: The metric at these steps, shape (T,); NaN never holds.
        threshold: Level to reach; reaching it exactly counts.
        direction: `up` (at least the threshold) or `down` (at most).
        persistence: Length of the window in rows.

    Raises:
        ConfigError: Unknown direction, or persistence below 1.
    """
    import numpy as np

    ConvergenceKeys(direction=direction, persistence=persistence)
    values = np.asarray(values, dtype=np.float64)
    holds = values >= threshold if direction == "up" else values <= threshold
    if len(holds) < persistence:
        return None
    # A window holds when the running count of holding rows grows by its whole length.
    count = np.concatenate([[0], np.cumsum(holds)])
    found = np.flatnonzero(count[persistence:] - count[:-persistence] == persistence)
    return int(steps[found[0]]) if len(found) else None


def converge(trajectories: Trajectories, convergence: Convergence) -> list[dict[str, Any]]:
    """Return `run`, `step` and `censored` of what `follow` says."""
    return [
        {key: row[key] for key in ("run", "step", "censored")} for row in follow(trajectories, convergence)
    ]


def follow(trajectories: Trajectories, convergence: Convergence) -> list[dict[str, Any]]:
    """Return the convergence step of every run, and how far each was watched, the fields of `Passage`.

    Steps at which no run has a value of the metric are off the metric's own grid (another metric is recorded
    more finely there) and are no rows of it; a NaN that stands at a step where another run has a value does
    not hold.

    Returns:
        `{run, step, censored, last, held}` of every run. `last` is the last step at which a window of rows that hold
        could have begun, on the metric's own grid and not beyond its last value: of a censored run it is known that it
        converges later than that, and no more. 0 where there is no such step. `held` is whether its last value is still
        on the converged side (None without a value): convergence is a first passage.
    """
    import numpy as np

    column = trajectories.metrics.index(convergence.metric)
    series = [(np.asarray(run.steps), np.asarray(run.values)[:, column]) for run in trajectories.runs]
    recorded = np.unique(np.concatenate([steps[~np.isnan(x)] for steps, x in series] or [np.empty(0)]))
    found = []
    for run, (steps, x) in zip(trajectories.runs, series, strict=True):
        on_grid = np.isin(steps, recorded)
        step = convergence_step(
            steps[on_grid], x[on_grid], convergence.threshold, convergence.direction, convergence.persistence
        )
        begins = steps[on_grid & (steps <= steps[~np.isnan(x)].max(initial=-1))]
        last = int(begins[-convergence.persistence]) if len(begins) >= convergence.persistence else 0
        known = x[~np.isnan(x)]
        held = _holds(float(known[-1]), convergence) if len(known) else None
        found.append({"run": run.run, "step": step, "censored": step is None, "last": last, "held": held})
    return found
