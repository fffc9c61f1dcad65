"""Data sets whose examples are fixed for a run: full batches, or mini-batches in an order drawn every epoch.

The order of epoch e comes from the draw `order`, e of each run's streams, so a batch is a function of the
step alone and a resumed run meets the batches that it would have met.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from dynalab.core.batch import Batch
from dynalab.core.streams import Streams
from dynalab.tasks.ahead import Ahead

# Rows of one seed that are evaluated at once. The number must not depend on S, because sums taken over other
# chunks have other bits; 1024 keeps four to twenty small seeds within the few megabytes where evaluation is
# fastest.
CHUNK = 1024


class FixedData:
    """The examples of the S runs of one shard; implements `dynalab.tasks.base.TaskData`.

    Runs that share their examples may pass expanded tensors (stride 0 over the seeds): nothing here copies a
    whole set.

    Attributes:
        train: The training examples, inputs (S, N, ...) and targets (S, N, ...).
        test: The held-out examples, likewise.
        batches_per_epoch: Updates in one pass over the training examples.
        full_batch: Whether every update's batch is exactly what evaluation of `train` walks through.
    """

    def __init__(
        self,
        train: Batch,
        test: Batch,
        streams: Sequence[Streams],
        batch_size: int | None = None,
        eval_size: int | None = None,
        chunk: int = CHUNK,
    ) -> None:
        """Keep the examples of a shard.

        Args:
            train: Training examples of every run, on their device.
            test: Held-out examples of every run.
            streams: The runs' random streams, length S.
            batch_size: Examples a batch; None, or at least the size of the set, is the full set in its own order.
            eval_size: Evaluate only the first so many examples of each split; None is all.
            chunk: Most examples of one run in one batch of evaluation.
        """
        self.train, self.test = train, test
        self._streams, self._size = list(streams), train.size
        self._batch_size = self._size if batch_size is None else min(batch_size, self._size)
        self.batches_per_epoch = -(-self._size // self._batch_size)
        self.full_batch = self._batch_size == self._size and (eval_size is None or eval_size >= self._size)
        self._eval = {"train": chunks(train, eval_size, chunk), "test": chunks(test, eval_size, chunk)}
        self._orders = Ahead(self._draw, train.targets.device)
        self._rows = torch.arange(len(self._streams), device=train.targets.device)[:, None]

    def train_batch(self, step: int) -> Batch:
        """Return the batch of the update `step` -> `step + 1`.

        The full batch is the same object at every step, so a caller may keep what it derives from it.
        """
        if self._batch_size == self._size:
            return self.train
        epoch, place = divmod(step, self.batches_per_epoch)
        (order,) = self._orders.block(epoch)
        chosen = order[:, place * self._batch_size : (place + 1) * self._batch_size]
        return Batch(self.train.inputs[self._rows, chosen], self.train.targets[self._rows, chosen])

    def eval_batches(self, split: str) -> Sequence[Batch]:
        """Return the examples of `train` or `test` in chunks, the same objects at every call."""
        return self._eval[split]

    def _draw(self, epoch: int) -> list[Tensor]:
        """Draw the order of every run in one epoch, shape (S, N), on the host."""
        drawn = [torch.from_numpy(s.numpy("order", epoch).permutation(self._size)) for s in self._streams]
        return [torch.stack(drawn)]


def chunks(examples: Batch, size: int | None, chunk: int) -> list[Batch]:
    """Cut the first `size` examples of every run into few even pieces of at most `chunk`, views of them in order.

    Inputs have shape (S, N, ...), targets (S, N, ...); a size of None is all.
    """
    n = examples.size if size is None else min(size, examples.size)
    pieces = -(-n // chunk)
    edges = [n * i // pieces for i in range(pieces + 1)] if pieces else []
    return [examples.part(first, last) for first, last in pairwise(edges)]
