"""What a claim's rows come to: an estimate with its 95% interval.

Shares have Clopper and Pearson's exact interval, their difference Newcombe's; means Student's, differences and ratios
Welch's, or of pairs Student's of the differences; medians that of order statistics, which takes steps that never came
as later than all others; slopes Theil and Sen's, rank correlations Bonett and Wright's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dynalab.analysis.compare.medians import LEAST, median_interval
from dynalab.analysis.compare.pairs import between_times, between_values
from dynalab.analysis.compare.samples import Times, Values
from dynalab.config.suggest import did_you_mean, listing
from dynalab.core.errors import ConfigError
from dynalab.core.means import OPEN, mean_interval
from dynalab.core.stats import clopper_pearson
from dynalab.core.stats import quantile as middle_of
from dynalab.core.survival import Z95
from dynalab.core.words import count
from dynalab.reproduce.expression import Expression
from dynalab.reproduce.rows import Row, never_is, same, written
from dynalab.reproduce.sheet import GIVEN, OF_SHARES, OF_TWO, Claim

Bounds = tuple[float | None, float | None]
# Why a mean has no interval.
AT_END = "half of the rows have the lowest or highest value, and give no interval"


@dataclass(frozen=True)
class Estimate:
    """What was measured.

    Attributes:
        value: The statistic; None where the rows do not give it.
        interval: 95%; a bound of None lies beyond what the rows tell; None where there is no interval.
        n: How many rows entered.
        said: In words.
    """

    value: float | None
    interval: Bounds | None
    n: int
    said: str = ""


def estimate(claim: Claim, rows: Sequence[Row]) -> Estimate:
    """Return what the rows of a claim come to.

    Args:
        claim: The claim.
        rows: One at least.

    Raises:
        ConfigError: Their values are of another kind than the statistic takes, or a key is not there.
    """
    if claim.statistic == GIVEN:
        return _given(rows)
    if claim.statistic in OF_SHARES:
        return _share(claim, rows)
    if claim.statistic in OF_TWO:
        return _of_two(claim, rows)
    if claim.statistic == "median":
        return _median(rows)
    known, said = _numbers(claim, rows)
    if claim.statistic == "mean":
        found = _mean(np.array([row.value for row in known], float), claim.log)
    else:
        found = _over_x(claim, known)
    return Estimate(found.value, found.interval, len(known), "; ".join(filter(None, [found.said, said])))


def _given(rows: Sequence[Row]) -> Estimate:
    """Return what an analysis says itself."""
    if len(rows) > 1:
        raise ConfigError(
            f"statistic: {GIVEN} is of one row, and there are {len(rows)}; each or where names one"
        )
    (row,) = rows
    if isinstance(row.value, bool):
        raise ConfigError(f"statistic: {GIVEN} is of a number; of what is true or false, share")
    interval = _closed(row.interval) if row.interval else None
    return Estimate(row.value, interval, 1, "" if interval else "the analysis gives no interval")


def _share(claim: Claim, rows: Sequence[Row]) -> Estimate:
    if wrong := [row.value for row in rows if not (row.value is None or isinstance(row.value, bool))]:
        raise ConfigError(
            f"statistic: a {claim.statistic} is of values that are true or false, and one is {wrong[0]:g}"
        )
    true, n = sum(row.value is True for row in rows), len(rows)
    low, high = clopper_pearson(true, n)
    said = f"{true} of {n}"
    if claim.statistic == "count":
        return Estimate(true, (low * n, high * n), n, said)
    return Estimate(true / n, (low, high), n, said)


def _numbers(claim: Claim, rows: Sequence[Row]) -> tuple[list[Row], str]:
    """Return the rows that have a number, and how many have none, in words."""
    if any(isinstance(row.value, bool) for row in rows):
        raise ConfigError(f"statistic: a {claim.statistic} is of numbers; of what is true or false, share")
    known = [row for row in rows if row.value is not None]
    left = len(rows) - len(known)
    return known, f"{count(left, 'row')} without a value left out" if left else ""


def _median(rows: Sequence[Row]) -> Estimate:
    known = [row.value for row in rows]
    if any(isinstance(value, bool) for value in known):
        raise ConfigError("statistic: a median is of numbers; of what is true or false, share")
    never = sum(value is None for value in known)
    said = f"{never} of {len(rows)} never" if never else ""
    observed = np.array([value is not None for value in known])
    time = np.array([math.inf if value is None else value for value in known])
    if len(rows) < LEAST:
        few = f"{count(len(rows), 'row')}, of which no interval of a median follows"
        return Estimate(middle_of(known, 0.5), None, len(rows), "; ".join(filter(None, [said, few])))
    low, high = median_interval(time, observed)
    bounds = [None if end is None or math.isinf(end) else end for end in (low, high)]
    # Beyond all that came: the least that is certain of it is the last that did.
    return Estimate(middle_of(known, 0.5), (bounds[0], bounds[1]), len(rows), said)


def _mean(values: np.ndarray, log: bool) -> Estimate:
    if log:
        values = _logarithms(values)
    if not len(values):
        return Estimate(None, None, 0)
    bounds, back = mean_interval(values), math.exp if log else float
    interval = None if bounds == (None, None) else _mapped(back, bounds)
    said = "" if interval else AT_END if len(values) > 1 else "one row alone"
    return Estimate(back(float(values.mean())), interval, len(values), said)


def _logarithms(values: np.ndarray) -> np.ndarray:
    if (values <= 0).any():
        raise ConfigError("log: a value is not above 0")
    return np.log(values)


def _mapped(function: Callable[[float], float], bounds: Bounds) -> Bounds:
    low, high = (None if end is None else function(end) for end in bounds)
    return low, high


def _of_two(claim: Claim, rows: Sequence[Row]) -> Estimate:
    """Compare the rows of two values of a key: the first less the second, or over it."""
    assert claim.by is not None and claim.of is not None
    if any(claim.by not in row.keys for row in rows):
        legal = rows[0].keys
        raise ConfigError(
            f"by: {claim.by} is no key{did_you_mean(claim.by, legal)}; there are {listing(legal)}"
        )
    one, other = ([row for row in rows if same(row.keys[claim.by], level)] for level in claim.of)
    for level, some in zip(claim.of, (one, other), strict=True):
        if not some:
            commands = list(dict.fromkeys(row.keys.get("command") for row in rows))
            said = never_is(claim.by, level, [row.keys[claim.by] for row in rows], commands)
            return Estimate(None, None, 0, said)
    values = [row.value for row in (*one, *other)]
    n = len(values)
    if all(isinstance(value, bool) for value in values):
        if claim.statistic == "ratio" or claim.pair:
            raise ConfigError("statistic: of what is true or false a difference without pair, no ratio")
        return _difference_of_shares(one, other)
    if any(isinstance(value, bool) for value in values):
        raise ConfigError("statistic: some values are numbers, others true or false")
    if claim.pair:
        return _paired(claim, one, other)
    below, above = ([row.value for row in some] for some in (other, one))
    if None in values:
        if claim.log and claim.statistic == "difference":
            raise ConfigError("log: a step that never came has no logarithm; the ratio takes such steps")
        # Of what never came no more is known than that it is later than all that did.
        last = max((float(value) for value in values if value is not None), default=0.0)
        gap = between_times(_times(below, "b", last), _times(above, "a", last))
        what = _never_came(claim, above, below, last)
    else:
        x, y = np.array(below, float), np.array(above, float)
        if claim.log:
            x, y = _logarithms(x), _logarithms(y)
        gap, what = between_values(_named(x, "b"), _named(y, "a")), "on logarithms" if claim.log else ""
        if gap.interval == OPEN and gap.estimate is not None:
            what = AT_END
        if claim.log and claim.statistic == "ratio" and gap.estimate is not None:
            return Estimate(math.exp(gap.estimate), _closed(_mapped(math.exp, gap.interval)), n, what)
    if claim.statistic == "difference":
        return Estimate(gap.estimate, _closed(gap.interval), n, what)
    low, high = gap.ratio_interval
    # Whatever is not known of a ratio of steps, it is above 0.
    return Estimate(gap.ratio, _closed((0.0 if low is None and high is not None else low, high)), n, what)


def _never_came(
    claim: Claim, one: Sequence[float | bool | None], other: Sequence[float | bool | None], last: float
) -> str:
    """Return in words how many steps never came, and what is known of a side of which none did."""
    assert claim.of is not None
    line = f"{[*one, *other].count(None)} of {len(one) + len(other)} never came: by ranks"
    none = [
        written(level)
        for level, side in zip(claim.of, (one, other), strict=True)
        if not any(map(_came, side))
    ]
    if len(none) == 2:
        return f"{line}, which tell nothing where none came"
    return (
        line
        if not none
        else f"{line}; of {claim.by}={none[0]} all that is known is that it is later than {last:g}"
    )


def _came(value: float | bool | None) -> bool:
    return value is not None


def _closed(bounds: Bounds) -> Bounds | None:
    """Return an interval; None where neither of its bounds is known."""
    return None if bounds == (None, None) else bounds


def _named(values: np.ndarray, name: str) -> Values:
    """Return values under labels that no other sample has, so that they are not paired."""
    return Values(tuple(f"{name}{place}" for place in range(len(values))), values)


def _times(values: Sequence[float | bool | None], name: str, last: float) -> Times:
    steps = np.array([math.inf if value is None else value for value in values])
    labels = tuple(f"{name}{place}" for place in range(len(values)))
    return Times(labels, steps, np.full(len(steps), last))


def _difference_of_shares(one: Sequence[Row], other: Sequence[Row]) -> Estimate:
    from statsmodels.stats.proportion import confint_proportions_2indep

    (a, n), (b, m) = ((sum(row.value is True for row in some), len(some)) for some in (one, other))
    low, high = confint_proportions_2indep(a, n, b, m, method="newcomb", compare="diff")
    return Estimate(a / n - b / m, (float(low), float(high)), n + m, f"{a} of {n} and {b} of {m}")


def _paired(claim: Claim, one: Sequence[Row], other: Sequence[Row]) -> Estimate:
    """Compare rows of the same seed."""
    sides = [{row.seed: row.value for row in some} for some in (one, other)]
    for side, some in zip(sides, (one, other), strict=True):
        if len(side) < len(some) or None in side:
            raise ConfigError("pair: a seed has several rows, or a row has none")
    seeds = [seed for seed in sides[0] if sides[0][seed] is not None and sides[1].get(seed) is not None]
    if len(seeds) < 2:
        return Estimate(None, None, len(seeds), f"{count(len(seeds), 'pair')} of seeds")
    a, b = (np.array([side[seed] for seed in seeds], float) for side in sides)
    left = max(len(one), len(other)) - len(seeds)
    said = f"{count(len(seeds), 'pair')}" + (f", {left} left out" if left else "")
    if claim.statistic == "ratio" or claim.log:
        # A ratio of pairs is the geometric mean of their ratios.
        found = _mean(_logarithms(a) - _logarithms(b), False)
        back = math.exp if claim.statistic == "ratio" else float
        value = None if found.value is None else back(found.value)
        interval = None if found.interval is None else _mapped(back, found.interval)
        return Estimate(value, interval, len(seeds), "; ".join(filter(None, [said, found.said])))
    found = _mean(a - b, False)
    return Estimate(found.value, found.interval, len(seeds), "; ".join(filter(None, [said, found.said])))


def _over_x(claim: Claim, rows: Sequence[Row]) -> Estimate:
    assert claim.x is not None
    expression = Expression(claim.x)
    pairs = [(expression.value({**row.keys, **row.terms}), row.value) for row in rows]
    points = np.array([pair for pair in pairs if pair[0] is not None], float).reshape(-1, 2)
    x, y = points.T
    if len(np.unique(x)) < 2 or len(x) < 4:
        return Estimate(
            None, None, len(x), f"{count(len(np.unique(x)), 'value')} of x in {count(len(x), 'row')}"
        )
    if claim.statistic == "correlation":
        return _correlation(x, y)
    from scipy.stats import theilslopes

    if claim.log:
        x, y = _logarithms(x), _logarithms(y)
    slope, _, low, high = theilslopes(y, x)
    return Estimate(float(slope), (float(low), float(high)), len(x))


def _correlation(x: np.ndarray, y: np.ndarray) -> Estimate:
    """Return Spearman's correlation, with the interval of Bonett and Wright (2000)."""
    from scipy.stats import spearmanr

    if len(np.unique(y)) < 2:
        return Estimate(None, None, len(x), "all values are equal")
    r = float(spearmanr(x, y).statistic)
    reach = Z95 * math.sqrt((1 + r * r / 2) / (len(x) - 3))
    if abs(r) >= 1:
        return Estimate(r, None, len(x), "a perfect order gives no interval")
    return Estimate(r, (math.tanh(math.atanh(r) - reach), math.tanh(math.atanh(r) + reach)), len(x))
