"""What an analysis is given: groups of runs, each with the series that it recorded.

Everything here is plain data over arrays. Where it comes from (stored shards, imported tables, a notebook's arrays) is
not known to who reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from dynalab.core.blocks import BlockRows
from dynalab.core.convergence import Convergence
from dynalab.core.errors import NothingMatched
from dynalab.core.trajectories import LARGEST, described, largest_since
from dynalab.core.weights import Learner, Weights
from dynalab.core.words import clean, count, listed, states

if TYPE_CHECKING:
    from torch import nn

    from dynalab.core.batch import InputSpec
    from dynalab.networks.stacked import Stacked


@dataclass(frozen=True)
class Series:
    """One metric of one run, where it has a value."""

    steps: np.ndarray  # Shape (T,), ascending integers.
    values: np.ndarray  # Shape (T,), float64, infinities included and no NaN.

    def __repr__(self) -> str:
        return f"Series({described(self.steps)}{f', last {self.values[-1]:.6g}' if len(self) else ''})"

    def __len__(self) -> int:
        return len(self.steps)

    def between(self, first: float, last: float) -> np.ndarray:
        """Return the values of the rows from one step to another, both included."""
        return self.values[(self.steps >= first) & (self.steps <= last)]

    def until(self, step: int) -> Series:
        """Return the rows up to a step."""
        inside = self.steps <= step
        return self if inside.all() else Series(self.steps[inside], self.values[inside])

    def at(self, steps: np.ndarray) -> np.ndarray:
        """Return the values at some steps, shape (T',), NaN where there is no row."""
        values = np.full(len(steps), np.nan)
        place = np.searchsorted(self.steps, steps)
        inside = np.flatnonzero(place < len(self.steps))
        exact = inside[self.steps[place[inside]] == steps[inside]]
        values[exact] = self.values[place[exact]]
        return values

    @classmethod
    def of(cls, steps: np.ndarray, values: np.ndarray) -> Series:
        """Return the series of a column, (T,), in which NaN stands for no value."""
        steps, values = np.asarray(steps), np.asarray(values, dtype=np.float64)
        some = ~np.isnan(values)
        return cls(steps, values) if some.all() else cls(steps[some], values[some])


T = TypeVar("T")


class Lazy(Mapping[str, T]):
    """The series of some names, read when they are asked for; `read` raises a KeyError for any other name."""

    def __init__(self, names: Collection[str], read: Callable[[str], T]) -> None:
        self.names, self.read = names, read

    def __getitem__(self, name: str) -> T:
        return self.read(name)

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"Lazy({count(len(self), 'series', 'series')}: {clean(listed(list(self)))})"


@dataclass(frozen=True)
class Run:
    """What one run recorded."""

    id: str  # `<ensemble>/s0007`.
    series: Mapping[str, Series]  # Metric -> its series, each on the steps that it was recorded at.
    # Steps of the evaluation grid that the run has rows at, shape (T,); those of all series where it has none.
    grid: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    # Resolved; empty where it is not known (a run of another trainer).
    config: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    status: str = "done"  # As stored.
    diverged_step: int | None = None  # None where it did not, or where that is not known.
    # What was kept of its weights, `.steps` and `.at(step)`, read when it is asked for.
    weights: Weights = field(default_factory=Weights, compare=False)
    # What the weights are weights of; None where that is not known (a run of another trainer).
    learner: Learner | None = field(default=None, compare=False)
    # Name -> what was recorded of a block, on steps of its own.
    blocks: Mapping[str, BlockRows] = field(default_factory=dict, compare=False)

    def __repr__(self) -> str:
        metrics = count(len(self.series), "metric")
        return f"Run({clean(self.id)}, {clean(self.status)}, {metrics}, {described(self.grid)})"

    @property
    def label(self) -> str:
        """The last part of the id."""
        return self.id.rpartition("/")[2]

    def first(self, *names: str) -> Series | None:
        """Return the first of some metrics that has a row; None where none has."""
        for name in names:
            if name in self.series and len(series := self.series[name]):
                return series
        return None

    def until(self, step: int) -> Run:
        """Return the run as it stood at a step: nothing later has happened yet, a divergence neither."""
        inside = self.grid <= step
        ended = inside.all() if self.diverged_step is None else self.diverged_step <= step
        return replace(
            self,
            series=Lazy(self.series, lambda name: self.series[name].until(step)),
            grid=self.grid[inside],
            status="done" if self.status == "diverged" and not ended else self.status,
            diverged_step=self.diverged_step if ended else None,
            weights=self.weights.until(step),
            blocks=Lazy(self.blocks, lambda name: self.blocks[name].until(step)),
        )

    def require_learner(self) -> Learner:
        """Return the learner, or raise `NothingMatched`: it is not known."""
        if self.learner is None:
            raise NothingMatched(
                f"{self.id}: its network and its data are not known, it was trained elsewhere"
            )
        return self.learner

    @property
    def spec(self) -> InputSpec:
        """What its network was told of its task."""
        return self.require_learner().spec

    def network(self, step: int) -> nn.Module:
        """Return its network with the weights of a step.

        Raises:
            NothingMatched: No weights of that step were kept, or the network is not known.
            StoreError: They are damaged.
            ConfigError: A plug-in is gone or has changed.
        """
        learner = self.require_learner()
        return learner.network(self.weights.at(step))

    def examples(self, split: str, most: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the run's own inputs (B, ...) and targets (B, ...), drawn again from its streams.

        Args:
            split: `train` or `test`.
            most: How many, the same ones each time; None: those that its rows are evaluated on.
        """
        return self.require_learner().examples(split, most)

    def at_multiples(self, steps: int) -> Run:
        """Return the run's rows at multiples of some steps; what is the largest since the last row is made so anew."""

        def read(name: str) -> Series:
            series = self.series[name]
            kept = np.flatnonzero(series.steps % steps == 0)
            values = largest_since(series.values, kept) if name == LARGEST else series.values[kept]
            return Series(series.steps[kept], values)

        def read_block(name: str) -> BlockRows:
            return self.blocks[name].where(self.blocks[name].steps % steps == 0)

        grid = self.grid[self.grid % steps == 0]
        return replace(self, series=Lazy(self.series, read), grid=grid, blocks=Lazy(self.blocks, read_block))

    def table(self, names: Sequence[str]) -> np.ndarray:
        """Return metrics on the evaluation grid, shape (T, M), NaN where one has no value."""
        columns = [
            self.series[name].at(self.grid) if name in self.series else np.full(len(self.grid), np.nan)
            for name in names
        ]
        return np.stack(columns, axis=1) if columns else np.empty((len(self.grid), 0))


@dataclass(frozen=True)
class Group:
    """The runs of one ensemble."""

    id: str  # The ensemble's.
    runs: tuple[Run, ...]  # In order of their ids.
    metrics: tuple[str, ...] = ()  # Names of what was recorded on the evaluation grid or a finer one.
    convergence: Convergence | None = None  # The task's own rule, if it has one.
    # What sets the ensemble apart from the others that it is analysed with.
    keys: Mapping[str, Any] = field(default_factory=dict)
    imported: bool = (
        False  # The runs were trained elsewhere: nothing is known of their metrics but the names.
    )
    warnings: tuple[str, ...] = ()  # What was left out on the way here, for the result to repeat.

    def __repr__(self) -> str:
        keys = "".join(f"{key}={value}, " for key, value in self.keys.items())
        metrics = count(len(self.metrics), "metric")
        return f"Group({clean(self.id)}, {clean(keys)}{clean(states(run.status for run in self.runs))}, {metrics})"

    @property
    def columns(self) -> set[str]:
        """Everything that some run recorded, whatever its grid."""
        return {name for run in self.runs for name in run.series}

    @property
    def blocks(self) -> set[str]:
        """Every block that some run recorded."""
        return {name for run in self.runs for name in run.blocks}

    def until(self, step: int | None) -> Group:
        """Return the runs as they stood at a step, the key `steps=` of every analysis; None keeps all."""
        return self if step is None else replace(self, runs=tuple(run.until(step) for run in self.runs))

    @property
    def kept(self) -> tuple[int, ...]:
        """The steps that the weights of every run were kept at, ascending."""
        steps = [set(run.weights.steps) for run in self.runs]
        return tuple(sorted(set.intersection(*steps))) if steps else ()

    def stack(self, step: int | Sequence[int], device: str = "cpu", threads: int | None = None) -> Stacked:
        """Return the networks of all runs with their weights of a step, side by side, S on axis 0.

        One step's weights are in memory, of all runs.

        Args:
            step: One of `kept`, or one of each run's own, (S,).
            device: `cpu`, `cuda`, `cuda:N` or `auto`.
            threads: Of the CPU; None: as many as the runs were trained with, which is what their bits depend on.

        Raises:
            NothingMatched: Of a run no weights of that step were kept, or its network is not known.
            StoreError: They are damaged.
            ConfigError: The device is not there, or a plug-in is gone or has changed.
        """
        learners = [run.require_learner() for run in self.runs]
        steps = step if isinstance(step, Sequence) else [step] * len(self.runs)
        pairs = list(zip(self.runs, steps, strict=True))
        for run, own in pairs:
            if own not in run.weights.steps:
                raise run.weights.missing(own)
        return learners[0].stack(learners, (run.weights.at(own) for run, own in pairs), device, threads)

    @classmethod
    def of(
        cls,
        columns: Mapping[str, Mapping[str, np.ndarray]],
        steps: np.ndarray | Mapping[str, np.ndarray],
        *,
        id: str = "e",
        **about: Any,
    ) -> Group:
        """Return a group of arrays.

        Args:
            columns: Label of a run -> metric -> values, shape (T,); NaN stands for no value.
            steps: Steps of all runs, shape (T,), or label -> steps.
            id: Of the group.
            **about: Further fields of every `Run`.
        """
        runs = []
        for label, metrics in columns.items():
            grid = np.asarray(steps[label] if isinstance(steps, Mapping) else steps)
            series = {name: Series.of(grid, values) for name, values in metrics.items()}
            runs.append(Run(f"{id}/{label}", series, grid, **about))
        return cls(id, tuple(runs), tuple(dict.fromkeys(name for one in columns.values() for name in one)))
