"""The figures of a comparison: settings ranked, the response over a key, the effect of two."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dynalab.analysis.compare.findings import Findings, Setting
from dynalab.analysis.compare.samples import ended_before
from dynalab.analysis.compare.sentences import WORDS, metric, names
from dynalab.analysis.compare.settings import rank_of
from dynalab.config.settings import look_alike
from dynalab.core.means import OPEN, Bounds, intervals_words
from dynalab.core.runs import Group
from dynalab.core.words import listed
from dynalab.show.blocks import Effect, Ranking, Response


def ranking(findings: Findings, groups: Sequence[Group] = ()) -> Ranking:
    """Return the settings by the main landmark or metric, a dot a run."""
    name = findings.main
    settings = findings.settings
    estimates = [_estimate(setting, name) for setting in settings]
    what, never = (
        "median with its 95% interval",
        " Arrow heads at the right end: runs that never did; beside it, how many did.",
    )
    if name not in settings[0].landmarks:
        finals = [setting.final[name] for setting in settings]
        gone = [
            *(["diverged"] if any(final.lost for final in finals) else []),
            *(["ended before"] if any(final.short for final in finals) else []),
        ]
        lost = f"Of runs that {listed(gone, last='or')} there is none" if gone else ""
        what = f"mean with {intervals_words((len(final.values), final.interval) for final in finals)}"
        never = f" {lost}: beside it, of how many of all it is." if lost else ""
    last, grain = _watched(findings, name, groups)
    return Ranking(
        name="ranking",
        caption=f"**Settings by {_axis(findings, name)}, the best on top.** A dot a run; below, the {what}."
        f"{never}",
        alt=f"{len(settings)} settings ranked by {_axis(findings, name)}",
        labels=[setting.label for setting in settings],
        values=[_values(setting, name) for setting in settings],
        estimates=[estimate for estimate, _ in estimates],
        intervals=[interval for _, interval in estimates],
        notes=_notes(findings, name),
        axis=_axis(findings, name),
        last=last,
        grain=grain,
        runs=_runs(settings, name, groups, findings.at_step),
        settings=[setting.ensemble for setting in settings],
    )


def _watched(findings: Findings, name: str, groups: Sequence[Group]) -> tuple[float | None, float | None]:
    """Return up to where runs were watched for a landmark, and how far their rows lie apart; None of a metric."""
    grids = [run.grid for group in groups for run in group.runs if len(run.grid) > 1]
    if name not in findings.settings[0].landmarks or not grids:
        return None, None
    return float(max(grid[-1] for grid in grids)), float(min(np.diff(grid).min() for grid in grids))


def response(findings: Findings, groups: Sequence[Group] = ()) -> Response:
    """Return the main landmark or metric over the values of the key that was swept."""
    found = findings.response
    assert found is not None
    by_value = {float(next(iter(setting.keys.values()))): setting for setting in findings.settings}
    settings = [by_value[level.value] for level in found.values]
    low, high = found.best.interval
    shaded = "the best value, that all others are told apart from"
    if low != high:
        one = "the best" if found.best.value is None else f"the best, {found.best.value:g}"
        shaded = f"the values that are not told apart from {one}: {low:g} to {high:g}"
    last, grain = _watched(findings, found.of, groups)
    return Response(
        name="response",
        caption=f"**{_axis(findings, found.of).capitalize()}, over {found.key}.** A dot a run, bars: 95% intervals. "
        f"Shaded: {shaded}.",
        alt=f"{_axis(findings, found.of)} over {found.key}",
        key=found.key,
        at=[level.value for level in found.values],
        values=[_values(setting, found.of) for setting in settings],
        estimates=[level.estimate for level in found.values],
        intervals=[level.interval for level in found.values],
        best=(low, high),
        axis=_axis(findings, found.of),
        last=last,
        grain=grain,
        runs=_runs(settings, found.of, groups, findings.at_step),
        settings=[setting.ensemble for setting in settings],
    )


def effect(findings: Findings) -> Effect:
    """Return a landmark or metric over the key with more values, a line for each value of the other.

    It is the first of which the effects are known: where runs never came, those on their steps are not.
    """
    known = {item.of for item in findings.effects}
    name = next((name for name in names(findings) if name in known), findings.main)
    steps = name in findings.settings[0].landmarks
    levels = {
        key: sorted({repr(one.keys[key]): one.keys[key] for one in findings.settings}.values(), key=rank_of)
        for key in findings.settings[0].keys
    }
    line, along = sorted(levels, key=lambda key: len(levels[key]))
    by_keys = {(repr(one.keys[line]), repr(one.keys[along])): one for one in findings.settings}
    cells = [[by_keys.get((repr(a), repr(b))) for b in levels[along]] for a in levels[line]]
    made = [[(None, OPEN) if cell is None else _estimate(cell, name) for cell in row] for row in cells]
    never = " An arrow: fewer than half of the runs did." if steps else ""
    return Effect(
        name="effect",
        caption=f"**{_axis(findings, name).capitalize()}, over {along}, for each {line}.** Bars: 95% intervals. "
        f"Lines that are not parallel are an interaction.{never}",
        alt=f"{_axis(findings, name)} over {along} for each {line}",
        key=along,
        at=_texts(levels[along]),
        lines=[f"{line.rpartition('.')[2]} {text}" for text in _texts(levels[line])],
        estimates=[[estimate for estimate, _ in row] for row in made],
        intervals=[[interval for _, interval in row] for row in made],
        axis=_axis(findings, name),
        ratios=steps,
    )


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


def _runs(settings: Sequence[Setting], name: str, groups: Sequence[Group], at: int | None) -> list[list[str]]:
    """Return the ids of the runs whose values each setting has; none where they are not told."""
    made = []
    known = {group.id: sorted(group.runs, key=lambda run: run.id) for group in groups}
    for setting in settings:
        runs, size = known.get(setting.ensemble, []), len(_values(setting, name))
        if len(runs) != size:
            runs = [run for run in runs if run.diverged_step is None]
        if len(runs) != size and at is not None:
            runs = [run for run in runs if not ended_before(run, run.first(name), at)]
        if len(runs) != size:
            return []
        made.append([run.id for run in runs])
    return made


def _estimate(setting: Setting, name: str) -> tuple[float | None, Bounds]:
    if name in setting.landmarks:
        return setting.landmarks[name].median_step, setting.landmarks[name].interval
    return setting.final[name].mean, setting.final[name].interval


def _axis(findings: Findings, name: str) -> str:
    if name in findings.settings[0].landmarks:
        return f"step at which a run {WORDS[name]}"
    where = "at the end" if findings.at_step is None else f"at step {findings.at_step:,}"
    return f"{metric(name)} {where}"


def _texts(values: Sequence[object]) -> list[str]:
    exact = look_alike(values)
    return [f"{value:g}" if isinstance(value, float) and not exact else str(value) for value in values]
