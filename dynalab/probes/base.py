"""What a probe is: a function from the state of S runs to named values of shape (S,).

A probe module holds a configuration dataclass `Config` (with `every` and `at`) and `build(config, network) -> Probe`.
Importing it imports no torch. The columns that the first measurement names are the columns of the series, so a
probe always returns the same names; what does not exist yet (an update, in row 0) is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from dynalab.tasks.base import Batch, Task, TaskData


class Objective(Protocol):
    """The training loss on fixed examples with fixed noise, in training mode; it leaves running statistics alone.

    Attributes:
        parts: The runs that are differentiated together; one at a time where the network's forward pass is a loop.
        size: Number of examples of each run.
        training: Whether the network is in training mode.
    """

    parts: Sequence[slice]
    size: int
    training: bool

    @property
    def trained(self) -> Collection[str]:
        """The weights that training moves: what the loss is differentiated by."""
        ...

    def losses(self, params: Mapping[str, Tensor], part: slice) -> Tensor:
        """Return the loss of every run of a part, from weights of these runs alone, name -> (R, ...); shape (R,).

        Weights that are not given are what they are.
        """
        ...


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
        loss_dtype: Precision of the loss, from the outputs on.
        objective: Makes the training loss on the first so many training examples; None is all.
        optimizer: The optimizer's typed configuration.
        full_batch: Whether updates are on the whole training set.
    """

    forward: Callable[[Tensor, Mapping[str, Tensor]], Tensor]
    params: Mapping[str, Tensor]
    task: Task | Any
    data: TaskData
    loss_dtype: torch.dtype
    objective: Callable[[int | None], Objective]
    optimizer: Any
    full_batch: bool


@dataclass(frozen=True)
class Upcoming:
    """The update t -> t+1, computed but not applied.

    Attributes:
        gradients: Mean gradients of its batches at the weights that it moves, name -> (S, ...), as the optimizer is
            given them: SAM's second ones, clipped; without what the loss does not depend on.
        weights: The weights that training moves (Lookahead's fast ones), name -> (S, ...).
        norm: Norm of each run's first gradient, before anything was done to it, shape (S,), float64.
        clip: Factor that clipping puts on each run's gradient, shape (S,), float64; 1 without clipping.
        factor: The schedule's factor on the rate.
    """

    gradients: Mapping[str, Tensor]
    weights: Mapping[str, Tensor]
    norm: Tensor
    clip: Tensor
    factor: float


@dataclass(frozen=True)
class ProbeState:
    """What a probe may look at in row t. Every tensor has the seeds on axis 0.

    Attributes:
        step: The row's step t, the number of updates done.
        params: Weights after t updates, name -> (S, ...).
        initial: Weights before the first update; None where no probe needs them.
        previous: Weights after t - 1 updates; None in row 0 or where no probe needs them.
        gradients: Gradients of the update t-1 -> t, of the weights that have one (not of frozen ones, nor of what the
            loss does not depend on); None in row 0 or where no probe needs them.
        optimizer_state: The optimizer's tensors, name of parameter -> name of tensor -> (S, ...).
        batch: The batch of the update t-1 -> t; None in row 0.
        upcoming: The update t -> t+1; None where no probe needs it.
    """

    step: int
    params: Mapping[str, Tensor]
    initial: Mapping[str, Tensor] | None = None
    previous: Mapping[str, Tensor] | None = None
    gradients: Mapping[str, Tensor] | None = None
    optimizer_state: Mapping[str, Mapping[str, Tensor]] | None = None
    batch: Batch | None = None
    upcoming: Upcoming | None = None


@runtime_checkable
class Probe(Protocol):
    """Measures S runs at once.

    Attributes:
        needs: Which optional fields of `ProbeState` it reads: any of `initial`, `previous`, `gradients`,
            `optimizer_state`, `batch`, `upcoming`. The engine keeps only what some probe needs.

    A probe that remembers tensors between rows has `tensors() -> name -> (S, ...)`, which checkpoints keep, and
    `load(tensors)`, or a resumed run would go on otherwise than one that was not cut off. A module whose cadence
    follows from the cost of a measurement has `default_every(config, ensemble) -> int`, a multiple of `eval.every`.
    What a null of its section stands for is said by `in_words(config, ensemble) -> {field: value}` of its module.
    One that is to be measured where a run's loss spikes, too, has `on_spike = True` and `measure_run(state, run)`, of
    the same names, which returns values for one run, NaN for the others, and remembers nothing.
    """

    needs: frozenset[str]

    def measure(self, state: ProbeState) -> dict[str, Tensor]:
        """Return named values of shape (S,), float64, on the device of the weights."""
        ...
