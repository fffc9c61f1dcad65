"""What is said of settings that were compared on their held-out examples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dynalab.analysis.base import Group
from dynalab.analysis.examples.findings import Bounds, Claim, Findings, Pair, Setting
from dynalab.core.words import count, p_equals, p_value, spoken
from dynalab.show.blocks import Block, Cell, Dots, Say, Table

MOST_PAIRS = 40  # rows of a table that are not folded
DRAWN = 8  # pairs in the figure
HERE, NEW = "this test set", "new examples"


def compared(findings: Findings, groups: Sequence[Group]) -> Iterator[Block]:
    """Yield what a reader sees of several settings; without groups (a terminal) there is no figure."""
    labels = {setting.ensemble: setting.label for setting in findings.settings}
    yield Say(_headline(findings, labels), headline=True)
    if (leading := _leading(findings)) is not None:
        if leading.variance is not None:
            yield Say(_variance(leading))
        if line := _churn(leading, labels):
            yield Say(line)
    if groups and (figure := _figure(findings, labels)):
        yield figure
    yield _settings(findings)
    yield from _pairs(findings, labels)


def _leading(findings: Findings) -> Pair | None:
    """Return the pair that is spoken of: the most accurate setting and the next one that it is compared with."""
    order = [setting.ensemble for setting in findings.settings]
    known = [pair for pair in findings.pairs if pair.estimate is not None]
    return min(known, key=lambda pair: sorted(map(order.index, (pair.a, pair.b))), default=None)


def _headline(findings: Findings, labels: dict[str, str]) -> str:
    step, several = findings.summary.step, len(findings.settings)
    head = f"**Accuracy of {count(several, 'setting')}** over seeds and examples, at step {step:,}"
    pair = _leading(findings)
    if pair is None:
        reasons = sorted({pair.new_examples.reason for pair in findings.pairs})
        return f"{head}: they cannot be compared, {'; '.join(reasons)}."
    better, worse = (pair.b, pair.a) if (pair.estimate or 0.0) >= 0 else (pair.a, pair.b)
    sign = 1 if better == pair.b else -1
    gap = _points(abs(pair.estimate or 0.0))
    told = f"**{labels[better]}** is right on **{gap}** points more than {labels[worse]}"
    here, new = (
        f"[{_span(_turned(item.interval, sign))}], p {p_equals(item.p_adjusted)}" for item in _claims(pair)
    )
    if pair.new_examples.verdict == "differ":
        text = f"{head}: {told}, on new examples ({new}) as on this test set ({here})."
    elif pair.this_test_set.verdict == "differ":
        text = f"{head}: on this test set {told} ({here}); whether it would be on new examples cannot be told ({new})."
    else:
        text = (
            f"{head}: which of **{labels[better]}** and **{labels[worse]}** is right on more cannot be told, neither "
            f"on this test set ({gap} points {here}) nor on new examples ({new})."
        )
    if len(findings.pairs) > 1:
        told_here, told_new = (
            sum(item.verdict == "differ" for item in items)
            for items in zip(*map(_claims, findings.pairs), strict=True)
        )
        pairs = count(len(findings.pairs), "pair")
        text += f" Of {pairs} {told_here} differ on this test set, {told_new} on new examples."
    return text


def _claims(pair: Pair) -> tuple[Claim, Claim]:
    return pair.this_test_set, pair.new_examples


def _variance(pair: Pair) -> str:
    parts = pair.variance
    assert parts is not None
    return (
        f"Of the variance of this difference on new examples **{parts.seeds:.0%}** is the seeds', "
        f"**{parts.examples:.0%}** the examples', which no seeds take away, and {parts.both:.0%} the luck of single "
        "runs on single examples."
    )


def _churn(pair: Pair, labels: dict[str, str]) -> str:
    churn = pair.churn
    own = [
        f"{share:.1%} ({labels[name]})"
        for name, share in zip((pair.a, pair.b), churn.within, strict=True)
        if share is not None
    ]
    if churn.between is None or not own:
        return ""
    text = (
        f"A run of one and one of the other disagree on **{churn.between:.1%}** of the examples, two seeds of one on "
        f"{' and '.join(own)}"
    )
    if churn.p is None or churn.excess is None:
        return f"{text}; whether that is more than seeds do is not tested: {churn.reason}."
    if churn.verdict == "more":
        more = f"**{max(churn.excess, 0):.1%}** more than seeds do"
        return f"{text}: at equal accuracy {more} (p {p_equals(churn.p_adjusted)})."
    return f"{text}: at equal accuracy no more than seeds do can be told (p {p_equals(churn.p_adjusted)})."


def _figure(findings: Findings, labels: dict[str, str]) -> Dots | None:
    known = [pair for pair in findings.pairs if pair.estimate is not None]
    drawn = sorted(known, key=lambda pair: pair.new_examples.p)[:DRAWN]
    if not drawn:
        return None
    claims = [
        (pair, name, claim) for pair in drawn for name, claim in zip((HERE, NEW), _claims(pair), strict=True)
    ]
    part = f", the {DRAWN} of {len(known)} pairs that differ most surely" if len(known) > DRAWN else ""
    return Dots(
        name="settings-over-examples",
        caption=(
            f"**By how much one setting is right on more than another**, in points of accuracy, with 95% intervals: "
            f"over other seeds on this test set, and over other seeds on new examples{part}."
        ),
        alt="Differences of accuracy between settings, on this test set and on new examples",
        labels=[f"{labels[pair.b]} less {labels[pair.a]}, {name}" for pair, name, _ in claims],
        values=[100 * (pair.estimate or 0.0) for pair, _, _ in claims],
        intervals=[[None if end is None else 100 * end for end in claim.interval] for _, _, claim in claims],
        marked=[claim.verdict == "differ" for _, _, claim in claims],
        notes=[f"p {p_equals(claim.p_adjusted)}" for _, _, claim in claims],
        unit="points of accuracy",
        way="more",
    )


def _settings(findings: Findings) -> Table:
    rows: list[list[object]] = [
        [
            setting.label,
            setting.runs,
            setting.examples,
            _accuracy(setting),
            *_bounds(setting),
            setting.ensemble,
        ]
        for setting in findings.settings
    ]
    header = ["setting", "runs", "examples", "accuracy", f"on {HERE}", f"on {NEW}", "ensemble"]
    return Table(
        header, rows, "Settings, the most accurate first: mean accuracy over seeds, with 95% intervals"
    )


def _accuracy(setting: Setting) -> Cell:
    return Cell(setting.accuracy, "" if setting.accuracy is None else f"{setting.accuracy:.2%}")


def _bounds(setting: Setting) -> list[Cell]:
    return [
        Cell(
            bounds[0], "" if bounds[0] is None or bounds[1] is None else f"{bounds[0]:.2%} to {bounds[1]:.2%}"
        )
        for bounds in (setting.this_test_set, setting.new_examples)
    ]


def _pairs(findings: Findings, labels: dict[str, str]) -> Iterator[Block]:
    folded = len(findings.pairs) > MOST_PAIRS
    header = [
        "first",
        "second",
        "points more",
        f"on {HERE}",
        "p (Holm)",
        f"on {NEW}",
        "p (Holm)",
        "verdict",
        "examples' share",
        "",
    ]
    rows: list[list[object]] = [
        [
            *(labels[pair.a], labels[pair.b], Cell(pair.estimate, _points(pair.estimate))),
            *(cell for claim in _claims(pair) for cell in _claim(claim)),
            _verdict(pair),
            Cell(None)
            if pair.variance is None
            else Cell(pair.variance.examples, f"{pair.variance.examples:.0%}"),
            pair.new_examples.reason + (" (seed by seed)" if pair.paired else ""),
        ]
        for pair in findings.pairs
    ]
    caption = (
        "Pairs: by how many points of accuracy the second is right on more than the first, with 95% intervals"
    )
    yield Table(header, rows, caption, folded=folded)
    header = [
        "first",
        "second",
        "between",
        "two of the first",
        "two of the second",
        "more, at equal accuracy",
        "p (Holm)",
        "verdict",
        "",
    ]
    rows = [
        [
            *(
                labels[pair.a],
                labels[pair.b],
                _percent(pair.churn.between),
                *map(_percent, pair.churn.within),
            ),
            *(_percent(pair.churn.excess), Cell(pair.churn.p_adjusted, p_value(pair.churn.p_adjusted))),
            Cell(
                pair.churn.verdict,
                spoken(pair.churn.verdict) or "",
                "found" if pair.churn.verdict == "more" else "quiet",
            ),
            pair.churn.reason,
        ]
        for pair in findings.pairs
    ]
    yield Table(
        header, rows, "Disagreement: share of the examples on which one of two runs is right", folded=folded
    )


def _claim(claim: Claim) -> list[Cell]:
    return [Cell(claim.interval[0], _span(claim.interval)), Cell(claim.p_adjusted, p_value(claim.p_adjusted))]


def _verdict(pair: Pair) -> Cell:
    if pair.new_examples.verdict == "differ":
        return Cell(2, "differ", "found")
    if pair.this_test_set.verdict == "differ":
        return Cell(1, f"differ on {HERE} alone")
    return Cell(0, "cannot tell", "quiet")


def _turned(interval: Bounds, sign: int) -> Bounds:
    low, high = interval
    return (low, high) if sign > 0 else (None if high is None else -high, None if low is None else -low)


def _span(interval: Bounds) -> str:
    return " to ".join("open" if end is None else _points(end) for end in interval)


def _points(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}"


def _percent(value: float | None) -> Cell:
    return Cell(value, "" if value is None else f"{value:.1%}")
