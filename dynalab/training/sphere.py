"""`train.sphere=true`: training on the sphere (Kodryan et al. 2022, arXiv 2209.03695).

After every update the scale-invariant parameters of a run are rescaled together to the norm rho that they had at the
beginning, so that the effective rate eta / rho^2 stays what it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dynalab.core.errors import ConfigError
from dynalab.optim.ascent import along_runs, joint_norm


class Sphere:
    """The spheres of S runs.

    Args:
        network: One of the networks; its `scale_invariant` names the parameters.
        trained: Name -> weights before the first update, shape (S, ...), of those that are trained.
        evaluated: The weights that are evaluated, where an optimizer has slow ones.

    Raises:
        ConfigError: The network names no scale-invariant parameters.
    """

    def __init__(
        self, network: nn.Module, trained: Mapping[str, Tensor], evaluated: Mapping[str, Tensor]
    ) -> None:
        names = [name for name in getattr(network, "scale_invariant", ()) if name in trained]
        if not names:
            raise ConfigError(
                "train.sphere=true: needs a network that names its scale-invariant weights; "
                "legal: model=si_mlp or si_convnet"
            )
        self._held = [[trained[name] for name in names]]
        if evaluated is not trained:
            self._held.append([evaluated[name] for name in names])
        # Of the initial weights, also where a checkpoint is loaded afterwards: a resumed run has the same bits.
        self.radius = joint_norm(weight.detach() for weight in self._held[0])

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Rescale every run's weights to its radius after an update: those that it wrote to, slow ones now and then."""
        before = [[weight._version for weight in weights] for weights in self._held]
        yield
        with torch.no_grad():
            for weights, versions in zip(self._held, before, strict=True):
                if [weight._version for weight in weights] != versions:
                    norm = joint_norm(weights)
                    # A run that was let go has no weights.
                    factor = (self.radius / norm).masked_fill(norm == 0, 0.0)
                    for weight in weights:
                        weight.mul_(along_runs(factor, weight))
