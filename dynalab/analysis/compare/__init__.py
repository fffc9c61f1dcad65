"""Which setting is better, by how much, how surely, and whether more seeds would change it.

Of the settings of a sweep it compares when their runs reach landmarks, those that never do included, and where their
metrics end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dynalab.analysis.base import Group, Keys, Needs, key
from dynalab.analysis.compare.effects import effects
from dynalab.analysis.compare.findings import Best, Final, Findings, Landmark, Level, Pair, Response, Setting
from dynalab.analysis.compare.measures import (
    METRICS,
    OF_AVERAGES,
    Measure,
    common_step,
    end_of,
    landmarks,
    median,
    median_of,
    metrics,
    ranked,
    reached,
    repeats,
    rule_of,
    shared_levels,
    unlike_levels,
)
from dynalab.analysis.compare.medians import median_interval
from dynalab.analysis.compare.needed import needed_runs
from dynalab.analysis.compare.odd import odd_runs
from dynalab.analysis.compare.pairs import Gap, between_times, between_values
from dynalab.analysis.compare.samples import LEVELS, Times, Values
from dynalab.analysis.compare.settings import comparable, in_order, told_apart
from dynalab.analysis.compare.summary import show
from dynalab.core.convergence import ConvergenceKeys
from dynalab.core.errors import NothingMatched
from dynalab.core.means import Bounds, mean_interval
from dynalab.core.progress import counted
from dynalab.core.stats import holm
from dynalab.core.survival import LEVEL
from dynalab.core.words import count, listed

__all__ = ["NEEDS", "TITLE", "VERSION", "Config", "Findings", "analyse", "show"]

VERSION = 10
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
        "where they are read: at the last step that most runs of every setting reached (common), or where each "
        "run ends (end)",
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
        NothingMatched: There is one setting alone, or nothing to compare, or the settings learn different tasks.
        ConfigError: A key does not fit what was recorded.
    """
    groups = in_order(
        [
            replace(group, runs=tuple(sorted(group.runs, key=lambda run: run.id)))
            for group in groups
            if group.runs
        ]
    )
    if len(groups) < 2:
        how = "train a sweep, for example optimizer.lr=1e-3,3e-3"
        if groups and groups[0].imported:
            how = (
                "dynalab import TABLE --setting COLUMN makes one of each value of a column; or import each under a "
                "name of its own and name them here, dynalab analyze compare ONE OTHER"
            )
        raise NothingMatched(f"compare needs two settings or more: {how}")
    tasks = list(dict.fromkeys(str((group.runs[0].config.get("task") or {}).get("name")) for group in groups))
    if len(tasks) > 1:
        raise NothingMatched(f"compare is of settings of one task, and these are of {listed(tasks)}")
    rule, asked = rule_of(groups, config.convergence), config.convergence != ConvergenceKeys()
    at = common_step(groups) if config.at == "common" else None
    samples = [*landmarks(groups, rule), *metrics(groups, config.metrics, at)]
    if not samples:
        raise NothingMatched(_nothing_shared(groups))
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
    ids = [group.id for group in groups]
    ranks, first = {}, {}
    for sample in samples:
        if sample.sign:
            ranks[sample.name], alike = ranked(sample)
            tied = [ids[place] for place in ranks[sample.name][:alike]]
            first[sample.name] = _undefeated(tied, made[sample.name], sample.sign)
    order = ranks.get(main.name, list(range(len(groups))))
    settings = [_setting(place, groups[place], names, keys, samples) for place in order]
    level = {name: _level(ids, rank, first[name], made[name]) for name, rank in ranks.items()}
    leaders = {name: some if _lead(some, level[name], made[name]) else () for name, some in first.items()}
    needed = {
        item.name: needed_runs(item, first[item.name], ids, made[item.name])
        for item in samples
        if item.name in ranks
    }
    return Findings(
        task=None if tasks == ["None"] else tasks[0],
        settings=tuple(settings),
        main=main.name,
        pairs=tuple(pair for found in made.values() for pair in found),
        best={name: some[0] if len(some) == 1 else None for name, some in leaders.items()},
        leaders=leaders,
        level_with_best=level,
        needed_runs={name: item and item.runs for name, item in needed.items()},
        needed_pair={name: item and item.pair for name, item in needed.items()},
        needed_least={name: item and item.least for name, item in needed.items()},
        needed_paired={name: item and item.paired for name, item in needed.items()},
        response=_response(main, settings, keys, first, level, ids),
        effects=tuple(effect for item in samples for effect in effects(item.name, item.of, keys)),
        odd=tuple(
            odd_runs(groups, [item for item in samples if not repeats(item.name, known, rule, asked)], at)
        ),
        at_step=at,
        rule=rule,
        asked=asked,
        levels=shared_levels(groups, known),
        margin=config.margin,
        uncompared=len(groups) * (len(groups) - 1) // 2 - len(compared),
        warnings=tuple(_warnings(groups, samples, at)),
    )


def _nothing_shared(groups: Sequence[Group]) -> str:
    """Return what the settings could be compared by."""
    shared = sorted(set.intersection(*(group.columns for group in groups)))
    if not shared:
        return "compare: the settings share no metric"
    return (
        f"compare: the settings share no landmark and none of {listed(METRICS)}; metrics=[{shared[0]}] compares one of "
        f"those that they do: {listed(shared, 20)}"
    )


def _pairs(
    sample: Measure, groups: Sequence[Group], compared: Sequence[tuple[int, int]], margin: float | None
) -> list[Pair]:
    """Compare the settings by one landmark or metric."""
    untested = [_untested(sample, places) for places in compared]
    n_tested = untested.count("")
    pairs = counted(compared, "pairs", sample.name)
    gaps = [_gap(sample.of[a], sample.of[b], n_tested, sample.sign) for a, b in pairs]
    # What could not be tested takes nothing from the level of the others.
    adjusted = iter(holm([gap.p for gap, why in zip(gaps, untested, strict=True) if not why]))
    found = []
    for (a, b), gap, why in zip(compared, gaps, untested, strict=True):
        p = 1.0 if why else next(adjusted)
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
            tested=not why,
        )
        if margin is not None and _within(pair, margin):
            pair = replace(pair, verdict="equivalent")
        elif p > LEVEL:
            reason = why or _reason(pair, gap.least_p, n_tested, sample, (a, b))
            pair = replace(pair, verdict="cannot_tell", reason=reason)
        elif sample.of[a].is_metric and None not in pair.interval and not _leaves_out_0(pair.interval):
            pair = replace(pair, reason=f"p by permutation; the interval, {pair.law}, holds 0")
        found.append(pair)
    return found


def _gap(one: Times | Values, other: Times | Values, n_pairs: int, sign: int | None) -> Gap:
    if isinstance(one, Times) and isinstance(other, Times):
        return between_times(one, other, n_pairs)
    assert isinstance(one, Values) and isinstance(other, Values)
    return between_values(one, other, n_pairs, sign)


def _within(pair: Pair, margin: float) -> bool:
    """Whether the interval lies within the margin; a share where it is of steps."""
    steps = pair.log_rank_p is not None
    low, high = pair.ratio_interval if steps else pair.interval
    least, most = (1 / (1 + margin), 1 + margin) if steps else (-margin, margin)
    return low is not None and high is not None and least <= low and high <= most


def _untested(sample: Measure, places: tuple[int, int]) -> str:
    """Return why there is nothing to test between two settings; empty where there is."""
    one, other = (sample.of[place] for place in places)
    if isinstance(one, Times) and isinstance(other, Times):
        return "" if one.reached or other.reached else "no run of the two reached it"
    assert isinstance(one, Values) and isinstance(other, Values)
    lost, (n, m) = one.lost + other.lost, (len(item.values) + item.lost for item in (one, other))
    if lost == n + m:
        return "all runs diverged"
    if lost and not sample.sign:
        return f"{lost} of {count(n + m, 'run')} diverged, and whether less or more is better is not known"
    return f"{n} and {count(m, 'run')} with a value" if min(n, m) < 2 else ""


def _reason(pair: Pair, least_p: float, n_pairs: int, sample: Measure, places: tuple[int, int]) -> str:
    """Return why a pair that was tested cannot be told apart."""
    n, m = pair.runs
    lost = sum(item.lost for item in map(sample.of.__getitem__, places) if isinstance(item, Values))
    if least_p * n_pairs > LEVEL:
        among = f" among {n_pairs} pairs" if n_pairs > 1 else ""
        return f"{n} and {count(m, 'run')} are too few: no outcome{among} could be told from chance"
    if pair.p == 1.0 and not pair.estimate:
        return "no difference is seen"
    why = f"p = {pair.p_adjusted:.2g}"
    if _leaves_out_0(pair.interval):
        # The interval is of the pair alone; and of means it is Welch's or Student's, which trust in a normal law.
        if pair.p <= LEVEL:
            why += f", of this pair alone {pair.p:.2g}"
        elif sample.of[places[0]].is_metric and not lost:
            why += f" by permutation; the interval, {pair.law}, leaves out 0"
    return f"the difference could be chance ({why})"


def _leaves_out_0(interval: Bounds) -> bool:
    low, high = interval
    return (low is not None and low > 0) or (high is not None and high < 0)


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
            elif (
                sample.name.endswith("loss")
                and min((x for one in sample.of for x in _known(one)), default=-1) >= 0
            ):
                interval = _clipped(interval, math.inf)
            some_lost = any(isinstance(one, Values) and one.lost for one in sample.of)
            middle = median_of(item, sample.sign) if some_lost and sample.sign else None
            ends[sample.name] = Final(
                mean, interval, tuple(map(float, item.values)), item.lost, middle, item.short
            )
    diverged = sum(run.diverged_step is not None for run in group.runs)
    return Setting(group.id, names[place], dict(keys[place]), len(group.runs), diverged, landmarks, ends)


def _known(item: Times | Values) -> Iterable[float]:
    return map(float, item.values) if isinstance(item, Values) else ()


def _clipped(interval: Bounds, most: float = 1.0) -> Bounds:
    """Return an interval of a share, which is between 0 and 1, or of what is not below 0."""
    low, high = (None if end is None else min(max(end, 0.0), most) for end in interval)
    return low, high


def _undefeated(tied: Sequence[str], found: Sequence[Pair], sign: int) -> tuple[str, ...]:
    """Return of settings with the best median or mean those that are not told to be worse than another of them."""
    worse = {
        pair.b if pair.estimate * sign > 0 else pair.a
        for pair in found
        if pair.verdict == "differ" and pair.estimate and {pair.a, pair.b} <= {*tied}
    }
    return tuple(one for one in tied if one not in worse) or tuple(tied)


def _lead(first: Sequence[str], level: Sequence[str], found: Sequence[Pair]) -> bool:
    """Return whether there is a setting that all of the first are told apart from."""
    others = [{pair.a, pair.b} - {*first} for pair in found if pair.verdict == "differ"]
    return any(len(other) == 1 and not other & {*level} for other in others)


def _level(
    ids: Sequence[str], rank: Sequence[int], first: Sequence[str], found: Sequence[Pair]
) -> tuple[str, ...]:
    """Return the settings that some of the first is not told apart from."""
    others = [{pair.a, pair.b} - {*first} for pair in found if pair.verdict != "differ"]
    level = {other.pop() for other in others if len(other) == 1}
    return tuple(ids[place] for place in rank if ids[place] in level)


def _response(
    main: Measure,
    settings: Sequence[Setting],
    keys: Sequence[Mapping[str, Any]],
    best: Mapping[str, Sequence[str]],
    level: Mapping[str, Sequence[str]],
    ids: Sequence[str],
) -> Response | None:
    """Return the main landmark or metric over the values of the key that was swept, where it is one and numeric."""
    numbers = [next(iter(item.values())) for item in keys if len(item) == 1]
    if len(numbers) < max(len(keys), 3) or main.name not in best:
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
    first = [float(numbers[ids.index(one)]) for one in best[main.name]]
    near = [*first, *(float(numbers[ids.index(one)]) for one in level[main.name])]
    found = Best(first[0] if len(first) == 1 else None, (min(near), max(near)))
    return Response(next(iter(keys[0])), main.name, tuple(values), found)


def _warnings(groups: Sequence[Group], samples: Sequence[Measure], at: int | None) -> list[str]:
    lines = []
    diverged = {group.id: sum(run.diverged_step is not None for run in group.runs) for group in groups}
    if some := [f"{n} of {name}" for name, n in diverged.items() if n]:
        lines.append(
            "runs that diverged reach no landmark afterwards and count as the worst of all last values: "
            f"{listed(some)}"
        )
    for name in sorted(unlike_levels(groups, {sample.name for sample in samples})):
        lines.append(
            f"{name}: the settings have levels of {LEVELS[name]} of their own, so that steps are not of one event"
        )
    short = [
        max((item.short for sample in samples if isinstance(item := sample.of[place], Values)), default=0)
        for place in range(len(groups))
    ]
    if some := [f"{n} of {group.id}" for n, group in zip(short, groups, strict=True) if n]:
        lines.append(
            f"runs that ended before step {at:,} have no value there and are left out of means: {listed(some)}"
        )
    lengths = sorted(
        {max((int(run.grid[-1]) for run in group.runs if len(run.grid)), default=0) for group in groups}
    )
    if len(lengths) > 1:
        lines.append(
            f"the settings were trained for {lengths[0]:,} to {lengths[-1]:,} steps: landmarks are compared up to "
            "where both of a pair were watched"
        )
    return lines
