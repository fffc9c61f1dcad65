"""`model=gromov`: f(x) = W2 (W1 x)^2 on two one-hot vectors (Gromov 2023, arXiv 2301.02679).

Published with task.loss=mse, AdamW at lr 1e-2 and betas (.9, .98), full batch. It has a closed-form solution.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.config.keys import Section, key
from dynalab.models.nets.checks import require_pairs

if TYPE_CHECKING:
    from torch import nn

    from dynalab.core.batch import InputSpec

TITLE = "quadratic MLP {width}"


@dataclass(frozen=True, kw_only=True)
class Config(Section, of="model"):
    """Configuration of Gromov's network."""

    name: str = "gromov"
    width: int = key(500, "number of hidden units", least=1)


def build(config: Config, spec: InputSpec) -> nn.Module:
    """Build one run's network, drawing its weights from torch's global generator."""
    require_pairs(config.name, spec)
    from dynalab.models.nets.pairs import Gromov

    return Gromov(spec.symbols, spec.classes, config.width)
