"""`model=si_mlp`: a scale-invariant MLP: layers without biases under batch normalisation, and a frozen head.

Lobacheva et al. 2021 (arXiv 2106.15739) and Kodryan et al. 2022 (arXiv 2209.03695) at laptop size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from dynalab.config.keys import Section, key
from dynalab.models.nets.checks import require_vectors

if TYPE_CHECKING:
    from torch import nn

    from dynalab.core.batch import InputSpec

TITLE = "scale-invariant MLP {width}"


@dataclass(frozen=True, kw_only=True)
class Config(Section, of="model"):
    """Configuration of the scale-invariant MLP."""

    # Its network names such weights.
    scale_invariant: ClassVar[bool] = True

    name: str = "si_mlp"
    width: int = key(64, "units of a layer", least=1)
    depth: int = key(2, "number of layers before the frozen head", least=1)
    head_norm: float = key(10.0, "norm of the frozen head's weight", above=0)

    def least_batch(self, shape: tuple[int, int, int] | None) -> int:
        """Return the least number of examples of which there are batch statistics."""
        return 2


def build(config: Config, spec: InputSpec) -> nn.Module:
    """Build one run's network, drawing its weights from torch's global generator."""
    require_vectors(config.name, spec)
    from dynalab.models.nets.scale_invariant import ScaleInvariantMLP

    return ScaleInvariantMLP(spec.symbols, spec.classes, config.width, config.depth, config.head_norm)
