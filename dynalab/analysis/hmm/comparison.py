"""Two settings beside each other: how often runs leave the common path, how spread out they converge, and how fast.

Each setting has states of its own, so nothing is compared state by state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dynalab.analysis.hmm.claims import (
    LEAST_TIMES,
    OffPath,
    Way,
    coefficient_of_variation,
    cv_interval,
    doubt,
    off_path,
    ways_of,
)
from dynalab.core.stats import ratio_interval

if TYPE_CHECKING:
    from dynalab.analysis.hmm.findings import Findings

RESAMPLES = 4000


@dataclass(frozen=True)
class Difference:
    """A difference of shares, without a test: a comparison of before held one."""

    difference: float
    interval: Sequence[float]
    p: float | None = None


@dataclass(frozen=True)
class Ratio:
    """A ratio; what censoring leaves unknown of it is None."""

    ratio: float | None
    interval: Sequence[float | None]
    p: float


@dataclass(frozen=True)
class Contrast:
    """Two settings beside each other, the second against the first, the reference: see `compare`."""

    off_path: Difference | None
    spread: Ratio | None
    speed: Ratio | None
    left_out: int
    reasons: Mapping[str, str]


def content(findings: Findings) -> list[Any]:
    """Return all that `compare` looks at, as plain values: what a stored comparison is known by."""
    ways = ways_of(findings)
    runs = [[run.path, *(None if math.isinf(x) else x for x in (run.step, run.last))] for run in ways]
    return [bool(findings.convergence), runs, doubt(findings)]


def compare(one: Findings, other: Findings) -> Contrast:
    """Compare two settings, the second with the first, the reference.

    - `off_path`: share of the converged runs off the most common path of their own setting: 95% interval of the
      difference from those of the two shares (Newcombe, 1998, method 10), and no test: each setting has states of its
      own, and of two settings of one law Fisher's is below .05 in 14% of 150 pairs (the interval misses in 8%). Of
      settings that were watched for different lengths, the runs enter that converged within the shorter one, so that
      late ones are missing on both sides. None where states of one setting are not stable, or flicker.
    - `spread`: coefficients of variation: 95% interval of their ratio from those of the two (Zou and Donner, 2008),
      permutation test of deviations of the logarithms from each setting's own median (Levene's test as Brown and
      Forsythe, 1974, have it, with permutations in place of the F distribution), so that a setting that is merely
      faster is not called narrower. None where a run never converged.
    - `speed`: median convergence steps (Kaplan and Meier, 1958): 95% bootstrap interval of their ratio over runs
      (percentiles), None where censoring leaves them unknown, Gehan's test over all runs by permutation.
    - `left_out`: runs that never converged, in `off_path` and `spread`.
    - `reasons`: why one of the three is None, by its name.
    """
    a, b = ways_of(one), ways_of(other)
    left_out = sum(run.step == math.inf for run in (*a, *b))
    differ, narrow, speed, reasons = None, None, None, {}
    reach = _common(a, b)
    shares = [off_path([run.path for run in runs if run.last >= reach >= run.step]) for runs in (a, b)]
    if why := doubt(one) or doubt(other):
        reasons["off_path"] = f"{why} in one setting"
    elif all(item.of for item in shares):
        differ = _difference(*shares)
    else:
        reasons["off_path"] = "no run of one setting converged in the time that both were watched"
    if not (one.convergence and other.convergence):
        reasons |= dict.fromkeys(("spread", "speed"), "nothing says when runs converge")
    elif min(len(a), len(b)) < LEAST_TIMES:
        reasons |= dict.fromkeys(("spread", "speed"), f"fewer than {LEAST_TIMES} runs")
    else:
        speed = _speed(a, b)
        if left_out:
            reasons["spread"] = f"{left_out} of {len(a) + len(b)} runs did not converge"
        elif (narrow := _spread([run.step for run in a], [run.step for run in b])) is None:
            reasons["spread"] = "runs of one setting all converge at one step, or at step 0"
    return Contrast(differ, narrow, speed, left_out, reasons)


def _common(a: Sequence[Way], b: Sequence[Way]) -> float:
    """The step up to which settings are compared: where most runs of both were watched that long and had converged."""

    def usable(reach: float) -> int:
        return min(sum(run.last >= reach >= run.step for run in runs) for runs in (a, b))

    return max(sorted({run.last for run in (*a, *b)}), key=usable)


def _difference(a: OffPath, b: OffPath) -> Difference:
    """The difference of two shares of runs, both of some."""
    assert a.share is not None and a.interval and b.share is not None and b.interval
    low = math.hypot(b.share - b.interval[0], a.interval[1] - a.share)
    high = math.hypot(b.interval[1] - b.share, a.share - a.interval[0])
    difference = b.share - a.share
    return Difference(difference, [difference - low, difference + high])


def _speed(a: Sequence[Way], b: Sequence[Way]) -> Ratio:
    """Ratio of Kaplan and Meier's medians, a bootstrap interval of it, and Gehan's test."""
    import numpy as np

    from dynalab.core import survival

    rng = np.random.default_rng(0)
    times = [np.array([min(run.step, run.last) for run in runs]) for runs in (a, b)]
    seen = [np.array([run.step < math.inf for run in runs]) for runs in (a, b)]
    one, other = (survival.quantile(time, known, 0.5) for time, known in zip(times, seen, strict=True))
    drawn = [
        survival.quantiles(
            time, known, 0.5, rng.multinomial(len(time), [1 / len(time)] * len(time), RESAMPLES)
        )
        for time, known in zip(times, seen, strict=True)
    ]
    # Beyond what both settings were watched for no pair of runs can be told apart; cut there, both are censored alike.
    reach = min(max(run.last for run in runs) for runs in (a, b))
    time, known = np.concatenate(times), np.concatenate(seen)
    label = np.arange(len(time)) >= len(a)
    _, p, _ = survival.two_sample(np.minimum(time, reach), known & (time <= reach), label, seed=0)
    ratio = other / one if one and other is not None else None
    return Ratio(ratio, _ratio(drawn[1], drawn[0]), p)


def _spread(one: Sequence[float], other: Sequence[float]) -> Ratio | None:
    """Ratio of the coefficients of variation; None where it or the logarithms are not defined."""
    import numpy as np
    from scipy.stats import permutation_test

    first, second = coefficient_of_variation(one), coefficient_of_variation(other)
    if not first or not second or min(*one, *other) <= 0:
        return None
    rng = np.random.default_rng(0)
    samples = [np.asarray(steps, dtype=float) for steps in (one, other)]
    bounds = [cv_interval(steps) for steps in (one, other)]

    def apart(x: Any, y: Any, axis: int = -1) -> Any:
        sizes = [np.abs(v - np.median(v, axis=axis, keepdims=True)).mean(axis=axis) for v in (x, y)]
        return np.abs(sizes[1] - sizes[0])

    logs = [np.log(x) for x in samples]
    centred = [x - np.median(x) for x in logs]
    p = permutation_test(centred, apart, n_resamples=RESAMPLES, alternative="greater", rng=rng).pvalue
    known = None not in bounds
    interval = ratio_interval((first, second), bounds) if known else (None, None)
    return Ratio(second / first, list(interval), float(p))


def _ratio(top: Any, bottom: Any) -> list[float | None]:
    """Middle 95% of a bootstrapped ratio; a bound that rests on unknown values or divisors of 0 is None."""
    import numpy as np

    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = top / bottom
    unknown = np.isnan(ratio) | (bottom == 0)
    low = np.quantile(np.where(unknown, 0.0, ratio), 0.025, method="inverted_cdf")
    high = np.quantile(np.where(unknown | np.isinf(top), np.inf, ratio), 0.975, method="inverted_cdf")
    return [float(low) if 0 < low < math.inf else None, float(high) if math.isfinite(high) else None]
