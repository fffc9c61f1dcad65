"""What a probe is: a function from the state of S runs to named values of shape (S,).

A probe module holds a configuration dataclass `Config` (with `every` and `at`) and `build(config, network) -> Probe`.
Importing it imports no torch. The columns that the first measurement names are the columns of the series, so a
probe always returns the same names; what does not exist yet (an update, in row 0) is NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from dynalab.tasks.base import Batch


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
