"""What runs learnt, from their configuration and streams: networks for their weights, and their own examples.

Nothing is built, and torch is not loaded, before something is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from dynalab.core.batch import InputSpec
from dynalab.core.streams import Streams
from dynalab.core.weights import Learner

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from dynalab.config.ensemble import EnsembleConfig
    from dynalab.networks.stacked import Stacked
    from dynalab.tasks.base import Task


class Recipe:
    """The task and the network of an ensemble, built once, from what `read` returns."""

    def __init__(self, read: Callable[[], tuple[EnsembleConfig, Sequence[Path]]]) -> None:
        self._read = read

    @cached_property
    def _typed(self) -> tuple[EnsembleConfig, Sequence[Path]]:
        return self._read()

    @property
    def config(self) -> EnsembleConfig:
        """The configuration."""
        return self._typed[0]

    @property
    def folders(self) -> Sequence[Path]:
        """A user's plug-in folders."""
        return self._typed[1]

    @cached_property
    def _built(self) -> tuple[Task, Callable[[], nn.Module]]:
        from dynalab.networks.build import task_and_network

        return task_and_network(*self._typed)

    @property
    def task(self) -> Task:
        """The task."""
        return self._built[0]

    @property
    def make(self) -> Callable[[], nn.Module]:
        """What builds one run's network, under its `init` stream."""
        return self._built[1]


@dataclass(frozen=True)
class SeededLearner:
    """Implements `dynalab.core.weights.Learner` for a run of dynalab's own.

    Attributes:
        recipe: Of its ensemble.
        streams: The run's.
        threads: It was trained with so many.
        width: It was trained in a shard of so many runs.
        compiled: Its rows were evaluated in compiled code, where that knows what is evaluated.
    """

    recipe: Recipe
    streams: Streams
    threads: int = 1
    width: int = 1
    compiled: bool = False

    @property
    def spec(self) -> InputSpec:
        """What the network was told of the task."""
        return self.recipe.task.spec

    def network(self, weights: Mapping[str, np.ndarray]) -> nn.Module:
        """Return the run's network with some weights.

        Raises:
            StoreError: They are not of this network.
        """
        from dynalab.networks.build import build_networks
        from dynalab.networks.restore import restore_arrays

        (network,) = build_networks(self.recipe.make, [self.streams])
        restore_arrays(network, weights)
        return network

    def examples(self, split: str, most: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Return the run's own inputs (B, ...) and targets (B, ...)."""
        import torch

        from dynalab.networks.stacked import drawn

        batches = list(drawn(self.recipe, [self.streams], split, most, torch.device("cpu")))
        inputs, targets = zip(*((batch.inputs[0], batch.targets[0]) for batch in batches), strict=True)
        return torch.cat(inputs).numpy(), torch.cat(targets).numpy()

    def stack(
        self,
        learners: Sequence[Learner],
        weights: Iterable[Mapping[str, np.ndarray]],
        device: str,
        threads: int | None,
    ) -> Stacked:
        """Return the networks of several runs of this ensemble side by side.

        Raises:
            ConfigError: The device is not there.
            StoreError: Weights are not of this network.
        """
        from dynalab.networks.stacked import stacked

        own = [learner for learner in learners if isinstance(learner, SeededLearner)]
        assert len(own) == len(learners)
        return stacked(
            self.recipe,
            [learner.streams for learner in own],
            weights,
            device,
            max(learner.threads for learner in own) if threads is None else threads,
            max(learner.width for learner in own),
            all(learner.compiled for learner in own),
        )
