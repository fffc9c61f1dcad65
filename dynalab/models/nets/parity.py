"""The two smallest networks that learn a sparse parity (Barak et al. 2022, arXiv 2207.08799).

Both read x of n numbers and have one output; `layer.weight`, (k, n) or (1, n), counts as their first layer.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dynalab.models.base import Chain


def _linear(params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    """Return the linear layer of S runs: inputs (S, B, n) to (S, k, B)."""
    return torch.baddbmm(params["layer.bias"][..., None], params["layer.weight"], inputs.transpose(1, 2))


def _product(factors: Tensor, dim: int) -> Tensor:
    """Multiply along one axis; unlike torch.prod, its gradient has no special case for zeros."""
    first, *rest = factors.unbind(dim)
    for factor in rest:
        first = first * factor
    return first


class PolyNet(nn.Module):
    """f(x) = product over j of (w_j . x + b_j): configuration (xv) of the paper."""

    def __init__(self, inputs: int, degree: int) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, degree)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map examples (B, ...) to outputs (B, 1)."""
        return _product(self.layer(inputs.flatten(1)), 1)[:, None]

    def stacked_forward(self, params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """Map the examples of S runs, (S, B, ...), to outputs (S, B, 1)."""
        return _product(_linear(params, inputs.flatten(2)), 1)[..., None]

    def chain(self) -> Chain:
        """Return what the network is as a chain of layers; of one layer no activation matters."""
        return Chain("square", [("layer.weight", "layer.bias")], head="product")


class Sinusoid(nn.Module):
    """f(x) = u sin(w . x + b) + c, or sin(w . x + b) without its second layer: one neuron."""

    def __init__(self, inputs: int, second_layer: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, 1)
        self.head = nn.Linear(1, 1) if second_layer else None

    def forward(self, inputs: Tensor) -> Tensor:
        """Map examples (B, ...) to outputs (B, 1)."""
        wave = torch.sin(self.layer(inputs.flatten(1)))
        return wave if self.head is None else self.head(wave)

    def stacked_forward(self, params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """Map the examples of S runs, (S, B, ...), to outputs (S, B, 1)."""
        wave = torch.sin(_linear(params, inputs.flatten(2))).transpose(1, 2)
        return wave if self.head is None else wave * params["head.weight"] + params["head.bias"][:, None]

    def chain(self) -> Chain:
        """Return what the network is as a chain of layers."""
        layer = ("layer.weight", "layer.bias")
        if self.head is None:
            return Chain("sin", [layer], head="activated")
        return Chain("sin", [layer, ("head.weight", "head.bias")])
