"""Random crops and flips of a batch, on its device, from numbers that each run's stream `order` draws for the step.

As torchvision's `RandomCrop(size, padding=4)` and `RandomHorizontalFlip()`: the image is shifted by up to four pixels
in each direction, what comes in from outside being black (`zeros`) or the image mirrored at its edge (`reflect`), and
mirrored left to right with probability one half.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dynalab.core.streams import Streams

PADDING = 4


def draw(streams: Sequence[Streams], step: int, size: int) -> Tensor:
    """Return a batch's shifts and flips, shape (S, size, 3): down and right (0 to 8), flip (0 or 1).

    A function of each run's stream and the step alone. The key has two parts, so that it is not that of an epoch.
    """
    rows = [
        np.stack(
            [
                *(generator := s.numpy("order", step, 1)).integers(0, 2 * PADDING + 1, size=(2, size)),
                generator.integers(0, 2, size=size),
            ],
            axis=1,
        )
        for s in streams
    ]
    return torch.from_numpy(np.stack(rows))


def crop_flip(images: Tensor, shape: tuple[int, int, int], draws: Tensor, border: str) -> Tensor:
    """Shift and flip images (S, B, C * H * W) of a shape (C, H, W), H and W above 4, by numbers of `draw`."""
    channels, height, width = shape
    down, right, flip = draws.flatten(0, 1).unbind(1)
    device = images.device
    rows = torch.arange(height, device=device) + (down - PADDING)[:, None]
    columns = torch.arange(width, device=device).expand(len(flip), -1)
    columns = torch.where(flip[:, None] > 0, width - 1 - columns, columns) + (right - PADDING)[:, None]
    outside = None
    if border == "zeros":
        outside = ((rows < 0) | (rows >= height))[:, :, None] | ((columns < 0) | (columns >= width))[:, None]
        rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    else:
        rows, columns = _mirrored(rows, height), _mirrored(columns, width)
    places = (rows[:, :, None] * width + columns[:, None]).flatten(1)[:, None].expand(-1, channels, -1)
    planes = images.reshape(len(flip), channels, height * width)
    moved = torch.gather(planes, 2, places)
    if outside is not None:
        moved.masked_fill_(outside.flatten(1)[:, None], 0)
    return moved.view(images.shape)


def _mirrored(places: Tensor, size: int) -> Tensor:
    """Return places reflected at 0 and size - 1, the edge itself not repeated."""
    places = places.abs()
    return torch.where(places >= size, 2 * (size - 1) - places, places)
