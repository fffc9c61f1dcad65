"""The weights that were kept of a run, and its network with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open
from torch import nn

from dynalab.config.registry import search_path
from dynalab.core.errors import ConfigError, StoreError
from dynalab.core.streams import Streams
from dynalab.networks.build import network_of
from dynalab.networks.restore import names_in, restore
from dynalab.store import checkpoint, snapshot

if TYPE_CHECKING:
    from dynalab.store.stored import StoredEnsemble, StoredRun


def network_at(ensemble: StoredEnsemble, run: StoredRun, step: int) -> nn.Module:
    """Return the network of a run with the weights that were kept at a step; plug-ins come from `DYNALAB_PATH`.

    Raises:
        ConfigError: No weights were kept at that step, the run had diverged by then, or a plug-in is gone or has
            changed.
        StoreError: The configuration or the weights are damaged.
    """
    checkpoints = {item.step: item for item in run.shard.checkpoints()}
    kept = {at: item.model for at, item in checkpoints.items()} | run.shard.snapshots()
    if step not in kept:
        steps = ", ".join(str(item) for item in sorted(kept)) or "none"
        raise ConfigError(f"{run.id}: no weights of step {step} were kept; there are {steps}")
    gone = f"{run.id} diverged at step {run.diverged_step}: there are no weights of step {step}"
    if run.diverged_step is not None and step >= run.diverged_step:
        raise ConfigError(gone)
    folders = search_path()
    streams = Streams(**run.record.runs[run.index].streams)
    network = network_of(ensemble.typed_config(folders), streams, folders)
    whole = checkpoints[step] if kept[step].name == "model.safetensors" else None
    if whole is not None:
        checkpoint.read_state(whole)
    else:
        snapshot.read(kept[step])
    try:
        with safe_open(str(kept[step]), framework="pt") as stored:
            names = names_in(network, stored.keys())
            weights = {name: stored.get_slice(name)[run.index] for name in names}
        if whole is not None:
            # A checkpoint holds the weights that training goes on from; what is evaluated may be an optimizer's slow
            # ones.
            with safe_open(str(whole.optim), framework="pt") as stored:
                slow = {f"optimizer/{name}/slow": name for name in names}
                weights |= {
                    slow[key]: stored.get_slice(key)[run.index] for key in slow.keys() & stored.keys()
                }
        restore(network, weights)
    except (SafetensorError, OSError, LookupError, RuntimeError) as error:
        raise StoreError(f"{kept[step]} is damaged: {error}") from error
    if not all(bool(param.isfinite().all()) for param in network.parameters()):
        raise ConfigError(
            gone if run.diverged_step else f"{run.id}: the weights of step {step} are not finite"
        )
    return network
