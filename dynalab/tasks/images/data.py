"""The examples of S runs as places in images that they share: memory grows with the runs by indices alone."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dynalab.core.batch import Batch
from dynalab.core.streams import Streams
from dynalab.tasks.base import first
from dynalab.tasks.fixed import FixedData

Change = Callable[[Tensor, int], Tensor]
# Evaluated images of a split are kept where they take no more than so many bytes, of all runs.
KEPT_BYTES = 1 << 24


@dataclass(frozen=True)
class Part:
    """One split of every run.

    Attributes:
        pixels: The images that all runs draw from, shape (N, D), uint8.
        index: Which of them are each run's, shape (S, n); stride 0 over the runs where they have the same.
        labels: Shape (S, n), likewise.
        noise: What is added to each run's finished images, shape (S, n, D), or None.
    """

    pixels: Tensor
    index: Tensor
    labels: Tensor
    noise: Tensor | None = None

    def positions(self) -> Batch:
        """Return the split as a batch whose inputs are positions in it, 0 to n - 1; no run has a copy."""
        n = self.index.shape[1]
        return Batch(torch.arange(n, device=self.index.device).expand(len(self.index), n), self.labels)

    def gather(self, positions: Tensor) -> Tensor:
        """Return the images at positions (S, B), shape (S, B, D), uint8; one copy where the runs have the same."""
        if self.index.stride(0) == 0 and positions.stride(0) == 0:
            chosen = self.pixels.index_select(0, self.index[0].index_select(0, positions[0]))
            return chosen.expand(len(positions), *chosen.shape)
        places = self.index.gather(1, positions)
        return self.pixels.index_select(0, places.flatten()).view(*places.shape, -1)

    def noise_at(self, positions: Tensor) -> Tensor | None:
        """Return the noise at positions (S, B), shape (S, B, D), or None."""
        if self.noise is None:
            return None
        return self.noise[torch.arange(len(positions), device=positions.device)[:, None], positions]


class ImageData:
    """The images of the S runs of one shard; implements `dynalab.tasks.base.TaskData`.

    Which examples are in a batch, and in what order, is `FixedData`'s to say; it deals in positions here.
    """

    def __init__(
        self,
        train: Part,
        test: Part,
        scale: tuple[Tensor, Tensor],
        streams: Sequence[Streams],
        *,
        batch_size: int | None,
        eval_size: int | None,
        chunk: int,
        augment: Change | None = None,
    ) -> None:
        """Keep the parts; all tensors are on one device.

        Args:
            train: Training examples.
            test: Held-out examples.
            scale: (a, b), each of shape (D,): a finished image is a * pixels + b, float32.
            streams: The runs' random streams, length S.
            batch_size: Examples a batch; None is the full set.
            eval_size: Evaluate only the first so many examples of each split; None is all.
            chunk: Most examples of one run in one batch of evaluation.
            augment: Changes the pixels (S, B, D) of a training batch, given the step; None leaves them.
        """
        self._parts = {"train": train, "test": test}
        self._scale, self._augment = scale, augment
        self._batches = FixedData(
            train.positions(), test.positions(), streams, batch_size, eval_size, chunk=chunk
        )
        self.batches_per_epoch = self._batches.batches_per_epoch
        self._full: Batch | None = None
        self._eval = {
            split: _Chunks(self._batches.eval_batches(split), functools.partial(self._finished, split))
            for split in self._parts
        }

    def train_batch(self, step: int) -> Batch:
        """Return the batch of the update `step` -> `step + 1`; the same object for every full batch."""
        chosen = self._batches.train_batch(step)
        if chosen is not self._batches.train or self._augment is not None:
            return self._finished("train", chosen, step)
        if self._full is None:
            self._full = self._finished("train", chosen)
        return self._full

    def eval_batches(self, split: str) -> Sequence[Batch]:
        """Return the examples of `train` or `test` in chunks, each made when it is asked for unless all are few."""
        return self._eval[split]

    def _finished(self, split: str, chosen: Batch, step: int | None = None) -> Batch:
        """Return a batch of positions as a batch of images; `step` is given where they are to be augmented."""
        part = self._parts[split]
        pixels = part.gather(chosen.inputs)
        if step is not None and self._augment is not None:
            pixels = self._augment(pixels, step)
        factor, offset = self._scale
        shared = pixels.stride(0) == 0
        images = torch.addcmul(offset, (pixels[:1] if shared else pixels).to(factor.dtype), factor)
        images = images.expand(pixels.shape) if shared else images
        noise = part.noise_at(chosen.inputs)
        return Batch(images if noise is None else images + noise, chosen.targets)


class _Chunks(Sequence[Batch]):
    """Batches that are made one at a time, so that no split is ever whole in memory, unless it is small."""

    def __init__(self, chosen: Sequence[Batch], finish: Callable[[Batch], Batch]) -> None:
        self._chosen, self._finish = chosen, finish
        self._kept: list[Batch] | None = None
        self._first: dict[int, _Chunks] = {}

    def __len__(self) -> int:
        return len(self._chosen)

    def first(self, examples: int) -> _Chunks:
        """Return the first so many examples of each run: no others are made."""
        if examples not in self._first:
            self._first[examples] = _Chunks(first(self._chosen, examples), self._finish)
        return self._first[examples]

    def __getitem__(self, place):  # type: ignore[no-untyped-def]
        if isinstance(place, slice):
            return _Chunks(self._chosen[place], self._finish)
        return self._finish(self._chosen[place]) if self._kept is None else self._kept[place]

    def __iter__(self) -> Iterator[Batch]:
        if self._kept is not None:
            yield from self._kept
            return
        made: list[Batch] = []
        taken = 0
        for chosen in self._chosen:
            batch = self._finish(chosen)
            taken += batch.inputs.untyped_storage().nbytes()
            if taken <= KEPT_BYTES:
                made.append(batch)
            else:
                made.clear()
            yield batch
        if len(made) == len(self._chosen):
            self._kept = made
