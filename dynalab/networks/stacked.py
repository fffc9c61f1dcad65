"""Networks of several runs with the weights of a step, evaluated and differentiated as training does it.

A run's numbers are those that its rows have, to the bit where a run's bits are its own: the same pieces of examples go
through the same kernels, in parts as wide as the shards were and with as many threads, or the same compiled code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dynalab.config import registry
from dynalab.core.batch import Batch
from dynalab.core.devices import resolve_device
from dynalab.core.streams import Streams
from dynalab.networks.build import build_networks
from dynalab.networks.compiled import passes
from dynalab.networks.evaluation import averaged, shares_pass
from dynalab.networks.restore import restore_arrays, tensors_of
from dynalab.networks.settings import as_trained
from dynalab.networks.stack import LEAST_WIDTH, NO_UPDATE, Stack, widen
from dynalab.networks.statistics import refreshed
from dynalab.optim.ascent import along_runs
from dynalab.tasks.base import Fewer, TaskData, counted
from dynalab.tasks.loss import Loss

if TYPE_CHECKING:
    import numpy as np

    from dynalab.networks.learner import Recipe

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Examples:
    """Examples of S runs, in the pieces that go through the networks at once.

    They are the same at every step: those of one stack serve the others of its group.

    Attributes:
        batches: Inputs (S, B, ...) and targets (S, B, ...); may be made as they are asked for.
        is_one: Whether they are one batch whose loss is taken as it is, not as a mean over pieces.
    """

    batches: Sequence[Batch]
    is_one: bool = False

    def halves(self) -> tuple[Examples, Examples]:
        """Return every other example of each piece, and those between."""
        return Examples(Half(self.batches, 0)), Examples(Half(self.batches, 1))


@dataclass(frozen=True)
class Half(Sequence[Batch]):
    """Every other example of pieces that may be made as they are asked for.

    Attributes:
        batches: The pieces.
        first: Which example of a piece is the first, 0 or 1.
    """

    batches: Sequence[Batch]
    first: int

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, place: Any) -> Any:
        batch = self.batches[place]
        return Batch(batch.inputs[:, self.first :: 2], batch.targets[:, self.first :: 2])

    def __iter__(self) -> Iterator[Batch]:
        # Of a piece of one example there is no second half.
        return (half for place in range(len(self)) if (half := self[place]).size)


class Stacked:
    """The networks of S runs.

    Weights that a method is given may be any: `{**stacked.params, name: other}`. Gradients go through `losses` and
    `logits` to whatever requires them.

    Attributes:
        width: Number of runs, S.
        params: Name -> weights that are evaluated, shape (S, ...).
        buffers: Name -> buffer, shape (S, ...).
        trained: Names of the weights that training moves.
        device: Where they are.
    """

    def __init__(
        self,
        recipe: Recipe,
        stack: Stack,
        streams: Sequence[Streams],
        threads: int,
        width: int,
        compiled: bool = False,
    ) -> None:
        """Keep the parts; see `stacked`."""
        self._recipe, self._stack, self._streams, self._threads = recipe, stack, streams, threads
        self._loss = Loss.of(recipe.task, recipe.config.train)
        self._compiled = compiled
        self._passes = passes(recipe.config, stack, self._loss) if compiled else None
        self.width, self.device = len(streams), stack.device
        self.params = {name: param.detach()[: self.width] for name, param in stack.params.items()}
        self.buffers = {name: buffer[: self.width] for name, buffer in stack.buffers.items()}
        self.trained = tuple(stack.trained)
        # Every part is as wide as the others, so that no run meets another kernel: the last begins in the one before.
        own = min(max(width, LEAST_WIDTH), stack.width)
        begins = [min(first, stack.width - own) for first in range(0, stack.width, own)]
        self._parts = [slice(first, first + own) for first in begins]
        self._fresh = [slice(number * own - first, own) for number, first in enumerate(begins)]

    @property
    def reentrant(self) -> bool:
        """Whether several threads may have passes at once: not where a pass puts weights into the one module."""
        return (
            self.device.type == "cpu"
            and self._threads == 1
            and hasattr(self._stack.network, "stacked_forward")
        )

    def examples(self, split: str, most: int | None = None) -> Examples:
        """Return the runs' own examples, each run's drawn again from its streams.

        Args:
            split: `train` or `test`.
            most: So many of each run, the same ones each time; None: those that its rows are evaluated on.
        """
        data = _data(self._recipe, self._streams, most, self.device)
        if split == "train" and most is None and not self._compiled and self._shares_pass(data):
            return Examples([data.train_batch(0)], is_one=True)
        return Examples(data.eval_batches(split))

    def _shares_pass(self, data: TaskData) -> bool:
        config = self._recipe.config
        part = registry.find("optimizer", config.optimizer.name, self._recipe.folders)
        # Which weights it evaluates is the optimizer's to say, whatever they are.
        optimizer = part.build(config.optimizer, [torch.zeros(1, 1)])
        return shares_pass(self._stack, data, optimizer, config.train.accumulate)

    def losses(
        self, params: Tensors, examples: Examples, buffers: Tensors | None = None, *, training: bool = False
    ) -> Tensor:
        """Return each run's mean loss in evaluation mode, shape (S,), float64.

        Args:
            params: Name -> weights, shape (S, ...); those that are missing are the runs' own.
            examples: Of `examples`.
            buffers: Likewise, where other weights have other statistics (`refresh_statistics`).
            training: Take norms by the statistics of each piece, as an update does, which gradients then go through;
                buffers stay as they are.
        """
        return self._means(params, examples, buffers, lambda outputs, batch: {}, training)["loss"]

    def measures(
        self, params: Tensors, examples: Examples, buffers: Tensors | None = None
    ) -> dict[str, Tensor]:
        """Return `loss` and what else the task measures (`accuracy`), each as `losses`, arguments likewise."""
        return self._means(params, examples, buffers, self._loss.task.metrics)

    def _means(
        self,
        params: Tensors,
        examples: Examples,
        buffers: Tensors | None,
        more: Callable[[Tensor, Batch], Tensors],
        training: bool = False,
    ) -> dict[str, Tensor]:
        state = self._state(params, buffers)
        numbers = not any(x.requires_grad or x.dtype != torch.float32 for x in state[0].values())
        if self._passes is not None and numbers and not training:
            means = self._passes.means([self._batches(examples)], state[0])[0]
            return {name: value[: self.width] for name, value in means.items()}

        def means_of(batch: Batch) -> tuple[dict[str, Tensor], int | Tensor]:
            outputs = self._outputs(*state, batch.inputs, training)
            return {"loss": self._loss(outputs, batch), **more(outputs, batch)}, counted(
                self._loss.task, batch
            )

        with as_trained(self._threads):
            parts = map(means_of, self._batches(examples))
            means = next(parts)[0] if examples.is_one else averaged(parts)
        return {name: value[: self.width].to(torch.float64) for name, value in means.items()}

    def logits(self, params: Tensors, examples: Examples, buffers: Tensors | None = None) -> Tensor:
        """Return outputs in evaluation mode, (S, B, ...), in the loss's precision; arguments as `losses`."""
        state = self._state(params, buffers)
        with as_trained(self._threads):
            found = [self._outputs(*state, batch.inputs) for batch in self._batches(examples)]
        return torch.cat(found, dim=1)[: self.width]

    def gradients(
        self, params: Tensors, examples: Examples, buffers: Tensors | None = None
    ) -> dict[str, Tensor]:
        """Return the gradient of each run's mean loss in evaluation mode, name of `trained` -> (S, ...).

        Arguments as `losses`. The graph of one piece of examples and one part of the runs is in memory at a time.
        """
        state = self._state(params, buffers)
        found: list[list[Tensor]] = []
        with as_trained(self._threads):
            for part, fresh in zip(self._parts, self._fresh, strict=True):
                weights, own_buffers = ({n: x[part] for n, x in tensors.items()} for tensors in state)
                leaves = {name: weights[name].detach().requires_grad_() for name in self.trained}
                sums = [torch.zeros_like(leaf) for leaf in leaves.values()]
                count: int | Tensor = 0
                for every in self._batches(examples):
                    batch = every.by_runs(itemgetter(part))
                    outputs = self._stack.forward(batch.inputs, {**weights, **leaves}, buffers=own_buffers)
                    size = counted(self._loss.task, batch)
                    loss = (self._loss(outputs, batch) * size).sum()
                    moved = torch.autograd.grad(loss, [*leaves.values()], materialize_grads=True)
                    sums = [x + y for x, y in zip(sums, moved, strict=True)]
                    count = count + size
                share = (1 / torch.as_tensor(count, device=self.device)).expand(part.stop - part.start)
                found.append([(along_runs(share, x) * x)[fresh] for x in sums])
        whole = (torch.cat(rows)[: self.width] for rows in zip(*found, strict=True))
        return dict(zip(self.trained, whole, strict=True))

    def refresh_statistics(
        self, params: Tensors, examples: Examples, buffers: Tensors | None = None
    ) -> dict[str, Tensor]:
        """Return buffers whose running statistics are those of other weights, as `statistics.refreshed` says.

        Args:
            params: As in `losses`.
            examples: Of `examples("train")`, in pieces that training would accept as batches.
            buffers: Likewise, where what is no statistic among them is another's as well.
        """
        own = {**self.buffers, **(buffers or {})}
        with as_trained(self._threads):
            return refreshed(
                own, self._batches(examples), lambda held, batch: self._moved(params, held, batch)
            )

    def _moved(self, params: Tensors, buffers: Tensors, batch: Batch) -> dict[str, Tensor]:
        """Return buffers (S, ...) as a training pass leaves them; those that are given stay as they are."""
        weights, own_buffers = self._state(params, buffers)
        held = {name: buffer.clone() for name, buffer in own_buffers.items()}
        noise = self._stack.noise_of(NO_UPDATE, batch.inputs)
        for part in self._parts:
            own, draws = ({n: x[part] for n, x in tensors.items()} for tensors in (weights, noise))
            ahead = {name: buffer[part].clone() for name, buffer in own_buffers.items()}
            self._stack.forward(batch.inputs[part], own, training=True, noise=draws, buffers=ahead)
            for name, buffer in ahead.items():
                held[name][part] = buffer
        return {name: buffer[: self.width] for name, buffer in held.items()}

    def _state(self, params: Tensors, buffers: Tensors | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return all weights and buffers, of a lone run twice."""
        both = {**self.params, **params}, {**self.buffers, **(buffers or {})}
        weights, own = ({n: self._wide(x, n) for n, x in tensors.items()} for tensors in both)
        return weights, own

    def _batches(self, examples: Examples) -> Iterator[Batch]:
        """Yield the pieces, of a lone run twice."""
        for batch in examples.batches:
            yield batch.by_runs(lambda own: self._wide(own, "the examples"))

    def _wide(self, tensor: Tensor, what: str) -> Tensor:
        if len(tensor) != self.width:
            raise ValueError(f"{what} are of {len(tensor)} runs, the networks of {self.width}")
        return widen(tensor, self._stack.width)

    def _outputs(self, params: Tensors, buffers: Tensors, inputs: Tensor, training: bool = False) -> Tensor:
        """Return outputs (S, B, ...) in evaluation mode, or of a training pass, part by part."""
        noise = self._stack.noise_of(NO_UPDATE, inputs) if training else {}
        found = []
        for part, fresh in zip(self._parts, self._fresh, strict=True):
            weights, own, draws = (
                {n: x[part] for n, x in tensors.items()} for tensors in (params, buffers, noise)
            )
            if training:
                own = {name: buffer.clone() for name, buffer in own.items()}
            found.append(
                self._stack.forward(inputs[part], weights, training=training, noise=draws, buffers=own)[fresh]
            )
        return torch.cat(found).to(self._loss.dtype)


def stacked(
    recipe: Recipe,
    streams: Sequence[Streams],
    weights: Iterable[Mapping[str, np.ndarray]],
    device: str,
    threads: int,
    width: int,
    compiled: bool = False,
) -> Stacked:
    """Put networks of an ensemble's runs side by side.

    Args:
        recipe: Of the ensemble.
        streams: The runs', length S.
        weights: The runs', one after another.
        device: `cpu`, `cuda`, `cuda:N` or `auto`.
        threads: Of the CPU.
        width: Most runs that go through the networks at once.
        compiled: Whether the runs' rows were evaluated in compiled code.

    Raises:
        ConfigError: The device is not there.
        StoreError: Weights are not of this network.
    """
    where = torch.device(
        resolve_device(device, torch.cuda.device_count() if torch.cuda.is_available() else 0)
    )
    first, scratch = build_networks(recipe.make, [streams[0]] * 2)
    least = 1 if getattr(first, "run_by_run", False) else LEAST_WIDTH
    beside = [streams[-1]] * (least - len(streams))
    stack = Stack([first] * (len(streams) + len(beside)), [*streams, *beside], where)
    held = {**stack.params, **stack.buffers}
    for place, (stream, own) in enumerate(zip(streams, weights, strict=True)):
        if place and tensors_of(scratch).keys() - own.keys():
            # Checkpoints of before lack what is drawn at the beginning and torch would not store.
            (scratch,) = build_networks(recipe.make, [stream])
        restore_arrays(scratch, own)
        with torch.no_grad():
            for name, tensor in tensors_of(scratch).items():
                held[name][place if place + 1 < len(streams) else slice(place, None)] = tensor.to(where)
    return Stacked(recipe, stack, streams, threads, width, compiled)


def drawn(
    recipe: Recipe, streams: Sequence[Streams], split: str, most: int | None, device: torch.device
) -> Iterator[Batch]:
    """Yield the examples of some runs in pieces, as many as are evaluated or `most` of each run."""
    yield from _data(recipe, streams, most, device).eval_batches(split)


def _data(recipe: Recipe, streams: Sequence[Streams], most: int | None, device: torch.device) -> TaskData:
    config = recipe.config
    size = config.train.batch_size
    data = recipe.task.data(
        streams,
        batch_size=None if size == "full" else int(size),
        eval_size=config.eval.size if most is None else most,
        device=device,
    )
    fewer = config.most_evaluated if most is None else None
    return Fewer(data, fewer) if fewer else data
