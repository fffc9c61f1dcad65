"""`model=mlp`: a multilayer perceptron on rows of numbers; images are laid out as rows.

Initialisations (`model.init`), with n inputs and m outputs of a layer; all but `torch` set biases to 0:

    torch           nn.Linear's own: weights and biases U(-1/sqrt(n), 1/sqrt(n))
    xavier_uniform  U(-a, a), a = sqrt(6 / (n + m)) (Glorot and Bengio 2010)
    xavier_normal   N(0, 2 / (n + m))
    kaiming_normal  N(0, 2 / n) (He et al. 2015)
    sign            +-1 / sqrt(n), a fair coin an entry (Barak et al. 2022)

`model.gain` then multiplies the weights of the hidden layers (as Xavier's gain does, and not the head's: Cohen et
al. 2021's network for regression), `model.scale` every weight and bias (alpha of Liu et al. 2023).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dynalab.core.errors import ConfigError
from dynalab.models.nets.checks import require_hidden, require_one_of, require_vectors

if TYPE_CHECKING:
    from torch import nn

    from dynalab.core.batch import InputSpec

# The keys of dynalab.models.nets.mlp, which imports torch.
ACTIVATIONS = ("relu", "tanh", "gelu", "sin", "square", "cube")
INITS = ("torch", "xavier_uniform", "xavier_normal", "kaiming_normal", "sign")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Configuration of the multilayer perceptron.

    Attributes:
        hidden: Widths of the hidden layers.
        activation: `relu`, `tanh`, `gelu`, `sin`, `square` or `cube`.
        bias: Whether layers have biases.
        head_bias: Whether the last layer has them; None is as `bias` says.
        init: How weights are drawn; see the module.
        gain: Factor on the weights of the hidden layers.
        scale: Factor on every weight and bias.
    """

    name: str = "mlp"
    hidden: list[int] = field(default_factory=lambda: [100])
    activation: str = "relu"
    bias: bool = True
    head_bias: bool | None = None
    init: str = "torch"
    gain: float = 1.0
    scale: float = 1.0

    def in_words(self) -> dict[str, object]:
        """Return what the nulls of a configuration mean, by key."""
        return {"model.head_bias": self.bias}

    def __post_init__(self) -> None:
        require_hidden(self.hidden, example=100)
        require_one_of("model.activation", self.activation, ACTIVATIONS)
        require_one_of("model.init", self.init, INITS)
        for key in ("gain", "scale"):
            if not getattr(self, key) > 0:
                raise ConfigError(f"model.{key}={getattr(self, key)}: must be a positive number")


def build(config: Config, spec: InputSpec) -> nn.Module:
    """Build one run's network, drawing its weights from torch's global generator."""
    require_vectors(config.name, spec)
    from dynalab.models.nets.mlp import MLP

    return MLP(
        spec.symbols,
        spec.classes,
        config.hidden,
        activation=config.activation,
        bias=config.bias,
        head_bias=config.bias if config.head_bias is None else config.head_bias,
        init=config.init,
        gain=config.gain,
        scale=config.scale,
    )
