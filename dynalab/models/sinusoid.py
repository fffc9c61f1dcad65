"""`model=sinusoid`: one neuron with a sine, f(x) = u sin(w . x + b) + c.

Configuration (x) of Barak et al. 2022 (arXiv 2207.08799); without `second_layer` it is sin(w . x + b), (xiv), which
learns faster. With w = pi / 2 on the k relevant coordinates, 0 elsewhere and b = (1 - k) pi / 2 the sine is the parity
itself. All weights and biases are drawn as torch draws those of linear layers: w and b from U(-1/sqrt(n), 1/sqrt(n)),
u and c from U(-1, 1).

Not every seed arrives. Measured for n 30, k 3, batches of 32, hinge loss, SGD, 10,000 steps and 10 seeds: with the
second layer at rate .03, 9 seeds after 800 to 3,500 steps; without it all, at .01 after 800 to 8,400, at .1 after 100
to 500.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.config.keys import Section, key
from dynalab.models.nets.checks import require_one_output, require_vectors

if TYPE_CHECKING:
    from torch import nn

    from dynalab.core.batch import InputSpec

TITLE = "one sinusoid"


@dataclass(frozen=True, kw_only=True)
class Config(Section, of="model"):
    """Configuration of the sinusoidal neuron."""

    name: str = "sinusoid"
    second_layer: bool = key(True, "whether the sine is scaled and shifted by u and c")


def build(config: Config, spec: InputSpec) -> nn.Module:
    """Build one run's network, drawing its weights from torch's global generator."""
    require_vectors(config.name, spec)
    require_one_output(config.name, spec)
    from dynalab.models.nets.parity import Sinusoid

    return Sinusoid(spec.symbols, config.second_layer)
