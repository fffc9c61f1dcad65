"""`model=mlp`: a multilayer perceptron on rows of numbers; images are laid out as rows.

Initialisations (`model.init`), with n inputs and m outputs of a layer; all but `torch` set biases to 0:

    torch           nn.Linear's own: weights and biases U(-1/sqrt(n), 1/sqrt(n))
    xavier_uniform  U(-a, a), a = sqrt(6 / (n + m)) (Glorot and Bengio 2010)
    xavier_normal   N(0, 2 / (n + m))
    kaiming_normal  N(0, 2 / n) (He et al. 2015)
    sign            +-1 / sqrt(n), a fair coin an entry (Barak et al. 2022)

`model.gain` then multiplies the weights of the hidden layers (as Xavier's gain does, and not the head's: Cohen et
al. 2021's network for regression), `model.scale` every weight and bias (alpha of Liu et al. 2023).

`model.norm=batch` normalises what every hidden layer gives over the batch (Ioffe and Szegedy 2015), with a learnt scale
and shift a unit and running statistics for evaluation; neither is touched by the keys above.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.config.keys import Section, key
from dynalab.models.nets.checks import require_hidden, require_vectors

if TYPE_CHECKING:
    from torch import nn

    from dynalab.core.batch import InputSpec

# The keys of dynalab.models.nets.mlp, which imports torch.
ACTIVATIONS = ("relu", "tanh", "gelu", "sin", "square", "cube")
NORMS = ("none", "batch")
INITS = ("torch", "xavier_uniform", "xavier_normal", "kaiming_normal", "sign")

TITLE = "MLP {hidden}"


@dataclass(frozen=True, kw_only=True)
class Config(Section, of="model"):
    """Configuration of the multilayer perceptron."""

    name: str = "mlp"
    hidden: list[int] = key([100], "widths of the hidden layers", least=1)
    activation: str = key("relu", "what every hidden layer's outputs go through", one_of=ACTIVATIONS)
    bias: bool = key(True, "whether layers have biases")
    head_bias: bool | None = key(None, "whether the last layer has them; null: as bias says")
    init: str = key("torch", "how weights are drawn; sign: +-1 / sqrt(inputs)", one_of=INITS)
    gain: float = key(1.0, "factor on the weights of the hidden layers at the initialisation", above=0)
    scale: float = key(1.0, "factor on every weight and bias at the initialisation", above=0)
    norm: str = key("none", "normalisation of hidden layers, before the activation", one_of=NORMS)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_hidden(self.hidden, example=100)

    def least_batch(self, shape: tuple[int, int, int] | None) -> int:
        """Return the least number of examples of which there are batch statistics."""
        return 2 if self.norm == "batch" else 1

    def in_words(self) -> dict[str, object]:
        """Return what the nulls of a configuration mean, by key."""
        return {"model.head_bias": self.bias}


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
        norm=config.norm,
    )
