"""The outputs of S runs on all pairs of places of a circle, by their sum, and losses without some of their frequencies.

Each run's numbers come from tensors of its own size, so they do not depend on S.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dynalab.core.batch import Batch
from dynalab.probes.frequencies import Floats, Sums
from dynalab.tasks.operations import Cyclic

# Pairs of one run that go through the networks at once, as in evaluation; whole sums, so one sum at least.
CHUNK = 1024

# Pairs of symbols (S, B, 2) to outputs (S, B, C).
Forward = Callable[[Tensor], Tensor]
# Outputs (S, B, C) of a batch to losses (S,).
Loss = Callable[[Tensor, Batch], Tensor]


@dataclass(frozen=True)
class Circle:
    """An operation as addition on a circle of n places; its symbols are p, those without a place (0) among them.

    Attributes:
        pairs: Symbols of all pairs of places, shape (n * n, 2): those of sum 0 first, then those of sum 1.
        classes: The class at every place, shape (n,).
        sums: The sum's place of every pair of symbols, shape (p, p); n where one of them has no place.
    """

    pairs: Tensor
    classes: Tensor
    sums: Tensor

    @classmethod
    def of(cls, places: Cyclic, device: torch.device) -> Circle:
        """Lay out an operation on a device."""
        n, p = len(places.results), int(places.results.max()) + 1
        total, first = np.divmod(np.arange(n * n), n)
        left, right = places.left[first], places.right[(total - first) % n]
        sums = np.full((p, p), n)
        sums[left, right] = total
        tensors = (np.stack([left, right], axis=1), places.results, sums)
        return cls(*(torch.as_tensor(array, device=device) for array in tensors))

    def outputs(self, forward: Forward, runs: int) -> list[Sums]:
        """Return the outputs of S runs, each by sum; no more than a piece of the pairs is in memory."""
        n = len(self.classes)
        means: list[list[Tensor]] = [[] for _ in range(runs)]
        squares: list[list[Tensor]] = [[] for _ in range(runs)]
        for piece in self.pairs.split(max(CHUNK // n, 1) * n):
            for run, own in enumerate(forward(piece.expand(runs, -1, -1))):
                values = own[:, self.classes].to(torch.float64).view(-1, n, n)
                means[run].append(values.mean(1))
                squares[run].append((values - values.mean(2, keepdim=True)).square().sum())
        # A card is waited for once, not at every run.
        whole = torch.stack([torch.cat(mean) for mean in means]).cpu().numpy()
        totals = torch.stack([torch.stack(square).sum() for square in squares]).tolist()
        return [Sums(mean, total) for mean, total in zip(whole, totals, strict=True)]

    def restricted(self, loss: Loss, found: Sequence[Sums], parts: Sequence[Floats]) -> NDArray[np.float64]:
        """Return the losses (S,) on all pairs of outputs that are their means over pairs and some parts (n, n).

        They depend on the sum alone, so a pair of each sum stands for all.
        """
        n = len(self.classes)
        batch = Batch(self.pairs[None, ::n], torch.arange(n, device=self.classes.device)[None])
        tables = np.stack([one.means.mean(0) + part for one, part in zip(found, parts, strict=True)])
        rows = torch.as_tensor(tables, device=batch.targets.device)
        return _on_host([loss(table[None], batch) for table in rows])

    def excluded(
        self, loss: Loss, forward: Forward, parts: Sequence[Floats], batches: Iterable[Batch]
    ) -> NDArray[np.float64]:
        """Return the mean losses (S,) over examples of outputs less some parts (n, n).

        Examples whose symbols have no place keep their outputs.
        """
        device, n, p = self.classes.device, len(self.classes), len(self.sums)
        tables = torch.zeros(len(parts), n + 1, p, dtype=torch.float64, device=device)
        tables[:, :n, self.classes] = torch.as_tensor(np.stack(parts), device=device)
        losses, sizes = list[Tensor](), list[int]()
        for batch in batches:
            outputs = forward(batch.inputs)
            for run, (own, table) in enumerate(zip(outputs, tables, strict=True)):
                a, b = batch.inputs[run].unbind(1)
                left = own[:, :p].to(torch.float64) - table[self.sums[a, b]]
                one = Batch(batch.inputs[run : run + 1], batch.targets[run : run + 1])
                losses.append(loss(left[None], one))
            sizes.append(batch.size)
        totals = np.zeros(len(parts))
        for own, size in zip(_on_host(losses).reshape(len(sizes), len(parts)), sizes, strict=True):
            totals += own * size
        return totals / sum(sizes)


def _on_host(losses: Sequence[Tensor]) -> NDArray[np.float64]:
    """Return losses, each (1,), side by side; a card is waited for once."""
    return torch.cat([*losses]).to(torch.float64).cpu().numpy()
