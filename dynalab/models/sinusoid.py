"""`model=sinusoid`: one neuron with a sine, f(x) = u sin(w . x + b) + c.

Configuration (x) of Barak et al. 2022 (arXiv 2207.08799); without `second_layer` it is sin(w . x + b), (xiv). A sine
is the limit of the paper's zigzag activations: with w = (pi / 2) on the relevant coordinates and 0 elsewhere it is
the parity itself. All weights and biases are drawn as torch draws those of a linear layer: w and b from
U(-1/sqrt(n), 1/sqrt(n)), u and c from U(-1, 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.models.nets.vectors import require_one_output, require_vectors

if TYPE_CHECKING:
    from torch import nn

    from dynalab.tasks.base import InputSpec


@dataclass(frozen=True, kw_only=True)
class Config:
    """Configuration of the sinusoidal neuron.

    Attributes:
        second_layer: Whether the sine is scaled and shifted by u and c.
    """

    name: str = "sinusoid"
    second_layer: bool = True


def build(config: Config, spec: InputSpec) -> nn.Module:
    """Build one run's network, drawing its weights from torch's global generator.

    Raises:
        ConfigError: The task's examples are no vectors, or it wants several outputs.
    """
    require_vectors(config.name, spec)
    require_one_output(config.name, spec)
    from dynalab.models.nets.parity import Sinusoid

    return Sinusoid(spec.symbols, config.second_layer)
