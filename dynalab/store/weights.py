"""One run's network with stored weights, for a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from dynalab.config.registry import search_path
from dynalab.errors import ConfigError, StoreError
from dynalab.networks.build import task_and_network
from dynalab.networks.stack import build_networks
from dynalab.store import checkpoint, snapshot
from dynalab.training.shard import load_config
from dynalab.training.streams import Streams

if TYPE_CHECKING:
    from dynalab.store.stored import StoredRun


def network_at(run: StoredRun, step: int) -> nn.Module:
    """Return the network of a run with the weights that were kept at a step; plug-ins come from `DYNALAB_PATH`.

    Raises:
        ConfigError: No weights were kept at that step, the run had diverged by then, or a plug-in is gone or has
            changed.
        StoreError: The configuration or the weights are damaged.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    checkpoints = {item.step: item for item in run.shard.checkpoints()}
    kept = {at: item.model for at, item in checkpoints.items()} | run.shard.snapshots()
    if step not in kept:
        steps = ", ".join(str(item) for item in sorted(kept)) or "none"
        raise ConfigError(f"{run.id}: no weights of step {step} were kept; there are {steps}")
    gone = f"{run.id} diverged at step {run.diverged_step}: there are no weights of step {step}"
    if run.diverged_step is not None and step >= run.diverged_step:
        raise ConfigError(gone)
    folders = search_path()
    config = load_config(run.shard, folders)
    _, make = task_and_network(config, folders)
    (network,) = build_networks(make, [Streams(**run.record.runs[run.index].streams)])
    # By the names that the stack has: what modules share stands under its first one.
    own = dict([*network.named_parameters(), *network.named_buffers()])
    if kept[step].name == "model.safetensors":
        checkpoint.read_state(checkpoints[step])
    else:
        snapshot.read(kept[step])
    try:
        with safe_open(str(kept[step]), framework="pt") as stored:
            # Checkpoints of before lack buffers that torch would not store.
            names = own.keys() & {*network.state_dict(), *stored.keys()}
            state = {name: stored.get_slice(name)[run.index] for name in names}
        if kept[step].name == "model.safetensors":
            # A checkpoint holds the weights that training goes on from; what is evaluated may be an optimizer's slow
            # ones.
            with safe_open(str(checkpoints[step].optim), framework="pt") as stored:
                slow = {name: f"optimizer/{name}/slow" for name in state}
                state |= {
                    n: stored.get_slice(key)[run.index]
                    for n, key in slow.items()
                    if key in stored.keys()  # noqa: SIM118
                }
        with torch.no_grad():
            for name, value in state.items():
                own[name].copy_(value.view_as(own[name]))
    except (SafetensorError, OSError, LookupError, RuntimeError) as error:
        raise StoreError(f"{kept[step]} is damaged: {error}") from error
    if not all(bool(weights.isfinite().all()) for weights in network.parameters()):
        raise ConfigError(
            gone if run.diverged_step else f"{run.id}: the weights of step {step} are not finite"
        )
    return network
