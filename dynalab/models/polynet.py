"""`model=polynet`: f(x) = product over j of (w_j . x + b_j), the fastest learner of a sparse parity.

Configuration (xv) of Barak et al. 2022 (arXiv 2207.08799), which trains very stably. Weights and biases are drawn as
torch draws those of a linear layer: U(-1/sqrt(n), 1/sqrt(n)).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.config.keys import Section, key
from dynalab.models.nets.checks import require_one_output, require_vectors

if TYPE_CHECKING:
    from torch import nn

    from dynalab.core.batch import InputSpec

TITLE = "PolyNet of degree {degree}"


@dataclass(frozen=True, kw_only=True)
class Config(Section, of="model"):
    """Configuration of PolyNet."""

    name: str = "polynet"
    degree: int = key(3, "number of factors; a parity of k coordinates needs k of them", least=1)


def build(config: Config, spec: InputSpec) -> nn.Module:
    """Build one run's network, drawing its weights from torch's global generator."""
    require_vectors(config.name, spec)
    require_one_output(config.name, spec)
    from dynalab.models.nets.parity import PolyNet

    return PolyNet(spec.symbols, config.degree)
