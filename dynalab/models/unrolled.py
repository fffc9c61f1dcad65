"""Convolutions of maps that are smaller than their kernel, as matrices.

At every place that it makes, a kernel of 3 x 3 multiplies a map of 2 x 2 by four of its nine weights, and zeros around
it by the others. The matrix from all numbers of an input to all that are made of it has no such products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import linear

Pair = tuple[int, int]


@dataclass(frozen=True)
class Unrolled:
    """A convolution of one group whose maps are smaller than its kernel; `of` makes it.

    Attributes:
        read: Height and width of the maps that it reads.
        made: Those of the maps that it makes.
        stride: Down and across.
        padding: Zeros above and to the left.
        channels_last: Whether maps are so in memory.
    """

    read: Pair
    made: Pair
    stride: Pair
    padding: Pair
    channels_last: bool

    @classmethod
    def of(
        cls,
        made: Tensor,
        channels_last: bool,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | str = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
    ) -> Unrolled | None:
        """Return it from what a two-dimensional convolution was given and made; None where its kernel is no larger."""
        read = (input.shape[-2], input.shape[-1])
        if read[0] * read[1] >= weight[0, 0].numel() or groups != 1 or _pair(dilation) != (1, 1):
            return None
        if isinstance(padding, str):
            return None
        return cls(read, (made.shape[-2], made.shape[-1]), _pair(stride), _pair(padding), channels_last)

    def empty(self, weight: Tensor) -> Tensor:
        """Return room for the matrix of weights (O, I, height, width), of (numbers made, numbers read)."""
        (high, wide), (down, across) = self.made, self.read
        return weight.new_empty(len(weight) * high * wide, weight.shape[1] * down * across)

    def fill(self, matrix: Tensor, weight: Tensor) -> None:
        """Make the matrix of weights (O, I, height, width)."""
        to, by = len(weight), weight.shape[1]
        if self.channels_last:
            places = matrix.view(*self.made, to, *self.read, by).permute(0, 1, 2, 5, 3, 4)
        else:
            places = matrix.view(to, *self.made, by, *self.read).permute(1, 2, 0, 3, 4, 5)
        matrix.zero_()
        for y in range(self.made[0]):
            down, own_down = self._met(0, y, weight.shape[2])
            for x in range(self.made[1]):
                across, own_across = self._met(1, x, weight.shape[3])
                places[y, x, :, :, down, across] = weight[:, :, own_down, own_across]

    def _met(self, axis: int, place: int, size: int) -> tuple[slice, slice]:
        """Return which places a kernel of a size reads on an axis to make one, and by which of its own."""
        first = self.stride[axis] * place - self.padding[axis]
        low = max(first, 0)
        high = max(min(first + size, self.read[axis]), low)
        return slice(low, high), slice(low - first, high - first)

    def convolve(self, maps: Tensor, matrix: Tensor, bias: Tensor) -> Tensor:
        """Return what maps (B, I, height, width) become by a matrix and a bias (O,), in their order of memory."""
        count = self.made[0] * self.made[1]
        if self.channels_last:
            rows = linear(maps.permute(0, 2, 3, 1).flatten(1), matrix, bias.repeat(count))
            return rows.view(len(rows), *self.made, -1).permute(0, 3, 1, 2)
        rows = linear(maps.flatten(1), matrix, bias.repeat_interleave(count))
        return rows.view(len(rows), -1, *self.made)


def _pair(value: int | Sequence[int]) -> Pair:
    if isinstance(value, int):
        return (value, value)
    return (value[0], value[-1])
