"""`model=si_mlp`: a scale-invariant MLP: layers without biases under batch normalisation, and a frozen head.

Lobacheva et al. 2021 (arXiv 2106.15739) and Kodryan et al. 2022 (arXiv 2209.03695) at laptop size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.config.schema import require
from dynalab.models.nets.checks import require_positive, require_vectors

if TYPE_CHECKING:
    from torch import nn

    from dynalab.core.batch import InputSpec


@dataclass(frozen=True, kw_only=True)
class Config:
    """Configuration of the scale-invariant MLP.

    Attributes:
        width: Units of a layer.
        depth: Number of layers before the frozen head.
        head_norm: Norm of the frozen head's weight.
    """

    name: str = "si_mlp"
    width: int = 64
    depth: int = 2
    head_norm: float = 10.0

    def __post_init__(self) -> None:
        require_positive("model.width", self.width)
        require_positive("model.depth", self.depth)
        require(self.head_norm > 0, "model.head_norm", self.head_norm, "a positive norm")

    def least_batch(self, shape: tuple[int, int, int] | None) -> int:
        """Return the least number of examples of which there are batch statistics."""
        return 2


def build(config: Config, spec: InputSpec) -> nn.Module:
    """Build one run's network, drawing its weights from torch's global generator."""
    require_vectors(config.name, spec)
    from dynalab.models.nets.scale_invariant import ScaleInvariantMLP

    return ScaleInvariantMLP(spec.symbols, spec.classes, config.width, config.depth, config.head_norm)
