"""How many seeds a setting would settle which one is best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

from dynalab.analysis.compare.findings import Pair
from dynalab.analysis.compare.measures import Measure
from dynalab.analysis.compare.pairs import paired_labels, together
from dynalab.analysis.compare.samples import Times, Values
from dynalab.core.survival import LEVEL, gehan_scores

POWER = 0.8
MOST = 1000  # runs beyond which a number would be none


class Needed(NamedTuple):
    """Two settings, and the runs of each that would tell them apart; None where no number up to 1,000 would."""

    pair: tuple[str, str]
    runs: int | None


def needed_runs(
    sample: Measure, best: Sequence[str], ids: Sequence[str], found: Sequence[Pair]
) -> Needed | None:
    """Return the runs of a setting that would tell the best from the closest of those that they are not told from."""
    open_pairs = [
        pair for pair in found if {pair.a, pair.b} & {*best} and pair.verdict == "cannot_tell" and pair.tested
    ]
    n_tested = sum(pair.tested for pair in found)
    asked = [
        (_runs_for(sample, ids.index(pair.a), ids.index(pair.b), pair, n_tested), pair) for pair in open_pairs
    ]
    if not asked:
        return None
    runs, pair = max(asked, key=lambda item: math.inf if item[0] is None else item[0])
    return Needed((pair.a, pair.b), runs)


def _runs_for(sample: Measure, a: int, b: int, pair: Pair, n_pairs: int) -> int | None:
    one, other = sample.of[a], sample.of[b]
    if any(isinstance(item, Values) and item.lost for item in (one, other)):
        return None
    if seeds := paired_labels(one, other, n_pairs):
        one, other = one.of(seeds), other.of(seeds)
    level = LEVEL / n_pairs
    if isinstance(one, Times) and isinstance(other, Times):
        runs = needed_for_times(one, other, pair.paired, level)
    else:
        assert isinstance(one, Values) and isinstance(other, Values)
        runs = needed_for_means(one, other, pair.paired, level)
    return None if runs is None else max(runs, fewest(pair.paired, level))


def fewest(paired: bool, level: float) -> int:
    """Return the least runs of each of two settings of which any outcome could be told by permutation."""
    return next(n for n in count(2) if (2.0 ** (1 - n) if paired else 2 / math.comb(2 * n, n)) <= level)


def needed_for_means(one: Values, other: Values, paired: bool, level: float) -> int | None:
    """Return the runs of each setting at which a difference as large as this is told in four of five trials.

    The normal approximation with Guenther's (1981) correction for small numbers; None beyond 1,000 runs, or where
    nothing varies.
    """
    x, y = one.values, other.values
    errors = float((y - x).var(ddof=1)) if paired else float(x.var(ddof=1) + y.var(ddof=1))
    return _needed(float(y.mean() - x.mean()), errors, level, 0.5 if paired else 0.25)


def needed_for_times(one: Times, other: Times, paired: bool, level: float) -> int | None:
    """Return it for Gehan's test: of two settings by Noether's (1987) formula, of seeds by the scores' differences."""
    scores, n, m = gehan_scores(*together(one, other)), len(one.labels), len(other.labels)
    if paired:
        differences = scores[n:] - scores[:n]
        return _needed(float(differences.mean()), float(differences.var(ddof=1)), level, 0.5)
    # By how much a run of the second is later than one of the first more often than it is earlier, halved.
    return _needed(float(scores[n:].sum()) / (2 * n * m), 1 / 6, level, 0.0)


def _needed(difference: float, errors: float, level: float, correction: float) -> int | None:
    from scipy.special import ndtri

    if errors <= 0 or not difference:
        return None
    z = float(ndtri(1 - level / 2))
    runs = (z + float(ndtri(POWER))) ** 2 * errors / difference**2 + correction * z**2
    return math.ceil(runs) if runs <= MOST else None
