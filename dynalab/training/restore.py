"""One run's network with stored weights, for a notebook."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from dynalab.config import registry
from dynalab.errors import ConfigError
from dynalab.tasks.base import OwnsModel
from dynalab.training.shard import load_config
from dynalab.training.stack import build_networks
from dynalab.training.streams import Streams

if TYPE_CHECKING:
    from dynalab.store.stored import StoredRun


def network_at(run: StoredRun, step: int) -> nn.Module:
    """Return the network of a run with the weights that were kept at a step.

    Raises:
        ConfigError: No weights were kept at that step.
    """
    from safetensors import safe_open

    kept = dict(run.shard.snapshots())
    kept |= {item.step: item.model for item in run.shard.checkpoints()}
    if step not in kept:
        steps = ", ".join(str(item) for item in sorted(kept)) or "none"
        raise ConfigError(f"{run.id}: no weights of step {step} were kept; there are {steps}")
    config = load_config(run.shard, run.record.folders)
    folders = [Path(folder) for folder in run.record.folders]
    task = registry.find("task", config.task.name, folders).build(config.task)
    model = registry.find("model", config.model.name, folders)
    own = config.model.name == "task" and isinstance(task, OwnsModel)
    streams = Streams(**run.record.runs[run.index].streams)
    (network,) = build_networks(
        task.model if own else lambda: model.build(config.model, task.spec), [streams]
    )
    with safe_open(str(kept[step]), framework="pt") as stored:
        state = {name: stored.get_slice(name)[run.index] for name, _ in network.named_parameters()}
    network.load_state_dict(state, strict=False)
    return network
