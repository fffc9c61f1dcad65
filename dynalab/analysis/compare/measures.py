"""What settings are compared by: when their runs reach landmarks, and where metrics end, over all of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dynalab.analysis.compare.samples import LEVELS, Times, Values, finals, passages
from dynalab.config.suggest import did_you_mean, listing
from dynalab.core.columns import AVERAGED
from dynalab.core.convergence import Convergence, ConvergenceKeys, direction_of
from dynalab.core.errors import ConfigError
from dynalab.core.forks import parent_and_step
from dynalab.core.means import ROUNDING
from dynalab.core.runs import Group
from dynalab.core.stats import quantile as first_by
from dynalab.core.survival import quantile
from dynalab.core.words import listed

METRICS = ("test_accuracy", "test_loss", "train_loss")
# Those of averaged weights, where all settings have them.
OF_AVERAGES = tuple(f"{AVERAGED}{name}" for name in METRICS[:2])
CONVERGED = "converged_step"


@dataclass(frozen=True)
class Measure:
    """A landmark or a metric over all settings; `sign` is 1 where less is better, -1 where more is."""

    name: str
    of: Sequence[Times | Values]
    sign: int | None


def rule_of(groups: Sequence[Group], keys: ConvergenceKeys) -> Convergence | None:
    """Return the one rule of convergence for all settings: the keys', else the one that they share.

    Raises:
        ConfigError: They have different rules, or the keys do not say enough.
    """
    # That imported runs generalise is a landmark already.
    rules = list(dict.fromkeys(None if group.imported else group.convergence for group in groups))
    shared = rules[0] if len(rules) == 1 else None
    given = {name: value for name, value in vars(keys).items() if value is not None}
    if not given:
        if len(rules) > 1:
            said = listed(["none" if item is None else f"{item.metric} {item.threshold:g}" for item in rules])
            raise ConfigError(
                f"the settings converge by different rules ({said}): give convergence.metric= and "
                "convergence.threshold="
            )
        return shared
    if shared is not None and given.get("metric", shared.metric) == shared.metric:
        return replace(shared, **given)
    if "metric" not in given or "threshold" not in given:
        raise ConfigError("convergence: give convergence.metric= and convergence.threshold= both")
    direction = given.get("direction") or direction_of(given["metric"])
    if direction is None:
        raise ConfigError(
            f"convergence.metric={given['metric']}: needs convergence.direction=up or down as well"
        )
    absent = [group.id for group in groups if given["metric"] not in group.columns]
    if absent:
        raise ConfigError(f"convergence.metric={given['metric']}: not recorded of {listed(absent)}")
    return Convergence(**{"persistence": 1, **given, "direction": direction})


def common_step(groups: Sequence[Group]) -> int | None:
    """Return the last step that most runs of every setting reached, of those that did not diverge."""
    ends = [
        sorted(int(run.grid[-1]) for run in group.runs if run.diverged_step is None and len(run.grid))
        for group in groups
    ]
    return min((own[(len(own) - 1) // 2] for own in ends if own), default=None)


def landmarks(groups: Sequence[Group], rule: Convergence | None) -> list[Measure]:
    """Return the landmarks that all settings know; convergence is left out where it says what one of them does."""
    rules: dict[str, list[Convergence]] = {}
    for name, metric in LEVELS.items():
        levels = [(group.runs[0].config.get("levels") or {}).get(metric) for group in groups]
        known = [float(level) for level in levels if level is not None]
        if len(known) == len(groups) and all(metric in group.columns for group in groups):
            rules[name] = [Convergence(metric, level) for level in known]
    if rule is not None and all(rule.metric in group.columns for group in groups):
        rules[CONVERGED] = [rule] * len(groups)
    found = {
        name: [passages(group, item) for group, item in zip(groups, items, strict=True)]
        for name, items in rules.items()
    }
    found = {name: times for name, times in found.items() if not _inherited(groups, times)}
    # First what is asked most: a run that generalises.
    order = sorted(found, key=["generalised_step", CONVERGED, "memorised_step"].index)
    return [Measure(name, found[name], 1) for name in order]


def _inherited(groups: Sequence[Group], times: Sequence[Times]) -> bool:
    """Return whether every run reached a landmark before the forks among the settings began, each in all alike."""
    begun = [
        parent_and_step(str(parent))[1] for group in groups if (parent := group.runs[0].config.get("parent"))
    ]
    reached: dict[str, float] = {}
    for item in times if begun else ():
        for label, step in zip(item.labels, item.steps.tolist(), strict=True):
            if step > min(begun) or reached.setdefault(label, step) != step:
                return False
    return bool(begun)


def shared_levels(groups: Sequence[Group], known: Iterable[str]) -> dict[str, float]:
    """Return landmark -> the level of its metric that says when a run has reached it, where all settings share it."""
    found = _levels(groups, known)
    return {
        name: float(next(iter(some))) for name, some in found.items() if len(some) == 1 and None not in some
    }


def unlike_levels(groups: Sequence[Group], known: Iterable[str]) -> set[str]:
    """Return the landmarks that settings judge by levels of their own."""
    return {name for name, some in _levels(groups, known).items() if len(some - {None}) > 1}


def _levels(groups: Sequence[Group], known: Iterable[str]) -> dict[str, set[Any]]:
    """Return landmark -> the levels that settings have of its metric, None of those without."""
    return {
        name: {(group.runs[0].config.get("levels") or {}).get(metric) for group in groups}
        for name, metric in LEVELS.items()
        if name in known
    }


def metrics(groups: Sequence[Group], names: Sequence[str] | None, at: int | None) -> list[Measure]:
    """Return the last values of metrics.

    Raises:
        ConfigError: One that was named was not recorded of some setting.
    """
    for name in names or ():
        if absent := [group.id for group in groups if name not in group.columns]:
            every = set.intersection(*(group.columns for group in groups))
            raise ConfigError(
                f"metrics: {name} was not recorded of {listed(absent)}{did_you_mean(name, every)}; there are "
                f"{listing(sorted(every))}"
            )
    shared = [
        name for name in names or (*METRICS, *OF_AVERAGES) if all(name in group.columns for group in groups)
    ]
    ways = {"up": -1, "down": 1}
    return [
        Measure(name, [finals(group, name, at) for group in groups], ways.get(direction_of(name) or ""))
        for name in shared
    ]


def repeats(name: str, samples: Iterable[str], rule: Convergence | None, asked: bool) -> bool:
    """Return whether a landmark is the level of another, held for some rows: nothing new is said of it.

    That is so of the settings' own rule of convergence; one that was `asked` for is what a reader wants to know.
    """
    return (
        name == CONVERGED
        and not asked
        and rule is not None
        and rule.metric == LEVELS["generalised_step"]
        and "generalised_step" in samples
    )


def reached(sample: Measure) -> bool:
    """Return whether some run of a setting reached a landmark."""
    return any(isinstance(item, Times) and item.reached for item in sample.of)


def ranked(sample: Measure) -> tuple[list[int], int]:
    """Return the places of the settings, the best first, and how many are first alike.

    They are ranked by median, then by how many reached; or by mean. Where runs were lost that is not of all runs:
    settings are ranked by median, then by how many were lost, then by mean.
    """
    lost = any(isinstance(item, Values) and item.lost for item in sample.of)

    def score(place: int) -> tuple[float, ...]:
        item = sample.of[place]
        if isinstance(item, Times):
            middle = median(item)
            return (math.inf if middle is None else middle), -item.reached / max(len(item.steps), 1)
        sign = sample.sign or 1
        mean = float(item.values.mean()) * sign if len(item.values) else math.inf
        if not lost:
            return (mean,)
        middle = median_of(item, sign)
        n = max(len(item.values) + item.lost, 1)
        return (math.inf if middle is None else middle * sign), item.lost / n, mean

    scores = [score(place) for place in range(len(sample.of))]
    order = sorted(range(len(scores)), key=scores.__getitem__)
    first = scores[order[0]]
    alike = sum(
        all(a == b or abs(a - b) <= ROUNDING * abs(b) for a, b in zip(own, first, strict=True))
        for own in scores
    )
    # Those that are first alike stand in the order of the settings, not of their rounding.
    return [*sorted(order[:alike]), *order[alike:]], alike


def median(item: Times) -> float | None:
    """Return the median step at which runs reached a landmark; None where fewer than half did."""
    return quantile(*item.until(math.inf), 0.5)


def median_of(item: Values, sign: int) -> float | None:
    """Return the median of a metric over all runs, those that are lost as the worst; None where it falls among these.

    Of two in the middle of which one is lost it is the other. `sign` is 1 where less is better.
    """
    middle = first_by([*(sign * item.values), *[None] * item.lost], 0.5)
    return None if middle is None else sign * middle


def end_of(item: Times) -> float:
    """Return up to where the runs of a setting were watched that did not diverge."""
    return float(item.last[np.isfinite(item.last)].max(initial=0.0))
