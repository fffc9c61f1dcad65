"""`probes=[blank]`: the share of a network's weights that are small."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.config.keys import key
from dynalab.probes.base import Cadence

# Every command reads this file, so torch is imported where it is used, not up here.
if TYPE_CHECKING:
    from torch import Tensor, nn

    from dynalab.core.state import ProbeState


@dataclass(frozen=True, kw_only=True)
class Config(Cadence):
    """The keys `probe.blank.*`: `every` and `at` of all probes, and its own; blank.yaml lists them, too."""

    name: str = "blank"
    below: float = key(0.01, "weights of a smaller absolute value are small", above=0)


@dataclass(frozen=True)
class Probe:
    """Measures S runs at once.

    Attributes:
        below: As configured.
        needs: What it reads beside the weights: any of `initial previous gradients optimizer_state batch upcoming`.
    """

    below: float
    needs: frozenset[str] = frozenset()

    def measure(self, state: ProbeState) -> dict[str, Tensor]:
        """Return the columns of a row, always the same ones, each (S,): NaN where there is no value.

        `state.params` has every parameter, (S, ...). Nothing may reduce over the first axis: runs do not touch.
        """
        import torch

        tensors = [weights.reshape(len(weights), -1) for weights in state.params.values()]
        small = torch.cat(tensors, dim=1).abs() < self.below
        return {"blank_share": small.double().mean(dim=1)}


def build(config: Config, network: nn.Module) -> Probe:
    """Build the probe; `network` is one run's, for its modules and the names of its parameters."""
    return Probe(config.below)
