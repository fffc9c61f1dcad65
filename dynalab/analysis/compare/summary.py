"""What a comparison says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dynalab.analysis.compare.findings import Findings, Landmark, Pair, Setting
from dynalab.analysis.compare.pairs import OPEN, Bounds
from dynalab.analysis.compare.permutation import LEVEL
from dynalab.core.runs import Group
from dynalab.core.words import count, listed, number, p_equals, p_value, spoken
from dynalab.show.blocks import Block, Cell, Effect, Ranking, Response, Say, Table

MOST_PAIRS = 40
# Landmark -> what a run does there.
WORDS = {
    "generalised_step": "generalises",
    "memorised_step": "memorises",
    "converged_step": "converges",
}


def show(findings: Findings, groups: Sequence[Group]) -> Iterator[Block]:
    """Yield what a reader sees; without groups (a terminal) there is no figure."""
    yield Say(_headline(findings), headline=True)
    for name in _names(findings):
        if name != findings.main and not _same(findings, name) and (line := _sentence(findings, name)):
            # A label keeps its letters.
            yield Say(line if line.startswith("**") else f"{line[0].upper()}{line[1:]}")
    if line := _effect_words(findings):
        yield Say(line)
    if (needed := findings.needed_runs.get(findings.main)) is not None:
        yield Say(
            f"About **{count(needed, 'seed')}** a setting would tell the first two by {_metric(findings.main)} apart "
            "in four of five trials, if they differ as much as these runs do."
        )
    if groups:
        yield _ranking(findings)
        if findings.response is not None:
            yield _response(findings)
        if len(findings.settings[0].keys) == 2:
            yield _effect(findings)
    yield _settings(findings)
    if findings.effects:
        yield _effects(findings)
    yield from _pairs(findings)


def _same(findings: Findings, name: str) -> bool:
    """Whether a landmark is the level of the first one, held for some rows: nothing new is said of it."""
    known = findings.settings[0].landmarks
    return (
        name == "converged_step" != findings.main
        and findings.rule is not None
        and (findings.rule.metric == "test_accuracy" and "generalised_step" in known)
    )


def _names(findings: Findings) -> list[str]:
    first = findings.settings[0]
    return [findings.main, *(name for name in (*first.landmarks, *first.final) if name != findings.main)]


def _by_id(findings: Findings) -> dict[str, Setting]:
    return {setting.ensemble: setting for setting in findings.settings}


def _headline(findings: Findings) -> str:
    n = count(len(findings.settings), "setting")
    return f"**Comparison** of {n}: {_sentence(findings, findings.main) or _no_order(findings)}"


def _no_order(findings: Findings) -> str:
    differ = sum(pair.verdict == "differ" for pair in findings.pairs if pair.of == findings.main)
    total = sum(pair.of == findings.main for pair in findings.pairs)
    return f"by {_metric(findings.main)}, {differ} of {count(total, 'pair')} of settings differ."


def _sentence(findings: Findings, name: str) -> str:
    """Return who leads by a landmark or metric, by how much, and how surely; empty where that is not known."""
    if name not in findings.best:
        return ""
    settings = _by_id(findings)
    best, level = findings.best[name], findings.level_with_best[name]
    landmark = name in findings.settings[0].landmarks
    if landmark and not any(setting.landmarks[name].reached for setting in findings.settings):
        return f"no run of any setting {WORDS[name]}."
    what = f"{WORDS[name]} first" if landmark else f"has the best {_metric(name)}"
    if best is None:
        pairs = [pair for pair in findings.pairs if pair.of == name]
        differ = sum(pair.verdict == "differ" for pair in pairs)
        reasons = {pair.reason for pair in pairs}
        why = next(iter(reasons)) if len(reasons) == 1 else f"{differ} of {count(len(pairs), 'pair')} differ"
        return f"which setting {what} cannot be told: {why}."
    first = settings[best]
    if level:
        beside = listed([f"**{settings[one].label}**" for one in level], 4)
        text = f"**{first.label}** {what} ({_value(first, name)}), and is not told apart from {beside}"
    else:
        text = f"**{first.label}** {what} ({_value(first, name)})"
    order = [pair for pair in findings.pairs if pair.of == name and best in (pair.a, pair.b)]
    told = [pair for pair in order if pair.verdict == "differ"]
    never = [
        _other(pair, best)
        for pair in told
        if landmark and not settings[_other(pair, best)].landmarks[name].reached
    ]
    if told and len(never) == len(told):
        p = max(pair.p_adjusted for pair in told)
        labels = listed([settings[one].label for one in never], 4)
        text += f"; no run with {labels} does (p {p_equals(p)})"
    elif told:
        rank = [setting.ensemble for setting in sorted(findings.settings, key=lambda item: _rank(item, name))]
        nearest = min(told, key=lambda pair: rank.index(_other(pair, best)))
        text += f"; {settings[_other(nearest, best)].label} is {_gap(nearest, best, landmark)}"
    return f"{text}."


def _rank(setting: Setting, name: str) -> float:
    if name in setting.landmarks:
        middle = setting.landmarks[name].median_step
        return float("inf") if middle is None else middle
    mean = setting.final[name].mean
    return float("inf") if mean is None else abs(mean)


def _other(pair: Pair, best: str) -> str:
    return pair.b if pair.a == best else pair.a


def _gap(pair: Pair, best: str, landmark: bool) -> str:
    """Return by how much the other setting of a pair is behind the best one."""
    sign = 1 if pair.a == best else -1
    p = f"p {p_equals(pair.p_adjusted)}"
    if pair.estimate is None:
        return f"later, by how much is not known ({p})"
    low, high = _turned(pair.interval, sign)
    gap = sign * pair.estimate
    if landmark:
        return (
            f"{number(round(abs(gap)))} steps {'later' if gap >= 0 else 'earlier'}{_brackets(low, high)}, {p}"
        )
    if gap < 0:
        low, high = _turned((low, high), -1)
    return f"{'higher' if gap >= 0 else 'lower'} by {number(_digits(abs(gap)))}{_brackets(low, high)}, {p}"


def _turned(interval: Bounds, sign: int) -> Bounds:
    low, high = interval
    if sign > 0:
        return low, high
    return (None if high is None else -high, None if low is None else -low)


def _span(low: float | None, high: float | None) -> str:
    return f"{'open' if low is None else number(_digits(low))} to {'open' if high is None else number(_digits(high))}"


def _brackets(low: float | None, high: float | None) -> str:
    return "" if low is None and high is None else f" [{_span(low, high)}]"


def _digits(value: float) -> float:
    return float(f"{value:.3g}") if abs(value) < 1000 else float(round(value))


def _value(setting: Setting, name: str) -> str:
    if name in setting.landmarks:
        item = setting.landmarks[name]
        n = f"{item.reached} of {count(setting.runs, 'run')}"
        if item.median_step is None:
            return n
        return f"median step **{number(item.median_step)}**{_brackets(*item.interval)}, {n}"
    final = setting.final[name]
    return (
        f"mean **{number(None if final.mean is None else _digits(final.mean))}**{_brackets(*final.interval)}"
    )


def _metric(name: str) -> str:
    return (spoken(name) or name).removesuffix(" step")


def _settings(findings: Findings) -> Table:
    first = findings.settings[0]
    shown = [name for name in first.landmarks if not _same(findings, name)]
    header = ["setting", *(f"{WORDS[name]} at" for name in shown), *map(_metric, first.final), "ensemble"]
    rows: list[list[object]] = []
    for setting in findings.settings:
        landmarks = [_reached(setting.landmarks[name], setting.runs) for name in shown]
        ends = [_cell(final.mean, final.interval) for final in setting.final.values()]
        rows.append([setting.label, *landmarks, *ends, setting.ensemble])
    where = "" if findings.at_step is None else f", means of metrics at step {findings.at_step:,}"
    caption = (
        f"Settings, the best first by {_metric(findings.main)}: median steps and of how many runs{where}"
    )
    return Table(header, rows, f"{caption}; with 95% intervals")


def _reached(item: Landmark, runs: int) -> Cell:
    """Return the median step of a landmark with its interval, and how many runs of all reached it."""
    low, high = item.interval
    step = f"{number(item.median_step)}{_brackets(low, high)}" if item.median_step is not None else ""
    if not step and low is not None and item.reached:
        step = f"after {number(low)}"
    return Cell(
        item.median_step, f"{step}, {item.reached} of {runs}" if step else f"{item.reached} of {runs}"
    )


def _cell(value: float | None, interval: Bounds) -> Cell | None:
    text, (low, high) = _brackets(*interval), interval
    if value is None:
        if low is not None and low > 0:
            return Cell(None, f"at least {number(_digits(low))}")
        return Cell(None, f"at most {number(_digits(high))}") if high is not None and high < 0 else None
    return Cell(value, f"{number(None if value is None else _digits(value))}{text}")


def _pairs(findings: Findings) -> Iterator[Block]:
    settings = _by_id(findings)
    for name in (name for name in _names(findings) if not _same(findings, name)):
        landmark = name in findings.settings[0].landmarks
        pairs = [pair for pair in findings.pairs if pair.of == name]
        unit = f"{WORDS[name]}, steps later" if landmark else f"{_metric(name)}, higher by"
        header = ["first", "second", unit, "times", "p (Holm)", "verdict", ""]
        rows = [
            [
                settings[pair.a].label,
                settings[pair.b].label,
                _cell(pair.estimate, pair.interval),
                _cell(pair.ratio, pair.ratio_interval),
                Cell(pair.p_adjusted, p_value(pair.p_adjusted)),
                Cell(
                    pair.verdict, spoken(pair.verdict) or "", "found" if pair.verdict == "differ" else "quiet"
                ),
                pair.reason + (" (seed by seed)" if pair.paired else ""),
            ]
            for pair in pairs
        ]
        caption = f"Pairs by {_metric(name)}: the second against the first"
        yield Table(header, rows, caption, folded=name != findings.main or len(rows) > MOST_PAIRS)


def _notes(findings: Findings, name: str) -> list[str]:
    notes = []
    for setting in findings.settings:
        if name in setting.landmarks:
            item = setting.landmarks[name]
            notes.append(f"{item.reached} of {setting.runs}")
        else:
            notes.append(f"{len(setting.final[name].values)} of {setting.runs}")
    return notes


def _values(setting: Setting, name: str) -> Sequence[float | None]:
    return setting.landmarks[name].steps if name in setting.landmarks else setting.final[name].values


def _estimate(setting: Setting, name: str) -> tuple[float | None, Bounds]:
    if name in setting.landmarks:
        return setting.landmarks[name].median_step, setting.landmarks[name].interval
    return setting.final[name].mean, setting.final[name].interval


def _axis(findings: Findings, name: str) -> str:
    if name in findings.settings[0].landmarks:
        return f"step at which a run {WORDS[name]}"
    where = "at the end" if findings.at_step is None else f"at step {findings.at_step:,}"
    return f"{_metric(name)} {where}"


def _ranking(findings: Findings) -> Ranking:
    name = findings.main
    settings = findings.settings
    estimates = [_estimate(setting, name) for setting in settings]
    what = "median" if name in settings[0].landmarks else "mean"
    never = " Arrow heads at the right end: runs that never did." if name in settings[0].landmarks else ""
    return Ranking(
        name="ranking",
        caption=f"**Settings by {_axis(findings, name)}, the best on top.** A dot a run; below, the {what} with "
        f"its 95% interval.{never}",
        alt=f"{len(settings)} settings ranked by {_axis(findings, name)}",
        labels=[setting.label for setting in settings],
        values=[_values(setting, name) for setting in settings],
        estimates=[estimate for estimate, _ in estimates],
        intervals=[interval for _, interval in estimates],
        notes=_notes(findings, name),
        axis=_axis(findings, name),
    )


def _response(findings: Findings) -> Response:
    found = findings.response
    assert found is not None
    by_value = {float(next(iter(setting.keys.values()))): setting for setting in findings.settings}
    low, high = found.best.interval
    near = f"{low:g}" if low == high else f"{low:g} to {high:g}"
    return Response(
        name="response",
        caption=f"**{_axis(findings, found.of).capitalize()}, over {found.key}.** A dot a run, bars: 95% intervals. "
        f"Shaded: the values that are not told apart from the best, {found.best.value:g} ({near}).",
        alt=f"{_axis(findings, found.of)} over {found.key}",
        key=found.key,
        at=[level.value for level in found.values],
        values=[_values(by_value[level.value], found.of) for level in found.values],
        estimates=[level.estimate for level in found.values],
        intervals=[level.interval for level in found.values],
        best=(low, high),
        axis=_axis(findings, found.of),
    )


def _effect_words(findings: Findings) -> str:
    """Return which keys have an effect, and on what; empty where one alone was swept."""
    clauses = []
    for name in (name for name in _names(findings) if not _same(findings, name)):
        own = [effect for effect in findings.effects if effect.of == name]
        found = [effect for effect in own if effect.p_adjusted <= LEVEL]
        said = [f"**{' x '.join(effect.keys)}** (p {p_equals(effect.p_adjusted)})" for effect in found]
        what = f"when a run {WORDS[name]}" if name in WORDS else _metric(name)
        if own:
            clauses.append(f"on {what}: {listed(said) if said else 'none can be told'}")
    return f"Effects of the keys {'; '.join(clauses)}." if clauses else ""


def _effects(findings: Findings) -> Table:
    header = ["keys", "of", "second less first (of steps: times)", "p", "p (Holm)"]
    rows = [
        [
            " x ".join(effect.keys),
            _metric(effect.of),
            _cell(effect.estimate, effect.interval),
            Cell(effect.p, p_value(effect.p)),
            Cell(effect.p_adjusted, p_value(effect.p_adjusted)),
        ]
        for effect in findings.effects
    ]
    return Table(header, rows, "Effects of each key, and of two together", folded=True)


def _effect(findings: Findings) -> Effect:
    name = findings.main
    first, second = findings.settings[0].keys
    by_keys = {tuple(map(repr, setting.keys.values())): setting for setting in findings.settings}
    levels = [
        sorted({repr(one.keys[key]): one.keys[key] for one in findings.settings}.values(), key=_order)
        for key in (first, second)
    ]
    cells = [[by_keys.get((repr(a), repr(b))) for b in levels[1]] for a in levels[0]]
    known = [[(None, OPEN) if cell is None else _estimate(cell, name) for cell in row] for row in cells]
    return Effect(
        name="effect",
        caption=f"**{_axis(findings, name).capitalize()}, over {second}, for each {first}.** Bars: 95% intervals. "
        "Lines that are not parallel are an interaction.",
        alt=f"{_axis(findings, name)} over {second} for each {first}",
        key=second,
        at=[_text(value) for value in levels[1]],
        lines=[f"{first.rpartition('.')[2]} {_text(value)}" for value in levels[0]],
        estimates=[[estimate for estimate, _ in row] for row in known],
        intervals=[[interval for _, interval in row] for row in known],
        axis=_axis(findings, name),
    )


def _order(value: object) -> tuple[bool, float, str]:
    plain = isinstance(value, int | float)
    return not plain, float(value) if isinstance(value, int | float) else 0.0, str(value)


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
