"""Networks of several runs on their held-out examples, one setting after another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dynalab.analysis.base import Group
from dynalab.analysis.stored import Shapes

if TYPE_CHECKING:
    from torch import Tensor


def evaluated(
    group: Group, steps: Sequence[int], networks: Sequence[np.ndarray], shapes: Shapes, most: int | None
) -> Iterator[tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]]:
    """Yield of each setting loss and metrics (S,) on both halves of the runs' held-out examples.

    Batch statistics are estimated anew, on the training examples that are evaluated, for every setting alike.

    Args:
        group: The runs.
        steps: The last of each.
        networks: Weights of each run, in the order of the shapes, (A, N).
        shapes: Of the network.
        most: Held-out examples of each run; None: those that its rows are evaluated on.
    """
    import torch

    stack = group.stack(steps)
    halves, training = stack.examples("test", most).halves(), stack.examples("train")
    ends = np.cumsum([rows * width for rows, width in shapes.sizes.values()])
    for place in range(len(networks[0])):
        pieces = np.split(np.stack([own[place] for own in networks]), ends[:-1], axis=1)
        params: dict[str, Tensor] = {
            name: torch.from_numpy(np.ascontiguousarray(piece))
            .to(stack.params[name])
            .view_as(stack.params[name])
            for name, piece in zip(shapes.sizes, pieces, strict=True)
        }
        buffers = stack.refresh_statistics(params, training)
        tuning, judged = (
            {name: value.numpy(force=True) for name, value in stack.measures(params, half, buffers).items()}
            for half in halves
        )
        yield tuning, judged
