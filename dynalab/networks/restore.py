"""Stored weights back into a network."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dynalab.core.errors import StoreError

if TYPE_CHECKING:
    import numpy as np


def tensors_of(network: nn.Module) -> dict[str, Tensor]:
    """Return weights and buffers by the names that the stack has: what modules share stands under its first one."""
    return dict([*network.named_parameters(), *network.named_buffers()])


def names_in(network: nn.Module, stored: Collection[str]) -> set[str]:
    """Return which weights and buffers are to be read; checkpoints of before lack those that torch would not store."""
    return tensors_of(network).keys() & {*network.state_dict(), *stored}


def restore(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy one run's stored weights and buffers in.

    Raises:
        RuntimeError: A shape is another.
    """
    own = tensors_of(network)
    with torch.no_grad():
        for name, value in weights.items():
            own[name].copy_(value.view_as(own[name]))


def restore_arrays(network: nn.Module, weights: Mapping[str, np.ndarray]) -> None:
    """Copy one run's weights and buffers in.

    Raises:
        StoreError: One is missing, or has another shape.
    """
    try:
        restore(network, {name: torch.tensor(weights[name]) for name in names_in(network, weights)})
    except (KeyError, RuntimeError) as error:
        raise StoreError(f"the weights are not of this network: {error}") from error
