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
from torch.nn.functional import linear

from dynalab.models.base import Context

# Name -> parameter or buffer: of one run, or of several with the runs' first axes joined, (R * C, ...).
State = Mapping[str, Tensor]


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
