"""`probes=[parity]`: how far a network's first layer has moved, on relevant and on other coordinates of a parity.

The hidden progress of Barak et al. 2022 (arXiv 2207.08799). w_t are the first layer's weights after t updates, shape
(hidden, n), its biases left out; the first k coordinates are relevant.

A maximum over n - k coordinates is larger than one over k by chance alone; the separation is near 1 until gradients
tell the coordinates apart. The movement of a ReLU network is mostly the noise of its batches, added up over neurons of
which few learn; the coefficient adds up what they learn. Measured in the last row before held-out accuracy exceeds .55:

    PolyNet (n 50, k 3, batches of 64, rate .01, 9 seeds)      separation 6.6 to 14    fourier 10 to 44
    ReLU (n 30, k 3, width 100, batches of 32, rate .1, 10)    separation 1.3 to 1.7   fourier 24 to 144

The first layer is the first matrix that the network counts as its weights (`dynalab.models.describe`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dynalab.config.keys import key
from dynalab.core.columns import Column, Columns
from dynalab.core.errors import ConfigError
from dynalab.models.describe import WeightSelection, describe, matrices
from dynalab.probes.base import Cadence

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from dynalab.core.state import ProbeState
    from dynalab.probes.parity_fourier import Coefficients


@dataclass(frozen=True, kw_only=True)
class Config(Cadence):
    """Configuration of the probe."""

    name: str = "parity"
    k: int = key(3, "relevant coordinates, the first k; its YAML file takes the task's", least=1)


COLUMNS: Columns = {
    "parity_movement": Column("largest size of an entry of w_t - w_0, the paper's rho", "weight"),
    "parity_relevant": Column("the same over the relevant coordinates", "weight"),
    "parity_irrelevant": Column("the same over the others; absent where all are relevant", "weight"),
    "parity_separation": Column(
        "root mean square of w_t - w_0 over the relevant coordinates divided by that over the others; NaN in row 0 and "
        "wherever the others have not moved; absent where all are relevant",
        "1",
    ),
    "parity_fourier": Column(
        "size of the network's Fourier coefficient on the relevant set, divided by the root mean square of those on "
        "sets of k neighbouring other coordinates; of PolyNet and of ReLU networks with one hidden layer, where "
        "2 <= k <= 6 and n >= 3 k",
        "1",
    ),
}


@dataclass(frozen=True)
class ParityProgress:
    """The probe; `coefficients` are the network's, where there is a formula."""

    first: WeightSelection
    k: int
    coefficients: Coefficients | None = None
    needs: frozenset[str] = frozenset({"initial"})
    # The sets of the network's inputs, once they are made.
    _made: list[Tensor] = field(default_factory=list, repr=False, compare=False)

    def measure(self, state: ProbeState) -> dict[str, Tensor]:
        """Return the movements, each (S,) in float64; without `parity_irrelevant` where every coordinate counts."""
        import torch

        assert state.initial is not None
        now, then = (next(matrices(params, self.first)) for params in (state.params, state.initial))
        result = dict(zip(COLUMNS, _movement(now, then, self.k), strict=False))
        if self.coefficients is not None:
            if not self._made:
                self._made.append(_sets(self.k, now.shape[2], now.device))
            found = self.coefficients(state.params, self._made[0])
            ratio = found[:, 0].abs() / found[:, 1:].square().mean(1).sqrt()
            result["parity_fourier"] = ratio.masked_fill(~ratio.isfinite(), torch.nan)
        return result


def _movement(now: Tensor, then: Tensor, k: int) -> Sequence[Tensor]:
    """Return the movements of matrices (S, m, n), (S,) each, in the order of `COLUMNS`; two where k is n."""
    import torch

    from dynalab.probes.spectra import movement

    if (known := movement(now, then, k)) is not None:
        return known.unbind()[: 4 if k < now.shape[2] else 2]
    moved = now.to(torch.float64, copy=True).sub_(then)
    spread = [_rms(part) for part in (moved[..., :k], moved[..., k:])]
    largest = moved.abs_().amax(1)
    whole, relevant = largest.amax(1), largest[:, :k].amax(1)
    if k == moved.shape[2]:
        return whole, relevant
    ratio = spread[0] / spread[1]
    return whole, relevant, largest[:, k:].amax(1), ratio.masked_fill(~ratio.isfinite(), torch.nan)


def _sets(k: int, n: int, device: torch.device) -> Tensor:
    """Return the relevant set and the sets of k neighbours (round a circle) among the others: (1 + n - k, k)."""
    import torch

    others = torch.arange(n - k, device=device)
    neighbours = k + (others[:, None] + torch.arange(k, device=device)) % (n - k)
    return torch.cat([torch.arange(k, device=device)[None], neighbours])


def _rms(moved: Tensor) -> Tensor:
    """Return the root mean square of each run's entries, (S, h, m) to (S,)."""
    return moved.flatten(1).square().mean(1).sqrt()


def build(config: Config, network: nn.Module) -> ParityProgress:
    """Build the probe for a network, whose first weight matrix has to read k coordinates at least."""
    selection = describe(network)
    if not selection.matrices:
        raise ConfigError(
            "probes: the probe parity needs a network with a weight matrix, and this one has none"
        )
    first = selection.matrices[0]
    width = network.get_parameter(first.parameter).flatten(1).shape[1]
    if config.k > width:
        raise ConfigError(
            f"probe.parity.k={config.k}: the first layer, {first.parameter}, reads {width} coordinates; "
            f"legal: 1 to {width}"
        )
    from dynalab.probes.parity_fourier import coefficients_of

    # Fewer than 2k others would share most of their coordinates.
    found = coefficients_of(network, config.k) if width >= 3 * config.k else None
    return ParityProgress(WeightSelection((first,), (), None), config.k, found)
