"""A function of tensors that a card replays as a CUDA graph: one launch in the place of each kernel's own.

Where networks are small the host cannot launch kernels as fast as a card is done with them. A graph reads and writes at
fixed addresses, so what changes from call to call is copied into buffers of its own. Another shape is another graph.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]
R = TypeVar("R")
# Runs a function once, and returns what it returned and what runs it again, into the same tensors.
Capture = Callable[[Callable[[], R]], tuple[R, Callable[[], object]]]

# Calls that are made as they are, before one is captured: libraries make their workspaces in them.
WARM_UP = 3


class Uncaptured(Exception):
    """No graph can be made of a function."""


@dataclass
class _Graph(Generic[R]):
    """The graph of one set of shapes: its inputs, what was copied into them last, and what it writes."""

    inputs: dict[str, Tensor]
    copied: dict[str, Tensor]
    outputs: R
    replay: Callable[[], object]


class Graphed(Generic[R]):
    """Calls a function, and replays it from the fourth call of the same shapes on.

    What is returned is overwritten by the next call. A function that asks the card for something, as a plug-in's may,
    is not captured: a capture that fails leaves the allocators of torch waiting for its end.

    Args:
        function: Given tensors by name; besides these it reads and writes what stays where it is.
        capture: How it is captured.

    Attributes:
        refused: Why it is called every time; None where it is replayed.
    """

    refused: str | None = None

    def __init__(self, function: Callable[[Tensors], R], capture: Capture[R] | None = None) -> None:
        self._function, self._capture = function, capture or captured
        self._calls: dict[object, int] = {}
        self._graphs: dict[object, _Graph[R]] = {}

    def __call__(self, tensors: Tensors) -> R:
        """Return what the function does."""
        if self.refused is not None:
            return self._function(tensors)
        shapes = tuple((name, tensor.shape, tensor.dtype) for name, tensor in tensors.items())
        if (graph := self._graphs.get(shapes)) is None:
            self._calls[shapes] = self._calls.get(shapes, 0) + 1
            if self._calls[shapes] <= WARM_UP:
                found: list[str] = []
                with waits(found.append):
                    made = self._function(tensors)
                if found:
                    self.refused = f"an update waits for the card: {found[0]}"
                return made
            own = {name: tensor.clone() for name, tensor in tensors.items()}
            try:
                outputs, replay = self._capture(lambda: self._function(own))
            except Uncaptured as error:
                self.refused = f"an update cannot be captured: {error}"
                return self._function(tensors)
            graph = self._graphs[shapes] = _Graph(own, dict(tensors), outputs, replay)
        for name, tensor in tensors.items():
            # A full batch is the same one at every step.
            if graph.copied[name] is not tensor:
                graph.inputs[name].copy_(tensor)
        graph.copied = dict(tensors)
        graph.replay()
        return graph.outputs


@contextlib.contextmanager
def waits(tell: Callable[[str], object]) -> Iterator[None]:
    """Hand on what torch says, a line, of every call that makes the host wait for the card, from within that call."""
    if not torch.cuda.is_available():
        yield
        return

    def show(message: Warning | str, *args: Any, **keys: Any) -> None:
        if "synchroniz" in str(message):
            tell(str(message).partition("\n")[0])
        else:
            say(message, *args, **keys)

    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        say, warnings.showwarning = warnings.showwarning, show
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(mode)


def captured(function: Callable[[], R]) -> tuple[R, Callable[[], object]]:
    """Capture what a function has the current card do, without having it done; see `Capture`.

    Raises:
        Uncaptured: A call in it cannot be.
    """
    graph = torch.cuda.CUDAGraph()
    try:
        # Threads that finish rows on the host may wait for the card meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            outputs = function()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise Uncaptured(str(error).partition("\n")[0]) from error
    return outputs, graph.replay
