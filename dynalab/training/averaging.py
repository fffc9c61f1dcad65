"""The averaged weights of S runs: taken in after updates, evaluated beside the runs, and stored with them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dynalab.averages.base import Average
from dynalab.config import registry
from dynalab.core.batch import Batch
from dynalab.core.columns import AVERAGED
from dynalab.core.plugins import by_hand
from dynalab.networks.evaluation import Evaluation
from dynalab.networks.stack import NO_UPDATE, Stack
from dynalab.networks.statistics import refreshed, statistics_of
from dynalab.optim.base import evaluated
from dynalab.store.names import AVERAGE
from dynalab.tasks.base import TaskData
from dynalab.training.spikes import BLOCK

Tensors = Mapping[str, Tensor]
# After which of some updates something moves towards the weights, counted from 0; what, and by which share of the way.
Taking = tuple[int, Sequence[Tensor], float]
# Before the names of what a checkpoint holds of the average beside what is stored of it anyway.
STATE = "averaging/"
_COUNT = "count"


class Averaging:
    """Averages the weights that are evaluated, of which an optimizer may have others than it moves.

    Args:
        keys: The section `average` of the configuration.
        stack: The runs' networks.
        optimizer: What moves their weights.
        data: The examples.
        evaluation: What evaluates the runs.
        folders: A user's plug-in folders.
    """

    def __init__(
        self,
        keys: Any,
        stack: Stack,
        optimizer: torch.optim.Optimizer,
        data: TaskData,
        evaluation: Evaluation,
        folders: Sequence[Path],
    ) -> None:
        self._from, self._every = keys.from_, keys.every
        self._stack, self._optimizer, self._data, self._evaluation = stack, optimizer, data, evaluation
        statistics = statistics_of(stack.buffers)
        self._estimates = bool(statistics) and not keys.averages_statistics
        self._names = [*stack.trained, *(() if self._estimates else statistics)]
        self._count, self._fresh = 0, False
        # The tensors that are averaged, and the buffers that they are of: others once an optimizer begins anew.
        self._sources: tuple[Tensors, list[Tensor]] | None = None
        self._made: tuple[int, tuple[Tensors, Tensors]] | None = None
        part = registry.find("average", keys.name, folders)
        self._average: Average = part.build(keys, self._tensors())
        self.begin(0)

    def _tensors(self) -> list[Tensor]:
        """Return the tensors that are averaged, each (S, ...), as they are now, without gradients."""
        buffers = self._stack.evaluated_buffers
        if self._sources is None or self._sources[0] is not buffers:
            held = {**evaluated(self._optimizer, self._stack.params), **buffers}
            self._sources = buffers, [held[name].detach() for name in self._names]
        return self._sources[1]

    def begin(self, step: int) -> None:
        """Begin anew at a step, with its weights unless it is one before the first that counts."""
        self._count, self._fresh, self._made = 0, True, None
        if step >= self._from:
            self._take()

    def edited(self, step: int) -> None:
        """Begin with edited weights where the average has just begun; else it remembers those before the edit.

        They may lie elsewhere.
        """
        self._made = self._sources = None
        if self._fresh:
            self.begin(step)

    def take(self, step: int, lost: Tensor | None) -> None:
        """Take in the weights after `step` updates; `lost` says which runs have diverged, (S,), where any has."""
        self._fresh = False
        self.let_go(step, lost)
        if self._is_due(step):
            self._take()

    @property
    def is_known(self) -> bool:
        """Whether compiled code can take weights in: of a plug-in that says how."""
        return by_hand(self._average, "towards", "take") is not None

    def ahead(self, step: int, count: int) -> list[Taking]:
        """Return what is to move towards the weights in the course of `count` updates from `step` on.

        That is done by whoever asks.
        """
        self._fresh, found = False, list[Taking]()
        first = max(step + 1, self._from)
        first += (self._from - first) % self._every
        for due in range(first, step + count + 1, self._every):
            found.append((due - step - 1, *self._average.towards(self._count)))  # type: ignore[attr-defined]
            self._count += 1
        return found

    def let_go(self, step: int, lost: Tensor | None) -> None:
        """Empty the runs that have diverged, (S,), where any has, on the steps at which their weights are."""
        if lost is not None and step % BLOCK == 0:
            self._empty(lost)

    def _is_due(self, step: int) -> bool:
        return step >= self._from and not (step - self._from) % self._every

    def _take(self) -> None:
        self._average.take(self._tensors(), self._count)
        self._count += 1

    def _empty(self, lost: Tensor) -> None:
        """Empty runs that have diverged, as their weights are."""
        for tensor in (*self._mean().values(), *self._state().values()):
            tensor[lost] = 0.0

    def of(self, step: int) -> tuple[Tensors, Tensors] | None:
        """Return averaged weights and the buffers that go with them, name -> (S, ...); None where there are none yet.

        Of the same step, with the networks as they are now, they are made once.
        """
        if not self._count:
            return None
        if self._made is None or self._made[0] != step:
            self._made = step, self._make()
        return self._made[1]

    @torch.no_grad()
    def _make(self) -> tuple[Tensors, Tensors]:
        stack = self._stack
        mean = self._mean()
        own = {name: param.detach() for name, param in evaluated(self._optimizer, stack.params).items()}
        weights = {name: mean.get(name, param) for name, param in own.items()}
        buffers = {name: mean.get(name, buffer) for name, buffer in stack.evaluated_buffers.items()}
        if self._estimates:
            batches = self._data.eval_batches("train")
            buffers = refreshed(buffers, batches, lambda held, batch: self._moved(weights, held, batch))
        return weights, buffers

    def _moved(self, weights: Tensors, buffers: Tensors, batch: Batch) -> Tensors:
        """Return buffers as a training pass leaves them."""
        ahead = {name: buffer.clone() for name, buffer in buffers.items()}
        noise = self._stack.noise_of(NO_UPDATE, batch.inputs)
        self._stack.forward(batch.inputs, weights, training=True, noise=noise, buffers=ahead)
        return ahead

    def row(self, step: int, names: Iterable[str]) -> dict[str, Tensor]:
        """Return the values of an evaluation of the average, each (S,), float64; NaN before it has begun.

        `names` are those of an evaluation of the runs themselves.
        """
        found = self.of(step)
        if found is None:
            like = next(iter(self._stack.trained.values()))
            missing = like.new_full((len(like),), torch.nan, dtype=torch.float64)
            return {f"{AVERAGED}{name}": missing for name in names}
        weights, buffers = found
        row = self._evaluation.both(weights, buffers=buffers)
        return {f"{AVERAGED}{name}": value for name, value in row.items()}

    def stored(self, step: int) -> dict[str, Tensor]:
        """Return what is stored of the average: in what its networks differ from the runs', name -> (S, ...)."""
        found = self.of(step)
        if found is None:
            return {}
        weights, buffers = found
        names = [*self._stack.trained, *statistics_of(buffers)]
        return {f"{AVERAGE}{name}": {**weights, **buffers}[name] for name in names}

    def tensors(self, step: int) -> dict[str, Tensor]:
        """Return what a checkpoint holds of it: name -> (S, ...), and a count."""
        state = {**self._state(), _COUNT: torch.tensor(self._count)}
        return {**self.stored(step), **{f"{STATE}{name}": tensor for name, tensor in state.items()}}

    @torch.no_grad()
    def load(self, step: int, averaged: Tensors, state: Tensors) -> None:
        """Go back to what `tensors` returned at a step, the prefixes left out; begin anew where that is nothing."""
        if _COUNT not in state:
            self.begin(step)
            return
        self._count, self._fresh, self._made = int(state[_COUNT]), False, None
        for held, kept in ((self._mean(), averaged), (self._state(), state)):
            for name, tensor in held.items():
                tensor.copy_(kept[name])

    def _mean(self) -> dict[str, Tensor]:
        """Return the averages by the names of what they are of; nothing where there are none yet."""
        mean = self._average.mean(self._count) if self._count else ()
        return dict(zip(self._names, mean, strict=False))

    def _state(self) -> dict[str, Tensor]:
        """Return what is held beside them."""
        return {
            f"{key}/{name}": tensor
            for key, tensors in self._average.state().items()
            for name, tensor in zip(self._names, tensors, strict=True)
        }
