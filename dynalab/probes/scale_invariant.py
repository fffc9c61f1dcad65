"""`probes=[scale_invariant]`: the norm of the weights that the loss does not depend on the scale of.

After Lobacheva et al. 2021 (arXiv 2106.15739) and Kodryan et al. 2022 (arXiv 2209.03695), over all the parameters that
the network names in `scale_invariant`. With rho their joint norm, the effective rate is eta / rho^2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.config.combined import require_scale_invariant
from dynalab.core.columns import Column, Columns
from dynalab.core.errors import ConfigError
from dynalab.probes.base import Cadence
from dynalab.probes.gradients import norm

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dynalab.config.ensemble import EnsembleConfig
    from dynalab.core.state import ProbeState


@dataclass(frozen=True, kw_only=True)
class Config(Cadence):
    """Configuration of the probe."""

    name: str = "scale_invariant"


COLUMNS: Columns = {
    "scale_invariant_norm": Column(
        "rho, the joint Euclidean norm of the scale-invariant weights after t updates", "weight"
    ),
    "effective_gradient_norm": Column(
        "rho |g|, g the gradient by these weights in the update t-1 -> t, rho before it; NaN in row 0", "loss"
    ),
}


@dataclass(frozen=True)
class ScaleInvariant:
    """The probe; implements `dynalab.probes.base.Probe`."""

    names: tuple[str, ...]
    needs: frozenset[str] = frozenset({"gradients", "previous"})

    def measure(self, state: ProbeState) -> dict[str, Tensor]:
        """Return both columns, each (S,) in float64."""
        import torch

        rho = norm(state.params[name] for name in self.names)
        effective = torch.full_like(rho, torch.nan)
        if state.gradients is not None and state.previous is not None:
            before = norm(state.previous[name] for name in self.names)
            gradients = [state.gradients[name] for name in self.names if name in state.gradients]
            effective = before * norm(gradients) if gradients else torch.zeros_like(rho)
        return dict(zip(COLUMNS, (rho, effective), strict=True))


def check_ensemble(ensemble: EnsembleConfig) -> None:
    """Refuse a model without such weights."""
    require_scale_invariant(ensemble.model, "probes: the probe scale_invariant")


def build(config: Config, network: nn.Module) -> ScaleInvariant:
    """Build the probe for a network, which has to name scale-invariant parameters."""
    names = tuple(getattr(network, "scale_invariant", ()))
    if not names:
        raise ConfigError(
            "probes: the probe scale_invariant needs a network that names its scale-invariant weights; "
            "legal: model=si_mlp or si_convnet"
        )
    return ScaleInvariant(names)
