"""`probes=[gradients]`: norms of the gradient, of the update and of the weights, over all parameters.

Norms are Euclidean, of the weights that are evaluated (Lookahead's slow ones). Parameters that are frozen count in the
norms of weights; they have no gradient, and an update of 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.core.columns import Column, Columns
from dynalab.models.describe import describe
from dynalab.probes.base import Cadence

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dynalab.core.state import ProbeState


@dataclass(frozen=True, kw_only=True)
class Config(Cadence):
    """Configuration of the probe."""

    name: str = "gradients"


@dataclass(frozen=True)
class Norms:
    """The probe; implements `dynalab.probes.base.Probe`. A network may name no last layer."""

    names: tuple[str, ...]
    last_layer: str | None
    needs: frozenset[str] = frozenset({"gradients", "previous"})

    def measure(self, state: ProbeState) -> dict[str, Tensor]:
        """Return the norms, each (S,) in float64."""
        import torch

        from dynalab.probes.spectra import norms, squares

        now = {name: state.params[name] for name in self.names}
        known = norms(now, state.previous, state.gradients, self.last_layer)
        if known is not None:
            return dict(zip(COLUMNS, known.unbind()[: 3 if self.last_layer is None else 5], strict=False))
        own = squares(now)
        result = {"param_norm": joint(own)}
        missing = torch.full_like(result["param_norm"], torch.nan)
        result["grad_norm"] = result["update_norm"] = missing
        if state.gradients is not None:
            found = {name: state.gradients[name] for name in self.names if name in state.gradients}
            result["grad_norm"] = joint(squares(found)) if found else torch.zeros_like(missing)
        steps: dict[str, Tensor] = {}
        if state.previous is not None:
            steps = squares(now, state.previous)
            result["update_norm"] = joint(steps)
        if self.last_layer is not None:
            result["last_layer_norm"] = own[self.last_layer].sqrt()
            result["last_layer_update_norm"] = steps[self.last_layer].sqrt() if steps else missing
        return {name: result[name] for name in COLUMNS if name in result}


COLUMNS: Columns = {
    "grad_norm": Column(
        "norm of the gradient of `batch_loss`, before clipping and without decay; NaN in row 0", "loss/weight"
    ),
    "update_norm": Column("norm of the change of the weights from row t-1 to t; NaN in row 0", "weight"),
    "param_norm": Column("norm of all weights after t updates", "weight"),
    "last_layer_norm": Column(
        "norm of the weights of the last layer; absent where a network names none, as the next", "weight"
    ),
    "last_layer_update_norm": Column(
        "norm of the change of the last layer's weights in the update t-1 -> t; NaN in row 0", "weight"
    ),
}


def build(config: Config, network: nn.Module) -> Norms:
    """Build the probe for a network."""
    names = tuple(name for name, _ in network.named_parameters())
    return Norms(names, describe(network).last_layer)


def norm(tensors: Iterable[Tensor]) -> Tensor:
    """Return the joint Euclidean norm of tensors (S, ...) run by run, shape (S,), summed in float64."""
    from dynalab.probes.spectra import squares

    return joint(squares({str(place): tensor for place, tensor in enumerate(tensors)}))


def joint(squares: Mapping[str, Tensor]) -> Tensor:
    """Return the root (S,) of what some sums of squares (S,) add up to."""
    # Added one by one: torch sums over an outer axis in an order that depends on the inner length, S.
    total, *others = squares.values()
    for own in others:
        total = total + own
    return total.sqrt()
