"""What a comparison says in sentences: who leads, by how much and how surely, what keys do, which run is odd."""

from __future__ import annotations

from collections.abc import Sequence

from dynalab.analysis.compare.findings import Final, Findings, Pair, Setting
from dynalab.analysis.compare.measures import CONVERGED, repeats
from dynalab.analysis.compare.samples import LEVELS
from dynalab.core.means import Bounds
from dynalab.core.survival import LEVEL
from dynalab.core.words import count, listed, metric_words, number, p_equals, run_words
from dynalab.show.blocks import Number

# Landmark -> what a run does there.
WORDS = {
    "generalised_step": "generalises",
    "memorised_step": "memorises",
    "converged_step": "converges",
}

MOST_ODD = 5


def names(findings: Findings) -> list[str]:
    """Return landmarks and metrics, the main one first, but for a landmark that repeats another."""
    first = findings.settings[0]
    every = [*first.landmarks, *first.final]
    others = [name for name in every if not repeats(name, every, findings.rule, findings.asked)]
    return [findings.main, *(name for name in others if name != findings.main)]


def by_id(findings: Findings) -> dict[str, Setting]:
    """Return the settings by the ids of their ensembles."""
    return {setting.ensemble: setting for setting in findings.settings}


def headline(findings: Findings) -> str:
    """Return who is first by the main landmark or metric."""
    n = count(len(findings.settings), "setting")
    return (
        f"**Comparison** of {n} with {_runs_each(findings)} each: "
        f"{sentence(findings, findings.main) or _no_order(findings)}"
    )


def _no_order(findings: Findings) -> str:
    differ = sum(pair.verdict == "differ" for pair in findings.pairs if pair.of == findings.main)
    total = sum(pair.of == findings.main for pair in findings.pairs)
    return f"by {metric(findings.main)}, {differ} of {count(total, 'pair')} of settings differ."


def _runs_each(findings: Findings) -> str:
    sizes = sorted({setting.runs for setting in findings.settings})
    return count(sizes[0], "run") if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,} runs"


def never_words(findings: Findings) -> str:
    """Return by name the settings in which not every run generalises; empty where there is none."""
    name = "generalised_step"
    every = [setting for setting in findings.settings if name in setting.landmarks]
    # The headline has named them already.
    said_of = _never(findings, name) if findings.main == name else []
    some = [setting for setting in every if setting.ensemble not in said_of]
    parts = {setting.label: setting.landmarks[name].reached for setting in some}
    if not any(parts.values()) and some == every:
        return f"No run of any setting {WORDS[name]}." if some else ""
    said = []
    if never := [f"**{label}**" for label, reached in parts.items() if not reached]:
        said.append(f"no run with {listed(never, last='or')} {WORDS[name]}")
    said += [
        f"{setting.landmarks[name].reached} of {count(setting.runs, 'run')} with **{setting.label}** do"
        for setting in some
        if 0 < setting.landmarks[name].reached < setting.runs
    ]
    text = "; ".join(said)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def rules_words(findings: Findings) -> str:
    """Return when a run counts as having reached each landmark; empty where that is known of none."""
    shown = names(findings)
    said = [
        f"{WORDS[name]} at the first row with {metric_words(LEVELS[name])} at least {number(findings.levels[name])}"
        for name in shown
        if name in findings.levels
    ]
    if findings.rule is not None and CONVERGED in shown:
        words, alone = findings.rule.words(), findings.rule.persistence == 1
        which = f"with {words.removesuffix(' for 1 row')}" if alone else f"of those with {words} in a row"
        said.append(f"converges at the first row {which}")
    return f"A run {listed(said)}." if said else ""


def key_numbers(findings: Findings) -> list[Number]:
    """Return what is written large of a comparison: who leads, by how much and how surely, of how many runs."""
    name, settings = findings.main, by_id(findings)
    landmark = name in findings.settings[0].landmarks
    what = f"{WORDS[name]} first" if landmark else f"best {metric(name)}"
    best = findings.leaders.get(name, ())
    made = []
    if not best:
        made.append(Number("undecided", what, f"of {count(len(settings), 'setting')}"))
    else:
        first = settings[best[0]].label if len(best) == 1 else f"{len(best)} settings alike"
        made.append(Number(first, what, _value([settings[one] for one in best], name).replace("**", "")))
        if (pair := _nearest(findings, name)) is not None:
            made.append(_lead(pair, settings[_other(pair, best)], name, best))
    if name != "generalised_step" and "generalised_step" in findings.settings[0].landmarks:
        reached = sum(setting.landmarks["generalised_step"].reached for setting in settings.values())
        total = count(sum(setting.runs for setting in settings.values()), "run")
        made.append(Number(f"{reached:,}" if reached else "never", "generalised", f"{reached:,} of {total}"))
    return [*made, Number(_runs_each(findings), "each setting", f"{count(len(settings), 'setting')}")]


def _lead(pair: Pair, other: Setting, name: str, best: Sequence[str]) -> Number:
    p, landmark = f"p {p_equals(pair.p_adjusted)}", name in other.landmarks
    if pair.estimate is None:
        reached = f"{other.landmarks[name].reached} of {count(other.runs, 'run')}, " if landmark else ""
        never = landmark and not other.landmarks[name].reached
        return Number(
            "never" if never else "later" if landmark else "worse",
            f"{other.label}, the next",
            f"{reached}{p}",
        )
    size, word, interval = _distance(pair, best, landmark)
    return Number(f"{size} {word}", f"{other.label}, the next", f"95%{interval}, {p}")


def _told(findings: Findings, name: str) -> list[Pair]:
    """Return the pairs of the leaders with those that all of them are told apart from."""
    best, level = {*findings.leaders[name]}, findings.level_with_best[name]
    return [
        pair
        for pair in findings.pairs
        if pair.of == name
        and pair.verdict == "differ"
        and len({pair.a, pair.b} & best) == 1
        and _other(pair, [*best]) not in level
    ]


def _never(findings: Findings, name: str) -> list[str]:
    """Return the settings that the leaders are told apart from, by their ids, where none of their runs got there."""
    best, settings = findings.leaders.get(name, ()), by_id(findings)
    others = [*dict.fromkeys(_other(pair, best) for pair in _told(findings, name))] if best else []
    reached = [name not in settings[one].landmarks or settings[one].landmarks[name].reached for one in others]
    return [] if any(reached) else others


def _nearest(findings: Findings, name: str) -> Pair | None:
    """Return the pair of the leaders, and the next that they are told apart from, that is told least surely."""
    settings, best = by_id(findings), findings.leaders[name]
    return min(
        _told(findings, name),
        key=lambda pair: (
            _behind(settings[_other(pair, best)], settings[best[0]], name),
            -pair.p_adjusted,
        ),
        default=None,
    )


def sentence(findings: Findings, name: str) -> str:
    """Return who leads by a landmark or metric, by how much, and how surely; empty where that is not known."""
    if name not in findings.best:
        return ""
    settings = by_id(findings)
    best, level = findings.leaders[name], findings.level_with_best[name]
    landmark = name in findings.settings[0].landmarks
    if landmark and not any(setting.landmarks[name].reached for setting in findings.settings):
        return f"no run of any setting {WORDS[name]}."
    what = f"{WORDS[name]} first" if landmark else f"has the best {metric(name)}"
    if not best:
        pairs = [pair for pair in findings.pairs if pair.of == name]
        differ = sum(pair.verdict == "differ" for pair in pairs)
        reasons = {pair.reason for pair in pairs}
        why = next(iter(reasons)) if len(reasons) == 1 else f"{differ} of {count(len(pairs), 'pair')} differ"
        return f"which setting {what} cannot be told: {why}{_lost(findings, name)}."
    several = len(best) > 1
    if several:
        what = f"{WORDS[name].removesuffix('s')} first" if landmark else f"have the best {metric(name)}"
        what += ", all alike" if len(best) > 2 else ", both alike"
    first = [settings[one] for one in best]
    text = f"{listed([f'**{one.label}**' for one in first], 4)} {what} ({_value(first, name)})"
    if level:
        beside = listed([f"**{settings[one].label}**" for one in level], 4)
        text += f", and {'are' if several else 'is'} not told apart from {beside}"
    if never := _never(findings, name):
        p = max(pair.p_adjusted for pair in _told(findings, name))
        labels = listed([settings[one].label for one in never], 4, "or")
        text += f"; no run with {labels} does (p {p_equals(p)})"
    elif nearest := _nearest(findings, name):
        text += f"; {settings[_other(nearest, best)].label} is {_gap(nearest, best, landmark)}"
    return f"{text}{_lost(findings, name)}."


def _lost(findings: Findings, name: str) -> str:
    """Return in which settings runs have no value of a metric, and how they count; empty where all have one."""
    some = [(one, one.final[name].lost) for one in findings.settings if name in one.final]
    said = [f"{n} of {count(one.runs, 'run')} with **{one.label}**" for one, n in some if n]
    text = f"; {listed(said, 4)} diverged and count as the worst" if said else ""
    short = [(one, one.final[name].short) for one in findings.settings if name in one.final]
    if said := [f"{n} of {count(one.runs, 'run')} with **{one.label}**" for one, n in short if n]:
        text += f"; {listed(said, 4)} ended before step {findings.at_step:,} and are left out"
    return text


def _behind(setting: Setting, best: Setting, name: str) -> tuple[float, int]:
    """Return how far a setting is from the best one; steps that are not known are last, by how many runs got there."""
    if name in setting.landmarks:
        item, first = setting.landmarks[name], best.landmarks[name].median_step
        if item.median_step is None or first is None:
            return float("inf"), -item.reached
        return abs(item.median_step - first), -item.reached
    mean, top = (_middle(item.final[name]) for item in (setting, best))
    return float("inf") if mean is None or top is None else abs(mean - top), 0


def _middle(item: Final) -> float | None:
    """Return what settings are ranked by: the mean, or the median where that of a setting is known."""
    return item.mean if item.median is None and not item.lost else item.median


def _other(pair: Pair, best: Sequence[str]) -> str:
    return pair.b if pair.a in best else pair.a


def _gap(pair: Pair, best: Sequence[str], landmark: bool) -> str:
    """Return by how much the other setting of a pair is behind the leader."""
    p = f"p {p_equals(pair.p_adjusted)}"
    if pair.estimate is None:
        return f"{'later, by how much is not known' if landmark else 'worse'} ({p})"
    size, word, interval = _distance(pair, best, landmark)
    return f"{size} {word}{interval}, {p}" if landmark else f"{word} by {size}{interval}, {p}"


def _distance(pair: Pair, best: Sequence[str], landmark: bool) -> tuple[str, str, str]:
    """Return how far the other setting of a pair is from the leader, in which way, and the interval in brackets."""
    sign = 1 if pair.a in best else -1
    gap, (low, high) = sign * (pair.estimate or 0.0), _turned(pair.interval, sign)
    if landmark:
        size, ways = f"{number(round(abs(gap)))} steps", ("earlier", "later")
    else:
        low, high = _turned((low, high), -1) if gap < 0 else (low, high)
        size, ways = number(digits(abs(gap))), ("lower", "higher")
    return size, ways[gap >= 0], brackets(low, high)


def _turned(interval: Bounds, sign: int) -> Bounds:
    low, high = interval
    if sign > 0:
        return low, high
    return (None if high is None else -high, None if low is None else -low)


def _value(settings: Sequence[Setting], name: str) -> str:
    """Return the median step or the mean of settings that have the same; of one alone with its interval."""
    first, alone = settings[0], len(settings) == 1
    if name in first.landmarks:
        item = first.landmarks[name]
        shares = {f"{one.landmarks[name].reached} of {count(one.runs, 'run')}" for one in settings}
        n = shares.pop() if len(shares) == 1 else ""
        if item.median_step is None:
            return n or "the same share of runs"
        step = f"median step **{number(item.median_step)}**{brackets(*item.interval) if alone else ''}"
        return f"{step}, {n}" if n else step
    final = first.final[name]
    if final.lost or final.median is not None:
        return f"median **{number(None if final.median is None else digits(final.median))}**"
    interval = brackets(*final.interval) if alone else ""
    return f"mean **{number(None if final.mean is None else digits(final.mean))}**{interval}"


def uncompared_words(findings: Findings) -> str:
    """Return how many pairs of settings are not compared; empty where all are."""
    if not (n := findings.uncompared):
        return ""
    total = count(len(findings.settings) * (len(findings.settings) - 1) // 2, "pair")
    return f"{n:,} of {total} of settings differ in more than one key and are not compared: name two to compare them."


def effect_words(findings: Findings) -> str:
    """Return which keys have an effect, and on what; empty where one alone was swept."""
    clauses = []
    for name in names(findings):
        own = [effect for effect in findings.effects if effect.of == name]
        found = [effect for effect in own if effect.p_adjusted <= LEVEL]
        said = [f"**{' x '.join(effect.keys)}** (p {p_equals(effect.p_adjusted)})" for effect in found]
        what = f"when a run {WORDS[name]}" if name in WORDS else metric(name)
        if own:
            clauses.append(f"on {what}: {listed(said) if said else 'none can be told'}")
    return f"Effects of the keys {'; '.join(clauses)}." if clauses else ""


def needed_words(findings: Findings) -> str:
    """Return how many seeds would settle who is best; empty where that is settled, or no number would."""
    needed, pair = findings.needed_runs.get(findings.main), findings.needed_pair.get(findings.main)
    if needed is None or pair is None:
        return ""
    one, other = (by_id(findings)[name].label for name in pair)
    least = findings.needed_least.get(findings.main)
    alike = (
        ", the same in both and compared seed by seed," if findings.needed_paired.get(findings.main) else ""
    )
    allowed = (
        f" These runs allow any number from **{least:,}** on: the two may differ more, or not at all."
        if least
        else ""
    )
    return (
        f"About **{count(needed, 'seed')}** a setting{alike} would tell **{one}** and **{other}** apart by "
        f"{metric(findings.main)} in four of five trials, if they differ as much as these runs do.{allowed}"
    )


def odd_runs(findings: Findings) -> list[str]:
    """Return a sentence for each run that is unlike the others of its setting, the surest first; as a rule none."""
    settings = by_id(findings)
    found = [item for item in findings.odd if item.p_adjusted is not None and item.p_adjusted < LEVEL]
    said = []
    for item in sorted(found, key=lambda item: (item.p_adjusted or 0.0, item.run)):
        here = [sum(one.ensemble == item.ensemble for one in some) for some in (findings.odd, found)]
        what, verb = metric(item.of or ""), WORDS.get(item.of or "")
        own = "" if item.value is None else number(digits(item.value))
        theirs = "" if item.others is None else _span(*item.others)
        if verb:
            text = f"it {verb} at step {own}" if own else f"it never {verb}"
            text += f", they at {theirs}" if theirs else ""
        else:
            text = f"its {what} is {own}" + (f", theirs {theirs}" if theirs else "")
        said.append(
            f"{run_words(item.run)} of **{settings[item.ensemble].label}** is unlike the other "
            f"{here[0] - here[1]}: {text} (p {p_equals(item.p_adjusted)})."
        )
    more = len(said) - MOST_ODD
    if more > 0:
        last = (
            f"{count(more, 'more run')} {'is' if more == 1 else 'are'} unlike the others of their settings."
        )
        said = [*said[:MOST_ODD], last]
    return said


def _span(low: float | None, high: float | None) -> str:
    return f"{'open' if low is None else number(digits(low))} to {'open' if high is None else number(digits(high))}"


def brackets(low: float | None, high: float | None) -> str:
    """Return ` [1 to 2]`; nothing where neither end is known."""
    return "" if low is None and high is None else f" [{_span(low, high)}]"


def digits(value: float) -> float:
    """Return a value at three digits, or whole."""
    return float(f"{value:.3g}") if abs(value) < 1000 else float(round(value))


def metric(name: str) -> str:
    """Return a landmark or metric as it is read."""
    return metric_words(name).removesuffix(" step")
