"""The loss that is trained, on fixed examples with fixed noise, for probes that differentiate it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dynalab.core.batch import Batch
from dynalab.networks.stack import NO_UPDATE, Stack
from dynalab.tasks.base import TaskData
from dynalab.tasks.loss import Loss


@dataclass
class FixedObjective:
    """Implements `dynalab.core.state.Objective`."""

    stack: Stack
    loss: Loss
    batch: Batch
    training: bool = True
    parts: Sequence[slice] = field(init=False)
    size: int = field(init=False)

    @property
    def trained(self) -> Collection[str]:
        """The weights that training moves."""
        return self.stack.trained

    def __post_init__(self) -> None:
        """Draw the noise."""
        alone = bool(getattr(self.stack.network, "run_by_run", False))
        width = self.stack.width
        self.size = int(self.batch.inputs.shape[1])
        # Where the forward pass is a loop over runs, only one run's graph is kept in memory at a time. On a card, too:
        # there torch takes the groups of a convolution one by one in second derivatives.
        self.parts = [slice(run, run + 1) for run in range(width)] if alone else [slice(0, width)]
        self._noise = self.stack.noise_of(NO_UPDATE, self.batch.inputs)

    def losses(self, params: Mapping[str, Tensor], part: slice) -> Tensor:
        """Return the loss of every run of a part, shape (R,), from weights of these runs alone, name -> (R, ...).

        Weights that are not given are the stack's own.
        """
        batch = Batch(self.batch.inputs[part], self.batch.targets[part])
        others = {name: own.detach()[part] for name, own in self.stack.params.items() if name not in params}
        outputs = self.stack.forward(
            batch.inputs,
            {**others, **params},
            training=self.training,
            noise={name: noise[part] for name, noise in self._noise.items()},
            # Copies: a training pass moves running statistics.
            buffers={name: buffer[part].clone() for name, buffer in self.stack.evaluated_buffers.items()},
        )
        return self.loss(outputs, batch)


def objective(
    stack: Stack,
    loss: Loss,
    make_data: Callable[..., TaskData],
    size: int | None,
) -> FixedObjective:
    """Make the objective on the first `size` training examples of every run (None: all), as one batch.

    `make_data` makes the task's data, given `eval_size`.
    """
    # Data of its own: the evaluation that the user asked for may look at fewer examples.
    pieces = list(make_data(eval_size=size).eval_batches("train"))
    inputs, targets = (_joined([getattr(piece, part) for piece in pieces]) for part in ("inputs", "targets"))
    return FixedObjective(stack, loss, Batch(inputs[:, :size], targets[:, :size]))


def _joined(pieces: Sequence[Tensor]) -> Tensor:
    """Join pieces (S, N, ...) along N; what runs share they go on sharing, with stride 0."""
    if any(piece.stride(0) for piece in pieces):
        return torch.cat([*pieces], dim=1)
    whole = torch.cat([piece[:1] for piece in pieces], dim=1)
    return whole.expand(len(pieces[0]), *whole.shape[1:])
