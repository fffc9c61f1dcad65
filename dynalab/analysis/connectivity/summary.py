"""What is said of how networks are connected."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from dynalab.analysis.base import Group, Series
from dynalab.analysis.connectivity.findings import Barrier, Confirmation, Findings, Layer, Over, Setting
from dynalab.core.words import LINES, count, number, rounded
from dynalab.show.blocks import (
    Block,
    Cell,
    Lines,
    Panel,
    Say,
    Similarities,
    SimilarityMap,
    Table,
    run_cell,
    run_label,
)

# Kind of a path -> its name.
KINDS = {"line": "the line", "aligned": "the line, units matched", "curve": "a trained curve"}
PHASES = {
    "I": "poorly connected and sharp",
    "II": "poorly connected and flat",
    "III": "well connected and sharp",
    "IV-A": "well connected and flat, outputs not alike",
    "IV-B": "well connected and flat, outputs alike",
}

# What errors differ by; not a share of the error.
POINTS = " percentage points"


def show(findings: Findings, groups: Sequence[Group]) -> Iterator[Block]:
    """Yield what a reader sees; without groups (a terminal) there is no figure."""
    several = len(findings.summary) > 1
    yield Say(f"**Connectivity:** {_phases(findings) if several else _headline(findings)}.", headline=True)
    if findings.confirmation is not None:
        yield Say(_confirmed(findings.confirmation, findings.cut))
    if groups:
        yield _figure(findings)
    if several:
        yield _settings(findings)
    else:
        yield _over(findings, findings.summary[0])
    if len(findings.summary) == 1 and (layers := findings.summary[0].layers):
        if groups and findings.layers is not None and len(layers) > 1:
            yield _layer_map(findings)
        yield _layers(layers)
    yield _pairs(findings)
    if findings.confirmation is not None:
        rows = [
            [
                run_label(pair.one),
                *map(_ensemble_cell, (pair.one, pair.other)),
                *_numbers(pair.line),
                pair.verdict,
            ]
            for pair in findings.confirmation.runs
        ]
        yield Table(
            ["run", "fork", "other fork", "loss barrier", "error barrier, %", "distance", "verdict"],
            rows,
            f"Forks from step {findings.confirmation.at_step:,} with other orders of the examples",
        )


def _headline(findings: Findings) -> str:
    (setting,) = findings.summary
    what = (
        f"runs at steps {findings.step:,} and {findings.other_step:,}"
        if findings.other_step is not None
        else f"pairs of {count(setting.runs, 'run')} at step {findings.step:,}"
    )
    many = f"**{setting.connected} of {count(setting.pairs, 'pair')}**"
    unit, line, aligned, curve = "loss", setting.line, setting.aligned, setting.curve
    scale = 1.0
    if setting.line_error.pairs:
        unit, scale = "error", 100.0
        line, aligned, curve = setting.line_error, setting.aligned_error, setting.curve_error
    text = (
        f"on the line between {what} the {findings.split} {unit} rises by **{_value(line, scale, POINTS)}**"
    )
    if aligned.pairs:
        text += f", by **{_value(aligned, scale, POINTS)}** once hidden units are matched"
    if curve.pairs:
        text += f", by {_value(curve, scale, POINTS)} on trained curves"
    if unit == "error":
        are = "is" if setting.pairs == 1 else "are"
        most = f"{number(100 * findings.cut)}{POINTS}"
        text += f"; {many} {are} connected, with a barrier of the error of at most {most}"
    return text


def _phases(findings: Findings) -> str:
    told = [setting.phase for setting in findings.summary if setting.phase is not None]
    parts = [
        f"**{told.count(phase)} in phase {phase}** ({words})"
        for phase, words in PHASES.items()
        if phase in told
    ]
    open_ = len(findings.summary) - len(told)
    parts += [f"{open_} in none that can be told"] if open_ else []
    return f"of {count(len(findings.summary), 'setting')}, {', '.join(parts)}"


def _confirmed(confirmation: Confirmation, cut: float) -> str:
    n = len(confirmation.runs)
    if not n:
        return "No run has both forks, so that stability to the order of the examples is not told."
    return (
        f"From step {confirmation.at_step:,} on **{confirmation.stable} of {count(n, 'run')}** are stable to the order "
        f"of the examples: two forks with other orders stay connected, with a barrier of the error of at most "
        f"{number(100 * cut)}% (mean {_value(confirmation.error, 100)})."
    )


def _value(over: Over, scale: float = 1.0, unit: str = "%") -> str:
    unit = unit if scale == 100.0 else ""
    if over.value is None:
        return number(None)
    low, high = over.interval
    told = ""
    if low is not None and high is not None and low < high:
        # Student's interval does not know that no barrier is below 0, and no share above 1.
        high = min(high, 1.0) if unit else high
        told = f" [{_round(max(low, 0), scale)}, {_round(high, scale)}]"
    return f"{_round(over.value, scale)}{unit}{told}"


def _round(value: float, scale: float) -> str:
    scaled = scale * value
    return "0" if abs(scaled) < 5e-4 else number(rounded(scaled))


def _ensemble_cell(run: str) -> Cell:
    """Return the cell that names a run by its ensemble: both forks of a run have its label."""
    return Cell(run, run.partition("/")[0], run=run)


def _over(findings: Findings, setting: Setting) -> Table:
    rows: list[list[Any]] = []
    for kind, name in KINDS.items():
        loss, error = getattr(setting, kind), getattr(setting, f"{kind}_error")
        if loss.pairs:
            rows.append([f"barrier of the loss on {name}", loss.pairs, _value(loss)])
        if error.pairs:
            rows.append([f"barrier of the error on {name}", error.pairs, _value(error, 100.0)])
    for name, over in {
        "mode connectivity, %": setting.mode_connectivity,
        "distance, in norms": setting.distance,
        "distance after matching": setting.aligned_distance,
        # Of classes as probabilities: a layer's own rows below are without the softmax.
        "CKA of predictions, unbiased": setting.cka,
        "CKA of predictions, as published": setting.cka_published,
    }.items():
        if over.pairs:
            rows.append([name, over.pairs, _bounded(over)])
    what = f"Means over pairs with 95% intervals (over runs); {findings.split}, "
    what += f"{count(findings.examples, 'example')} of each run"
    return Table(["", "pairs", "mean"], rows, what, sortable=False)


def _bounded(over: Over) -> str:
    low, high = over.interval
    told = "" if low is None or high is None else f" [{number(rounded(low))}, {number(rounded(high))}]"
    return f"{number(rounded(over.value))}{told}"


def _layers(layers: Sequence[Layer]) -> Table:
    rows = [
        [place, layer.layer, layer.cka.pairs, _bounded(layer.cka), rounded(layer.cka_published.value)]
        for place, layer in enumerate(layers, 1)
    ]
    header = ["", "layer", "pairs", "CKA, unbiased", "as published"]
    caption = (
        "What each layer gives, before what follows it, on the examples of the first run; means over pairs"
    )
    return Table(header, rows, caption, sortable=False, folded=len(rows) > 12)


def _layer_map(findings: Findings) -> Similarities:
    table = findings.layers
    one, other = table["one"][0], table["other"][0]
    rows = table[(table["one"] == one) & (table["other"] == other)]
    n = rows["layer"].nunique()
    ends = (run_label(one), run_label(other))
    if findings.other_step is not None:
        ends = (f"step {findings.step:,}", f"step {findings.other_step:,}")
    return Similarities(
        name="connectivity-layers",
        caption=f"**Layers of {run_label(one)}{'' if one == other else f' and {ends[1]}'}.** The unbiased CKA of what "
        f"every two layers give, those of {ends[0]} down and of {ends[1]} across: a bright diagonal says that the same "
        "layers are alike. Layers are numbered as in the table.",
        alt="CKA between all layers of two networks",
        maps=[
            SimilarityMap(
                title=f"{ends[0]} and {ends[1]}",
                steps=np.arange(1, n + 1),
                values=rows["cka"].to_numpy(float).reshape(n, n),
            )
        ],
        axis="layer, on both axes",
        unit="CKA",
    )


def _settings(findings: Findings) -> Table:
    rows = [
        [
            ", ".join(f"{key}={value}" for key, value in setting.keys.items()) or setting.ensemble,
            setting.runs,
            rounded(setting.mode_connectivity.value),
            rounded(setting.ln_lambda_max),
            rounded(setting.cka.value),
            rounded(setting.cka_published.value),
            _value(setting.line_error, 100.0),
            _value(setting.aligned_error, 100.0) if setting.aligned_error.pairs else "",
            f"{setting.connected} of {setting.pairs}",
            setting.phase or "",
        ]
        for setting in findings.summary
    ]
    header = ["setting", "runs", "mode connectivity, %", "ln largest eigenvalue", "CKA", "CKA, published"]
    header += ["line, error", "matched, error", "connected", "phase"]
    return Table(header, rows, "Settings; means over runs and pairs")


def _pairs(findings: Findings) -> Table:
    aligned = any(pair.aligned for pair in findings.pairs)
    curve = any(pair.curve for pair in findings.pairs)
    rows = []
    for pair in findings.pairs:
        row: list[Any] = [run_cell(pair.one), run_cell(pair.other), *_numbers(pair.line)]
        row += _numbers(pair.aligned) if aligned else []
        row += _numbers(pair.curve)[:2] if curve else []
        rows.append([*row, rounded(pair.cka), pair.verdict])
    header = ["run", "other", "loss barrier", "error barrier, %", "distance"]
    header += ["matched: loss", "error, %", "distance "] if aligned else []
    header += ["curve: loss", "error, % "] if curve else []
    return Table([*header, "CKA", "verdict"], rows, "Every pair", folded=len(rows) > 40)


def _numbers(barrier: Barrier | None) -> list[float | None]:
    if barrier is None:
        return [None] * 3
    error = None if barrier.error is None else 100 * barrier.error
    return [rounded(barrier.loss), rounded(error), rounded(barrier.distance)]


def _figure(findings: Findings) -> Lines:
    table = findings.curves
    has_error = bool(table["error"].notna().any())
    panels = []
    for column, title in (("loss", f"{findings.split} loss"), ("error", f"{findings.split} error")):
        if column == "error" and not has_error:
            continue
        curves: dict[str, dict[str, Series]] = {}
        for (kind, one, other), rows in table.groupby(["path", "one", "other"], sort=False):
            name = f"{one} {run_label(other)}"
            curves.setdefault(KINDS[kind], {})[name] = Series.of(
                rows["share"].to_numpy(), rows[column].to_numpy()
            )
        panels.append(Panel(title=title, curves=curves))
    return Lines(
        name="connectivity",
        caption=f"**Paths between networks.** Loss and error between the weights of two networks, at 0 and 1, every "
        f"pair a line.{f' {LINES}'.replace('runs', 'pairs') if len(findings.pairs) > 2 else ''}",
        alt="Loss and error on paths between the weights of pairs of runs",
        panels=panels,
        axis="share of the way",
    )
