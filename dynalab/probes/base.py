"""What a probe is: a function from the state of S runs to named values of shape (S,).

A probe module holds a configuration dataclass `Config` (with `every` and `at`) and `build(config, network) -> Probe`.
Importing it imports no torch. The columns that the first measurement names are the columns of the series, so a
probe always returns the same names; what does not exist yet (an update, in row 0) is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from dynalab.tasks.base import Batch, Task, TaskData


@dataclass(frozen=True)
class Setting:
    """What training is made of, for a probe that looks at examples or at the loss.

    A probe that has a method `begin(setting)` is given it once, before the first row.

    Attributes:
        forward: Inputs (S, B, ...) and weights, name -> (S, ...), to outputs (S, B, ...), in evaluation mode.
        params: The weights at the beginning, name -> (S, ...).
        task: The task.
        data: The examples of the S runs.
        loss_dtype: Precision of the loss, from the outputs on.
    """

    forward: Callable[[Tensor, Mapping[str, Tensor]], Tensor]
    params: Mapping[str, Tensor]
    task: Task | Any
    data: TaskData
    loss_dtype: torch.dtype


@dataclass(frozen=True)
class ProbeState:
    """What a probe may look at in row t. Every tensor has the seeds on axis 0.

    Attributes:
        step: The row's step t, the number of updates done.
        params: Weights after t updates, name -> (S, ...).
        initial: Weights before the first update; None where no probe needs them.
        previous: Weights after t - 1 updates; None in row 0 or where no probe needs them.
        gradients: Gradients of the update t-1 -> t; None in row 0 or where no probe needs them.
        optimizer_state: The optimizer's tensors, name of parameter -> name of tensor -> (S, ...).
        batch: The batch of the update t-1 -> t; None in row 0.
    """

    step: int
    params: Mapping[str, Tensor]
    initial: Mapping[str, Tensor] | None = None
    previous: Mapping[str, Tensor] | None = None
    gradients: Mapping[str, Tensor] | None = None
    optimizer_state: Mapping[str, Mapping[str, Tensor]] | None = None
    batch: Batch | None = None


@runtime_checkable
class Probe(Protocol):
    """Measures S runs at once.

    Attributes:
        needs: Which optional fields of `ProbeState` it reads: any of `initial`, `previous`, `gradients`,
            `optimizer_state`, `batch`. The engine keeps only what some probe needs.
    """

    needs: frozenset[str]

    def measure(self, state: ProbeState) -> dict[str, Tensor]:
        """Return named values of shape (S,), float64, on the device of the weights."""
        ...
