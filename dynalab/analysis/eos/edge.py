"""Arrival at the edge, the stay there and its end, from the ratio r of sharpness to threshold.

Everything is done on log r, smoothed by a running median that is as wide as the measurement noise asks for. A run
arrives where r has risen `rise` times from its minimum, reaches 1, and the median of the rows after lies in
[low, high]; with noise the step of arrival is then settled by a fit, a rise and a level. It leaves with five rows below
`leave`, and may arrive again.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from dynalab.core.stats import noise_of, quartiles, theil_sen
from dynalab.core.words import count
from dynalab.curvature.rows import FEWEST

if TYPE_CHECKING:
    from dynalab.analysis.eos import Config

AFTER = 5
# Standard error, of log r, that the running median is widened to, and share of the rows that it may have.
ERROR, WIDEST = 0.04, 0.125
# Curves of the rise that the step of arrival is settled with: speeding up, straight, slowing down.
POWERS = (0.7, 1.0, 1.4)
# Noise, in decades, beyond which eigenvalues cannot have converged.
HOPELESS = 0.3
# Rise over the whole run that counts as sharpening, and the ratio up to which it is looked for.
SHARPENS, UP_TO = 1.5, 0.9


@dataclass(frozen=True)
class _Rows:
    """A time at the edge, from row `first` to row `last`, both included; `left` is whether it ended."""

    first: int
    last: int
    left: bool


@dataclass(frozen=True)
class Edge:
    """What a run did."""

    verdict: str  # `at_edge`, `visited`, `below_edge`, `never_sharpened`, `insufficient_data` or `unknown`
    onset: float | None = None  # step of the first arrival, or None
    end: float | None = None  # step at which it left for the last time, or None
    stays: tuple[tuple[float, float], ...] = ()  # first and last step of every time at the edge
    # Median of r at the edge; of the last quarter of the rows where it never arrived.
    median: float | None = None
    spread: float | None = None  # interquartile range of the same rows
    fraction: float = 0.0  # share of the run's steps at the edge
    # Theil-Sen slope of ln r a step up to r = .9 before the arrival; None with fewer than five such rows.
    rate: float | None = None
    rise: float | None = None  # largest r over the smallest one before it, both smoothed
    reason: str = ""  # in words


def smooth(values: np.ndarray, noise: float) -> tuple[np.ndarray, int]:
    """Return the centred running median of values (N,), and its width in rows, which the noise decides."""
    wanted = (1.25 * noise / ERROR) ** 2
    width = int(np.clip(wanted, 1, max(WIDEST * len(values), 1))) | 1
    if width == 1:
        return values.copy(), 1
    half = width // 2
    padded = np.concatenate([np.full(half, np.nan), values, np.full(half, np.nan)])
    return np.nanmedian(np.lib.stride_tricks.sliding_window_view(padded, width), axis=1), width


def edge_of(steps: np.ndarray, ratios: np.ndarray, config: Config, *, adaptive: bool = False) -> Edge:
    """Say what a run did, of ascending steps (N,) and positive ratios (N,); an adaptive one's first are skipped."""
    if adaptive:
        keep = steps >= steps[0] + config.skip if len(steps) else steps > 0
        steps, ratios = steps[keep], ratios[keep]
    if len(steps) < FEWEST:
        return Edge(
            "insufficient_data",
            reason=f"{count(len(steps), 'row')} with a ratio, at least {FEWEST} are needed",
        )
    x = np.log(ratios)
    noise = noise_of(x)
    if noise > HOPELESS * np.log(10):
        return Edge("unknown", reason=f"the ratio jumps by {noise / np.log(10):.2f} decades from row to row")
    smoothed, width = smooth(x, noise)
    # What two standard errors of the running median leave open.
    error = 1.25 * noise / np.sqrt(width)
    slack = min(2 * error, 0.15)
    # At the ends of the series half as many rows are in the median; its lowest value is low by chance as well.
    least = max(float(np.log(config.rise)), 5 * np.sqrt(2) * error if width > 1 else 0.0)
    stays = _stays(smoothed, x, config, slack, least, width)
    lowest = np.minimum.accumulate(smoothed)
    rise = float(np.exp((smoothed - lowest).max()))
    spells = [np.arange(stay.first, stay.last + 1) for stay in stays]
    rows = np.concatenate(spells or [np.arange(len(x) * 3 // 4, len(x))])
    low, median, high = (value or 0.0 for value in quartiles(ratios[rows]))
    if not stays:
        verdict, reason = _never(smoothed, rise, config, slack)
        rate = _rate(steps, x, len(x), noise)
        return Edge(verdict, median=median, spread=high - low, rise=rise, rate=rate, reason=reason)
    onset = _settled(steps, x, stays[0], width)
    total = float(steps[-1] - steps[0])
    spans = [(float(steps[stay.first]), float(steps[stay.last])) for stay in stays]
    spans[0] = (min(onset, spans[0][1]), spans[0][1])
    last = stays[-1]
    first = int(np.searchsorted(steps, onset))
    return Edge(
        verdict="visited" if last.left else "at_edge",
        onset=onset,
        end=float(steps[last.last]) if last.left else None,
        stays=tuple(spans),
        fraction=sum(end - begin for begin, end in spans) / total if total else 0.0,
        rate=_rate(steps, x, first, noise),
        reason=_course(spans, last.left, last.last == len(steps) - 1),
        median=median,
        spread=high - low,
        rise=rise,
    )


def _course(spans: list[tuple[float, float]], left: bool, to_the_end: bool) -> str:
    """Say when a run came and went."""
    words = [f"arrived at step {spans[0][0]:,.0f}"]
    words += [
        f"left at step {end:,.0f}, came back at step {again:,.0f}" for (_, end), (again, _) in pairwise(spans)
    ]
    if left:
        words.append(f"left at step {spans[-1][1]:,.0f}")
    elif to_the_end:
        words.append("stayed to the end" if len(spans) > 1 else "and stayed")
    else:
        words.append(
            f"at the edge until step {spans[-1][1]:,.0f}; the rows after are too few to say that it left"
        )
    return ", ".join(words)


def _never(smoothed: np.ndarray, rise: float, config: Config, slack: float) -> tuple[str, str]:
    """Return verdict and reason of a run that never arrived."""
    top = float(np.exp(smoothed.max()))
    if rise < SHARPENS:
        near = " (it was near 1 from the beginning)" if np.exp(smoothed[0]) > config.leave else ""
        return "never_sharpened", f"the ratio rose {rise:.2f} times at most{near}"
    if top >= 1 - slack:
        why = f"the ratio reached {top:.2f} and did not stay between {config.low:g} and {config.high:g}"
        return ("below_edge" if smoothed[-1] < 0 else "unknown"), why
    return "below_edge", f"the largest ratio is {top:.2f}"


def _stays(
    smoothed: np.ndarray, x: np.ndarray, config: Config, slack: float, rise: float, width: int
) -> list[_Rows]:
    """Return the times at the edge, in order."""
    low, high = np.log(config.low) - slack, np.log(config.high) + slack
    leave = np.log(config.leave) - slack
    wait = max(AFTER, width)
    stays: list[_Rows] = []
    # The minimum is of the rows since the last stay; None within a stay.
    lowest, first, below = np.inf, None, 0
    for row in range(len(smoothed)):
        if first is None:
            lowest = min(lowest, smoothed[row])
            after = np.median(x[row : row + wait])
            # From below: a ratio that falls from far above passes the edge, and does not arrive.
            rises = smoothed[row] - lowest >= rise and np.median(smoothed[max(row - 3, 0) : row + 1]) <= high
            if smoothed[row] >= -slack and rises and len(x) - row >= AFTER and low <= after <= high:
                first, below = row, 0
        else:
            away = smoothed[row] < leave or smoothed[row] > high
            below = below + 1 if away else 0
            if below == AFTER:
                stays.append(_Rows(first, row - AFTER, True))
                lowest, first = float(smoothed[row - AFTER + 1 : row + 1].min()), None
    if first is not None:
        stays.append(_Rows(first, len(smoothed) - 1 - below, False))
    return [stay for stay in stays if stay.last - stay.first + 1 >= AFTER]


def _settled(steps: np.ndarray, x: np.ndarray, stay: _Rows, width: int) -> float:
    """Return the step of arrival: as it was found where little was smoothed, else the knee of a bent line.

    The line is level from its knee on, at the median of the stay, and rises to it as a power of the distance before. Of
    a hundred places of the knee and three powers, each as likely as its squared residuals say, the median place is
    taken; measured on simulated series, the best one alone is further off.
    """
    if width <= AFTER:
        return float(steps[stay.first])
    reach = max(2 * width, len(x) // 4)
    begin, end = max(stay.first - reach, 0), min(stay.first + reach, stay.last + 1)
    rows = np.arange(begin, end)
    below = x[rows] - np.median(x[stay.first : stay.last + 1])
    places = np.unique(np.linspace(begin + 4, end - 4, 100).astype(int))
    cost = np.empty((len(places), len(POWERS)))
    for i, place in enumerate(places):
        distance = np.maximum(place - rows, 0) / reach
        for j, power in enumerate(POWERS):
            ramp = -(distance**power)
            height = max(float(ramp @ below / max(ramp @ ramp, 1e-12)), 0.0)
            cost[i, j] = np.square(below - height * ramp).sum()
    variance = max(cost.min() / len(rows), 1e-12)
    weight = np.exp(-(cost - cost.min()) / (2 * variance)).sum(axis=1)
    return float(np.interp(0.5, np.cumsum(weight / weight.sum()), steps[places]))


def _rate(steps: np.ndarray, x: np.ndarray, until: int, noise: float) -> float | None:
    rows = np.flatnonzero(x[:until] < np.log(UP_TO))
    return theil_sen(steps[rows], x[rows], noise)[0] if len(rows) >= 5 else None
