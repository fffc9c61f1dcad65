"""Which setting is better, by how much, how surely, and whether more seeds would change it.

Of the settings of a sweep it compares when their runs reach landmarks, those that never do included, and where their
metrics end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dynalab.analysis.base import Group, Keys, Needs, key
from dynalab.analysis.compare.effects import effects
from dynalab.analysis.compare.findings import Best, Final, Findings, Landmark, Level, Pair, Response, Setting
from dynalab.analysis.compare.measures import (
    OF_AVERAGES,
    Measure,
    common_step,
    end_of,
    landmarks,
    median,
    metrics,
    ranked,
    reached,
    repeats,
    rule_of,
)
from dynalab.analysis.compare.medians import median_interval
from dynalab.analysis.compare.needed import needed_runs
from dynalab.analysis.compare.odd import odd_runs
from dynalab.analysis.compare.pairs import Gap, between_times, between_values
from dynalab.analysis.compare.permutation import LEVEL
from dynalab.analysis.compare.samples import Times, Values
from dynalab.analysis.compare.settings import comparable, told_apart
from dynalab.analysis.compare.summary import show
from dynalab.core.convergence import ConvergenceKeys
from dynalab.core.errors import ConfigError, NothingMatched
from dynalab.core.means import Bounds, mean_interval
from dynalab.core.stats import holm
from dynalab.core.words import count, listed

__all__ = ["NEEDS", "TITLE", "VERSION", "Config", "Findings", "analyse", "show"]

VERSION = 5
NEEDS = Needs(statuses=("done", "diverged"), across=True, sweeps=True)
TITLE = "Which setting is better"
LEAD = "ranking"
FIGURES = ("ranking", "response", "effect")


@dataclass(frozen=True, kw_only=True)
class Config(Keys):
    """Keys of the analysis."""

    metrics: list[str] | None = key(
        None,
        "metrics whose last values are compared; null: test_accuracy, test_loss and train_loss, and the first two of "
        "averaged weights where all settings have them",
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
    rule = rule_of(groups, config.convergence)
    at = common_step(groups) if config.at == "common" else None
    samples = [*landmarks(groups, rule), *metrics(groups, config.metrics, at)]
    if not samples:
        raise NothingMatched("compare: the settings share no landmark and no metric; metrics= names some")
    known = [sample.name for sample in samples]
    keys, names = told_apart(groups)
    compared = list(comparable(keys))
    made = {sample.name: _pairs(sample, groups, compared, config.margin) for sample in samples}
    # What is asked of a task before all; memorising is the aim of none.
    aims = [
        item for item in samples if item.name != "memorised_step" and (item.of[0].is_metric or reached(item))
    ]
    if keys and all(key.startswith("average.") for key in keys[0]):
        # Their trainings are the same: they differ in averaged weights alone.
        aims = [item for item in samples if item.name in OF_AVERAGES] or aims
    main = aims[0] if aims else samples[0]
    ranks = {sample.name: ranked(sample) for sample in samples if sample.sign}
    order = ranks.get(main.name, list(range(len(groups))))
    settings = [_setting(place, groups[place], names, keys, samples) for place in order]
    ids = [group.id for group in groups]
    level = {name: _level(ids, rank, made[name]) for name, rank in ranks.items()}
    best = {name: ids[rank[0]] if _leads(ids[rank[0]], made[name]) else None for name, rank in ranks.items()}
    needed = {
        item.name: needed_runs(item, ids[ranks[item.name][0]], ids, made[item.name])
        for item in samples
        if item.name in ranks
    }
    return Findings(
        task=None if tasks == ["None"] else tasks[0],
        settings=tuple(settings),
        main=main.name,
        pairs=tuple(pair for found in made.values() for pair in found),
        best=best,
        level_with_best=level,
        needed_runs={name: item and item.runs for name, item in needed.items()},
        needed_pair={name: item and item.pair for name, item in needed.items()},
        response=_response(main, settings, keys, ranks, level, ids),
        effects=tuple(effect for item in samples for effect in effects(item.name, item.of, keys)),
        odd=tuple(odd_runs(groups, [item for item in samples if not repeats(item.name, known, rule)], at)),
        at_step=at,
        rule=rule,
        margin=config.margin,
        warnings=tuple(_warnings(groups, samples)),
    )


def _pairs(
    sample: Measure, groups: Sequence[Group], compared: Sequence[tuple[int, int]], margin: float | None
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
        if margin is not None and _within(pair, margin):
            pair = replace(pair, verdict="equivalent")
        elif p > LEVEL:
            reason = _reason(pair, gap.least_p, len(gaps), sample.of[a], sample.of[b])
            pair = replace(pair, verdict="cannot_tell", reason=reason)
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
    if pair.p == 1.0 and not pair.estimate:
        return "no difference is seen"
    return f"the difference could be chance (p = {pair.p_adjusted:.2g})"


def _setting(
    place: int,
    group: Group,
    names: Sequence[str],
    keys: Sequence[Mapping[str, Any]],
    samples: Sequence[Measure],
) -> Setting:
    landmarks: dict[str, Landmark] = {}
    ends: dict[str, Final] = {}
    for sample in samples:
        item = sample.of[place]
        if isinstance(item, Times):
            interval = median_interval(*item.until(end_of(item)))
            steps = tuple(float(step) if math.isfinite(step) else None for step in item.steps)
            landmarks[sample.name] = Landmark(item.reached, median(item), interval, steps)
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


def _leads(first: str, found: Sequence[Pair]) -> bool:
    """Return whether a setting is told apart from some other."""
    return any(first in (pair.a, pair.b) and pair.verdict == "differ" for pair in found)


def _level(ids: Sequence[str], rank: Sequence[int], found: Sequence[Pair]) -> tuple[str, ...]:
    """Return the settings that the best is not told apart from."""
    first = ids[rank[0]]
    level = {
        ({pair.a, pair.b} - {first}).pop()
        for pair in found
        if first in (pair.a, pair.b) and pair.verdict != "differ"
    }
    return tuple(ids[place] for place in rank if ids[place] in level)


def _response(
    main: Measure,
    settings: Sequence[Setting],
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
    by_id = {setting.ensemble: setting for setting in settings}
    values = []
    for place in order:
        item = by_id[ids[place]]
        if main.name in item.landmarks:
            estimate, interval = item.landmarks[main.name].median_step, item.landmarks[main.name].interval
        else:
            estimate, interval = item.final[main.name].mean, item.final[main.name].interval
        values.append(Level(float(numbers[place]), estimate, interval))
    first = ranks[main.name][0]
    near = [float(numbers[place]) for place in order if ids[place] in {ids[first], *level[main.name]}]
    best = Best(float(numbers[first]), (min(near), max(near)))
    return Response(next(iter(keys[0])), main.name, tuple(values), best)


def _warnings(groups: Sequence[Group], samples: Sequence[Measure]) -> list[str]:
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
