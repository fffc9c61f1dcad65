"""Weights kept at chosen steps, one file a step; written beside the training.

A run that diverged is frozen: from then on files repeat the last whole weights that were kept of it (zeros, where there
are none), and readers, who know when it diverged, refuse them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from dynalab.core.atomic import storing
from dynalab.core.devices import to_host
from dynalab.store import snapshot
from dynalab.store.later import Later
from dynalab.store.paths import ShardPaths
from dynalab.training.cadence import Cadence


class Snapshots:
    """The snapshots of one shard.

    Args:
        paths: The shard's folder.
        grid: At which steps.
        require: Called before a file is written; raises where it may not be.
    """

    def __init__(self, paths: ShardPaths, grid: Cadence, require: Callable[[], None] = lambda: None) -> None:
        self.grid = grid
        self._paths, self._files = paths, Later(snapshot.write, require)

    def add(self, step: int, weights: dict[str, Tensor], lost: Sequence[int] = ()) -> None:
        """Keep the weights of a step, name -> (S, ...); `lost` are the places of the runs that have diverged."""
        from safetensors.torch import save as serialise

        if lost:
            weights = self._frozen(step, weights, list(lost))
        path = self._paths.snapshot(step)
        with storing(path):
            # Of a shard that was removed nothing is made again.
            path.parent.mkdir(exist_ok=True)
        self._files.write(
            path, serialise({name: tensor.contiguous() for name, tensor in to_host(weights).items()})
        )

    def _frozen(self, step: int, weights: dict[str, Tensor], lost: list[int]) -> dict[str, Tensor]:
        """Return weights with those of some runs as they were last kept whole."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        found = {name: tensor.clone() for name, tensor in to_host(weights).items()}
        for tensor in found.values():
            tensor[lost] = 0
        self._files.wait()
        for earlier, path in sorted(self._paths.snapshots().items(), reverse=True):
            if earlier >= step or not lost:
                continue
            try:
                kept = load_file(path)
            except SafetensorError:
                continue
            whole = [run for run in lost if all(bool(x[run].isfinite().all()) for x in kept.values())]
            for name in found.keys() & kept.keys():
                found[name][whole] = kept[name][whole]
            lost = [run for run in lost if run not in whole]
        return found

    def sync(self) -> None:
        """Return when all are safe."""
        self._files.wait()
