"""`train.sphere=true`: training on the sphere (Kodryan et al. 2022, arXiv 2209.03695).

After every update the scale-invariant parameters of a run are rescaled together to the norm rho that they had at the
beginning, so that the effective rate eta / rho^2 stays what it is.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dynalab.errors import ConfigError
from dynalab.optim.ascent import joint_norm


class Sphere:
    """The spheres of S runs.

    Args:
        network: One of the networks; its `scale_invariant` names the parameters.
        params: Name -> weights before the first update, shape (S, ...); they are changed in place.

    Raises:
        ConfigError: The network names no scale-invariant parameters.
    """

    def __init__(self, network: nn.Module, params: Mapping[str, Tensor]) -> None:
        names = getattr(network, "scale_invariant", ())
        if not names:
            raise ConfigError(
                "train.sphere=true: needs a network that names its scale-invariant weights; "
                "legal: model=si_mlp or si_convnet"
            )
        self._weights = [params[name] for name in names]
        # Of the initial weights, also where a checkpoint is loaded afterwards: a resumed run has the same bits.
        self.radius = joint_norm([weight.detach() for weight in self._weights])

    @torch.no_grad()
    def project(self) -> None:
        """Rescale every run's weights to its radius."""
        factor = self.radius / joint_norm(self._weights)
        for weight in self._weights:
            weight.mul_(factor.to(weight.dtype).view(-1, *[1] * (weight.dim() - 1)))
