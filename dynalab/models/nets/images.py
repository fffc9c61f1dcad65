"""What networks on images share: how the passes of S runs are made.

On a CPU convolutions are done run by run: a grouped convolution is slow there and picks its kernels by the number of
groups, so that a run's bits would depend on its neighbours. In the loop every run meets the kernels that it would meet
alone. On a card, where small kernels leave it idle and bits are not promised, all runs go through at once, their
channels side by side.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear, unfold

from dynalab.models.base import Context

# Name -> parameter or buffer: of one run, or of several with the runs' first axes joined, (R * C, ...).
State = Mapping[str, Tensor]

# Fewer runs than these, or maps of more entries a run, go through a grouped convolution on a card. cuDNN convolves
# group by group; for products of all runs at once every entry is copied some twenty times. Measured on an H200, forward
# and backward, 128 images, ms as groups and as products: 20 runs of 16 channels 8 x 8 1.0 and 1.6, 60 runs 3.4 and 2.4,
# 200 runs 11.6 and 6.6; 200 runs of 64 channels 2 x 2 13.5 and 2.3, of 64 channels 8 x 8 25.1 and 26.9.
PRODUCTS_FROM, PRODUCTS_UP_TO = 40, 1 << 18


def convolved(x: Tensor, weight: Tensor, runs: int, stride: int = 1, padding: int = 0) -> Tensor:
    """Convolve the maps of some runs, (B, R * C, H, W), by a weight of each, (R * O, C, k, k); (B, R * O, h, w)."""
    if runs < PRODUCTS_FROM or x.numel() > runs * PRODUCTS_UP_TO:
        return conv2d(x, weight, stride=stride, padding=padding, groups=runs)
    size = weight.shape[2]
    columns = unfold(x, size, padding=padding, stride=stride).unflatten(1, (runs, -1))
    found = torch.bmm(weight.view(runs, -1, columns.shape[2]), columns.permute(1, 2, 0, 3).flatten(2))
    shape = [(length + 2 * padding - size) // stride + 1 for length in x.shape[2:]]
    return found.unflatten(2, (len(x), *shape)).permute(2, 0, 1, 3, 4).flatten(1, 2)


class ImageNetwork(nn.Module):
    """A network that ends in a linear layer, which reads the features of flat images (B, channels * height * width).

    Attributes:
        shape: Channels, height and width of an image.
        output: Name of the linear layer.
    """

    takes_context = True
    run_by_run = True
    shape: tuple[int, int, int]
    output: str

    def features(self, state: State, images: Tensor, training: bool, runs: int) -> Tensor:
        """Return features (B, R * F) of images (B, R * channels, height, width); training moves buffers in place."""
        raise NotImplementedError

    def forward(self, inputs: Tensor) -> Tensor:
        """Map flat images (B, D) to outputs (B, C)."""
        return self.run(
            {**dict(self.named_parameters()), **dict(self.named_buffers())}, inputs, self.training
        )

    def stacked_forward(self, params: Mapping[str, Tensor], inputs: Tensor, context: Context) -> Tensor:
        """Map the images of S runs, (S, B, D), to outputs (S, B, C)."""
        if inputs.device.type != "cpu" and len(inputs) > 1:
            return self.side_by_side(params, inputs, context)
        # One unbind for all runs: its backward pass is one stack, where S selections would each fill a whole stack.
        rows = {name: tensor.unbind() for name, tensor in params.items()}
        outputs = []
        for place, own in enumerate(inputs.unbind()):
            state = {name: row[place] for name, row in rows.items()}
            state.update({name: tensor[place] for name, tensor in context.buffers.items()})
            outputs.append(self.run(state, own, context.training))
        return torch.stack(outputs)

    def run(self, state: State, inputs: Tensor, training: bool) -> Tensor:
        """Do one run's pass: `state` holds its parameters and buffers, `inputs` are (B, D); returns (B, C)."""
        x = self.features(state, inputs.reshape(-1, *self.shape), training, 1)
        return linear(x, state[f"{self.output}.weight"], state[f"{self.output}.bias"])

    def side_by_side(self, params: Mapping[str, Tensor], inputs: Tensor, context: Context) -> Tensor:
        """Do what `stacked_forward` does, in grouped convolutions."""
        held = {**params, **context.buffers}
        runs, batch, _ = inputs.shape
        images = inputs.transpose(0, 1).reshape(batch, runs * self.shape[0], *self.shape[1:])
        state = {name: tensor.flatten(0, 1) for name, tensor in held.items()}
        x = self.features(state, images, context.training, runs)
        weight, bias = held[f"{self.output}.weight"], held[f"{self.output}.bias"]
        return torch.baddbmm(bias[:, None], x.view(batch, runs, -1).transpose(0, 1), weight.transpose(1, 2))
