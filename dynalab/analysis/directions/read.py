"""Paths of the parts of a run from its stored weights, without holding them.

Weights are gone through in blocks of parameters, of which all rows are in memory at once: norms first, then unit
vectors, which need the norms of whole parts, and inner products between the chosen rows. A network whose rows all fit
into one block is read once. What is found of tensors adds up to layers, kinds and the whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dynalab.analysis.base import Run
from dynalab.analysis.directions.path import NORMS, Path, choose, norms, summed_units
from dynalab.core.weights import Parts

# Numbers of a block: 32 MB in float64, of which three are held. PyTorch alone is half a gigabyte.
BLOCK = 1 << 22

# `whole`, `layer` or `kind`, and its name.
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


@dataclass(frozen=True)
class Paths:
    """The paths of a run, and the steps of their rows."""

    steps: np.ndarray  # shape (n,)
    chosen: np.ndarray  # places of those that maps are of, shape (m,)
    whole: Path
    layers: Mapping[str, Path]
    kinds: Mapping[str, Path]


def paths_of(run: Run, shapes: Shapes, most: int, wanted: Callable[[str], bool] = lambda part: True) -> Paths:
    """Return the paths of a run's weights, up to where they are no longer finite.

    Args:
        run: The run; weights of it were kept at two steps at least.
        shapes: Of its network.
        most: Rows that inner products are taken between.
        wanted: Whether a layer or kind of a name is looked at.
    """
    steps = run.weights.grid
    tables = _Tables(run, steps, shapes.sizes)
    of = {
        name: [("whole", ""), *filter(lambda part: wanted(part[1]), shapes.parts(name))]
        for name in shapes.sizes
    }
    sums: dict[Part, dict[str, Any]] = {part: {"size": 0} for parts in of.values() for part in parts}

    def add(name: str, some: Mapping[str, Any]) -> None:
        for part in of[name]:
            for key, value in some.items():
                sums[part][key] = sums[part].get(key, 0) + value

    # What is not finite is cut off below.
    with np.errstate(all="ignore"):
        for name, rows in tables.pieces():
            add(name, {"size": rows.shape[1], **norms(rows)})
    bad = np.flatnonzero(~np.isfinite(sums["whole", ""]["squares"]))
    n = int(bad[0]) if len(bad) else len(steps)
    for found in sums.values():
        found |= {key: found[key][: n - less] for key, less in NORMS.items()}
    chosen = choose(n, most)
    for name, rows in tables.pieces(n):
        away = rows - rows[0]
        picked = away[chosen]
        add(name, {"gram": picked @ picked.T})
        for part in of[name]:
            own = sums[part]
            for key, table, squares in (("units", rows, "squares"), ("relative_units", away, "moved")):
                own[key] = own.get(key, 0) + summed_units(table, own[squares])
    paths = {part: Path(chosen=chosen, **found) for part, found in sums.items()}
    layers, kinds = (
        {name: path for (kind, name), path in paths.items() if kind == of} for of in ("layer", "kind")
    )
    return Paths(np.array(steps[:n]), chosen, paths["whole", ""], layers, kinds)


class _Tables:
    """The rows of a run's weights, in blocks of parameters; a single block is read once."""

    def __init__(self, run: Run, steps: Sequence[int], sizes: Mapping[str, tuple[int, int]]) -> None:
        self._run, self._steps, self._sizes = run, steps, sizes
        self._blocks = list(blocks_of(sizes, max(BLOCK // len(steps), 1)))
        self._held = self._read(self._blocks[0]) if len(self._blocks) == 1 else None

    def pieces(self, n: int | None = None) -> Iterator[tuple[str, np.ndarray]]:
        """Yield tensors, or pieces of them, with their first n rows in float64, (n, b)."""
        for block in self._blocks:
            table, at = self._read(block) if self._held is None else self._held, 0
            for name, rows in block.items():
                width = (rows.stop - rows.start) * self._sizes[name][1]
                yield name, table[:n, at : at + width]
                at += width

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
