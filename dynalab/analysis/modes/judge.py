"""Networks beside each other: tuned on every other held-out example of a run, judged on those between."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median_low

import numpy as np

from dynalab.analysis.compare.permutation import Flips
from dynalab.analysis.hybrid.findings import SIGNS
from dynalab.analysis.modes.findings import Budget, Method, Pair, RunFindings, Summary
from dynalab.analysis.modes.measure import Measured
from dynalab.analysis.modes.settings import AVERAGES, METHODS, MODES, Setting
from dynalab.core.means import OPEN, Bounds, Mean, mean_interval
from dynalab.core.stats import holm
from dynalab.core.survival import LEVEL
from dynalab.core.words import count, number, rounded

ACCURACY, LOSS = "accuracy", "loss"
# Difference of accuracies within which two methods are equivalent.
MARGIN = 0.005
# Budgets are so many times as large as the one before.
APART = 1.1
# The best of the averages, by the half for tuning.
AVERAGE = "average"


@dataclass(frozen=True)
class Scores:
    """What networks of S runs come to on held-out examples, accuracy where the task has one, else the loss.

    Attributes:
        runs: Ids of the runs.
        metric: Which.
        settings: What the networks are made of, A of them.
        tuning: On one half of the examples, shape (S, A).
        judged: On the other, shape (S, A).
        stored: Floats that are stored, shape (S, A).
        weights: Of each run, shape (S,).
    """

    runs: Sequence[str]
    metric: str
    settings: Sequence[Setting]
    tuning: np.ndarray
    judged: np.ndarray
    stored: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, measured: Sequence[Measured], tried: Sequence[Setting]) -> Scores | None:
        """Return those of the runs whose networks were run, on the metric that all have; None where none was."""
        own = [(item, item.values) for item in measured if item.values is not None]
        if not own:
            return None
        metric = ACCURACY if all(ACCURACY in half for _, values in own for half in values) else LOSS
        tuning, judged = (
            np.array([values[half].get(metric, np.full(len(tried), np.nan)) for _, values in own])
            for half in (0, 1)
        )
        stored = np.array([item.floats(tried) for item, _ in own])
        weights = np.array([item.weights for item, _ in own])
        return cls([item.run.id for item, _ in own], metric, tried, tuning, judged, stored, weights)

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is."""
        return 1 if self.metric == ACCURACY else -1

    def best(self, method: str, budget: np.ndarray | float = math.inf) -> int:
        """Return the place of a method's best setting on the half for tuning; -1 where none fits the budget.

        Args:
            method: The method.
            budget: Floats of each run, shape (S,).
        """
        fits = [
            place
            for place, setting in enumerate(self.settings)
            if setting.method == method and (self.stored[:, place] <= budget).all()
        ]
        if not fits:
            return -1
        means = self.sign * self.tuning[:, fits].mean(axis=0)
        # A network without a finite value is no better than any other.
        return fits[int(np.where(np.isfinite(means), means, -np.inf).argmax())]


def summary_of(runs: Sequence[RunFindings]) -> Summary:
    """Return what holds over runs whose weights move, without their networks."""

    numbers = [run.modes for run in runs if run.modes is not None]
    r2, heldout_r2, pca_r2, compression = (
        Mean.of([getattr(run, name) for run in runs])
        for name in ("r2", "heldout_r2", "pca_r2", "compression")
    )
    return Summary(len(runs), median_low(numbers) if numbers else None, r2, heldout_r2, pca_r2, compression)


def judged(
    summary: Summary,
    runs: Mapping[str, RunFindings],
    scores: Scores,
    chosen: np.ndarray,
    margin: float | None,
) -> tuple[Summary, dict[str, RunFindings]]:
    """Return the summary and the runs with what their networks come to.

    Args:
        summary: Without networks.
        runs: By their ids.
        scores: Of those whose networks were run.
        chosen: The place among the settings of the modes that each takes, shape (S,).
        margin: Within which two methods are equivalent; None: the usual one.
    """
    found, values = _methods(scores, chosen)
    if margin is None:
        middle = abs(float(np.nanmean(values[MODES]))) if np.isfinite(values[MODES]).any() else 0.0
        margin = MARGIN if scores.metric == ACCURACY else middle / 100
    average = _best_average(found, scores.sign)
    compared = pairs(values, margin, scores.sign)
    main = next(pair for pair in compared if pair.b == average)
    summary = replace(
        summary,
        metric=scores.metric,
        margin=margin,
        methods=tuple(found),
        average=average,
        pairs=compared,
        verdict=main.verdict,
        reason=main.reason,
        budgets=_budgets(scores),
    )
    values[AVERAGE] = values[average]
    told = dict(runs)
    for place, run in enumerate(scores.runs):
        own = {method: _known(row[place]) for method, row in values.items()}
        told[run] = replace(told[run], scores=own)
    return summary, told


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _methods(scores: Scores, chosen: np.ndarray) -> tuple[list[Method], dict[str, np.ndarray]]:
    """Return what every method comes to within the floats of the modes, tuned, and method -> its values (S,)."""
    runs = np.arange(len(scores.runs))
    budget = scores.stored[runs, chosen]
    found, values = [], {}
    for method in METHODS:
        best = scores.best(method, budget)
        if best < 0:
            continue
        places = chosen if method == MODES else np.full(len(runs), best)
        setting = None if method == MODES else scores.settings[best]
        values[method] = scores.judged[runs, places]
        found.append(
            Method(
                method=method,
                size=None if setting is None else setting.size,
                apart=setting.apart if setting is not None and method == "lawa" else None,
                stored_per_weight=float((scores.stored[runs, places] / scores.weights).mean()),
                tuning=Mean.of(scores.tuning[runs, places]),
                judged=Mean.of(values[method]),
            )
        )
    return found, values


def _best_average(found: Sequence[Method], sign: int) -> str:
    """Return the average that is best on the half for tuning, of those that were tuned."""
    averages = [item for item in found if item.method in AVERAGES]
    return max(
        averages, key=lambda item: -math.inf if item.tuning.value is None else sign * item.tuning.value
    ).method


def pairs(values: Mapping[str, np.ndarray], margin: float, sign: int) -> tuple[Pair, ...]:
    """Compare modes with every other method, run by run.

    The p of each is that of Student's t with signs exchanged by lot, adjusted for all of them (Holm).

    Args:
        values: Method -> its values (S,).
        margin: Within which two are equivalent.
        sign: 1 where more is better, -1 where less is.
    """
    others = [method for method in values if method != MODES]
    tests = [_test(values[MODES], values[method]) for method in others]
    adjusted = holm([p for *_, p in tests])
    return tuple(
        _pair(method, *test, q, margin, sign, len(others))
        for method, test, q in zip(others, tests, adjusted, strict=True)
    )


def _test(one: np.ndarray, other: np.ndarray) -> tuple[int, float | None, Bounds, float]:
    """Return pairs that are known, mean difference of the first less the second, its interval, and p."""
    known = np.isfinite(one) & np.isfinite(other)
    x, y = one[known], other[known]
    gap = x - y
    if not len(gap):
        return 0, None, OPEN, 1.0
    interval = mean_interval(gap)
    if len(gap) >= SIGNS and (gap == gap[0]).all():
        interval = (float(gap[0]), float(gap[0]))
    p = Flips(len(gap)).p_of_means(y, x) if len(gap) > 1 else 1.0
    # What is left of gaps that cancel is rounding.
    return len(gap), round(float(gap.mean()), 12), interval, p


def _pair(
    method: str,
    runs: int,
    gap: float | None,
    interval: Bounds,
    p: float,
    adjusted: float,
    margin: float,
    sign: int,
    n_pairs: int,
) -> Pair:
    low, high = interval
    verdict, reason, least = "cannot_tell", "", 2.0 ** (1 - max(runs, 1))
    if gap is not None and adjusted <= LEVEL:
        verdict = "better" if sign * gap > 0 else "worse"
    elif low is not None and high is not None and -margin <= low and high <= margin:
        verdict = "equivalent"
    elif runs < 2:
        reason = f"{count(runs, 'run')} with both"
    elif least * n_pairs > LEVEL:
        among = f" among {count(n_pairs, 'pair')}" if n_pairs > 1 else ""
        reason = (
            f"with {count(runs, 'run')} no p{among} is below {number(rounded(min(least * n_pairs, 1.0)))}"
        )
    elif low is None:
        reason = "half of the runs have the lowest or highest difference, which gives no interval"
    else:
        reason = f"the interval reaches beyond {number(rounded(margin))}"
    return Pair(MODES, method, runs, gap, interval, p, adjusted, least, verdict, reason)


def _budgets(scores: Scores) -> tuple[Budget, ...]:
    """Return the best of every method, tuned within so many floats a weight, for every size that something takes."""
    runs = np.arange(len(scores.runs))
    sizes = (scores.stored / scores.weights[:, None]).max(axis=0)
    found: list[Budget] = []
    for size in sorted({math.ceil(value * 10) / 10 for value in sizes}):
        if found and size < APART * found[-1].stored_per_weight and size < sizes.max():
            continue
        best = {method: scores.best(method, size * scores.weights) for method in METHODS}
        own = {method: Mean.of(scores.judged[runs, place]) for method, place in best.items() if place >= 0}
        found.append(Budget(size, own))
    return tuple(found)
