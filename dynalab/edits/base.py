"""What an edit is: one change of the state of S runs, made where a fork leaves its parent.

An edit module holds a configuration dataclass `Config` (with `name` and `seed`) and
`apply(state: State, context: Context) -> State`. Importing it imports no torch. What it draws it draws from
`context.generators`, one for each run, so that a run's edit does not depend on its neighbours.

Each edit says what becomes of the optimizer's moments: they are kept where weights are moved or rescaled, and set to
zero where weights are drawn anew, cut or held.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dynalab.config.suggest import did_you_mean, listing
from dynalab.core.errors import ConfigError
from dynalab.optim.base import SLOW

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor


# What a network's parts are, for the keys that name some.
PARTS = "norm, head, embedding, bias, or modules of the network"


@dataclass(frozen=True)
class State:
    """The state of S runs; an edit changes the tensors in place, under `torch.no_grad`.

    Attributes:
        weights: Parameter -> weights, shape (S, ...).
        buffers: Buffer -> values, shape (S, ...).
        optimizer: Parameter -> name -> what the optimizer holds for it, shape (S, ...), or () of a count.
        masks: Parameter -> 1 where an entry is trained, 0 where it is held from now on, shape (S, ...) or one that
            broadcasts to it; a parameter without a mask is trained.
    """

    weights: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]
    optimizer: Mapping[str, dict[str, Tensor]]
    masks: dict[str, Tensor] = field(default_factory=dict)

    def copies(self, name: str) -> list[Tensor]:
        """Return a parameter's weights, and the slow ones where the optimizer has them."""
        slow = self.optimizer.get(name, {}).get(SLOW)
        return [self.weights[name], *([] if slow is None else [slow])]

    def moments(self, name: str) -> Iterator[Tensor]:
        """Yield what the optimizer remembers of a parameter's gradients, each (S, ...)."""
        for key, value in self.optimizer.get(name, {}).items():
            if key != SLOW and value.dim():
                yield value


@dataclass(frozen=True)
class Context:
    """What an edit may look at.

    Attributes:
        edit: The edit's own typed configuration.
        config: The fork's whole configuration, an `EnsembleConfig`.
        step: Where the fork leaves its parent.
        trained: Parameters that are trained.
        initial: Parameter -> weights at the initialisation, shape (S, ...).
        parts: Part of the network (`norm`, `head`, a module's name) -> its parameters.
        generators: One for each run, of the stream `edit`.
        shared: One for all runs, of `edit.seed` alone.
    """

    edit: Any
    config: Any
    step: int
    trained: Sequence[str]
    initial: Mapping[str, Tensor]
    parts: Mapping[str, Sequence[str]]
    generators: Sequence[np.random.Generator]
    shared: np.random.Generator

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Return independent normal numbers, shape (S, *shape), float64, each run's from its own generator."""
        import numpy as np
        import torch

        return torch.from_numpy(np.stack([own.standard_normal(tuple(shape)) for own in self.generators]))

    def spread(self, name: str) -> Tensor:
        """Return a parameter's standard deviation at the initialisation (ddof 0), shape (S, 1, ..., 1), float64."""
        weights = self.initial[name].double()
        spread: torch.Tensor = weights.flatten(1).std(1, correction=0)
        return spread.view(-1, *[1] * (weights.dim() - 1))

    def parameters(self, parts: Sequence[str], key: str) -> set[str]:
        """Return the trained parameters of some parts.

        Args:
            parts: Their names.
            key: The key that names them, for errors.

        Raises:
            ConfigError: The network has no such part.
        """
        for part in parts:
            if part not in self.parts:
                legal = sorted(self.parts)
                raise ConfigError(
                    f"{key}={part}: this network has no such part{did_you_mean(part, legal)}; "
                    f"there are {listing(legal)}"
                )
        return {name for part in parts for name in self.parts[part]} & set(self.trained)


def names_of(value: Any, key: str) -> tuple[str, ...]:
    """Return the parts that a key names: a list of words, or one.

    Raises:
        ConfigError: It is neither.
    """
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list | tuple) or not all(isinstance(item, str) and item for item in listed):
        raise ConfigError(f"{key}={value}: expected names of parts, for example [norm,head]")
    return tuple(listed)
