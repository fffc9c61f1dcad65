"""The task of a configuration and its networks: the model's, or the task's own; one a run."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dynalab.config import registry
from dynalab.config.ensemble import EnsembleConfig
from dynalab.core.errors import ConfigError
from dynalab.core.plugins import require
from dynalab.core.streams import Streams
from dynalab.networks.stack import LEAST_WIDTH
from dynalab.tasks.base import OwnsModel, Task
from dynalab.tasks.checks import check_task


def task_and_network(
    config: EnsembleConfig, folders: Sequence[Path] = ()
) -> tuple[Task, Callable[[], nn.Module]]:
    """Return the task, and what builds one run's network."""
    part = registry.find("task", config.task.name, folders)
    task: Task = part.build(config.task)
    check_task(part.module.build, task)
    if config.model.name == "task" and isinstance(task, OwnsModel):
        return task, functools.partial(_network, task.model)
    model = registry.find("model", config.model.name, folders)
    return task, functools.partial(_network, model.module.build, config.model, task.spec)


def _network(build: Callable[..., nn.Module], *args: Any) -> nn.Module:
    network = build(*args)
    require(isinstance(network, nn.Module), build, network, "a torch.nn.Module")
    return network


def build_networks(make: Callable[[], nn.Module], streams: Sequence[Streams]) -> list[nn.Module]:
    """Build one network a run, each under its own `init` stream; torch's global generator is left as it was."""
    networks = []
    for stream in streams:
        with stream.seeded("init"):
            networks.append(make())
    return networks


def side_by_side(
    make: Callable[[], nn.Module], streams: Sequence[Streams], exact: bool
) -> tuple[list[nn.Module], list[Streams]]:
    """Build networks that are trained side by side, and companions where bits that are to be a run's own ask for some.

    Returns:
        The networks and their streams, of length `LEAST_WIDTH` at least unless runs go through by themselves.
    """
    networks = build_networks(make, streams)
    alone = not exact or getattr(networks[0], "run_by_run", False)
    companions = [] if alone else [streams[-1]] * (LEAST_WIDTH - len(streams))
    return networks + build_networks(make, companions), [*streams, *companions]


def shapes_of(config: EnsembleConfig, folders: Sequence[Path] = ()) -> dict[str, tuple[int, ...]]:
    """Return the name of every parameter and buffer of one run's network, and its shape."""
    _, make = task_and_network(config, folders)
    with torch.random.fork_rng(devices=[]):
        return {name: tuple(tensor.shape) for name, tensor in make().state_dict().items()}


def require_shapes(theirs: Mapping[str, tuple[int, ...]], own: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a fork, by its shapes, whose network cannot take its parent's weights, as a `ConfigError`."""
    if theirs != own:
        name = next(name for name in {**own, **theirs} if own.get(name) != theirs.get(name))
        raise ConfigError(
            f"a fork goes on with its parent's weights, and {name} is {theirs.get(name, 'not there')} in the parent, "
            f"{own.get(name, 'not there')} in the fork"
        )


def network_of(config: EnsembleConfig, streams: Streams, folders: Sequence[Path] = ()) -> nn.Module:
    """Return one run's network as it is initialised."""
    _, make = task_and_network(config, folders)
    (network,) = build_networks(make, [streams])
    return network
