"""What a comparison says in sentences: who leads, by how much and how surely, what keys do, which run is odd."""

from __future__ import annotations

from dynalab.analysis.compare.findings import Findings, Pair, Setting
from dynalab.analysis.compare.measures import repeats
from dynalab.analysis.compare.pairs import Bounds
from dynalab.analysis.compare.permutation import LEVEL
from dynalab.core.words import count, listed, number, p_equals, run_words, spoken

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
    others = [name for name in every if not repeats(name, every, findings.rule)]
    return [findings.main, *(name for name in others if name != findings.main)]


def by_id(findings: Findings) -> dict[str, Setting]:
    """Return the settings by the ids of their ensembles."""
    return {setting.ensemble: setting for setting in findings.settings}


def headline(findings: Findings) -> str:
    """Return who is first by the main landmark or metric."""
    n = count(len(findings.settings), "setting")
    return f"**Comparison** of {n}: {sentence(findings, findings.main) or _no_order(findings)}"


def _no_order(findings: Findings) -> str:
    differ = sum(pair.verdict == "differ" for pair in findings.pairs if pair.of == findings.main)
    total = sum(pair.of == findings.main for pair in findings.pairs)
    return f"by {metric(findings.main)}, {differ} of {count(total, 'pair')} of settings differ."


def sentence(findings: Findings, name: str) -> str:
    """Return who leads by a landmark or metric, by how much, and how surely; empty where that is not known."""
    if name not in findings.best:
        return ""
    settings = by_id(findings)
    best, level = findings.best[name], findings.level_with_best[name]
    landmark = name in findings.settings[0].landmarks
    if landmark and not any(setting.landmarks[name].reached for setting in findings.settings):
        return f"no run of any setting {WORDS[name]}."
    what = f"{WORDS[name]} first" if landmark else f"has the best {metric(name)}"
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
            f"{number(round(abs(gap)))} steps {'later' if gap >= 0 else 'earlier'}{brackets(low, high)}, {p}"
        )
    if gap < 0:
        low, high = _turned((low, high), -1)
    return f"{'higher' if gap >= 0 else 'lower'} by {number(digits(abs(gap)))}{brackets(low, high)}, {p}"


def _turned(interval: Bounds, sign: int) -> Bounds:
    low, high = interval
    if sign > 0:
        return low, high
    return (None if high is None else -high, None if low is None else -low)


def _value(setting: Setting, name: str) -> str:
    if name in setting.landmarks:
        item = setting.landmarks[name]
        n = f"{item.reached} of {count(setting.runs, 'run')}"
        if item.median_step is None:
            return n
        return f"median step **{number(item.median_step)}**{brackets(*item.interval)}, {n}"
    final = setting.final[name]
    return f"mean **{number(None if final.mean is None else digits(final.mean))}**{brackets(*final.interval)}"


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
    return (
        f"About **{count(needed, 'seed')}** a setting would tell **{one}** and **{other}** apart by "
        f"{metric(findings.main)} in four of five trials, if they differ as much as these runs do."
    )


def odd_runs(findings: Findings) -> list[str]:
    """Return a sentence for each run that is unlike the others of its setting, the surest first; as a rule none."""
    settings = by_id(findings)
    found = [item for item in findings.odd if item.p_adjusted is not None and item.p_adjusted < LEVEL]
    said = []
    for item in sorted(found, key=lambda item: item.p_adjusted or 0.0):
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
    return (spoken(name) or name).removesuffix(" step")
