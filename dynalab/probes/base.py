"""What a probe is: a function from the state of S runs to named values of shape (S,).

A probe module holds a configuration dataclass `Config` (with `every` and `at`) and `build(config, network) -> Probe`,
and says in `COLUMNS` what each column is; it may have `check_ensemble(ensemble)`, which raises `ConfigError` where the
configuration alone says that there is nothing to measure. Importing it imports no torch. The columns that the first
measurement names are the columns of the series, so a probe always returns the same names; what does not exist yet (an
update, in row 0) is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from dynalab.config.keys import Section, key
from dynalab.core.blocks import Block as Block
from dynalab.core.columns import Column as Column
from dynalab.core.columns import Columns as Columns
from dynalab.core.state import Objective as Objective
from dynalab.core.state import ProbeState as ProbeState
from dynalab.core.state import Upcoming as Upcoming

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from dynalab.config.schema import Train
    from dynalab.tasks.base import Task, TaskData
    from dynalab.tasks.loss import Loss


@dataclass(frozen=True, kw_only=True)
class Cadence(Section, of="probe"):
    """The keys that every probe has."""

    name: str
    every: int | None = key(None, "steps between measurements; null: eval.every", least=1)
    at: Any = key(
        None, "steps of the measurements, in the place of every", kind="log, never, a list of steps or null"
    )

    def _dotted(self, name: str) -> str:
        return f"{self._of}.{self.name}.{name}"


def every_by_cost() -> Any:
    """Declare the key `every` of a probe whose cadence follows from what a row costs."""
    about = "steps between measurements; null: a multiple of eval.every at which rows cost a twentieth of training"
    return key(None, about, least=1)


def first_examples() -> Any:
    """Declare the key `size` of a probe of the Hessian."""
    about = "training examples that the loss is taken on, the first so many; null: all, at most 5,000 with full batches"
    return key(None, f"{about} and 1,000 with mini-batches", least=1)


@dataclass(frozen=True)
class Setting:
    """What training is made of, for a probe that looks at examples or at the loss.

    A probe that has a method `begin(setting)` is given it once, before the first row.

    Attributes:
        forward: Inputs (S, B, ...) and weights, name -> (S, ...), to outputs (S, B, ...), in evaluation mode; running
            statistics are those of the weights that are evaluated.
        params: The weights at the beginning, name -> (S, ...).
        task: The task.
        data: The examples of the S runs.
        loss: The loss that is trained, from outputs (S, B, ...) and a batch to (S,).
        objective: Makes the training loss on the first so many training examples; None is all.
        optimizer: The optimizer's typed configuration.
        train: That of `train.*`.
        full_batch: Whether updates are on the whole training set.
        buffers: Returns the buffers that go with the weights that are evaluated, name -> (S, ...).
    """

    forward: Callable[[Tensor, Mapping[str, Tensor]], Tensor]
    params: Mapping[str, Tensor]
    task: Task | Any
    data: TaskData
    loss: Loss
    objective: Callable[[int | None], Objective]
    optimizer: Any
    train: Train
    full_batch: bool
    buffers: Callable[[], Mapping[str, Tensor]] = dict

    @property
    def loss_dtype(self) -> torch.dtype:
        """Precision of the loss, from the outputs on."""
        return self.loss.dtype


@runtime_checkable
class Probe(Protocol):
    """Measures S runs at once.

    Attributes:
        needs: Which optional fields of `ProbeState` it reads: any of `initial`, `previous`, `gradients`,
            `optimizer_state`, `batch`, `upcoming`, `correct`. The engine keeps only what some probe needs.

    A probe that remembers tensors between rows has `tensors() -> name -> (S, ...)`, which checkpoints keep, and
    `load(tensors)`, or a resumed run would go on otherwise than one that was not cut off. A module whose cadence
    follows from the cost of a measurement has `default_every(config, ensemble) -> int`, a multiple of `eval.every`. One
    whose rows can be too few for what they are made for says so by `too_few(cadence, ensemble, last) -> str`, with the
    key that gives more, empty where they are enough up to step `last`. What a null of its section stands for is said by
    `in_words(config, ensemble) -> {field: value}` of its module. One that has `blocks`, name -> `Block`, when it is
    measured, returns with its columns a tensor (S, ...) for each, of that type and shape; what it is stands in
    `COLUMNS`, too. A block is no metric: it has a series of its own, on the probe's cadence, stays out of tables, and
    is read by `Run.blocks`. One without blocks whose `measure(state)` is `finish(prepare(state))`, `prepare` giving
    name -> (S, ...), is not waited for on a card: what it has prepared is copied to the host, where threads finish it,
    some runs at a time. One that is to be measured where a run's loss spikes, too, has `on_spike = True` and
    `measure_run(state, run)`, of the same names, which returns values for one run, NaN for the others, and remembers
    nothing.
    """

    needs: frozenset[str]

    def measure(self, state: ProbeState) -> dict[str, Tensor]:
        """Return named values of shape (S,), float64, on the device of the weights; of blocks (S, ...)."""
        ...
