"""Weights whose norm is held: after every update they are rescaled together, each run's by a factor of its own.

`train.sphere=true` holds the scale-invariant ones at the norm rho that they had at the beginning, so that the effective
rate eta / rho^2 stays what it is (Kodryan et al. 2022, arXiv 2209.03695). `train.norm_clamp=c` holds all that are
trained, biases among them, at c times their initial norm (Liu et al. 2023, arXiv 2210.01117, whose reduced loss is that
of weights of one norm). Row 0 is the initialisation as it was drawn. Moments stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dynalab.config.schema import Train
from dynalab.core.errors import ConfigError
from dynalab.optim.ascent import along_runs, joint_norm


class Sphere:
    """The spheres of S runs.

    Args:
        names: Of the weights that are held, together.
        trained: Name -> weights before the first update, shape (S, ...), of those that are trained.
        evaluated: The weights that are evaluated, where an optimizer has slow ones.
        multiple: The radius, in initial norms.
    """

    def __init__(
        self,
        names: Sequence[str],
        trained: Mapping[str, Tensor],
        evaluated: Mapping[str, Tensor],
        multiple: float = 1.0,
    ) -> None:
        self._held = [[trained[name] for name in names]]
        if evaluated is not trained:
            self._held.append([evaluated[name] for name in names])
        # Of the initial weights, also where a checkpoint is loaded afterwards: a resumed run has the same bits.
        self.radius = multiple * joint_norm(weight.detach() for weight in self._held[0])

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


def sphere_of(
    train: Train, network: nn.Module, trained: Mapping[str, Tensor], evaluated: Mapping[str, Tensor]
) -> Sphere | None:
    """Return what holds weights at a norm, None where nothing does.

    Args:
        train: Says which.
        network: One of the networks; its `scale_invariant` names these parameters.
        trained: As in `Sphere`.
        evaluated: Likewise.

    Raises:
        ConfigError: The network names no scale-invariant parameters, and these are to be held.
    """
    if train.norm_clamp is not None:
        return Sphere(list(trained), trained, evaluated, train.norm_clamp)
    if not train.sphere:
        return None
    names = [name for name in getattr(network, "scale_invariant", ()) if name in trained]
    if not names:
        raise ConfigError(
            "train.sphere=true: needs a network that names its scale-invariant weights; "
            "legal: model=si_mlp or si_convnet"
        )
    return Sphere(names, trained, evaluated)


def refuse_held(train: Train, masks: Mapping[str, Tensor]) -> None:
    """Refuse weights that an edit holds, where all are rescaled together.

    Raises:
        ConfigError: There are some.
    """
    if masks and train.modes is not None:
        raise ConfigError(
            f"train.modes={train.modes}: replaces weights by their modes, and an edit holds some of them where they are"
        )
    if masks and (train.sphere or train.norm_clamp is not None):
        key = "train.sphere=true" if train.sphere else f"train.norm_clamp={train.norm_clamp:g}"
        raise ConfigError(
            f"{key}: rescales all weights together, and an edit holds some of them where they are"
        )
