"""Weights kept at chosen steps, one file a step; written beside the training."""

from __future__ import annotations

from torch import Tensor

from dynalab.store.atomic import storing
from dynalab.store.later import Later
from dynalab.store.paths import ShardPaths
from dynalab.training.cadence import Cadence


class Snapshots:
    """The snapshots of one shard.

    Args:
        paths: The shard's folder.
        grid: At which steps.
    """

    def __init__(self, paths: ShardPaths, grid: Cadence) -> None:
        self.grid = grid
        self._paths, self._files = paths, Later()

    def add(self, step: int, weights: dict[str, Tensor]) -> None:
        """Keep the weights of a step, name -> (S, ...)."""
        from safetensors.torch import save as serialise

        path = self._paths.snapshot(step)
        with storing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        self._files.write(
            path, serialise({name: tensor.cpu().contiguous() for name, tensor in weights.items()})
        )

    def sync(self) -> None:
        """Return when all are safe."""
        self._files.wait()
