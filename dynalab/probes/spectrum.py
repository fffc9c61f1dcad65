"""`probes=[spectrum]`: the spectral density of the Hessian over time.

Shares of the eigenvalues in the bins of a fixed grid, logarithmic on either side of 0 (`dynalab.curvature.bins`:
`edges(low, high, per_decade)`), by stochastic Lanczos quadrature (`dynalab.curvature.spectrum`) with `m` products from
each of `starts` random vectors, which are the same in every row, so that what changes from row to row is the spectrum.
More products resolve the bulk better than more vectors do (1,210 parameters, error of the cumulative shares: 50
products 0.026 from one vector as from four, 80 products 0.010). The loss is that of the probe `curvature`: the training
loss on the first `size` training examples in training mode. The ends of the spectrum are sharp; near 0 bins are finer
than what is resolved.

A row costs `m` times `starts` products, eight times a row of the probe `curvature`; the default cadence counts them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dynalab.config.keys import key
from dynalab.core.columns import Column, Columns
from dynalab.curvature.cost import ENTRIES, cadence_of, default_size, examples_of
from dynalab.probes.base import Cadence, Setting, every_by_cost, first_examples

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dynalab.config.ensemble import EnsembleConfig
    from dynalab.core.state import Objective, ProbeState

MOST_BINS = 400


@dataclass(frozen=True, kw_only=True)
class Config(Cadence):
    """Configuration of the probe; without `every` its cadence is chosen by counted cost."""

    name: str = "spectrum"
    every: int | None = every_by_cost()
    size: int | None = first_examples()
    m: int = key(80, "Lanczos steps", least=2)
    starts: int = key(1, "random vectors that they start from", least=1)
    low: float = key(1e-4, "half of the width of the bin around 0", above=0)
    high: float = key(1e4, "largest edge of the bins; the outermost take what lies beyond", above=0)
    per_decade: int = key(4, "bins in a decade", least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.high > self.low, "high", f"a number above low ({self.low:g})")
        count = len(self.edges()) - 1
        self._require(count <= MOST_BINS, "per_decade", f"at most {MOST_BINS} bins, not {count}")

    def edges(self) -> Any:
        """Return the edges of the bins, shape (B + 1,)."""
        from dynalab.curvature.bins import edges

        return edges(self.low, self.high, self.per_decade)


def default_every(config: Config, ensemble: EnsembleConfig) -> int:
    """Return the steps between rows at which they cost about a twentieth of training."""
    return cadence_of(config.size, config.m * config.starts, 0, ensemble)


def in_words(config: Config, ensemble: EnsembleConfig) -> dict[str, object]:
    """Return what the nulls of the probe's section mean."""
    return {"size": examples_of(config.size, ensemble)[0]}


COLUMNS: Columns = {
    "eigenvalue_share_#": Column(
        "share of the eigenvalues of the Hessian in the bin of this number, the most negative bin being 000",
        "1",
    ),
    "eigenvalue_min": Column("smallest node of the quadrature", "loss/weight^2"),
    "eigenvalue_max": Column("largest node of the quadrature", "loss/weight^2"),
}


class Spectrum:
    """The probe; implements `dynalab.probes.base.Probe`. It remembers nothing from row to row."""

    needs: frozenset[str] = frozenset()

    def __init__(self, config: Config) -> None:
        self._config = config
        self._edges = config.edges()

    def begin(self, setting: Setting) -> None:
        """Take what the loss is made of."""
        size = default_size(self._config.size, setting.full_batch)
        self._objective: Objective = setting.objective(size)

    def measure(self, state: ProbeState) -> dict[str, Tensor]:
        """Return the columns, each (S,) in float64."""
        import numpy as np
        import torch

        from dynalab.curvature.bins import names, shares, widths
        from dynalab.curvature.hessian import operators
        from dynalab.curvature.spectrum import quadrature

        rows, ends = [], []
        for part, hessian in operators(self._objective, state.params):
            most = min(self._config.m, max(12, ENTRIES // hessian.layout.width))
            found = quadrature(
                hessian.product, hessian.layout, hessian.gradient, steps=most, starts=self._config.starts
            )
            count = part.stop - part.start
            arrays = (item[:count].cpu().numpy() for item in (found.nodes, found.weights, found.residuals))
            # Run by run, on the host: few numbers, whose bits then depend on no neighbour.
            for nodes, weights, residuals in zip(*arrays, strict=True):
                spread = widths(nodes, residuals)
                rows.append(shares(nodes.ravel(), weights.ravel(), spread.ravel(), self._edges))
                ends.append([nodes.min(), nodes.max()])
        values = torch.from_numpy(np.concatenate([np.array(rows), np.array(ends)], axis=1))
        columns = [*names(len(self._edges) - 1), "eigenvalue_min", "eigenvalue_max"]
        device = next(iter(state.params.values())).device
        return dict(zip(columns, values.to(device).unbind(1), strict=True))


def build(config: Config, network: nn.Module) -> Spectrum:
    """Build the probe for a network."""
    return Spectrum(config)
