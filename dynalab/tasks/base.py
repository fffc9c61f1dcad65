"""What a task is to the rest of dynalab.

A task module holds a configuration dataclass `Config` and `build(config) -> Task`, and says in `COLUMNS` what its loss
and metrics are. Importing the module imports no torch (the command line reads every task's `Config`); `build` runs in
the worker and may.

Every tensor that crosses this interface carries the seeds of a shard on axis 0 (S), since a shard trains its
seeds in lockstep. Nothing may reduce over that axis: a seed's numbers must not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from dynalab.core.batch import Batch as Batch
from dynalab.core.batch import Bits
from dynalab.core.batch import InputSpec as InputSpec
from dynalab.core.columns import Column as Column
from dynalab.core.columns import Columns as Columns

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn

    from dynalab.core.streams import Streams


def counted(task: object, batch: Batch) -> int | Tensor:
    """Return what a task's loss and metrics of a batch are means over, which is their weight among other batches.

    Returns:
        The number of examples, or of each run what the task itself says, shape (S,).
    """
    own = getattr(task, "counted", None)
    return batch.size if own is None else own(batch)


class TaskData(Protocol):
    """The examples of the S runs of one shard, on their device.

    One that says `full_batch = True` promises that every `train_batch` is what `eval_batches("train")` walks through,
    so that one pass through the networks serves an evaluation and the update after it.
    """

    def train_batch(self, step: int) -> Batch:
        """Return the batch of the update `step` -> `step + 1`; a function of the step alone, so resume is exact."""
        ...

    def eval_batches(self, split: str) -> Sequence[Batch]:
        """Return the held-out or training examples that evaluation walks through.

        Args:
            split: `train` or `test`.
        """
        ...


@dataclass(frozen=True)
class First:
    """The first `examples` of batches that are another's."""

    data: TaskData
    examples: int

    def train_batch(self, step: int) -> Batch:
        """Return the beginning of the batch of an update."""
        return self._first(self.data.train_batch(step))

    def eval_batches(self, split: str) -> Sequence[Batch]:
        """Return the beginning of the first batch of a split."""
        return [self._first(batch) for batch in self.data.eval_batches(split)[:1]]

    def _first(self, batch: Batch) -> Batch:
        return batch.part(0, self.examples)


@dataclass(frozen=True)
class Fewer:
    """Data of which the first `most` training examples of a run are evaluated, and no more."""

    data: TaskData
    most: int

    def train_batch(self, step: int) -> Batch:
        """Return the batch of an update, whole."""
        return self.data.train_batch(step)

    def eval_batches(self, split: str) -> Sequence[Batch]:
        """Return the examples of a split, of `train` the first."""
        batches = self.data.eval_batches(split)
        return batches if split != "train" else first(batches, self.most)


@runtime_checkable
class BitData(Protocol):
    """Data whose training batches are known as bits, on a CPU.

    Attributes:
        random_bytes: Draws of a stream of every run, by its name and a key, so many bytes: (S, bytes and more), uint8.
    """

    random_bytes: Callable[[Sequence[Streams], str, int, int], np.ndarray]

    def train_bits(self, step: int, count: int) -> Sequence[Bits]:
        """Return the batches of the next `count` updates from a step on."""
        ...


def bits_of(data: TaskData) -> BitData | None:
    """Return the data whose training batches these are, where they are known as bits."""
    while isinstance(data, Fewer):
        data = data.data
    return data if isinstance(data, BitData) else None


def first(batches: Sequence[Batch], examples: int) -> Sequence[Batch]:
    """Return the first so many examples of each run, in the batches that they are in.

    Batches that are made as they are asked for say so by a method `first` of their own.
    """
    if own := getattr(batches, "first", None):
        return own(examples)
    kept: list[Batch] = []
    for batch in batches:
        if examples <= 0:
            break
        kept.append(batch.part(0, examples))
        examples -= batch.size
    return kept


@runtime_checkable
class Task(Protocol):
    """What is learnt: data, loss and metrics (and, if it likes, a model of its own)."""

    spec: InputSpec

    def data(
        self,
        streams: Sequence[Streams],
        *,
        batch_size: int | None,
        eval_size: int | None,
        device: torch.device,
    ) -> TaskData:
        """Draw the data of every run of a shard.

        Args:
            streams: One set of named random streams a run, in shard order (length S).
            batch_size: Examples a batch, or None for the full training set.
            eval_size: Examples evaluated a split, or None for all of them.
            device: Where the tensors live.
        """
        ...

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return the mean loss of each run, shape (S,), from `outputs` of shape (S, B, ...).

        A mean over something else than the examples (tokens that are not padding) is said by an optional method
        `counted(batch)`: what `loss` and `metrics` of a batch are means over, each run's number, shape (S,).

        An optional method `loss_and_gradient(outputs, batch)` has updates differentiate by hand, where autograd costs
        more: the losses, the same to the bit, and the gradient of their sum by the outputs; None where it does not.
        """
        ...

    def metrics(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return further means over the batch, each of shape (S,); `accuracy` is the usual one.

        A task whose examples are each right or wrong may say which are, by an optional method
        `correct(outputs, batch)`: shape (S, B), bool; the probe `examples` follows them.
        """
        ...


@runtime_checkable
class OwnsModel(Protocol):
    """A task that brings its own network, chosen with `model=task`."""

    def model(self) -> nn.Module:
        """Build one run's network; called under that run's `init` stream."""
        ...


class TaskConfig(Protocol):
    """What a task's `Config` may offer beside its fields, all of it optional, without importing torch.

    Attributes:
        by_content: Fields that are paths; they stay out of the identity, `fingerprint` stands in for them.
    """

    by_content: ClassVar[tuple[str, ...]]

    def train_size(self) -> int | None:
        """Number of training examples of one run, or None where examples never repeat."""
        ...

    def image_shape(self) -> tuple[int, int, int]:
        """Return (channels, height, width) of an image, where examples are images."""
        ...

    def idle_streams(self, full: bool) -> dict[str, str]:
        """Return stream -> why, for the random streams that nothing is drawn from.

        Args:
            full: Whether every update takes the whole training set. The reason for `order` is known to the caller.
        """
        ...

    def in_words(self) -> dict[str, object]:
        """Return what a null means that stands for a value, by dotted key (`task.n_train`, `eval.size`)."""
        ...

    def fingerprint(self) -> dict[str, str]:
        """Content hashes of the user's files that decide the results; part of the identity."""
        ...

    def check_data(self) -> None:
        """Look for the data set before training starts.

        Raises:
            ConfigError: It is not there; says where it was looked for and how to get it.
        """
        ...
