"""What is said of the modes of training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from dynalab.analysis.base import Group, Series
from dynalab.analysis.modes.findings import Findings, Method, Pair, RunFindings, Summary
from dynalab.core.means import OPEN, Bounds, Mean, intervals_words
from dynalab.core.words import count, number, rounded, share, spoken
from dynalab.show.blocks import Block, Dots, Effect, Figure, Lines, Panel, Say, Table, run_cell, run_label

# Of a method: its name, and what its size is.
NAMES = {
    "modes": "modes",
    "last": "last weights",
    "ema": "EMA",
    "lawa": "LAWA",
    "swa": "SWA",
    "pca": "principal components",
}
MOST = 4  # modes that are drawn
# Parts of a mode that are named, and the share of it that the last of them has at least.
PARTS, LEAST = 3, 0.05


def show(findings: Findings, groups: Sequence[Group]) -> Iterator[Block]:
    """Yield what a reader sees; without groups (a terminal) there is no figure."""
    summary = findings.summary
    yield Say(f"**Modes:** {_headline(findings)}.", headline=True)
    if groups and summary.runs:
        yield from _figures(findings)
    if summary.methods:
        yield _methods(summary)
        yield Say(
            f"Every method makes a network of the same snapshots. Windows and components are those that are best on "
            f"every other held-out example, within no more floats than modes take; the {summary.metric} is that on the "
            "examples between, and differences are taken run by run. Batch statistics are estimated anew for all.",
            note=True,
        )
    yield from _of_modes(findings)
    rows: list[list[Any]] = [
        [
            run_cell(run.run),
            run.modes,
            *(_short(value) for value in (run.r2, run.heldout_r2, run.pca_r2, run.correlation)),
            None if run.compression is None else share(run.compression, 1),
            *(
                [_short((run.scores or {}).get(name)) for name in ("modes", "average")]
                if summary.metric
                else []
            ),
            run.reason,
        ]
        for run in findings.runs
    ]
    header = ["run", "modes", "R²", "R² held out", "R² of components", "correlation", "floats"]
    header += [f"{summary.metric}, modes", "best average"] if summary.metric else []
    yield Table([*header, "snapshots"], rows, "Every run")


def _headline(findings: Findings) -> str:
    summary, runs = findings.summary, findings.runs
    if not summary.runs:
        still = sum(run.verdict == "still" for run in runs)
        if still:
            return f"the weights of {count(still, 'run')} of {len(runs):,} never move, so that they have no modes"
        return f"no run of {len(runs):,} has the four snapshots that modes take"
    held, out, size = summary.r2.value, summary.heldout_r2.value, summary.compression.value
    means = f", means over {count(summary.runs, 'run')}" if summary.runs > 1 else ""
    held_by = f"**{count(summary.modes or 0, 'mode')}** hold{'s' * (summary.modes == 1)}"
    text = f"{held_by} **{_percent(held)}** of how the weights vary over training"
    text += f" ({_percent(out)} at snapshots that were held out{means}), in {_percent(size)} of the floats"
    if summary.metric is None or summary.average is None:
        return text
    pair = next(pair for pair in summary.pairs if pair.b == summary.average)
    modes = next(method for method in summary.methods if method.method == "modes")
    best = next(method for method in summary.methods if method.method == summary.average)
    text += f"; their network has a held-out {summary.metric} of {_short(modes.judged.value)}, "
    text += f"the best average ({_setting(best)}) of {_short(best.judged.value)}: "
    verdict = {
        "cannot_tell": "it **cannot be told** which is better",
        "equivalent": "the two are **equivalent**",
    }
    told = verdict.get(pair.verdict, f"modes are **{pair.verdict}**")
    return f"{text}{told}, a difference of {_gap(pair.estimate, pair.interval)}"


def _percent(value: float | None) -> str:
    return number(None) if value is None else share(value, 1)


def _short(value: float | None) -> str:
    return number(None if value is None else float(f"{value:.4g}"))


def _signed(value: float) -> str:
    # What is left of numbers that are equal is rounding.
    return f"{value:+.2g}" if abs(value) >= 1e-12 else "0"


def _gap(value: float | None, interval: Sequence[float | None]) -> str:
    low, high = interval
    told = f" [{_signed(low)}, {_signed(high)}]" if low is not None and high is not None else ""
    return number(None) if value is None else _signed(value) + told


def _setting(method: Method) -> str:
    name, size = NAMES[method.method], method.size
    if size is None:
        return name
    if method.method in ("ema", "swa"):
        return (
            f"{name} over {count(size, 'snapshot')}" if size > 1 else f"{name} over the last snapshot alone"
        )
    if method.method == "lawa":
        return f"{name}, {count(size, 'copy', 'copies')} {count(method.apart or 1, 'snapshot')} apart"
    return count(size, "principal component") if method.method == "pca" else name


def _methods(summary: Summary) -> Table:
    pairs = {pair.b: pair for pair in summary.pairs}
    rows = []
    for method in summary.methods:
        pair = pairs.get(method.method)
        rows.append(
            [
                _setting(method),
                number(rounded(method.stored_per_weight)),
                _interval(method.judged, 1.0 if summary.metric == "accuracy" else math.inf),
                "" if pair is None else _gap(pair.estimate, pair.interval),
                "" if pair is None else number(rounded(pair.p_adjusted)),
                "" if pair is None else _verdict(pair),
            ]
        )
    header = ["method", "floats a weight", f"held-out {summary.metric}", "modes less it", "p", "modes are"]
    caption = f"Networks from the same snapshots, over {count(len_of(summary), 'run')}; p by Holm, equivalent within "
    caption += f"{number(rounded(summary.margin))}; {intervals_words(_known(summary))}"
    return Table(header, rows, caption, sortable=False)


def _known(summary: Summary) -> list[tuple[int, Bounds]]:
    """Return over how many runs each mean and each difference is, and its interval."""
    means = [(method.judged.runs, method.judged.interval) for method in summary.methods]
    return [*means, *((pair.runs, pair.interval) for pair in summary.pairs if pair.estimate is not None)]


def len_of(summary: Summary) -> int:
    """Return how many runs were judged."""
    return summary.methods[0].judged.runs


def _verdict(pair: Pair) -> str:
    return ": ".join(filter(None, (spoken(pair.verdict), pair.reason)))


def _interval(mean: Mean, most: float) -> str:
    low, high = mean.interval
    # Student's interval does not know that neither losses nor shares are below 0.
    told = (
        f" [{_short(max(low, 0.0))}, {_short(min(high, most))}]"
        if low is not None and high is not None
        else ""
    )
    return _short(mean.value) + told


def _first(findings: Findings) -> RunFindings:
    return next(run for run in findings.runs if run.verdict == "measured")


def _of_modes(findings: Findings) -> Iterator[Table]:
    if findings.modes is None:
        return
    run = _first(findings).run
    rows: list[list[Any]] = [
        [
            mode.mode,
            mode.weights,
            share(mode.share, 1),
            _short(mode.correlation),
            mode.reference,
            _held(findings, run, mode.mode, "layer"),
            _held(findings, run, mode.mode, "kind"),
        ]
        for mode in findings.modes[findings.modes["run"] == run].itertuples()
    ]
    header = ["mode", "weights", "share", "correlation", "reference", "layers", "kinds"]
    yield Table(
        header, rows, f"Modes of {run_label(run)}, and the parts that their weights are of", sortable=False
    )


def _held(findings: Findings, run: str, mode: int, of: str) -> str:
    """Return the parts that most of a mode's weights are of, with their shares of the mode."""
    table = findings.parts
    if table is None:
        return ""
    own = table[(table["run"] == run) & (table["mode"] == mode) & (table["of"] == of)]
    total = own["weights"].sum()
    most = own.sort_values("weights", ascending=False, kind="stable").head(PARTS)
    told = [
        f"{row.part} {share(row.weights / total, 1)}"
        for row in most.itertuples()
        if row.weights >= LEAST * total
    ]
    return ", ".join(told)


def _figures(findings: Findings) -> Iterator[Figure]:
    yield _paths(findings)
    summary = findings.summary
    if summary.metric is None:
        return
    yield _against_floats(summary)
    others = [pair for pair in summary.pairs if pair.estimate is not None]
    means = intervals_words((pair.runs, pair.interval) for pair in others)
    yield Dots(
        name="modes-against-averages",
        caption=f"**Modes against averages.** Held-out {summary.metric} of the modes' network less that of each other "
        f"network, with {means}. Coloured where the two differ.",
        alt=f"Difference in {summary.metric} between modes and averages of the same snapshots",
        labels=[NAMES[pair.b] for pair in others],
        values=[pair.estimate for pair in others],
        intervals=[None if None in pair.interval else pair.interval for pair in others],
        marked=[pair.verdict in ("better", "worse") for pair in others],
        notes=[_verdict(pair).partition(":")[0] for pair in others],
        unit=f"difference in {summary.metric}",
        way="",
    )


def _paths(findings: Findings) -> Lines:
    """Return the references' paths of the first run, a panel a mode, with what the mode holds."""
    run = _first(findings).run
    table, modes = findings.paths, findings.modes
    assert table is not None and modes is not None
    own = modes[modes["run"] == run]
    panels = []
    for mode in own.head(MOST).itertuples():
        path = table[(table["run"] == run) & (table["mode"] == mode.mode)]
        series = Series.of(path["step"].to_numpy(), path["standardised"].to_numpy())
        held = _held(findings, run, mode.mode, "layer")
        title = f"mode {mode.mode}: {share(mode.share, 1)} of the weights ({held})"
        panels.append(Panel(title=title, curves={f"mode {mode.mode}": {run: series}}, level=0.0))
    some = f", the largest {MOST} of {len(own):,}" if len(own) > MOST else ""
    return Lines(
        name="modes",
        caption=f"**Modes of {run_label(run)}{some}.** The reference weight of each, less its mean and in its standard "
        "deviations: the weights of a mode are affine functions of it. Beside it the layers that most of them are of.",
        alt="Reference weights of the modes over training",
        panels=panels,
    )


def _against_floats(summary: Summary) -> Effect:
    methods = [name for name in NAMES if any(name in item.methods for item in summary.budgets)]
    rows = [[item.methods.get(name, Mean(0, None)) for item in summary.budgets] for name in methods]
    return Effect(
        name="modes-floats",
        caption=f"**{str(summary.metric).capitalize()} against stored floats.** The best of every method within "
        "so many floats a weight, tuned on the other half of the held-out examples; means over runs. Modes take more "
        "than two and give the whole path; an average takes one and gives a network.",
        alt=f"Held-out {summary.metric} of networks from the same snapshots, against the floats that they take",
        key="floats a weight",
        at=[f"{item.stored_per_weight:g}" for item in summary.budgets],
        lines=[NAMES[name] for name in methods],
        estimates=[[mean.value for mean in row] for row in rows],
        # Runs differ by more than the methods do: what is compared run by run is in the next figure.
        intervals=[[OPEN] * len(row) for row in rows],
        axis=f"held-out {summary.metric}",
        ratios=False,
    )
