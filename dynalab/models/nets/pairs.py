"""Three networks without attention that read a pair of symbols (a, b).

Each has the plain forward pass of one run, inputs (B, 2) to outputs (B, C), and the same written out for S
runs at once, `stacked_forward(params, inputs)`: (S, B, 2) to (S, B, C). Where one run's hidden layer
outgrows the cache, a loop over the runs is faster than one batched product, since memory that was just freed
is still near; which of the two is taken depends on one run's sizes alone, so that a run's bits do not depend
on S.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from dynalab.models.base import Matrix
from dynalab.models.nets.gather import rows, stacked_rows


def square(x: Tensor) -> Tensor:
    """Return x * x; the product's backward pass needs one temporary tensor less than that of a power."""
    return x * x


# Entries of one run's hidden layer (B * width) from which on the runs are taken one by one, on CPU. Measured for
# Gromov's network (S 10, one thread, ms a step and seed; batched, looped): B 128 0.54, 0.53; B 300 1.20, 1.02;
# B 700 4.2, 2.4; B 1392 9.3, 5.1.
LOOP_FROM = 1 << 17

ACTIVATIONS = {"square": square, "relu": torch.relu}


class EmbeddingMLP(nn.Module):
    """output = W act(left[a] + right[b]), with a table for each place and no bias.

    The two tables are a one-hot network's first layer, so they count among the weight matrices.
    """

    def __init__(self, symbols: int, classes: int, width: int, activation: str) -> None:
        """Draw the weights: tables N(0, 1), the linear layer as torch does.

        Args:
            symbols: Number of symbols, rows of each table.
            classes: Number of outputs C.
            width: Length of an embedding.
            activation: A key of `ACTIVATIONS`.
        """
        super().__init__()
        self.left = nn.Embedding(symbols, width)
        self.right = nn.Embedding(symbols, width)
        self.output = nn.Linear(width, classes, bias=False)
        self.activation = ACTIVATIONS[activation]
        self.weight_matrices = [Matrix("left.weight"), Matrix("right.weight"), Matrix("output.weight")]
        self.bias_vectors: list[str] = []
        self.last_layer = "output.weight"

    def forward(self, inputs: Tensor) -> Tensor:
        """Map pairs (B, 2) to outputs (B, C)."""
        hidden = rows(self.left.weight, inputs[:, 0]) + rows(self.right.weight, inputs[:, 1])
        return self.output(self.activation(hidden))

    def stacked_forward(self, params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """Map the pairs of S runs, (S, B, 2), to outputs (S, B, C)."""
        left = stacked_rows(params["left.weight"], inputs[..., 0])
        hidden = self.activation(left + stacked_rows(params["right.weight"], inputs[..., 1]))
        return torch.bmm(hidden, params["output.weight"].transpose(1, 2))


class Gromov(nn.Module):
    """output = W2 (W1 x)^2 with x = [onehot(a); onehot(b)] (Gromov 2023, arXiv 2301.02679).

    As the published code has it, without the paper's prefactor 1 / (D N), which is absorbed in the
    initialisation.
    """

    def __init__(self, symbols: int, classes: int, width: int) -> None:
        """Draw both layers from N(0, std) with std = 0.5 / (2 width)^(1/3), the published code's.

        Args:
            symbols: Number of symbols p; W1 is (width, 2 p).
            classes: Number of outputs C; W2 is (C, width).
            width: Number of hidden units N.
        """
        super().__init__()
        self.symbols = symbols
        std = 0.5 / (2 * width) ** (1 / 3)
        self.w1 = nn.Parameter(torch.randn(width, 2 * symbols) * std)
        self.w2 = nn.Parameter(torch.randn(classes, width) * std)
        self.weight_matrices = [Matrix("w1"), Matrix("w2")]
        self.bias_vectors: list[str] = []
        self.last_layer = "w2"

    def forward(self, inputs: Tensor) -> Tensor:
        """Map pairs (B, 2) to outputs (B, C)."""
        columns = self.w1.t().contiguous()
        hidden = rows(columns, inputs[:, 0]) + rows(columns, inputs[:, 1] + self.symbols)
        return square(hidden) @ self.w2.t()

    def stacked_forward(self, params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """Map the pairs of S runs, (S, B, 2), to outputs (S, B, C)."""
        columns = params["w1"].transpose(1, 2).contiguous()
        if inputs.device.type == "cpu" and inputs.shape[1] * columns.shape[2] >= LOOP_FROM:
            outputs = []
            for table, w2, pairs in zip(
                columns.unbind(), params["w2"].unbind(), inputs.unbind(), strict=True
            ):
                hidden = square(rows(table, pairs[:, 0]) + rows(table, pairs[:, 1] + self.symbols))
                outputs.append(hidden @ w2.t())
            return torch.stack(outputs)
        left = stacked_rows(columns, inputs[..., 0])
        hidden = square(left + stacked_rows(columns, inputs[..., 1] + self.symbols))
        return torch.bmm(hidden, params["w2"].transpose(1, 2))


class OneHotMLP(nn.Module):
    """A ReLU network with biases on [onehot(a); onehot(b)], torch's own initialisation."""

    def __init__(self, symbols: int, classes: int, hidden: Sequence[int]) -> None:
        """Draw the weights.

        Args:
            symbols: Number of symbols p; the first layer reads 2 p numbers.
            classes: Number of outputs C.
            hidden: Widths of the hidden layers, at least one.
        """
        super().__init__()
        self.symbols = symbols
        widths = [2 * symbols, *hidden, classes]
        self.layers = nn.ModuleList(nn.Linear(n, m) for n, m in pairwise(widths))

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
