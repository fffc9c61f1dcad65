"""Where an interval lies, against the region of a claim."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from dynalab.core.stats import clopper_pearson
from dynalab.core.words import listed, number
from dynalab.reproduce.sheet import Claim
from dynalab.reproduce.statistics import Bounds, Estimate

Verdict = Literal["agrees", "disagrees", "undecided", "not_at_this_scale"]


@dataclass(frozen=True)
class Judged:
    """A verdict, and why."""

    verdict: Verdict
    why: str


def judge(claim: Claim, found: Estimate) -> Judged:
    """Return the verdict: the interval lies inside the region, outside, or across its bounds.

    A bound of the interval that the rows do not give lies beyond any of the region's. Where one of two sides never
    came there is no estimate, and a bound may be known all the same.
    """
    said = f"{found.said}; " if found.said else ""
    if found.interval is None or found.interval == (None, None):
        return Judged("undecided", found.said or "the rows give no interval")
    low, high = _ends(found.interval)
    least, most = _ends(claim.agrees)
    here, there = bounds_in_words(found.interval), bounds_in_words(claim.agrees)
    if least <= low and high <= most:
        return Judged("agrees", f"{said}{here} lies inside the region, {there}")
    if high < least or most < low:
        return Judged("disagrees", f"{said}{here} lies outside the region, {there}")
    if claim.statistic == "share" and (needed := _never(found.n, least, most)):
        return Judged("undecided", f"{said}{needed}")
    return Judged("undecided", f"{said}{here} lies across a bound of the region, {there}")


def _ends(bounds: Bounds) -> tuple[float, float]:
    low, high = bounds
    return -math.inf if low is None else low, math.inf if high is None else high


def _never(n: int, least: float, most: float) -> str:
    """Return why no outcome of so many runs would agree; nothing where one would."""
    intervals = [clopper_pearson(true, n) for true in range(n + 1)]
    if any(least <= low and high <= most for low, high in intervals):
        return ""
    return f"{n} rows are too few: whatever they come to, the interval is wider than {bounds_in_words((least, most))}"


def bounds_in_words(bounds: Bounds) -> str:
    """Return `.8 to 1`, `at least 10`, `at most 3`."""
    low, high = (None if end is None or math.isinf(end) else end for end in bounds)
    if low is None:
        return f"at most {number(high)}"
    return f"at least {number(low)}" if high is None else f"{number(low)} to {number(high)}"


def tally(verdicts: Iterable[str]) -> str:
    """Return how many claims have each verdict: `3 agree, 1 is undecided`."""
    counts = Counter(verdicts)
    verbs = {"agrees": ("agrees", "agree"), "disagrees": ("disagrees", "disagree")}
    pieces = []
    for verdict, n in counts.items():
        spoken = verdict.replace("_", " ")
        one, many = verbs.get(verdict, (f"is {spoken}", f"are {spoken}"))
        pieces.append(f"{n} {one if n == 1 else many}")
    return listed(pieces)
