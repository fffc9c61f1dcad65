"""A function of tensors that a card replays as a CUDA graph: one launch in the place of each kernel's own.

Where networks are small the host cannot launch kernels as fast as a card is done with them. A graph reads and writes at
fixed addresses, so what changes from call to call is copied into buffers of its own. Another shape is another graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from dynalab.core.errors import ConfigError

Tensors = Mapping[str, Tensor]
R = TypeVar("R")
# Runs a function once, and returns what it returned and what runs it again, into the same tensors.
Capture = Callable[[Callable[[], R]], tuple[R, Callable[[], object]]]

# Calls that are made as they are, before one is captured: libraries make their workspaces in them.
WARM_UP = 3


class Uncaptured(ConfigError):
    """A function asks the card for something, as a plug-in's may: no graph can be made of it."""


@dataclass
class _Graph(Generic[R]):
    """The graph of one set of shapes: its inputs, what was copied into them last, and what it writes."""

    inputs: dict[str, Tensor]
    copied: dict[str, Tensor]
    outputs: R
    replay: Callable[[], object]


class Graphed(Generic[R]):
    """Calls a function, and replays it from the fourth call of the same shapes on.

    What is returned is overwritten by the next call.

    Args:
        function: Given tensors by name; besides these it reads and writes what stays where it is, and asks nothing of
            the card.
        capture: How it is captured.
    """

    def __init__(self, function: Callable[[Tensors], R], capture: Capture[R] | None = None) -> None:
        self._function, self._capture = function, capture or captured
        self._calls: dict[object, int] = {}
        self._graphs: dict[object, _Graph[R]] = {}

    def __call__(self, tensors: Tensors) -> R:
        """Return what the function does."""
        shapes = tuple((name, tensor.shape, tensor.dtype) for name, tensor in tensors.items())
        if (graph := self._graphs.get(shapes)) is None:
            self._calls[shapes] = self._calls.get(shapes, 0) + 1
            if self._calls[shapes] <= WARM_UP:
                return self._function(tensors)
            own = {name: tensor.clone() for name, tensor in tensors.items()}
            outputs, replay = self._capture(lambda: self._function(own))
            graph = self._graphs[shapes] = _Graph(own, dict(tensors), outputs, replay)
        for name, tensor in tensors.items():
            # A full batch is the same one at every step.
            if graph.copied[name] is not tensor:
                graph.inputs[name].copy_(tensor)
        graph.copied = dict(tensors)
        graph.replay()
        return graph.outputs


def captured(function: Callable[[], R]) -> tuple[R, Callable[[], object]]:
    """Capture what a function has the current card do, without having it done; see `Capture`.

    Raises:
        Uncaptured: The function asks the card for something.
    """
    graph = torch.cuda.CUDAGraph()
    try:
        # Threads that finish rows on the host may wait for the card meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            outputs = function()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        line = str(error).partition("\n")[0]
        raise Uncaptured(
            f"compute.graph=true: an update of this model cannot be captured ({line})"
        ) from error
    return outputs, graph.replay
