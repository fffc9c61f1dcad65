"""Three networks without attention that read a pair of symbols (a, b).

Each has the plain forward pass of one run, inputs (B, 2) to outputs (B, C), and the same written out for S
runs at once, `stacked_forward(params, inputs)`: (S, B, 2) to (S, B, C).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from dynalab.models.base import Chain, Matrix, Permutation, Tables
from dynalab.models.nets.gather import rows, stacked_rows
from dynalab.models.nets.mlp import StackedVjp, hidden_permutations, square
from dynalab.models.nets.two_tables import two_tables, two_tables_vjp

ACTIVATIONS = {"square": square, "relu": torch.relu}


class EmbeddingMLP(nn.Module):
    """output = W act(left[a] + right[b]), with a table for each place and no bias.

    The two tables are a one-hot network's first layer, so they count among the weight matrices.
    """

    run_by_run = True
    NAMES = ("left.weight", "right.weight", "output.weight")

    def __init__(self, symbols: int, classes: int, width: int, activation: str) -> None:
        """Draw the weights: tables N(0, 1), the linear layer as torch does."""
        super().__init__()
        self.left = nn.Embedding(symbols, width)
        self.right = nn.Embedding(symbols, width)
        self.output = nn.Linear(width, classes, bias=False)
        self.activation = activation
        self.weight_matrices = [Matrix(name) for name in self.NAMES]
        self.bias_vectors: list[str] = []
        self.last_layer = "output.weight"
        self.permutations = [Permutation(width, tuple((name, 1, 0) for name in self.NAMES))]

    def forward(self, inputs: Tensor) -> Tensor:
        """Map pairs (B, 2) to outputs (B, C)."""
        hidden = rows(self.left.weight, inputs[:, 0]) + rows(self.right.weight, inputs[:, 1])
        return self.output(ACTIVATIONS[self.activation](hidden))

    def stacked_forward(self, params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """Map the pairs of S runs, (S, B, 2), to outputs (S, B, C)."""
        left, right, output = (params[name] for name in self.NAMES)
        return two_tables(left, right, output, inputs, self.activation)

    def chain(self) -> Chain:
        """Return what the network is as a chain of layers."""
        left, right, output = self.NAMES
        return Chain(self.activation, [(output, None)], (left, right))

    def stacked_vjp(self, params: Mapping[str, Tensor], inputs: Tensor) -> tuple[Tensor, StackedVjp]:
        """Return `stacked_forward`, and what takes a gradient by its outputs, (S, B, C), to those by the weights."""
        left, right, output = (params[name] for name in self.NAMES)
        outputs, vjp = two_tables_vjp(left, right, output, inputs, self.activation)
        return outputs, lambda gradient: dict(zip(self.NAMES, vjp(gradient), strict=True))

    def tables(self, params: Mapping[str, Tensor]) -> Tables:
        """Return what every neuron makes of both places' symbols, (n, 2 d), and the output's weight, of one run."""
        both = torch.cat([params["left.weight"], params["right.weight"]], dim=1)
        return Tables(both, params["output.weight"], neurons=True)


class Gromov(nn.Module):
    """output = W2 (W1 x)^2 with x = [onehot(a); onehot(b)] (Gromov 2023, arXiv 2301.02679).

    As the published code has it, without the paper's prefactor 1 / (D N), which is absorbed in the
    initialisation.
    """

    run_by_run = True

    def __init__(self, symbols: int, classes: int, width: int) -> None:
        """Draw W1 (width, 2 p) and W2 (C, width) from N(0, std), std = 0.5 / (2 width)^(1/3), the published code's."""
        super().__init__()
        self.symbols = symbols
        std = 0.5 / (2 * width) ** (1 / 3)
        self.w1 = nn.Parameter(torch.randn(width, 2 * symbols) * std)
        self.w2 = nn.Parameter(torch.randn(classes, width) * std)
        self.weight_matrices = [Matrix("w1"), Matrix("w2")]
        self.bias_vectors: list[str] = []
        self.last_layer = "w2"
        self.permutations = [Permutation(width, (("w1", 0, 0), ("w2", 1, 0)))]

    def forward(self, inputs: Tensor) -> Tensor:
        """Map pairs (B, 2) to outputs (B, C)."""
        columns = self.w1.t().contiguous()
        hidden = rows(columns, inputs[:, 0]) + rows(columns, inputs[:, 1] + self.symbols)
        return square(hidden) @ self.w2.t()

    def stacked_forward(self, params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """Map the pairs of S runs, (S, B, 2), to outputs (S, B, C)."""
        columns = params["w1"].transpose(1, 2).contiguous()
        left, right = columns.split(self.symbols, dim=1)
        return two_tables(left, right, params["w2"], inputs, "square")

    def chain(self) -> Chain:
        """Return what the network is as a chain of layers."""
        return Chain("square", [("w2", None)], ["w1"])

    def tables(self, params: Mapping[str, Tensor]) -> Tables:
        """Return both halves of W1 side by side, (n, 2 N), and W2, of one run."""
        return Tables(_halves(params["w1"]), params["w2"], neurons=True)


class OneHotMLP(nn.Module):
    """A ReLU network with biases on [onehot(a); onehot(b)], torch's own initialisation."""

    def __init__(self, symbols: int, classes: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.symbols = symbols
        widths = [2 * symbols, *hidden, classes]
        self.layers = nn.ModuleList(nn.Linear(n, m) for n, m in pairwise(widths))
        self.permutations = hidden_permutations([*self.layers])

    def forward(self, inputs: Tensor) -> Tensor:
        """Map pairs (B, 2) to outputs (B, C)."""
        # The bias is added to one half of the table, not to every example.
        first = self.layers[0]
        assert isinstance(first, nn.Linear)
        left, right = first.weight.t().split(self.symbols)
        x = rows(left + first.bias, inputs[:, 0]) + rows(right, inputs[:, 1])
        for layer in self.layers[1:]:
            x = layer(torch.relu(x))
        return x

    def stacked_forward(self, params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """Map the pairs of S runs, (S, B, 2), to outputs (S, B, C)."""
        left, right = params["layers.0.weight"].transpose(1, 2).split(self.symbols, dim=1)
        left = left + params["layers.0.bias"][:, None]
        x = stacked_rows(left, inputs[..., 0]) + stacked_rows(right, inputs[..., 1])
        for i in range(1, len(self.layers)):
            weight = params[f"layers.{i}.weight"].transpose(1, 2)
            x = torch.baddbmm(params[f"layers.{i}.bias"][:, None], torch.relu(x), weight)
        return x

    def chain(self) -> Chain:
        """Return what the network is as a chain of layers."""
        names = [(f"layers.{i}.weight", f"layers.{i}.bias") for i in range(len(self.layers))]
        return Chain("relu", names[1:], names[0][:1], names[0][1])

    def tables(self, params: Mapping[str, Tensor]) -> Tables:
        """Return both halves of the first layer's weight side by side, (n, 2 h), and the last one's, of one run."""
        last = params[f"layers.{len(self.layers) - 1}.weight"]
        return Tables(_halves(params["layers.0.weight"]), last, neurons=True)


def _halves(weight: Tensor) -> Tensor:
    """Return a first layer's weight on two one-hot vectors, (h, 2 n), as one table of both places, (n, 2 h)."""
    return torch.cat(weight.t().chunk(2), dim=1)
