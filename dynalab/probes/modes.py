"""`probes=[modes]`: how much of the path of the weights correlation modes explain, without keeping the path.

As `dynalab analyze modes` has it on weights that were kept (Brokman et al. 2024, arXiv 2312.13247): weights that move
alike are a mode, each an affine function of the mode's reference weight. Each run's modes are found in its first
`warmup` rows and stay; slopes and offsets are those of least squares over all rows so far, by running sums. Until the
modes are found the columns are NaN and a copy of the weights is held for each row, then two numbers a weight and the
mode that it is in. Checkpoints hold the same, so a run that goes on has the same bits. Rows are those of the probe:
`probe.modes.every` at an epoch is what was published.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.config.keys import key
from dynalab.core.columns import Column, Columns
from dynalab.core.online import OnlineModes
from dynalab.probes.base import Cadence

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dynalab.core.state import ProbeState


@dataclass(frozen=True, kw_only=True)
class Config(Cadence):
    """Configuration of the probe."""

    name: str = "modes"
    count: int = key(10, "modes of a run; fewer are found where fewer can be told apart", least=1)
    warmup: int = key(20, "rows in which the modes are found, after which they stay", least=2)


COLUMNS: Columns = {
    "modes_found": Column("correlation modes of the run; NaN until they are found", "count"),
    "modes_r_squared": Column(
        "share of the weights' variance over all rows so far that the modes explain, by least squares", "1"
    ),
}


@dataclass
class ModesProbe:
    """The probe; implements `dynalab.probes.base.Probe`."""

    names: Sequence[str]
    modes: OnlineModes
    needs: frozenset[str] = frozenset()
    step: int = -1

    def tensors(self) -> dict[str, Tensor]:
        """Return the sums, for a checkpoint."""
        import torch

        if not self.modes.rows:
            return {}
        held = self.modes.tensors()
        # A probe's are a run's each.
        one = next(x for x in held.values() if x.dim())
        held |= {
            name: one.new_full((len(one),), value, dtype=torch.int64)
            for name, value in (("rows", self.modes.rows), ("step", self.step))
        }
        return held

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `tensors` returned."""
        self.step = int(tensors["step"][0].item())
        self.modes.load({**tensors, "rows": tensors["rows"][0]})

    def measure(self, state: ProbeState) -> dict[str, Tensor]:
        """Return the columns, each (S,) in float64."""
        import torch

        flat = torch.cat([state.params[name].detach().unsqueeze(-1).flatten(1) for name in self.names], 1)
        # Where a fork begins a row is measured again, and counts once.
        if self.step != state.step:
            self.modes.take(flat)
        self.step = state.step
        nothing = torch.full((len(flat),), torch.nan, dtype=torch.float64, device=flat.device)
        if self.modes.references is None:
            return dict.fromkeys(COLUMNS, nothing)
        return {"modes_found": self.modes.found(), "modes_r_squared": self.modes.r_squared()}


def build(config: Config, network: nn.Module) -> ModesProbe:
    """Build the probe for a network."""
    sizes = {name: param.numel() for name, param in network.named_parameters()}
    return ModesProbe(tuple(sizes), OnlineModes([*sizes.values()], config.count, config.warmup))
