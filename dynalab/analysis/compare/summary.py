"""What a reader sees of a comparison: sentences, figures, and the tables of settings, effects and pairs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dynalab.analysis.compare import figures
from dynalab.analysis.compare.findings import Final, Findings, Landmark
from dynalab.analysis.compare.sentences import (
    WORDS,
    brackets,
    by_id,
    digits,
    effect_words,
    headline,
    key_numbers,
    metric,
    names,
    needed_words,
    never_words,
    odd_runs,
    rules_words,
    sentence,
    uncompared_words,
)
from dynalab.analysis.compare.settings import crossed
from dynalab.core.means import Bounds, intervals_words
from dynalab.core.runs import Group
from dynalab.core.words import listed, number, p_value, spoken
from dynalab.show.blocks import Block, Cell, Say, Table

MOST_PAIRS = 40


def show(findings: Findings, groups: Sequence[Group]) -> Iterator[Block]:
    """Yield what a reader sees; without groups (a terminal) there is no figure."""
    yield Say(headline(findings), headline=True)
    yield from key_numbers(findings)
    never = never_words(findings)
    if never:
        yield Say(never, headline=True)
    if line := rules_words(findings):
        yield Say(line, note=True)
    if line := uncompared_words(findings):
        yield Say(line, note=True)
    for name in names(findings):
        line = sentence(findings, name) if name != findings.main else ""
        if line and line.lower() != never.lower():
            # A label keeps its letters.
            yield Say(line if line.startswith("**") else f"{line[0].upper()}{line[1:]}")
    if line := effect_words(findings):
        yield Say(line)
    yield from map(Say, odd_runs(findings))
    if line := needed_words(findings):
        yield Say(line)
    if groups:
        yield figures.ranking(findings, groups)
        if findings.response is not None:
            yield figures.response(findings, groups)
        keys = [setting.keys for setting in findings.settings]
        if len(keys[0]) == 2 and crossed(keys):
            yield figures.effect(findings)
    yield _settings(findings)
    if findings.effects:
        yield _effects(findings)
    yield from _pairs(findings)


def _settings(findings: Findings) -> Table:
    first = findings.settings[0]
    shown = [name for name in first.landmarks if name in names(findings)]
    header = ["setting", *(f"{WORDS[name]} at" for name in shown), *map(metric, first.final), "ensemble"]
    rows: list[list[object]] = []
    for setting in findings.settings:
        landmarks = [_reached(setting.landmarks[name], setting.runs) for name in shown]
        ends = [_ended(final, setting.runs) for final in setting.final.values()]
        name = Cell(setting.label, setting=setting.ensemble)
        rows.append([name, *landmarks, *ends, setting.ensemble])
    where = "" if findings.at_step is None else f", means of metrics at step {findings.at_step:,}"
    medians = "median steps (Kaplan and Meier) and of how many runs" if shown else "means"
    where = where if shown else where.removeprefix(", means of metrics")
    caption = f"Settings, the best first by {metric(findings.main)}: {medians}{where}"
    finals = [(final, setting) for setting in findings.settings for final in setting.final.values()]
    gone = [
        *(["did not diverge"] if any(final.lost for final, _ in finals) else []),
        *(["came so far"] if any(final.short for final, _ in finals) else []),
    ]
    if gone:
        caption += f" (of the runs that {listed(gone)}, how many of all behind it)"
    means = intervals_words((len(final.values), final.interval) for final, _ in finals)
    return Table(header, rows, f"{caption}; with {means}")


def _ended(final: Final, runs: int) -> Cell | None:
    """Return the mean of a metric with its interval, and of how many runs of all where some have none."""
    cell, n = _cell(final.mean, final.interval), len(final.values)
    if n == runs:
        return cell
    return Cell(final.mean, f"{cell.text}, {n} of {runs}" if cell else f"0 of {runs}")


def _reached(item: Landmark, runs: int) -> Cell:
    """Return the median step of a landmark with its interval, and how many runs of all reached it."""
    low, high = item.interval
    step = f"{number(item.median_step)}{brackets(low, high)}" if item.median_step is not None else ""
    if not step and low is not None and item.reached:
        step = f"after {number(low)}"
    return Cell(
        item.median_step, f"{step}, {item.reached} of {runs}" if step else f"{item.reached} of {runs}"
    )


def _cell(value: float | None, interval: Bounds) -> Cell | None:
    text, (low, high) = brackets(*interval), interval
    if value is None:
        if low is not None and low > 0:
            return Cell(None, f"at least {number(digits(low))}")
        return Cell(None, f"at most {number(digits(high))}") if high is not None and high < 0 else None
    return Cell(value, f"{number(None if value is None else digits(value))}{text}")


def _pairs(findings: Findings) -> Iterator[Block]:
    settings = by_id(findings)
    for name in names(findings):
        landmark = name in findings.settings[0].landmarks
        pairs = [pair for pair in findings.pairs if pair.of == name]
        unit = f"{f'{WORDS[name]} at step' if landmark else metric(name)}, second less first"
        header = ["first", "second", unit, "times", "p (Holm)", "verdict", ""]
        rows = [
            [
                Cell(settings[pair.a].label, setting=pair.a),
                Cell(settings[pair.b].label, setting=pair.b),
                _cell(pair.estimate, pair.interval),
                _cell(pair.ratio, pair.ratio_interval),
                Cell(pair.p_adjusted, p_value(pair.p_adjusted)) if pair.tested else None,
                Cell(
                    pair.verdict,
                    spoken(pair.verdict if pair.tested else "not_tested") or "",
                    "found" if pair.verdict == "differ" else "quiet",
                ),
                pair.reason + (" (seed by seed)" if pair.paired else ""),
            ]
            for pair in pairs
        ]
        caption = f"Pairs by {metric(name)}: the second less the first, and how many times as much; "
        if landmark:
            caption += (
                "the shift at which the test sees no difference (Hodges and Lehmann), with 95% intervals by the same "
                "test, open where runs do not tell; p by permutation, of Gehan's test, corrected for all pairs (Holm)"
            )
        else:
            caption += "p by permutation, corrected for all pairs (Holm); "
            lost = {setting.ensemble for setting in findings.settings if setting.final[name].lost}
            whole = [pair for pair in pairs if not {pair.a, pair.b} & lost]
            laws = {pair.law for pair in whole}
            means = intervals_words((min(pair.runs), pair.interval) for pair in whole)
            caption += f"{' or '.join(sorted(laws))} {means}" if whole else "95% intervals by the same test"
            caption += ", of ranks where runs diverged" if lost else ""
        yield Table(header, rows, caption, folded=name != findings.main or len(rows) > MOST_PAIRS)


def _effects(findings: Findings) -> Table:
    header = ["keys", "of", "second less first (of steps: times)", "p", "p (Holm)"]
    rows = [
        [
            " x ".join(effect.keys),
            metric(effect.of),
            _cell(effect.estimate, effect.interval),
            Cell(effect.p, p_value(effect.p)),
            Cell(effect.p_adjusted, p_value(effect.p_adjusted)),
        ]
        for effect in findings.effects
    ]
    return Table(header, rows, "Effects of each key, and of two together", folded=True)
