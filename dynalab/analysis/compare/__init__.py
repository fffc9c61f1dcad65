"""Which setting is better, by how much, how surely, and whether more seeds would change it.

Of the settings of a sweep it compares when their runs reach landmarks, those that never do included, and where their
metrics end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dynalab.analysis.base import Convergence, Group, Keys, Needs, key
from dynalab.analysis.compare.effects import effects
from dynalab.analysis.compare.findings import Best, Final, Findings, Landmark, Level, Pair, Response, Setting
from dynalab.analysis.compare.medians import median_interval
from dynalab.analysis.compare.needed import needed_for_means, needed_for_times
from dynalab.analysis.compare.pairs import (
    LEVEL,
    OPEN,
    Bounds,
    Gap,
    between_times,
    between_values,
    holm,
    mean_interval,
    paired_labels,
)
from dynalab.analysis.compare.samples import LEVELS, Times, Values, finals, passages
from dynalab.analysis.compare.settings import comparable, labels, swept
from dynalab.analysis.compare.summary import show
from dynalab.core.convergence import ConvergenceKeys, direction_of
from dynalab.core.errors import ConfigError, NothingMatched
from dynalab.core.survival import quantile
from dynalab.core.words import count, listed

__all__ = ["NEEDS", "TITLE", "VERSION", "Config", "Findings", "analyse", "show"]

VERSION = 1
NEEDS = Needs(statuses=("done", "diverged"), across=True, sweeps=True)
TITLE = "Which setting is better"
METRICS = ("test_accuracy", "test_loss", "train_loss")
CONVERGED = "converged_step"


@dataclass(frozen=True, kw_only=True)
class Config(Keys):
    """Keys of the analysis."""

    metrics: list[str] | None = key(
        None, "metrics whose last values are compared; null: test_accuracy, test_loss and train_loss"
    )
    at: str = key(
        "common",
        "where they are read: at the last step that all settings reached (common), or where each run ends (end)",
        one_of=("common", "end"),
    )
    margin: float | None = key(
        None,
        "settings within it are equivalent: of steps a share of the median, of a metric a difference",
        above=0,
    )
    convergence: ConvergenceKeys = key(
        ConvergenceKeys(), "a landmark of your own; null: the rule that all settings share"
    )


@dataclass(frozen=True)
class _Sample:
    """A landmark or a metric over all settings; `sign` is 1 where less is better, -1 where more is."""

    name: str
    of: Sequence[Times | Values]
    sign: int | None


def analyse(groups: Sequence[Group], config: Config) -> Findings:
    """Compare settings.

    Raises:
        NothingMatched: There is one setting alone, or nothing to compare.
        ConfigError: The settings learn different tasks, or a key does not fit what was recorded.
    """
    groups = [
        replace(group, runs=tuple(sorted(group.runs, key=lambda run: run.id)))
        for group in groups
        if group.runs
    ]
    if len(groups) < 2:
        raise NothingMatched(
            "compare needs two settings or more: train a sweep, for example optimizer.lr=1e-3,3e-3"
        )
    tasks = list(dict.fromkeys(str((group.runs[0].config.get("task") or {}).get("name")) for group in groups))
    if len(tasks) > 1:
        raise ConfigError(f"compare is of settings of one task, and these are of {listed(tasks)}")
    rule = _rule(groups, config.convergence)
    at = _common(groups) if config.at == "common" else None
    samples = [*_landmarks(groups, rule), *_metrics(groups, config.metrics, at)]
    if not samples:
        raise NothingMatched("compare: the settings share no landmark and no metric; metrics= names some")
    keys = swept(groups)
    names = labels(keys, [group.id for group in groups])
    compared = list(comparable(keys))
    made = {sample.name: _pairs(sample, groups, compared, config.margin) for sample in samples}
    main = next((item for item in samples if isinstance(item.of[0], Times) and _reached(item)), None)
    main = main or next((item for item in samples if isinstance(item.of[0], Values)), samples[0])
    ranks = {sample.name: _ranked(sample) for sample in samples if sample.sign}
    order = ranks.get(main.name, list(range(len(groups))))
    settings = [_setting(place, groups[place], names, keys, samples) for place in order]
    ids = [group.id for group in groups]
    level = {name: _level(ids, rank, made[name]) for name, rank in ranks.items()}
    best = {name: None if len(level[name]) == len(ids) - 1 else ids[rank[0]] for name, rank in ranks.items()}
    needed = {item.name: _needed(item, ranks[item.name], ids, made) for item in samples if item.name in ranks}
    return Findings(
        task=None if tasks == ["None"] else tasks[0],
        settings=tuple(settings),
        main=main.name,
        pairs=tuple(pair for found in made.values() for pair in found),
        best=best,
        level_with_best=level,
        needed_runs=needed,
        response=_response(main, keys, ranks, level, ids),
        effects=tuple(effect for item in samples for effect in effects(item.name, item.of, keys)),
        at_step=at,
        rule=rule,
        margin=config.margin,
        warnings=tuple(_warnings(groups, samples)),
    )


def _rule(groups: Sequence[Group], keys: ConvergenceKeys) -> Convergence | None:
    """Return the one rule of convergence for all settings: the keys', else the one that they share.

    Raises:
        ConfigError: They have different rules, or the keys do not say enough.
    """
    rules = list(dict.fromkeys(group.convergence for group in groups))
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


def _common(groups: Sequence[Group]) -> int | None:
    """Return the last step that every setting reached: of each the longest run that did not diverge."""
    ends = [
        max(
            (int(run.grid[-1]) for run in group.runs if run.diverged_step is None and len(run.grid)),
            default=None,
        )
        for group in groups
    ]
    return min((end for end in ends if end is not None), default=None)


def _landmarks(groups: Sequence[Group], rule: Convergence | None) -> list[_Sample]:
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
    # First what is asked most: a run that generalises.
    order = sorted(found, key=["generalised_step", CONVERGED, "memorised_step"].index)
    return [_Sample(name, found[name], 1) for name in order]


def _metrics(groups: Sequence[Group], names: Sequence[str] | None, at: int | None) -> list[_Sample]:
    """Return the last values of metrics.

    Raises:
        ConfigError: One that was named was not recorded of some setting.
    """
    for name in names or ():
        if absent := [group.id for group in groups if name not in group.columns]:
            raise ConfigError(f"metrics: {name} was not recorded of {listed(absent)}")
    shared = [name for name in names or METRICS if all(name in group.columns for group in groups)]
    ways = {"up": -1, "down": 1}
    return [
        _Sample(name, [finals(group, name, at) for group in groups], ways.get(direction_of(name) or ""))
        for name in shared
    ]


def _reached(sample: _Sample) -> bool:
    return any(isinstance(item, Times) and item.reached for item in sample.of)


def _pairs(
    sample: _Sample, groups: Sequence[Group], compared: Sequence[tuple[int, int]], margin: float | None
) -> list[Pair]:
    """Compare the settings by one landmark or metric."""
    gaps = [_gap(sample.of[a], sample.of[b], len(compared)) for a, b in compared]
    adjusted = holm([gap.p for gap in gaps])
    found = []
    for (a, b), gap, p in zip(compared, gaps, adjusted, strict=True):
        pair = Pair(
            groups[a].id,
            groups[b].id,
            sample.name,
            gap.estimate,
            gap.interval,
            gap.ratio,
            gap.ratio_interval,
            gap.p,
            p,
            gap.log_rank_p,
            gap.paired,
            gap.runs,
            "differ",
            "",
        )
        if p > LEVEL:
            within = margin is not None and _within(pair, margin)
            reason = "" if within else _reason(pair, gap.least_p, len(gaps), sample.of[a], sample.of[b])
            pair = replace(pair, verdict="equivalent" if within else "cannot_tell", reason=reason)
        found.append(pair)
    return found


def _gap(one: Times | Values, other: Times | Values, n_pairs: int) -> Gap:
    if isinstance(one, Times) and isinstance(other, Times):
        return between_times(one, other, n_pairs)
    assert isinstance(one, Values) and isinstance(other, Values)
    return between_values(one, other, n_pairs)


def _within(pair: Pair, margin: float) -> bool:
    """Whether the interval lies within the margin; a share where it is of steps."""
    steps = pair.log_rank_p is not None
    low, high = pair.ratio_interval if steps else pair.interval
    least, most = (1 / (1 + margin), 1 + margin) if steps else (-margin, margin)
    return low is not None and high is not None and least <= low and high <= most


def _reason(pair: Pair, least_p: float, n_pairs: int, one: Times | Values, other: Times | Values) -> str:
    """Return why a pair cannot be told apart."""
    n, m = pair.runs
    if min(n, m) < 2:
        return f"{n} and {count(m, 'run')} with a value"
    if isinstance(one, Times) and isinstance(other, Times) and not (one.reached or other.reached):
        return "no run of the two reached it"
    if least_p * n_pairs > LEVEL:
        among = f" among {n_pairs} pairs" if n_pairs > 1 else ""
        return f"{n} and {count(m, 'run')} are too few: no outcome{among} could be told from chance"
    return f"the difference could be chance (p = {pair.p_adjusted:.2g})"


def _ranked(sample: _Sample) -> list[int]:
    """Return the places of the settings, the best first: by median, then by how many reached; or by mean."""

    def score(place: int) -> tuple[float, float]:
        item = sample.of[place]
        if isinstance(item, Times):
            middle = _median(item)
            known = item.steps[np.isfinite(item.steps)]
            return (math.inf if middle is None else middle), -item.reached / max(len(item.steps), 1) + (
                1e-12 * float(known.min(initial=0.0))
            )
        return (float(item.values.mean()) * (sample.sign or 1) if len(item.values) else math.inf), 0.0

    return sorted(range(len(sample.of)), key=score)


def _median(item: Times) -> float | None:
    return quantile(*item.until(math.inf), 0.5)


def _setting(
    place: int,
    group: Group,
    names: Sequence[str],
    keys: Sequence[Mapping[str, Any]],
    samples: Sequence[_Sample],
) -> Setting:
    landmarks: dict[str, Landmark] = {}
    ends: dict[str, Final] = {}
    for sample in samples:
        item = sample.of[place]
        if isinstance(item, Times):
            interval = median_interval(*item.until(_end(item)))
            steps = tuple(float(step) if math.isfinite(step) else None for step in item.steps)
            landmarks[sample.name] = Landmark(item.reached, _median(item), interval, steps)
        else:
            mean = float(item.values.mean()) if len(item.values) else None
            interval = mean_interval(item.values)
            if sample.name.endswith("accuracy"):
                interval = _clipped(interval)
            ends[sample.name] = Final(mean, interval, tuple(map(float, item.values)))
    diverged = sum(run.diverged_step is not None for run in group.runs)
    return Setting(group.id, names[place], dict(keys[place]), len(group.runs), diverged, landmarks, ends)


def _clipped(interval: Bounds) -> Bounds:
    """Return an interval of a share, which is between 0 and 1."""
    low, high = (None if end is None else min(max(end, 0.0), 1.0) for end in interval)
    return low, high


def _end(item: Times) -> float:
    return float(item.last[np.isfinite(item.last)].max(initial=0.0))


def _level(ids: Sequence[str], rank: Sequence[int], found: Sequence[Pair]) -> tuple[str, ...]:
    """Return the settings that the best is not told apart from."""
    first = ids[rank[0]]
    level = {
        ({pair.a, pair.b} - {first}).pop()
        for pair in found
        if first in (pair.a, pair.b) and pair.verdict != "differ"
    }
    return tuple(ids[place] for place in rank if ids[place] in level)


def _needed(
    sample: _Sample, rank: Sequence[int], ids: Sequence[str], made: Mapping[str, Sequence[Pair]]
) -> int | None:
    """Return the runs of a setting that would tell the best from the next one; None where it is told, or never is."""
    first, second = rank[:2]
    found = made[sample.name]
    pair = next((item for item in found if {item.a, item.b} == {ids[first], ids[second]}), None)
    if pair is None or pair.verdict == "differ" or min(pair.runs) < 2:
        return None
    one, other = sample.of[first], sample.of[second]
    if seeds := paired_labels(one, other, len(found)):
        one, other = one.of(seeds), other.of(seeds)
    level = LEVEL / len(found)
    if isinstance(one, Times) and isinstance(other, Times):
        return needed_for_times(one, other, pair.paired, level)
    assert isinstance(one, Values) and isinstance(other, Values)
    return needed_for_means(one, other, pair.paired, level)


def _response(
    main: _Sample,
    keys: Sequence[Mapping[str, Any]],
    ranks: Mapping[str, Sequence[int]],
    level: Mapping[str, Sequence[str]],
    ids: Sequence[str],
) -> Response | None:
    """Return the main landmark or metric over the values of the key that was swept, where it is one and numeric."""
    numbers = [next(iter(item.values())) for item in keys if len(item) == 1]
    if len(numbers) < max(len(keys), 3) or main.name not in ranks:
        return None
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in numbers):
        return None
    order = sorted(range(len(numbers)), key=lambda place: numbers[place])
    values = []
    for place in order:
        item = main.of[place]
        if isinstance(item, Times):
            values.append(
                Level(float(numbers[place]), _median(item), median_interval(*item.until(_end(item))))
            )
        else:
            mean = float(item.values.mean()) if len(item.values) else None
            values.append(
                Level(float(numbers[place]), mean, mean_interval(item.values) if mean is not None else OPEN)
            )
    first = ranks[main.name][0]
    near = [float(numbers[place]) for place in order if ids[place] in {ids[first], *level[main.name]}]
    best = Best(float(numbers[first]), (min(near), max(near)))
    return Response(next(iter(keys[0])), main.name, tuple(values), best)


def _warnings(groups: Sequence[Group], samples: Sequence[_Sample]) -> list[str]:
    lines = []
    diverged = {group.id: sum(run.diverged_step is not None for run in group.runs) for group in groups}
    if some := [f"{n} of {name}" for name, n in diverged.items() if n]:
        lines.append(f"runs that diverged never reach a landmark and have no last value: {listed(some)}")
    lengths = sorted(
        {max((int(run.grid[-1]) for run in group.runs if len(run.grid)), default=0) for group in groups}
    )
    if len(lengths) > 1:
        lines.append(
            f"the settings were trained for {lengths[0]:,} to {lengths[-1]:,} steps: landmarks are compared up to "
            "where both of a pair were watched"
        )
    return lines
