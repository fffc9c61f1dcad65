"""`probes=[regions]`: local complexity, how many linear regions lie around training, held-out and random points.

Around a point x lies the cross-polytope with vertices x +- r v_p, with P orthonormal directions v_p. A unit cuts it if
what goes into its nonlinearity has not one sign there; the local complexity of x is the number of units that do
(Humayun et al. 2023, arXiv 2310.12977; 2024, arXiv 2402.15555), and a column is its mean over points. Counted by
`method=vertices` as published, on the embedded vertices, or `linearised`, to first order, which takes half of the
passes for all radii together and differs by less than .5% at r = .005. Units are the arguments of nonlinearities, as a
network has them after normalisation and at every place of a convolution; the published code for MLPs counts the outputs
as well, whose signs bound no region. Of a network that is not piecewise linear signs are counted likewise.

A count grows with the radius and with the number of directions. What does not, for small r, is the density
LC_r / (2 r c_P), where c_P is the largest |cosine| of a direction with P random ones, in expectation
(`dynalab.core.polytope.reach`): the sum over units of |grad z_i| times the density of z_i at 0, which by the co-area
formula is the (D-1)-volume of the boundaries of regions in a unit of D-volume. That is what Hanin and Rolnick (2019,
arXiv 1901.09021) bound, and, over the data, the local complexity of Patel and Montúfar (2025, arXiv 2412.18283) but for
their smoothing of the count. A straight line in a random direction meets sqrt(2 / (pi D)) times as many.

Directions are the same in every row, run and point. Points are the first training and held-out examples that are
evaluated, and as many random ones, uniform between the smallest and the largest number of the training points. The
radius is in units of the inputs. Rows remember nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from dynalab.config.combined import is_own
from dynalab.config.keys import key
from dynalab.core.columns import Column, Columns
from dynalab.core.devices import to_device
from dynalab.core.errors import ConfigError
from dynalab.core.polytope import axes, reach
from dynalab.curvature.cost import REGIONS_SHARE, every_of, examples_of, points_for
from dynalab.probes.base import Cadence, Setting

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from dynalab.config.ensemble import EnsembleConfig
    from dynalab.core.batch import Batch
    from dynalab.core.state import ProbeState
    from dynalab.models.units import Units

SETS = ("train", "test", "random")
METHODS = ("linearised", "vertices")
DIRECTIONS, RADII = 25, (0.05, 0.005)
RADII_LEGAL = "a list of numbers above 0, at least one"
OF_NUMBERS = (
    "probes: the probe regions needs inputs that are numbers, and this task's are symbols; leave it out with "
    "probes=[weights,gradients]"
)
# The draw of the random points, the same for all runs but for the ends.
_DRAW = 0x72616E64


@dataclass(frozen=True, kw_only=True)
class Config(Cadence):
    """Configuration of the probe; without `every` its cadence is chosen by counted cost."""

    name: str = "regions"
    every: int | None = key(
        None,
        "steps between measurements; null: a multiple of eval.every at which rows cost a tenth of training",
        least=1,
    )
    points: int | None = key(
        None, "points of each set; null: from 50 to 1,000, as many as a row in 200 updates pays for", least=1
    )
    directions: int = key(
        DIRECTIONS, "orthonormal directions, P; at most as many as an input has numbers", least=1
    )
    radii: list[float] = key(list(RADII), "radii; the first is that of the columns without a number", above=0)
    method: str = key("linearised", "linearised: to first order; vertices: as published", one_of=METHODS)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(positive(self.radii), "radii", RADII_LEGAL)

    @property
    def neighbourhoods(self) -> Neighbourhoods:
        """What is counted in."""
        return Neighbourhoods(self.directions, tuple(self.radii), self.method)

    @property
    def passes(self) -> int:
        """Passes over an example that a point of each set takes."""
        own = self.directions + 1 if self.method == "linearised" else 2 * self.directions * len(self.radii)
        return len(SETS) * own


def check_ensemble(ensemble: EnsembleConfig) -> None:
    """Refuse a task of symbols."""
    if is_own(ensemble.task) and getattr(ensemble.task, "symbols", False):
        raise ConfigError(OF_NUMBERS)


def default_every(config: Config, ensemble: EnsembleConfig) -> int:
    """Return the steps between rows at which they cost about a tenth of training."""
    points = config.points or points_for(config.passes, ensemble)
    return every_of(points * config.passes, examples_of(None, ensemble)[1], ensemble, REGIONS_SHARE)


def in_words(config: Config, ensemble: EnsembleConfig) -> dict[str, object]:
    """Return what the nulls of the probe's section mean."""
    return {"points": points_for(config.passes, ensemble)}


_AROUND = {"train": "training points", "test": "held-out points", "random": "random points"}
COLUMNS: Columns = {
    **{
        f"local_complexity_{name}": Column(
            f"units that cut the neighbourhood of radius `radii[0]`, mean over {around}", "1 (a unit)"
        )
        for name, around in _AROUND.items()
    },
    **{
        f"local_complexity_{name}_#": Column(
            f"those of the layer of this number, around {around}", "1 (a unit)"
        )
        for name, around in _AROUND.items()
    },
    **{
        f"region_density_{name}": Column(f"LC_r / (2 r c_P) at radius `radii[0]`, around {around}", "1/input")
        for name, around in _AROUND.items()
    },
    **{
        f"region_density_{name}_#": Column(
            f"that at the radius of this number in `radii`, the first being 0, around {around}", "1/input"
        )
        for name, around in _AROUND.items()
    },
}


def positive(radii: Sequence[float]) -> bool:
    """Return whether radii may be such: one at least, all above 0 and finite."""
    return bool(radii) and all(0 < r < float("inf") for r in radii)


@dataclass(frozen=True)
class Neighbourhoods:
    """What local complexity is counted in: directions and radii.

    Attributes:
        directions: P at most.
        radii: Of the neighbourhoods.
        method: A name of `METHODS`.
    """

    directions: int = DIRECTIONS
    radii: Sequence[float] = RADII
    method: str = "linearised"

    def counts(self, units: Units, states: Sequence[Mapping[str, Tensor]], points: Tensor) -> Tensor:
        """Return how many units of each layer cut the neighbourhood of each point, (S, B, layers, radii), float64.

        NaN where a unit's argument is not a number. `states` are those of S runs, name -> tensor; points (S, B, ...).
        """
        import torch

        directions = _directions(self.directions, points.shape[2:], points.dtype, points.device)

        if self.method == "linearised":
            counts = units.counts(states, points, directions, self.radii)
        else:

            def by_layer(cuts: Tensor) -> Tensor:
                return torch.stack([layer.sum(-1) for layer in cuts.split(units.sizes, -1)], -1)

            by_radius = [units.cut(states, points, directions, r, by_layer) for r in self.radii]
            counts = torch.stack(by_radius, 2).to(torch.float64)
            for own, state in zip(counts, states, strict=True):
                if not all(value.isfinite().all() for value in state.values() if value.is_floating_point()):
                    own.fill_(torch.nan)
        return counts.transpose(2, 3).to(torch.float64)

    def scale(self, size: int) -> list[float]:
        """Return what densities are counts divided by, 2 r c_P for each radius; `size` numbers make an input."""
        return [2 * r * reach(size, self.directions) for r in self.radii]


@lru_cache(16)
def _directions(count: int, shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the axes of neighbourhoods of points of a shape, (P, *shape); they are to stay as they are."""
    import torch

    drawn = torch.from_numpy(axes(shape.numel(), count)).to(dtype).view(-1, *shape)
    return to_device(drawn, device)


def points_of(train: Tensor, test: Tensor) -> Tensor:
    """Return the points of the three sets, (3, B, ...), from a run's training and held-out inputs, (B, ...) each."""
    import torch

    fewest = min(len(train), len(test))
    train, test = train[:fewest], test[:fewest]
    generator = torch.Generator().manual_seed(_DRAW)
    drawn = torch.rand(train.shape, generator=generator, dtype=train.dtype).to(train.device)
    low, high = train.amin(), train.amax()
    return torch.stack([train, test, low + (high - low) * drawn])


@dataclass
class Regions:
    """The probe; implements `dynalab.probes.base.Probe`. It remembers nothing from row to row.

    Attributes:
        units: Those of the network, once it has begun.
        points: The runs' points, (S, sets, B, ...), once it has begun.
    """

    network: nn.Module
    config: Config
    needs: frozenset[str] = frozenset()
    _setting: Setting | None = field(default=None, repr=False)
    units: Units | None = field(default=None, repr=False)
    points: Tensor | None = field(default=None, repr=False)

    def begin(self, setting: Setting) -> None:
        """Take the points, and find the units; refuse inputs that are symbols, and a network without units."""
        import torch

        from dynalab.models.units import Units

        most = self.config.points or points_for(self.config.passes, setting)
        train, test = (_first(setting.data.eval_batches(split), most) for split in ("train", "test"))
        if not train.is_floating_point():
            raise ConfigError(OF_NUMBERS)
        self._setting = setting
        self.points = torch.stack([points_of(*own) for own in zip(train, test, strict=True)])
        state = {**setting.params, **setting.buffers()}
        self.units = Units(self.network, _of_runs(state)[0], self.points[0, 0, 0])
        if not self.units.sizes:
            raise ConfigError(
                "probes: the probe regions needs a network with nonlinear units (ReLU, tanh, ...), and this one has "
                "none; leave it out with probes=[weights,gradients]"
            )

    def measure(self, state: ProbeState) -> dict[str, Tensor]:
        """Return the columns, each (S,) in float64."""

        assert self._setting is not None and self.units is not None and self.points is not None
        held = {**state.params, **self._setting.buffers()}
        around = self.config.neighbourhoods
        counts = around.counts(self.units, _of_runs(held), self.points.flatten(1, 2))
        means = counts.unflatten(1, self.points.shape[1:3]).mean(2)
        return columns(means, around.scale(self.points[0, 0, 0].numel()))


def columns(means: Tensor, scale: Sequence[float]) -> dict[str, Tensor]:
    """Return the columns of mean counts (S, sets, layers, radii); see `Neighbourhoods.scale`."""
    found: dict[str, Tensor] = {}
    for place, name in enumerate(SETS):
        own = means[:, place]
        total = own.sum(1)
        found[f"local_complexity_{name}"] = total[:, 0]
        found |= {f"local_complexity_{name}_{layer}": own[:, layer, 0] for layer in range(own.shape[1])}
        found[f"region_density_{name}"] = total[:, 0] / scale[0]
        found |= {
            f"region_density_{name}_{number}": total[:, number] / scale[number]
            for number in range(1, len(scale))
        }
    return found


def build(config: Config, network: nn.Module) -> Regions:
    """Build the probe for a network."""
    return Regions(network, config)


def _first(batches: Iterable[Batch], most: int) -> Tensor:
    """Return the inputs (S, B, ...) of the first examples of batches."""
    import torch

    found: list[Tensor] = []
    left = most
    for batch in batches:
        found.append(batch.inputs[:, :left])
        left -= found[-1].shape[1]
        if left <= 0:
            break
    return torch.cat(found, 1)


def _of_runs(state: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """Return each run's own of tensors (S, ...)."""
    runs = zip(*(tensor.detach().unbind() for tensor in state.values()), strict=True)
    return [dict(zip(state, own, strict=True)) for own in runs]
