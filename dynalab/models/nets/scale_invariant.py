"""Networks whose loss does not depend on the scale of their weights.

Every layer is followed by batch normalisation without scale and shift, and the last linear layer is frozen.
Lobacheva et al. 2021 (arXiv 2106.15739) study weight decay on them, Kodryan et al. 2022 (arXiv 2209.03695) training on
the sphere. The frozen head is a buffer, no parameter: its weight is torch's own draw, scaled to the norm `head_norm`.
`scale_invariant` names the parameters whose joint norm is the papers' rho; all parameters are among them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, relu_

from dynalab.models.base import Context, Permutation
from dynalab.models.nets.images import ImageNetwork, State, convolved
from dynalab.models.nets.norms import BatchStatistics, batch_normed


class FrozenHead(nn.Module):
    """A linear layer that is not trained."""

    weight: Tensor
    bias: Tensor

    def __init__(self, width: int, classes: int, norm: float) -> None:
        """Draw the layer as torch does, and scale its weight to a Frobenius norm; the bias stays as it was drawn."""
        super().__init__()
        drawn = nn.Linear(width, classes)
        self.register_buffer("weight", drawn.weight.detach() * (norm / drawn.weight.detach().norm()))
        self.register_buffer("bias", drawn.bias.detach().clone())


def _permutations(layers: str, sizes: Sequence[int]) -> list[Permutation]:
    """Return the units of normalised layers, the last of which the head reads."""
    found = []
    for i, size in enumerate(sizes):
        own = [f"{layers}.{i}.weight", f"norms.{i}.running_mean", f"norms.{i}.running_var"]
        reader = f"{layers}.{i + 1}.weight" if i + 1 < len(sizes) else "head.weight"
        found.append(Permutation(size, (*((name, 0, 0) for name in own), (reader, 1, 0))))
    return found


class ScaleInvariantMLP(nn.Module):
    """Linear layers without biases, each normalised over the batch and rectified, before a frozen head."""

    takes_context = True

    def __init__(self, inputs: int, classes: int, width: int, depth: int, head_norm: float) -> None:
        super().__init__()
        widths = [inputs] + [width] * depth
        self.layers = nn.ModuleList(nn.Linear(n, width, bias=False) for n in widths[:-1])
        self.norms = nn.ModuleList(BatchStatistics(width, affine=False) for _ in range(depth))
        self.head = FrozenHead(width, classes, head_norm)
        self.scale_invariant = [f"layers.{i}.weight" for i in range(depth)]
        self.permutations = _permutations("layers", [width] * depth)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map examples (B, D) to outputs (B, C)."""
        own = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        state = {name: tensor[None] for name, tensor in own.items()}
        return self._run(state, inputs[None], self.training)[0]

    def stacked_forward(self, params: Mapping[str, Tensor], inputs: Tensor, context: Context) -> Tensor:
        """Map the examples of S runs, (S, B, D), to outputs (S, B, C)."""
        return self._run({**params, **context.buffers}, inputs, context.training)

    def _run(self, state: Mapping[str, Tensor], inputs: Tensor, training: bool) -> Tensor:
        # With the batch last, the units of all runs are channels of one batch normalisation, each reduced apart.
        x = inputs.transpose(1, 2)
        runs, _, batch = x.shape
        for place in range(len(self.layers)):
            y = torch.bmm(state[f"layers.{place}.weight"], x)
            mean, var = (state[f"norms.{place}.running_{what}"].view(-1) for what in ("mean", "var"))
            y = batch_normed(y.view(1, -1, batch), mean, var, None, None, training)
            x = relu_(y).view(runs, -1, batch)
        return torch.baddbmm(state["head.bias"][:, :, None], state["head.weight"], x).transpose(1, 2)


class ScaleInvariantConvNet(ImageNetwork):
    """Four 3 x 3 convolutions of c, 2 c, 4 c and 8 c channels, normalised and rectified, before a frozen head.

    The network of both papers (`ConvNetSI` of their repositories, depth 3): no biases, 2 x 2 maximum pooling after the
    second, third and fourth convolution, the maximum over the places that remain.
    """

    output = "head"

    def __init__(self, shape: tuple[int, int, int], classes: int, width: int, head_norm: float) -> None:
        """Draw the weights, as torch does, for images of a shape (channels, height, width), at least 8 x 8."""
        super().__init__()
        self.shape = shape
        channels = [shape[0], *(width << i for i in range(4))]
        self.convs = nn.ModuleList(
            nn.Conv2d(channels[i], channels[i + 1], 3, padding=1, bias=False) for i in range(4)
        )
        self.norms = nn.ModuleList(BatchStatistics(n, affine=False) for n in channels[1:])
        self.head = FrozenHead(channels[-1], classes, head_norm)
        self.scale_invariant = [f"convs.{i}.weight" for i in range(4)]
        self.permutations = _permutations("convs", channels[1:])

    def features(self, state: State, images: Tensor, training: bool, runs: int) -> Tensor:
        """Return the maxima over places of the last maps."""
        x = images
        for place in range(len(self.convs)):
            y = convolved(x, state[f"convs.{place}.weight"], runs, padding=1)
            mean, var = (state[f"norms.{place}.running_{what}"] for what in ("mean", "var"))
            x = relu_(batch_normed(y, mean, var, None, None, training))
            x = max_pool2d(x, 2) if place else x
        return x.amax((2, 3))
