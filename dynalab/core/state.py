"""What a probe may look at in row t: the state of S runs, the update to come, the training loss."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from dynalab.core.batch import Batch


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
        correct: Which held-out examples, of those that are evaluated, are right, shape (S, n), bool; of the pass of the
            evaluation at t, where there is one. Only of a task that says which are (`correct` of
            `dynalab.tasks.base.Task`); None where no probe needs it.
    """

    step: int
    params: Mapping[str, Tensor]
    initial: Mapping[str, Tensor] | None = None
    previous: Mapping[str, Tensor] | None = None
    gradients: Mapping[str, Tensor] | None = None
    optimizer_state: Mapping[str, Mapping[str, Tensor]] | None = None
    batch: Batch | None = None
    upcoming: Upcoming | None = None
    correct: Tensor | None = None
