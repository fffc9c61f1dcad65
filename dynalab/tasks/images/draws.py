"""What is drawn once a run: which images it is trained on, which labels are wrong, which noise lies on its images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dynalab.core.streams import Streams

# Keys of the draws in the stream `noise`, of a length that no draw of a step has.
LABELS, INPUTS = (0, 0, 0), (0, 0, 1)


def subsets(streams: Sequence[Streams], total: int, size: int | None) -> Tensor:
    """Return which of `total` images every run is trained on, shape (S, size).

    A run's are the first `size` of the permutation of all images that its stream `split` draws, in that order; without
    a size all images in their own order, one row for all runs (stride 0).
    """
    if size is None:
        return torch.arange(total).expand(len(streams), -1)
    return torch.from_numpy(np.stack([s.numpy("split").permutation(total)[:size] for s in streams]))


def noisy_labels(labels: Tensor, share: float, classes: int, streams: Sequence[Streams]) -> Tensor:
    """Replace a share of every run's labels (S, n), rounded to a whole number, each by another class drawn evenly.

    Returns the argument itself where nothing is replaced.
    """
    n = labels.shape[1]
    wrong = round(share * n)
    if not wrong:
        return labels
    result = labels.clone().contiguous()
    for run, stream in zip(result, streams, strict=True):
        generator = stream.numpy("noise", *LABELS)
        chosen = torch.from_numpy(generator.permutation(n)[:wrong])
        moves = torch.from_numpy(generator.integers(1, classes, size=wrong))
        run[chosen] = (run[chosen] + moves) % classes
    return result


def input_noise(share: float, n: int, pixels: int, streams: Sequence[Streams]) -> Tensor | None:
    """Return normal noise for every run's n training images, shape (S, n, pixels), or None where it is 0."""
    if not share:
        return None
    rows = [s.numpy("noise", *INPUTS).standard_normal((n, pixels), dtype=np.float32) for s in streams]
    return torch.from_numpy(np.stack(rows)).mul_(share)
