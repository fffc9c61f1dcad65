"""What networks on images share: the loop over runs.

Convolutions are done run by run. Under vmap they become grouped convolutions, which are slow on a CPU and pick their
kernels by the number of groups, so that a run's bits would depend on its neighbours. In the loop every run meets the
kernels that it would meet alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from dynalab.models.base import Context

# Name -> one run's parameter or buffer.
State = Mapping[str, Tensor]


def own_state(network: nn.Module) -> dict[str, Tensor]:
    """Return a network's own parameters and buffers by name."""
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def run_by_run(
    run: Callable[[State, Tensor, bool], Tensor], params: State, inputs: Tensor, context: Context
) -> Tensor:
    """Do the forward pass of S runs one after another: inputs (S, B, ...) to outputs (S, B, ...).

    `run` is the pass of one run, given its state, its inputs and whether it is a training pass, which updates the
    context's stacked buffers in place.
    """
    # One unbind for all runs: its backward pass is one stack, where S selections would each fill a whole stack.
    rows = {name: tensor.unbind() for name, tensor in params.items()}
    outputs = []
    for place, own in enumerate(inputs.unbind()):
        state = {name: row[place] for name, row in rows.items()}
        state.update({name: tensor[place] for name, tensor in context.buffers.items()})
        outputs.append(run(state, own, context.training))
    return torch.stack(outputs)
