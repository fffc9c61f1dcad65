"""How many seeds a setting would settle which one is best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

from dynalab.analysis.compare.findings import Pair
from dynalab.analysis.compare.measures import Measure
from dynalab.analysis.compare.pairs import SHARE, seed_by_seed, together
from dynalab.analysis.compare.samples import Times, Values, shared
from dynalab.core.survival import LEVEL, gehan_scores

POWER = 0.8
MOST = 1000  # runs beyond which a number would be none


class Needed(NamedTuple):
    """Two settings, and the runs of each that would tell them apart; None where no number up to 1,000 would.

    If `paired`, these have the same seeds in both, which are compared seed by seed.

    `least` would if they differ by the most that their runs allow, the far end of the difference's 95% interval. There
    is no other end: settings that are not told apart may not differ at all.
    """

    pair: tuple[str, str]
    runs: int | None
    least: int | None
    paired: bool


def needed_runs(
    sample: Measure, best: Sequence[str], ids: Sequence[str], found: Sequence[Pair]
) -> Needed | None:
    """Return the runs of a setting that would tell the best from the closest of those that they are not told from."""
    open_pairs = [
        pair for pair in found if {pair.a, pair.b} & {*best} and pair.verdict == "cannot_tell" and pair.tested
    ]
    n_tested = sum(pair.tested for pair in found)
    asked = [
        (*_runs_for(sample, ids.index(pair.a), ids.index(pair.b), pair, n_tested), pair)
        for pair in open_pairs
    ]
    if not asked:
        return None
    runs, paired, pair = max(asked, key=lambda item: math.inf if item[0] is None else item[0])
    least = runs and _runs_for(sample, ids.index(pair.a), ids.index(pair.b), pair, n_tested, far=True)[0]
    return Needed((pair.a, pair.b), runs, least, paired)


def _runs_for(
    sample: Measure, a: int, b: int, pair: Pair, n_pairs: int, far: bool = False
) -> tuple[int | None, bool]:
    """Return the runs that would tell two settings apart, and whether they are compared seed by seed."""
    one, other = sample.of[a], sample.of[b]
    if any(isinstance(item, Values) and item.lost for item in (one, other)):
        return None, False
    level, seeds = LEVEL / n_pairs, shared(one, other)
    runs = _told_by(one, other, False, level, far)
    # More seeds may be compared seed by seed, where both settings have them.
    alike = len(seeds) >= SHARE * max(len(one.labels), len(other.labels)) and len(seeds) > 2
    if pair.paired or (alike and (runs is None or seed_by_seed(runs, n_pairs))):
        paired = _told_by(one.of(seeds), other.of(seeds), True, level, far)
        least = next(n for n in count(2) if seed_by_seed(n, n_pairs))
        return paired and max(paired, least), True
    return runs, False


def _told_by(one: Times | Values, other: Times | Values, paired: bool, level: float, far: bool) -> int | None:
    if isinstance(one, Times) and isinstance(other, Times):
        runs = needed_for_times(one, other, paired, level, far)
    else:
        assert isinstance(one, Values) and isinstance(other, Values)
        runs = needed_for_means(one, other, paired, level, far)
    return None if runs is None else max(runs, fewest(paired, level))


def fewest(paired: bool, level: float) -> int:
    """Return the least runs of each of two settings of which any outcome could be told by permutation."""
    return next(n for n in count(2) if (2.0 ** (1 - n) if paired else 2 / math.comb(2 * n, n)) <= level)


def needed_for_means(one: Values, other: Values, paired: bool, level: float, far: bool = False) -> int | None:
    """Return the runs of each setting at which a difference as large as this is told in four of five trials.

    The normal approximation with Guenther's (1981) correction for small numbers; None beyond 1,000 runs, or where
    nothing varies. `far`: of a difference at the far end of its 95% interval.
    """
    x, y = one.values, other.values
    own = [float((y - x).var(ddof=1))] if paired else [float(part.var(ddof=1)) for part in (x, y)]
    error = sum(part / len(some) for part, some in zip(own, (x, y), strict=False))
    freedom = len(x) - 1 if paired else len(x) + len(y) - 2
    difference = abs(float(y.mean() - x.mean())) + far * _reach(error, freedom)
    return _needed(difference, sum(own), level, 0.5 if paired else 0.25)


def needed_for_times(one: Times, other: Times, paired: bool, level: float, far: bool = False) -> int | None:
    """Return it for Gehan's test: of two settings by that of Wilcoxon, of seeds by the scores' differences.

    The variance of the test's statistic is that of no difference where it is judged (that of the scores when labels are
    exchanged: 1/6 without ties, Noether, 1987), but that of the runs where it falls (Lehmann, "Nonparametrics", 1975,
    section 2.3): of settings without a run in common it is 0.
    """
    time, observed = together(one, other)
    n, scores = len(one.labels), gehan_scores(time, observed)
    if paired:
        differences = scores[n:] - scores[:n]
        errors = float(differences.var(ddof=1))
        mean = abs(float(differences.mean())) + far * _reach(errors / n, n - 1)
        return _needed(mean, errors, level, 0.5)
    first, second = time[:n, None], time[n:]
    later = (second > first) & observed[:n, None] | (second == first) & observed[:n, None] & ~observed[n:]
    earlier = (second < first) & observed[n:] | (second == first) & ~observed[:n, None] & observed[n:]
    # By how much a run of the second is later than one of the first more often than it is earlier, halved, (n, m).
    halves = (later.astype(float) - earlier) / 2
    own = [
        (float(halves.mean(axis=1 - axis).var(ddof=1)), size)
        for axis, size in enumerate(halves.shape)
        if size > 1
    ]
    error = sum(part / size for part, size in own)
    mean = min(abs(float(halves.mean())) + far * _reach(error, sum(halves.shape) - 2), 0.5)
    total = len(time)
    exchanged = float((scores**2).sum()) / (2 * total * (total**2 - 1))
    return _needed(mean, exchanged, level, 0.0, sum(part for part, _ in own))


def _reach(error: float, freedom: int) -> float:
    """Return how far the 95% interval of an estimate reaches, by the variance of its error."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975)) * math.sqrt(error) if freedom > 0 else 0.0


def _needed(
    difference: float, errors: float, level: float, correction: float, varied: float | None = None
) -> int | None:
    """Return the runs at which an error is told whose variance is `varied` where there is a difference."""
    from scipy.special import ndtri

    if errors <= 0 or not difference:
        return None
    z, spread = float(ndtri(1 - level / 2)), math.sqrt(errors if varied is None else varied)
    reach = z * math.sqrt(errors) + float(ndtri(POWER)) * spread
    runs = reach**2 / difference**2 + correction * z**2
    return math.ceil(runs) if runs <= MOST else None
