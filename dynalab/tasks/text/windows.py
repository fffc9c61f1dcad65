"""Batches of masked text: windows of fixed length, drawn anew for every update and every seed.

A training batch is B windows at uniform places of the training text (so there are no epochs, and memory does
not grow with the corpus), from the `order` stream; its masks come from the `noise` stream. Both are drawn for
blocks of updates at once, keyed by the block, so a batch is a function of the seed and the step alone.

Evaluated are fixed sequences, laid end to end over each part of the text and the same for all seeds, with masks that
are fixed for a seed, from its `noise` stream.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dynalab.core.batch import Batch
from dynalab.core.streams import Streams
from dynalab.tasks.ahead import Ahead
from dynalab.tasks.fixed import chunks
from dynalab.tasks.text import masking
from dynalab.tasks.text.encoding import SPLITS, Tokens

# Updates that are drawn at once. Part of what a seed means: never to be changed.
BLOCK = 16
# Keys of the draws in the stream `noise`, apart from those of the network's dropout.
_TRAIN_MASKS, _EVAL_MASKS = 0x6D61736B, 0x6576616C
# Sequences of one seed that are evaluated at once; must not depend on S, since sums over other chunks have other bits.
CHUNK = 64


class Windows:
    """The masked text of the S runs of one shard; implements `dynalab.tasks.base.TaskData`."""

    def __init__(
        self,
        tokens: Tokens,
        streams: Sequence[Streams],
        length: int,
        masked: int,
        batch_size: int | None,
        eval_size: int | None,
        device: torch.device,
    ) -> None:
        """Keep the text and prepare evaluation.

        Args:
            tokens: The corpus.
            streams: The runs' random streams, length S.
            length: Tokens of a sequence, L.
            masked: Places of a sequence that are predicted, M.
            batch_size: Sequences a batch, B; None is every sequence of the training text, with new masks at each step.
            eval_size: Most sequences that are evaluated of each part, evenly spread over it; None is all.
            device: Where batches go.
        """
        self._tokens, self._streams, self._device = tokens, list(streams), device
        self._length, self._masked, self._batch_size = length, masked, batch_size
        # A full batch is large enough to be drawn alone.
        self._together = BLOCK if batch_size else 1
        self._drawn = Ahead(self._draw, device)
        self._eval = {split: self._evaluated(split, eval_size) for split in SPLITS}

    def train_batch(self, step: int) -> Batch:
        """Return the batch of the update `step` -> `step + 1`: inputs (S, B, L + M), targets (S, B, M)."""
        block, place = divmod(step, self._together)
        inputs, targets = self._drawn.block(block)
        return Batch(inputs[:, place], targets[:, place])

    def eval_batches(self, split: str) -> Sequence[Batch]:
        """Return the fixed sequences of `train` or `test`, the same objects at every call."""
        return self._eval[split]

    def _draw(self, block: int) -> tuple[Tensor, Tensor]:
        """Draw a block of updates, on the host: inputs (S, K, B, L + M) and targets (S, K, B, M)."""
        found = []
        for stream in self._streams:
            if self._batch_size is None:
                starts = self._starts("train", None)[None]
            else:
                last = len(self._tokens.train) - self._length
                order = stream.numpy("order", block)
                starts = order.integers(last, size=(self._together, self._batch_size), endpoint=True)
            generator = stream.numpy("noise", _TRAIN_MASKS, block)
            found.append(self._masks(generator, self._windows("train", starts)))
        return self._stacked(found)

    def _evaluated(self, split: str, size: int | None) -> list[Batch]:
        sequences = self._windows(split, self._starts(split, size))
        key = SPLITS.index(split)
        found = [self._masks(stream.numpy("noise", _EVAL_MASKS, key), sequences) for stream in self._streams]
        inputs, targets = (tensor.to(self._device) for tensor in self._stacked(found))
        pieces = chunks(Batch(inputs, targets), None, CHUNK)
        return [Batch(piece.inputs.contiguous(), piece.targets.contiguous()) for piece in pieces]

    def _starts(self, split: str, size: int | None) -> np.ndarray:
        """Return where sequences laid end to end begin; of more than `size`, that many, evenly spread."""
        count = len(self._tokens.part(split)) // self._length
        chosen = count if size is None else min(size, count)
        return np.arange(chosen) * count // chosen * self._length

    def _windows(self, split: str, starts: np.ndarray) -> np.ndarray:
        """Return the sequences (..., L) that begin at `starts` (...)."""
        return self._tokens.part(split)[starts[..., None] + np.arange(self._length)]

    def _masks(self, generator: np.random.Generator, sequences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mask = self._tokens.vocabulary.mask
        masks = masking.draw(generator, sequences.shape[:-1], self._length, self._masked, mask)
        return masking.apply(sequences, masks)

    def _stacked(self, found: list[tuple[np.ndarray, np.ndarray]]) -> tuple[Tensor, Tensor]:
        inputs, targets = (torch.from_numpy(np.stack(arrays)) for arrays in zip(*found, strict=True))
        return inputs, targets
