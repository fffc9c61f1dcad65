"""The order of hidden units that brings the weights of one network nearest to those of another.

Weight matching of Ainsworth et al. 2023 ("Git Re-Basin", arXiv 2209.04836, algorithm 1): the squared distance of the
weights is least where their inner product is largest. As a function of the order of one set of units, all others held,
that is a linear assignment, which is solved exactly; so one set after another is, in drawn orders, until nothing gets
better. What is found is a local optimum; copies but for the order of units are brought back as a rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from dynalab.models.base import Permutation

Arrays = Mapping[str, np.ndarray]
# Sweeps over all sets at most.
SWEEPS = 100


def matched(
    one: Arrays, other: Arrays, permutations: Sequence[Permutation], weighed: Sequence[str], seed: int = 0
) -> dict[str, np.ndarray]:
    """Return another network's tensors with its units in the order in which they are nearest to one network's.

    Args:
        one: Name -> tensor, of the one that stays as it is.
        other: Likewise, of the other.
        permutations: The sets of units.
        weighed: Names of what is compared: weights, no running statistics.
        seed: Of the orders in which sets are taken.
    """
    from scipy.optimize import linear_sum_assignment

    rng = np.random.default_rng(seed)
    now = {name: np.array(x) for name, x in other.items()}
    weighed_names = set(weighed)
    for _ in range(SWEEPS):
        better = False
        for place in rng.permutation(len(permutations)):
            own = permutations[place]
            gain = np.zeros((own.size, own.size))
            for name, axis, first in own.places:
                if name in weighed_names:
                    gain += (
                        _rows(one[name], axis, first, own.size) @ _rows(now[name], axis, first, own.size).T
                    )
            _, order = linear_sum_assignment(gain, maximize=True)
            units = np.arange(own.size)
            # Beyond rounding, so that sweeps end.
            if gain[units, order].sum() > gain.trace() + 1e-9 * np.abs(gain).max() * own.size:
                better = True
                now = reordered(now, own, order)
        if not better:
            break
    return now


def reordered(tensors: Arrays, permutation: Permutation, order: np.ndarray) -> dict[str, np.ndarray]:
    """Return tensors whose units k of a set are units order[k] of those that are given."""
    made = dict(tensors)
    for name, axis, first in permutation.places:
        whole = np.array(made[name])
        units = np.arange(whole.shape[axis])
        units[first : first + permutation.size] = first + np.asarray(order)
        made[name] = whole.take(units, axis)
    return made


def _rows(tensor: np.ndarray, axis: int, first: int, size: int) -> np.ndarray:
    """Return a row a unit, (size, n), float64."""
    own = np.moveaxis(tensor, axis, 0)[first : first + size]
    return own.reshape(size, -1).astype(np.float64)
