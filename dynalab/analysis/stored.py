"""The stored weights of a run as tables of steps by weights, a block of weights at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dynalab.analysis.base import Run
from dynalab.core.weights import Parts

# Numbers of a block: 32 MB in float64, of which three are held. PyTorch alone is half a gigabyte.
BLOCK = 1 << 22

# `layer` or `kind`, and its name.
Part = tuple[str, str]


@dataclass(frozen=True)
class Shapes:
    """The tensors of a network, and the parts that they belong to.

    Attributes:
        sizes: Tensor -> its rows along the first axis, and the numbers in each.
        layers: Layer -> its tensors.
        kinds: Kind of parameter -> its tensors.
        known: Whether a network says which tensors are parameters; otherwise all that are floating-point are taken.
    """

    sizes: Mapping[str, tuple[int, int]]
    layers: Parts
    kinds: Parts
    known: bool = True

    @classmethod
    def of(cls, run: Run) -> Shapes:
        """Return those of a run that has weights."""
        from dynalab.models.describe import grouped, kinds_of, layers_of

        step = run.weights.grid[0]
        weights, parts = run.weights.at(step), run.weights.parts()
        layers: Parts
        kinds: Parts
        if run.learner is not None:
            network = run.learner.network(weights)
            layers, kinds = layers_of(network), kinds_of(network)
        elif parts is not None:
            layers, kinds = parts
        else:
            names = [name for name, x in weights.items() if np.issubdtype(x.dtype, np.floating)]
            layers = grouped((name, name.rpartition(".")[0] or name) for name in names)
            kinds = grouped((name, name.rpartition(".")[2]) for name in names)
        names = [name for members in layers.values() for name in members]
        sizes = {name: _size(weights[name].shape) for name in names}
        return cls(sizes, layers, kinds, run.learner is not None or parts is not None)

    def parts(self, name: str) -> Iterator[Part]:
        """Yield the layer and the kind that a tensor belongs to."""
        for of, parts in (("layer", self.layers), ("kind", self.kinds)):
            yield from ((of, part) for part, members in parts.items() if name in members)


def _size(shape: tuple[int, ...]) -> tuple[int, int]:
    return (shape[0], math.prod(shape[1:])) if shape else (1, 1)


class Tables:
    """The rows of a run's weights, in blocks of parameters; a single block is read once."""

    def __init__(self, run: Run, steps: Sequence[int], sizes: Mapping[str, tuple[int, int]]) -> None:
        self._run, self._steps, self._sizes = run, steps, sizes
        self._blocks = list(blocks_of(sizes, max(BLOCK // len(steps), 1)))
        self._held = self._read(self._blocks[0]) if len(self._blocks) == 1 else None

    def pieces(self, n: int | None = None) -> Iterator[tuple[str, np.ndarray]]:
        """Yield tensors, or pieces of them, with their first n rows in float64, (n, b)."""
        for table, tensors in self.blocks(n):
            yield from ((name, table[:, columns]) for name, columns in tensors)

    def blocks(self, n: int | None = None) -> Iterator[tuple[np.ndarray, list[tuple[str, slice]]]]:
        """Yield blocks of the first n rows, float64, (n, b), in the weights' order, and which columns are whose."""
        for block in self._blocks:
            ends = np.cumsum(
                [(rows.stop - rows.start) * self._sizes[name][1] for name, rows in block.items()]
            )
            begins = [0, *ends[:-1]]
            columns = [slice(*ends) for ends in zip(begins, ends, strict=True)]
            table = self._read(block) if self._held is None else self._held
            yield table[:n], list(zip(block, columns, strict=True))

    def _read(self, block: Mapping[str, slice]) -> np.ndarray:
        width = sum((rows.stop - rows.start) * self._sizes[name][1] for name, rows in block.items())
        table = np.empty((len(self._steps), width))
        for row, step in zip(table, self._steps, strict=True):
            own = self._run.weights.rows(step, block)
            np.concatenate([own[name].ravel() for name in block], out=row, casting="same_kind")
        return table


def blocks_of(sizes: Mapping[str, tuple[int, int]], most: int) -> Iterator[dict[str, slice]]:
    """Yield blocks, tensor -> rows along its first axis, of at most so many numbers where rows allow that."""
    block: dict[str, slice] = {}
    left = most
    for name, (rows, width) in sizes.items():
        first = 0
        while first < rows:
            fit = min(left // max(width, 1), rows - first)
            if fit < 1 and block:
                yield block
                block, left = {}, most
                continue
            last = first + max(fit, 1)
            block[name] = slice(first, last)
            left -= (last - first) * width
            first = last
    if block:
        yield block
