"""Residual networks for small images (He et al. 2016, arXiv 1512.03385), with their parts removable.

A 3 x 3 first convolution of stride 1 and no pooling after it; stages of basic blocks, the channels doubling and the
size halving from stage to stage; the mean over places; a linear layer. Convolutions have no biases, also without
normalisation. Without residual connections a block is its two convolutions alone (Hu et al. 2023, arXiv 2308.09543,
"destabilised"; their code also creates the unused projections, which are left out here).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu_

from dynalab.models.base import Matrix, Permutation
from dynalab.models.nets.images import ImageNetwork, State, convolved
from dynalab.models.nets.norms import Norm, vectors_of

if TYPE_CHECKING:
    from dynalab.models.nets.resnet_config import ResNetConfig


class Block(nn.Module):
    """Parameters of a basic block: two 3 x 3 convolutions, each normalised, and a projection where one is needed."""

    def __init__(self, before: int, after: int, stride: int, norm: str, groups: int, project: bool) -> None:
        """Draw the weights, as torch does; `project` gives the shortcut a 1 x 1 convolution, normalised."""
        super().__init__()
        self.stride, self.widened = stride, after - before
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.norm1 = Norm(norm, after, groups)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2 = Norm(norm, after, groups)
        self.project: nn.Conv2d | None = None
        if project:
            self.project = nn.Conv2d(before, after, 1, stride, bias=False)
            self.project_norm = Norm(norm, after, groups)

    def shortcut(self, state: State, name: str, x: Tensor, training: bool, runs: int) -> Tensor:
        """Return what is added to the block's result: x, made to fit by projection or by zeros (option A)."""
        if self.project is not None:
            projected = convolved(x, state[f"{name}.project.weight"], runs, self.stride)
            return self.project_norm.apply_to(state, f"{name}.project_norm", projected, training, runs)
        if self.stride == 1 and not self.widened:
            return x
        x, zeros = x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.widened)
        return pad(x, zeros) if runs == 1 else pad(x.unflatten(1, (runs, -1)), zeros).flatten(1, 2)


class ResNet(ImageNetwork):
    """A residual network.

    The weight matrices are the first convolution, the blocks' 3 x 3 convolutions, each as (out, in * 9), and the
    linear layer; the published choice of Hu et al. 2023 leaves out projections and norms. Their statistics of
    convolutions are averages over kernels; ours take each as one matrix.
    """

    output = "fc"

    def __init__(self, shape: tuple[int, int, int], classes: int, config: ResNetConfig) -> None:
        """Draw the weights of a network that reads images of a shape (channels, height, width)."""
        super().__init__()
        self.shape, self.residual, self.channels_last = shape, config.residual, config.channels_last
        width, norm, groups = config.width, config.norm, config.groups
        self.stem = nn.Conv2d(shape[0], width, 3, padding=1, bias=False)
        self.stem_norm = Norm(norm, width, groups)
        blocks = []
        before = width
        for stage, count in enumerate(config.stages):
            for place in range(count):
                after, stride = width << stage, 2 if stage and not place else 1
                project = config.residual and config.projections and (stride > 1 or before != after)
                blocks.append(Block(before, after, stride, norm, groups, project))
                before = after
        self.blocks = nn.ModuleList(blocks)
        self.fc = nn.Linear(before, classes)
        if config.he_normal:
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight)
        names = [f"blocks.{i}.{part}.weight" for i in range(len(blocks)) for part in ("conv1", "conv2")]
        self.weight_matrices = [Matrix(name) for name in ("stem.weight", *names, "fc.weight")]
        self.bias_vectors = ["fc.bias"]
        self.last_layer = "fc.weight"
        # Groups of channels are normalised together, so that no channel may leave its own.
        self.permutations = [] if norm == "group" and groups > 1 else self._permutations(width)

    def _permutations(self, width: int) -> list[Permutation]:
        """Return the channels that may change places: those inside every block, and those that shortcuts hand on.

        A shortcut without a projection ties the channels of both its ends. Where zeros fill up, those that come first
        are the earlier stage's, and the others have an order of their own.
        """
        sizes: list[int] = []
        places: list[list[tuple[str, int, int]]] = []

        def new(size: int) -> int:
            sizes.append(size)
            places.append([])
            return len(sizes) - 1

        def put(channels: list[int], name: str, axis: int) -> None:
            first = 0
            for own in channels:
                places[own].append((name, axis, first))
                first += sizes[own]

        def made(channels: list[int], conv: str, norm: str) -> None:
            put(channels, f"{conv}.weight", 0)
            for part in vectors_of(self.get_submodule(norm)):
                put(channels, f"{norm}.{part}", 0)

        stream = [new(width)]
        made(stream, "stem", "stem_norm")
        for i, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            name, after = f"blocks.{i}", block.conv1.out_channels
            inside, begins = [new(after)], stream
            put(begins, f"{name}.conv1.weight", 1)
            made(inside, f"{name}.conv1", f"{name}.norm1")
            put(inside, f"{name}.conv2.weight", 1)
            if block.project is not None or not self.residual:
                stream = [new(after)]
            elif block.widened:
                stream = [*stream, new(block.widened)]
            made(stream, f"{name}.conv2", f"{name}.norm2")
            if block.project is not None:
                put(begins, f"{name}.project.weight", 1)
                made(stream, f"{name}.project", f"{name}.project_norm")
        put(stream, "fc.weight", 1)
        return [Permutation(size, tuple(own)) for size, own in zip(sizes, places, strict=True)]

    def features(self, state: State, images: Tensor, training: bool, runs: int) -> Tensor:
        """Return the means over places of the last maps."""
        x = images.to(memory_format=torch.channels_last) if self.channels_last and runs == 1 else images
        x = convolved(x, state["stem.weight"], runs, padding=1)
        x = relu_(self.stem_norm.apply_to(state, "stem_norm", x, training, runs))
        for place, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            name = f"blocks.{place}"
            y = convolved(x, state[f"{name}.conv1.weight"], runs, block.stride, padding=1)
            y = relu_(block.norm1.apply_to(state, f"{name}.norm1", y, training, runs))
            y = convolved(y, state[f"{name}.conv2.weight"], runs, padding=1)
            y = block.norm2.apply_to(state, f"{name}.norm2", y, training, runs)
            x = relu_(y + block.shortcut(state, name, x, training, runs) if self.residual else y)
        return x.mean((2, 3))
