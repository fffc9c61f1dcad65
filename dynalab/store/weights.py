"""The weights that were kept of runs, and a network with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from torch import nn

from dynalab.config.registry import search_path
from dynalab.core.errors import ConfigError, StoreError
from dynalab.core.streams import Streams
from dynalab.networks.build import network_of
from dynalab.networks.restore import names_in, restore
from dynalab.store import checkpoint, snapshot
from dynalab.store.names import AVERAGE
from dynalab.store.paths import ShardPaths

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from dynalab.store.stored import StoredEnsemble, StoredRun


class Kept:
    """Files of weights; of each it is checked once, until it changes, that it is whole."""

    def __init__(self) -> None:
        self._files: dict[Path, dict[int, Path]] = {}
        self._whole: dict[Path, tuple[int, int]] = {}

    def files(self, shard: ShardPaths) -> dict[int, Path]:
        """Return step -> where its weights lie: a snapshot, or the weights of a checkpoint."""
        if shard.root not in self._files:
            checkpoints = {item.step: item.model for item in shard.checkpoints()}
            self._files[shard.root] = checkpoints | shard.snapshots()
        return self._files[shard.root]

    def read(
        self, run: StoredRun, step: int, rows: Mapping[str, slice] | None = None, average: bool = False
    ) -> dict[str, Tensor]:
        """Return one run's weights that are evaluated, and their buffers, at a step of `files`.

        `rows` are those of some tensors, along the first axis, in the place of all. With `average` the averaged ones
        stand in the place of those that are averaged.

        Raises:
            ConfigError: Nothing had been averaged by then.
            StoreError: The files are damaged.
        """

        def cut(stored: Any, key: str, name: str) -> Tensor:
            """Return the run's own of a stack of tensors (S, ...)."""
            stack = stored.get_slice(key)
            return (
                stack[run.index] if not rows or len(stack.get_shape()) < 2 else stack[run.index, rows[name]]
            )

        path = self.files(run.shard)[step]
        whole = run.shard.checkpoint(step) if path.name == "model.safetensors" else None
        try:
            about = path.stat()
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error.strerror}") from error
        if self._whole.get(path) != (about.st_mtime_ns, about.st_size):
            if whole is None:
                snapshot.check(path)
            else:
                checkpoint.read_state(whole)
            self._whole[path] = about.st_mtime_ns, about.st_size
        try:
            with safe_open(str(path), framework="pt") as stored:
                names = rows or {*stored.keys()}
                weights = {n: cut(stored, n, n) for n in names if not n.startswith(AVERAGE)}
            # A checkpoint holds the weights that training goes on from; what is evaluated may be an optimizer's slow
            # ones. What is averaged stands beside them, in a snapshot in the same file.
            form, beside = (
                f"{AVERAGE}{{}}" if average else "optimizer/{}/slow",
                whole.optim if whole else path,
            )
            with safe_open(str(beside), framework="pt") as stored:
                others = {form.format(name): name for name in weights}
                found = others.keys() & stored.keys()
                weights |= {others[key]: cut(stored, key, others[key]) for key in found}
        except (SafetensorError, OSError, LookupError) as error:
            raise StoreError(f"{path} is damaged: {error}") from error
        if average and not found:
            raise ConfigError(f"{run.id}: by step {step:,} no weights had been averaged yet")
        return weights

    def arrays(
        self, run: StoredRun, step: int, rows: Mapping[str, slice] | None = None
    ) -> dict[str, np.ndarray]:
        """Return what `read` does as arrays; NumPy has no bfloat16, which float32 holds."""
        weights = self.read(run, step, rows)
        return {name: (x.float() if x.dtype.itemsize == 2 else x).numpy() for name, x in weights.items()}


def network_at(ensemble: StoredEnsemble, run: StoredRun, step: int, average: bool = False) -> nn.Module:
    """Return the network of a run with the weights that were kept at a step; plug-ins come from `DYNALAB_PATH`.

    With `average` they are the averaged ones.

    Raises:
        ConfigError: No weights were kept at that step, nothing was averaged by then, the run had diverged by then, or a
            plug-in is gone or has changed.
        StoreError: The configuration or the weights are damaged.
    """
    if average and not ensemble.config.get("average"):
        raise ConfigError(f"{run.id}: no weights were averaged; train with average=ema, lawa or swa")
    kept = Kept()
    files = kept.files(run.shard)
    if step not in files:
        steps = ", ".join(str(item) for item in sorted(files)) or "none"
        raise ConfigError(f"{run.id}: no weights of step {step} were kept; there are {steps}")
    gone = f"{run.id} diverged at step {run.diverged_step}: there are no weights of step {step}"
    if run.diverged_step is not None and step >= run.diverged_step:
        raise ConfigError(gone)
    folders = search_path()
    streams = Streams(**run.record.runs[run.index].streams)
    network = network_of(ensemble.typed_config(folders), streams, folders)
    weights = kept.read(run, step, average=average)
    try:
        restore(network, {name: weights[name] for name in names_in(network, weights)})
    except (LookupError, RuntimeError) as error:
        raise StoreError(f"{files[step]} is damaged: {error}") from error
    if not all(bool(param.isfinite().all()) for param in network.parameters()):
        what = f"{run.id}: the weights of step {step} are not finite"
        raise ConfigError(gone if run.diverged_step else what)
    return network
