"""The task of a configuration and the way its networks are made: the model's, or the task's own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import nn

from dynalab.config import registry
from dynalab.config.ensemble import EnsembleConfig
from dynalab.tasks.base import OwnsModel, Task


def task_and_network(
    config: EnsembleConfig, folders: Sequence[Path] = ()
) -> tuple[Task, Callable[[], nn.Module]]:
    """Return the task, and what builds one run's network.

    Args:
        config: The ensemble's configuration.
        folders: A user's plug-in folders.
    """
    task: Task = registry.find("task", config.task.name, folders).build(config.task)
    model = registry.find("model", config.model.name, folders)
    if config.model.name == "task" and isinstance(task, OwnsModel):
        return task, task.model
    return task, functools.partial(model.build, config.model, task.spec)
