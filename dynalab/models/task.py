"""`model=task`: the network that the task brings itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dynalab.config.keys import Section
from dynalab.core.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from dynalab.core.batch import InputSpec


@dataclass(frozen=True, kw_only=True)
class Config(Section, of="model"):
    """No fields of its own: the task's configuration holds them."""

    name: str = "task"


def build(config: Config, spec: InputSpec) -> nn.Module:
    """Refuse: the engine asks the task, and comes here only where the task has no `model()`."""
    raise ConfigError("model=task: this task brings no network of its own; choose another model")
