"""Normalisation of feature maps: batch, layer, group or none."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, group_norm

from dynalab.core.errors import ConfigError

# torch's own.
MOMENTUM, EPSILON = 0.1, 1e-5


class BatchStatistics(nn.Module):
    """Scale, shift and running statistics of batch normalisation (Ioffe and Szegedy 2015), as torch names them."""

    weight: nn.Parameter
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, affine: bool = True) -> None:
        """Start at the identity; `affine` has a learnt scale and shift."""
        super().__init__()
        if affine:
            self.weight = nn.Parameter(torch.ones(channels))
            self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))


def vectors_of(module: nn.Module) -> list[str]:
    """Return the names of a module's tensors that have an entry, or a row, a unit."""
    return [name for name, tensor in (*module.named_parameters(), *module.named_buffers()) if tensor.ndim]


class Norm(nn.Module):
    """One normalisation layer; `apply` takes its tensors from a run's state.

    `batch` keeps torch's running statistics (momentum 0.1, the unbiased variance) and uses them in evaluation; `layer`
    is over all channels and places of an image, `group` over `groups` blocks of channels (Wu and He 2018, arXiv
    1803.08494), each with a learnt scale and shift a channel.
    """

    def __init__(self, kind: str, channels: int, groups: int) -> None:
        super().__init__()
        self.kind = kind
        self.groups = groups if kind == "group" else 1
        if kind == "batch":
            self.own: nn.Module = BatchStatistics(channels)
        elif kind != "none":
            self.own = nn.GroupNorm(self.groups, channels)

    def apply_to(
        self, state: Mapping[str, Tensor], name: str, x: Tensor, training: bool, runs: int = 1
    ) -> Tensor:
        """Normalise the maps of some runs, (B, runs * C, H, W), by what their state calls `name`.

        Training means batch statistics.
        """
        if self.kind == "none":
            return x
        scale, shift = state[f"{name}.own.weight"], state[f"{name}.own.bias"]
        if self.kind != "batch":
            return group_norm(x, runs * self.groups, scale, shift, EPSILON)
        mean, var = state[f"{name}.own.running_mean"], state[f"{name}.own.running_var"]
        return batch_normed(x, mean, var, scale, shift, training)


def batch_normed(
    x: Tensor, mean: Tensor, var: Tensor, scale: Tensor | None, shift: Tensor | None, training: bool
) -> Tensor:
    """Normalise x (B, C, ...) by batch statistics in training, which move the running ones in place, else by those.

    Running mean and variance, scale and shift have shape (C,); None for 1 and 0.

    Raises:
        ConfigError: A training batch has one value a channel, which has no variance.
    """
    if training and x.numel() == x.shape[1]:
        raise ConfigError(
            "train.batch_size: a batch of one image has no batch statistics; choose a size that leaves no last batch "
            "of one, or another norm"
        )
    return batch_norm(x, mean, var, scale, shift, training, MOMENTUM, EPSILON)
