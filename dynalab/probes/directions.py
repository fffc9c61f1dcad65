"""`probes=[directions]`: how straight the path of the weights is so far, beside a random walk with the same steps.

As `dynalab analyze directions` measures it on weights that were kept (Singh et al. 2024, arXiv 2403.07379), without
keeping any: the mean cosine of all pairs of rows is the squared length of the mean of their unit vectors, which is a
running sum. Rows are those of the probe, from its first one on. A random walk with the same start and steps of the same
lengths is what direction has to be held against: in many dimensions it has cosines of sqrt(V_i / V_j), V_t the sum of
the first t squared steps, whose mean is 2/3 for many equal steps.

Maps, principal components and single layers take weights that were kept. Checkpoints hold the sums and the last two
rows, so a run that goes on has the same bits; that is seven times the memory of the weights. Where a fork edits the
weights, those before and those after are both on the path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dynalab.core.columns import Column, Columns
from dynalab.probes.base import Cadence

if TYPE_CHECKING:
    from torch import Tensor, nn

    from dynalab.core.state import ProbeState


@dataclass(frozen=True, kw_only=True)
class Config(Cadence):
    """Configuration of the probe."""

    name: str = "directions"


COLUMNS: Columns = {
    "directional_similarity": Column("mean cosine between the weights of all pairs of rows so far", "1"),
    "directional_similarity_null": Column(
        "that of a random walk with the same start and lengths of steps", "1"
    ),
    "relative_similarity": Column(
        "mean cosine between their differences from the first row; NaN where they have not moved", "1"
    ),
    "relative_similarity_null": Column("that of a random walk with the same lengths of steps", "1"),
    "update_angle": Column(
        "angle between the change since the last row and the one before; NaN in the first two rows", "degree"
    ),
    "origin_angle": Column("angle between the weights and those of the first row", "degree"),
    "path_length": Column("sum of the distances from row to row so far", "weight"),
    "displacement": Column("distance from the first row", "weight"),
    "tortuosity": Column("the former over the latter; NaN where they have not moved", "1"),
    "origin_distance": Column("norm of all weights, the distance from the origin", "weight"),
}


@dataclass
class Directions:
    """The probe; implements `dynalab.probes.base.Probe`.

    `kept` has rows of weights, (S, P), and running sums, (S, P) or (S,), float64.
    """

    names: tuple[str, ...]
    needs: frozenset[str] = frozenset()
    kept: dict[str, Tensor] = field(default_factory=dict)

    def tensors(self) -> dict[str, Tensor]:
        """Return what the next row is measured against, for a checkpoint."""
        return self.kept

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `tensors` returned."""
        self.kept = dict(tensors)

    def measure(self, state: ProbeState) -> dict[str, Tensor]:
        """Return the columns, each (S,) in float64."""
        import torch

        flat = torch.cat([state.params[name].detach().unsqueeze(-1).flatten(1) for name in self.names], 1)
        now, kept = flat.to(torch.float64), self.kept
        zero = torch.zeros(len(now), dtype=torch.float64, device=now.device)
        # Where a fork begins a row is measured again, and counts once.
        step = torch.full_like(zero, state.step)
        new = (flat != kept.get("last", flat)).any(1) | (step != kept.get("step", -1.0))
        start, last, before = (kept.get(name, flat).to(torch.float64) for name in ("start", "last", "before"))
        away, update = now - start, now - last
        origin, far, stride, walked = (x.square().sum(1).sqrt() for x in (now, away, update, last - before))
        length = kept.get("length", zero) + stride
        squares = kept.get("squares", zero) + stride.square()
        first = kept.get("origin", origin)
        turn = (update * (last - before)).sum(1) / (stride * walked)
        row: dict[str, Tensor] = {}
        for name, vector, norm, level in (
            ("directional", now, origin, first.square() + squares),
            ("relative", away, far, squares),
        ):
            row |= self._similarity(name, vector, norm, level.sqrt(), new)
        cosine = (origin.square() + first.square() - far.square()) / (2 * origin * first)
        row |= {"update_angle": _degrees(turn), "origin_angle": _degrees(cosine), "path_length": length}
        row |= {
            "displacement": far,
            "tortuosity": (length / far).where(far > 0, torch.nan),
            "origin_distance": origin,
        }
        own = {"start": kept.get("start", flat), "last": flat}
        own["before"] = kept.get("last", flat).where(new[:, None], kept.get("before", flat))
        # Checkpoints and forks take rows of their own.
        self.kept |= own | {"origin": first, "length": length, "squares": squares, "step": step}
        return {name: row[name] for name in COLUMNS}

    def _similarity(
        self, name: str, vectors: Tensor, norm: Tensor, root: Tensor, new: Tensor
    ) -> dict[str, Tensor]:
        """Take in a row of vectors (S, P), and return their mean cosine so far and that of the walk, (S,).

        `new`, (S,), bool, is whose row was not taken in before; `root`, (S,), is what a row of the walk has in the
        place of a norm: cosines are ratios of these.
        """
        import torch

        counts = new & (norm > 0)
        unit = (vectors / norm[:, None]).where(counts[:, None], 0.0)
        added = {"units": unit, "rows": counts.to(torch.float64), "roots": root.where(counts, 0.0)}
        own = {
            key: self.kept.get(f"{name}_{key}", torch.zeros_like(value)) + value
            for key, value in added.items()
        }
        # A row adds its own 1, and twice its cosines with the rows before.
        cosines = (2 * own["roots"] / root - 1).where(counts & (root > 0), 0.0)
        own["null"] = self.kept.get(f"{name}_null", torch.zeros_like(root)) + cosines
        self.kept |= {f"{name}_{key}": value for key, value in own.items()}
        pairs = own["rows"].square()
        value = (own["units"].square().sum(1) / pairs).clamp(max=1.0)
        return {f"{name}_similarity": value, f"{name}_similarity_null": own["null"] / pairs}


def build(config: Config, network: nn.Module) -> Directions:
    """Build the probe for a network."""
    return Directions(tuple(name for name, _ in network.named_parameters()))


def _degrees(cosine: Tensor) -> Tensor:
    return cosine.clamp(-1.0, 1.0).acos().rad2deg()
