"""Examples of a sparse parity: drawn bit by bit, and fresh batches prepared a block of steps at a time.

Bits come from NumPy's generators of each run's streams, whatever the device, so a run sees the same examples on a
CPU and on CUDA.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dynalab.core.batch import Batch, Bits
from dynalab.core.devices import to_device
from dynalab.core.streams import Streams
from dynalab.tasks.ahead import Ahead
from dynalab.tasks.fixed import CHUNK, chunks

if TYPE_CHECKING:
    from dynalab.tasks.parity import Config

# Numbers of one run that are drawn at once, and the most steps that they serve. Which generator an example comes
# from follows from them, so they may depend on the sizes of one run but never on the number of runs.
BLOCK_ENTRIES = 1 << 16
BLOCK_STEPS = 256
# Bytes behind the bits, so that whole words can be read.
PADDING = 8
# The numbers that the bits of a byte stand for, the first of which is its highest: 0 is +1, 1 is -1.
_SIGNS = 1 - 2 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).astype(np.float32)


def draw_bits(generator: np.random.Generator, count: int, n: int) -> np.ndarray:
    """Draw fair bits, shape (count, n), uint8; the first rows do not depend on how many are drawn."""
    packed = np.frombuffer(generator.bytes(-(-count * n // 8)), dtype=np.uint8)
    return np.unpackbits(packed, count=count * n).reshape(count, n)


def examples(
    bits: Sequence[np.ndarray], k: int, device: torch.device, flips: Sequence[np.ndarray] | None = None
) -> Batch:
    """Turn bits (N, n) of S runs into inputs (S, N, n) and targets (S, N), float32.

    A bit of 0 is +1, one of 1 is -1, and the label the product of the first k; `flips` (N,) of each run says which
    labels are turned over.
    """
    odd = np.stack([functools.reduce(np.bitwise_xor, rows.T[:k]) for rows in bits])
    if flips is not None:
        odd = odd ^ np.stack(flips)
    # Bits go to the device, and are 1 - 2 b there while numbers are a byte long.
    parts = (to_device(torch.from_numpy(part), device).view(torch.int8) for part in (np.stack(bits), odd))
    packed = np.stack([np.pad(np.packbits(rows), (0, PADDING)) for rows in bits])
    turned = None if flips is None else torch.from_numpy(np.stack(flips)).to(torch.bool)
    own = Bits(torch.from_numpy(packed), odd.shape[1], bits[0].shape[1], k, flips=turned)
    return Batch(*((1 - 2 * part).to(torch.float32) for part in parts), bits=own)


def random_bytes(streams: Sequence[Streams], name: str, key: int, size: int) -> np.ndarray:
    """Return bytes that a draw of a stream of every run gives, (S, size + PADDING)."""
    out = np.zeros((len(streams), size + PADDING), np.uint8)
    for own, stream in zip(out, streams, strict=True):
        own[:size] = np.frombuffer(stream.numpy(name, key).bytes(size), np.uint8)
    return out


class FreshData:
    """Batches that never repeat; implements `dynalab.tasks.base.TaskData`.

    Block b of a run, a few dozen steps (`block`), comes from the draw `order`, b of its streams and its label noise
    from `noise`, b; one block is held. So memory does not grow with the number of steps, and a batch is a function of
    the step alone.

    Attributes:
        block: Steps that a draw serves.
        random_bytes: As the function of this name.
    """

    def __init__(
        self,
        streams: Sequence[Streams],
        train: Batch,
        test: Batch,
        config: Config,
        batch_size: int,
        device: torch.device,
    ) -> None:
        """Keep what batches are made of, and what is evaluated: `train` stands for the training distribution."""
        self.block = max(1, min(BLOCK_STEPS, BLOCK_ENTRIES // (batch_size * config.n)))
        self._streams = list(streams)
        self._n, self._k, self._batch_size = config.n, config.k, batch_size
        self._noise, self._device = config.label_noise, device
        self._eval = {"train": chunks(train, None, CHUNK), "test": chunks(test, None, CHUNK)}
        self.random_bytes = random_bytes
        self._held, self._batches = -1, list[Batch]()
        self._held_bits, self._bits = -1, train.bits
        # A card unpacks bits as fast as it reads them, and the way there is narrow.
        self._packed = Ahead(self._draw_packed, device, self._unpacked) if device.type == "cuda" else None

    def train_batch(self, step: int) -> Batch:
        """Return the batch of the update `step` -> `step + 1`."""
        block, place = divmod(step, self.block)
        if self._packed is not None:
            inputs, targets = self._packed.block(block)
            return Batch(inputs[place], targets[place])
        if block != self._held:
            self._batches = [*map(Batch, *self._draw(block))]
            self._held = block
        return self._batches[place]

    def train_bits(self, step: int, count: int) -> Sequence[Bits]:
        """Return the batches of the next `count` updates from a step on, on a CPU."""
        found = []
        while count:
            block, place = divmod(step, self.block)
            if block != self._held_bits:
                self._held_bits, self._bits = block, self._drawn_bits(block)
            assert self._bits is not None
            among, rows = min(count, self.block - place), place * self._batch_size
            flips = self._bits.flips
            flips = None if flips is None else flips[:, rows : rows + among * self._batch_size]
            found.append(replace(self._bits, first=rows * self._n, count=among, flips=flips))
            step, count = step + among, count - among
        return found

    def eval_batches(self, split: str) -> Sequence[Batch]:
        """Return the examples of `train` or `test` in chunks, the same objects at every call."""
        return self._eval[split]

    def _drawn_bits(self, block: int) -> Bits:
        """Draw a block, eight bits a byte, and where there is label noise flips."""
        size = -(-self.block * self._batch_size * self._n // 8)
        packed = torch.from_numpy(self.random_bytes(self._streams, "order", block, size))
        flips = torch.from_numpy(np.stack(self._flips(block))) if self._noise else None
        return Bits(packed, self._batch_size, self._n, self._k, flips=flips)

    def _flips(self, block: int) -> list[np.ndarray]:
        """Draw which labels of every run are turned over."""
        count = self.block * self._batch_size
        return [stream.numpy("noise", block).random(count) < self._noise for stream in self._streams]

    def _draw(self, block: int) -> tuple[Tensor, Tensor]:
        """Return the inputs, (steps, S, B, n), and the targets, (steps, S, B), of a block."""
        count = self.block * self._batch_size
        inputs = np.empty((len(self._streams), count * self._n), np.float32)
        for own, stream in zip(inputs, self._streams, strict=True):
            packed = np.frombuffer(stream.numpy("order", block).bytes(-(-own.size // 8)), np.uint8)
            # One run at a time, while its numbers are in the cache, and written once.
            whole = own[: own.size // 8 * 8].reshape(-1, 8)
            np.take(_SIGNS, packed[: len(whole)], axis=0, out=whole, mode="clip")
            own[whole.size :] = _SIGNS[packed[-1]][: own.size - whole.size]
        rows = inputs.reshape(-1, count, self._n)
        targets = functools.reduce(
            np.multiply, (rows[:, :, place] for place in range(1, self._k)), rows[:, :, 0].copy()
        )
        if self._noise:
            np.negative(targets, out=targets, where=np.stack(self._flips(block)))
        # A run's batch is one piece of memory.
        shape = (len(self._streams), self.block, self._batch_size)
        drawn = torch.from_numpy(rows).view(*shape, self._n), torch.from_numpy(targets).view(shape)
        return drawn[0].transpose(0, 1), drawn[1].transpose(0, 1)

    def _draw_packed(self, block: int) -> list[Tensor]:
        """Draw a block, on the host: bits, eight a byte, (S, bytes), and where there is label noise flips (S, N)."""
        drawn = self._drawn_bits(block)
        return [drawn.packed] if drawn.flips is None else [drawn.packed, drawn.flips]

    def _unpacked(self, drawn: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return of what `_draw_packed` drew what `_draw` returns."""
        packed, *flips = drawn
        shape = (len(packed), self.block, self._batch_size)
        # The first bit of a byte is its highest.
        places = torch.arange(7, -1, -1, dtype=torch.uint8, device=packed.device)
        bits = (packed[:, :, None] >> places & 1).flatten(1)[:, : self.block * self._batch_size * self._n]
        bits = bits.view(*shape, self._n).transpose(0, 1)
        odd = bits[..., : self._k].sum(3) & 1
        for flipped in flips:
            odd = odd ^ flipped.view(shape).transpose(0, 1)
        inputs, targets = ((1 - 2 * part.to(torch.float32)).contiguous() for part in (bits, odd))
        return inputs, targets
