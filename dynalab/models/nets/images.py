"""What networks on images share: the check of their task, and the loop over runs.

Convolutions are done run by run. Under vmap they become grouped convolutions, which are slow on a CPU and pick their
kernels by the number of groups, so that a run's bits would depend on its neighbours. In the loop every run meets the
kernels that it would meet alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from dynalab.core.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dynalab.core.batch import InputSpec
    from dynalab.models.base import Context

# Name -> one run's parameter or buffer.
State = Mapping[str, "Tensor"]


def require_image(model: str, spec: InputSpec, least: int = 1) -> tuple[int, int, int]:
    """Return (channels, height, width) of a task's images, or refuse a task without.

    Args:
        model: Name of the model.
        spec: What the task says of its examples.
        least: Least height and width that the model can read.

    Raises:
        ConfigError: The examples are no images, or too small.
    """
    if spec.kind != "image" or len(spec.shape) != 3:
        raise ConfigError(
            f"model={model}: reads images, but this task's examples are of kind {spec.kind}; "
            f"legal: a task of images (task=digits, mnist, cifar), or a model that reads {spec.kind}"
        )
    channels, height, width = spec.shape
    if min(height, width) < least:
        raise ConfigError(
            f"model={model}: reads images of at least {least} x {least} pixels, not {height} x {width}"
        )
    return channels, height, width


def own_state(network: nn.Module) -> dict[str, Tensor]:
    """Return a network's own parameters and buffers by name."""
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


def run_by_run(
    run: Callable[[State, Tensor, bool], Tensor],
    params: Mapping[str, Tensor],
    inputs: Tensor,
    context: Context,
) -> Tensor:
    """Do the forward pass of S runs one after another.

    Args:
        run: The pass of one run: its state, its inputs (B, ...), whether it is a training pass.
        params: Name -> (S, ...).
        inputs: Shape (S, B, ...).
        context: Whether this is a training pass, which updates the stacked buffers in place.

    Returns:
        Shape (S, B, ...).
    """
    import torch

    # One unbind for all runs: its backward pass is one stack, where S selections would each fill a whole stack.
    rows = {name: tensor.unbind() for name, tensor in params.items()}
    outputs = []
    for place, own in enumerate(inputs.unbind()):
        state = {name: row[place] for name, row in rows.items()}
        state.update({name: tensor[place] for name, tensor in context.buffers.items()})
        outputs.append(run(state, own, context.training))
    return torch.stack(outputs)
