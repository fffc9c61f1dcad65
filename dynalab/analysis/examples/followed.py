"""Which examples runs were tested on, and which of them they were right on, row by row."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dynalab.core.blocks import BlockRows
from dynalab.core.errors import NothingMatched, StoreError
from dynalab.core.progress import counted
from dynalab.core.runs import Run
from dynalab.core.words import count, steps_words, which_runs

BITS, SET = "examples", "examples_set"


@dataclass(frozen=True)
class Followed:
    """Runs whose held-out examples were followed.

    Attributes:
        runs: In order of their ids.
        steps: Of the rows of each.
        bits: Of each, its rows packed, (T, ceil(n/8)).
        places: Of each, where its n examples stand among the N that any run has, in its own order.
        size: N.
        left: Lines about what was left out.
    """

    runs: tuple[Run, ...]
    steps: tuple[np.ndarray, ...]
    bits: tuple[np.ndarray, ...]
    places: tuple[np.ndarray, ...]
    size: int
    left: tuple[str, ...] = ()

    @property
    def held(self) -> np.ndarray:
        """Which examples each run was tested on, shape (S, N), bool."""
        held = np.zeros((len(self.runs), self.size), bool)
        for row, places in zip(held, self.places, strict=True):
            row[places] = True
        return held

    @property
    def grid(self) -> np.ndarray:
        """The steps that some run has a row at, ascending."""
        return np.unique(np.concatenate(self.steps))

    def right(self, index: int) -> np.ndarray:
        """Return whether a run is right on its own examples, shape (T, n), bool."""
        return np.unpackbits(self.bits[index], axis=1, count=len(self.places[index])).view(bool)

    def at(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the places of the runs that have a row at a step, (S',), and where they are right, (S', N), bool."""
        there, rows = [], []
        for index, (steps, places) in enumerate(zip(self.steps, self.places, strict=True)):
            row = int(np.searchsorted(steps, step))
            if row < len(steps) and steps[row] == step:
                right = np.zeros(self.size, bool)
                right[places] = np.unpackbits(self.bits[index][row], count=len(places))
                there.append(index)
                rows.append(right)
        return np.array(there, dtype=np.int64), np.array(rows).reshape(len(rows), self.size)

    def holders(self) -> tuple[np.ndarray, np.ndarray]:
        """Return of every example the first run that was tested on it, and its place among that run's, both (N,)."""
        first, place = np.full(self.size, -1), np.full(self.size, -1)
        for index in reversed(range(len(self.runs))):
            first[self.places[index]] = index
            place[self.places[index]] = np.arange(len(self.places[index]))
        return first, place


def followed(runs: Sequence[Run]) -> Followed:
    """Read the blocks of the probe `examples`; where runs hold out different examples these are drawn again.

    Raises:
        NothingMatched: No run has a row, or which examples a run was tested on is not known.
        StoreError: The blocks do not fit each other.
    """
    kept, steps, bits, sets, without = [], [], [], [], []
    others: dict[str, list[int]] = {}
    for run in counted(sorted(runs, key=lambda run: run.id), "runs", "reading"):
        if not len(run.blocks.get(BITS, ())) or not len(run.blocks.get(SET, ())):
            without.append(run.id)
            continue
        rows, known = run.blocks[BITS], run.blocks[SET]
        if not _fit(rows, known):
            raise StoreError(f"{run.id}: its blocks {BITS} and {SET} do not fit each other")
        # After a fork that changed the split the examples are others.
        same = (known.values == known.values[-1]).all(1)
        if not same.all():
            others[run.id] = rows.steps[~same].tolist()
        kept.append(run)
        steps.append(rows.steps[same])
        bits.append(rows.values[same])
        sets.append(tuple(known.values[-1].tolist()))
    if not kept:
        raise NothingMatched("no run has a row of the probe examples up to there")
    left = []
    if without:
        left.append(f"{which_runs(without, len(runs))}: no rows of examples, left out")
    if others:
        lost = sorted({step for own in others.values() for step in own})
        left.append(
            f"{which_runs([*others], len(runs))}: {count(sum(map(len, others.values())), 'row')} left out, of other "
            f"held-out examples ({steps_words(lost)})"
        )
    places, size = _places(kept, sets)
    return Followed(tuple(kept), tuple(steps), tuple(bits), tuple(places), size, tuple(left))


def _fit(rows: BlockRows, known: BlockRows) -> bool:
    """Return whether blocks, which may be a stranger's, are bits of as many examples as there are said to be."""
    typed = rows.values.dtype == np.uint8 and known.values.dtype == np.int64
    if not typed or rows.values.ndim != 2 or known.values.shape != (len(rows), 2):
        return False
    n = int(known.values[-1, 1])
    return n > 0 and rows.values.shape[1] == -(-n // 8) and np.array_equal(rows.steps, known.steps)


def _places(runs: Sequence[Run], sets: Sequence[tuple[int, int]]) -> tuple[list[np.ndarray], int]:
    """Return where the examples of each run stand among those of all, and the number of these."""
    if len({*sets}) == 1:
        return [np.arange(sets[0][1])] * len(runs), sets[0][1]
    numbered: dict[tuple[bytes, int], int] = {}
    by_set: dict[tuple[int, int], np.ndarray] = {}
    for run, own in zip(counted(runs, "runs", "held-out examples"), sets, strict=True):
        if own not in by_set:
            names = _names(run, own[1])
            by_set[own] = np.array([numbered.setdefault(name, len(numbered)) for name in names])
    return [by_set[own] for own in sets], len(numbered)


def _names(run: Run, n: int) -> list[tuple[bytes, int]]:
    """Return what tells a run's first n held-out examples apart: content, and which one of the same content it is."""
    inputs, targets = run.examples("test")
    if len(targets) < n:
        raise NothingMatched(f"{run.id}: its held-out examples are not those that were followed")
    seen: Counter[bytes] = Counter()
    names = []
    for x, y in zip(inputs[:n], targets[:n], strict=True):
        content = hashlib.sha256(x.tobytes() + y.tobytes()).digest()
        names.append((content, seen[content]))
        seen[content] += 1
    return names
