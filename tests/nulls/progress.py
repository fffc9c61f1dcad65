"""Runs on a sparse parity in which nothing leads: that learn nothing, or whose events come in any order."""

from __future__ import annotations

from itertools import permutations

import numpy as np

from dynalab.analysis.base import Group

N, K = 50, 3


def plateau(seed: int, held_out: int = 1024, runs: int = 4, rows: int = 30) -> Group:
    """Runs of a product of linear functions, whose weights wander and learn nothing, cut off at lengths of their own.

    The measure is the probe's (`dynalab.probes.parity`), from the weights; the accuracy is a guess's on `held_out`
    examples, and as slow.
    """
    rng = np.random.default_rng(seed)
    width = N**-0.5
    # On the way the weights come to consist by half of what they have wandered.
    begin = rng.uniform(-width, width, (runs, 1, K, N))
    weights = begin + np.cumsum(rng.normal(0, width * (3 * rows) ** -0.5, (runs, rows, K, N)), axis=1)
    others = K + (np.arange(N - K)[:, None] + np.arange(K)) % (N - K)
    sets = np.concatenate([np.arange(K)[None], others])
    permanents = sum(
        np.prod([weights[:, :, factor, sets[:, place]] for factor, place in enumerate(order)], axis=0)
        for order in permutations(range(K))
    )
    measure = np.abs(permanents[..., 0]) / np.sqrt((permanents[..., 1:] ** 2).mean(-1))
    guess = np.zeros((runs, rows))
    step = rng.normal(size=(runs, rows))
    guess[:, 0] = step[:, 0]
    for row in range(1, rows):
        guess[:, row] = 0.9 * guess[:, row - 1] + (1 - 0.9**2) ** 0.5 * step[:, row]
    accuracy = 0.5 + 0.5 * guess / held_out**0.5
    return _group("plateau", measure, accuracy, rng.integers(rows // 3, rows + 1, runs), 50, held_out)


def unordered(
    seed: int, chance: float = 0.1, lead: float = 1.0, runs: int = 12, ensembles: int = 2
) -> list[Group]:
    """Ensembles in whose runs either event comes with a chance in every row, whatever the other one does.

    Runs are cut off at lengths of their own, and every ensemble has rows at a distance of its own. The share of those
    in which the measure is first, among those that have either, is `first(chance, lead)`.

    Args:
        seed: Of the draws.
        chance: That accuracy leaves its plateau in a row.
        lead: How many times as likely the measure crosses its level.
        runs: In an ensemble.
        ensembles: How many.
    """
    rng = np.random.default_rng(seed)
    rows, found = 40, []
    for number in range(ensembles):
        crossed, left = (np.arange(rows) >= rng.geometric(p, (runs, 1)) - 1 for p in (lead * chance, chance))
        measure, accuracy = np.where(crossed, 9.0, 1.0), np.where(left, 0.9, 0.5)
        lengths = rng.integers(8, rows + 1, runs)
        found.append(_group(f"e{number}", measure, accuracy, lengths, (10, 25)[number % 2]))
    return found


def first(chance: float, lead: float) -> float:
    """Share of the runs of `unordered` in which the measure is first."""
    return lead * chance * (1 - chance) / (1 - (1 - lead * chance) * (1 - chance))


def _group(
    name: str,
    measure: np.ndarray,
    accuracy: np.ndarray,
    lengths: np.ndarray,
    spacing: int,
    held_out: int = 1024,
) -> Group:
    """Runs from rows of both columns, shapes (S, T), of which the first `lengths` (S,) are there."""
    ends = np.arange(measure.shape[1]) < lengths[:, None]
    columns = {
        "parity_fourier": np.where(ends, measure, np.nan),
        "test_accuracy": np.where(ends, accuracy, np.nan),
    }
    steps = np.arange(measure.shape[1]) * spacing
    runs = {f"s{i:04d}": {key: values[i] for key, values in columns.items()} for i in range(len(lengths))}
    return Group.of(runs, steps, id=name, config={"task": {"held_out": held_out}})
