"""`model=gromov`: f(x) = W2 (W1 x)^2 on two one-hot vectors (Gromov 2023, arXiv 2301.02679).

Published with task.loss=mse, AdamW at lr 1e-2 and betas (.9, .98), full batch. It has a closed-form solution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.models.nets.checks import require_pairs, require_positive

if TYPE_CHECKING:
    from torch import nn

    from dynalab.core.batch import InputSpec


@dataclass(frozen=True, kw_only=True)
class Config:
    """Configuration of Gromov's network.

    Attributes:
        width: Number of hidden units.
    """

    name: str = "gromov"
    width: int = 500

    def __post_init__(self) -> None:
        require_positive("model.width", self.width)


def build(config: Config, spec: InputSpec) -> nn.Module:
    """Build one run's network, drawing its weights from torch's global generator."""
    require_pairs(config.name, spec)
    from dynalab.models.nets.pairs import Gromov

    return Gromov(spec.symbols, spec.classes, config.width)
