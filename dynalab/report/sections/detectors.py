"""The sections of `analyze slingshot`, `eos` and `periods`: the curves with what was found on them, and the tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from dynalab.core.stats import passage
from dynalab.report.blocks import Block, Cell, Picture, Section, Table, Warnings, Words, cell
from dynalab.report.sections.context import Context
from dynalab.report.words import count, listed, number
from dynalab.show import plots as figures
from dynalab.show.plots.events import ROWS, Curve
from dynalab.store.results import Result


def slingshot_summary(result: Result, context: Context) -> list[str]:
    """Return what the runs' slingshots come to."""
    runs, found = result.data["runs"], result.data["summary"]
    mine = [run for run in runs if run["verdict"] == "slingshot"]
    line = f"**Slingshots** in **{len(mine):,} of {count(len(runs), 'run')}**"
    if found["first_onset"]:
        line += f"; the first **{passage(found['first_onset'])}**"
    if found["period"]:
        line += f"; some **{number(found['period'][1])}** steps apart"
    others = {kind: n for kind, n in found["kinds"].items() if kind != "slingshot"}
    if others:
        line += f"; other spikes: {listed([f'{n:,} {kind.replace(chr(95), chr(32))}' for kind, n in others.items()])}"
    return [line + "."]


def slingshot_section(result: Result, context: Context) -> Section:
    """Return the section of `analyze slingshot`."""
    runs = result.data["runs"]
    blocks = _opening(slingshot_summary(result, context), result, context)
    drawn = _chosen(runs, context, "train_loss", first=lambda run: run["verdict"] == "slingshot")
    if drawn:
        names = [run["run"] for run in drawn]
        figure = figures.events_over_curves(
            [context.label(name) for name in names],
            [_loss(context, name) for name in names],
            [_curve(context, name, "last_layer_norm") for name in names],
            [[_span(event) for event in run["events"]] for run in drawn],
            names=("training loss, largest since the last row", "norm of the last layer"),
        )
        caption = (
            f"**Loss and norm of the last layer, events shaded{_some(drawn, runs)}.** A slingshot: the norm grows, the "
            "loss leaps by decades, the norm stands still."
        )
        blocks.append(
            Picture(
                "slingshots", figure, caption, "Training loss and last-layer norm of runs with events shaded"
            )
        )
    rows = [_event_row(run, event, context) for run in runs for event in run["events"]]
    if rows:
        header = [
            "run",
            "kind",
            "onset",
            "peak",
            "end",
            "decades",
            "norm after / before",
            "confidence",
            "why",
        ]
        blocks.append(
            Table(header, rows, f"{count(len(rows), 'event')}", folded=len(rows) > 12, sortable=True)
        )
    if confirmation := result.data.get("confirmation"):
        from dynalab.analysis.slingshot.confirm import forks_of, words

        said = words(confirmation)
        blocks.append(Words(f"**{said[0].upper()}{said[1:]}** ({listed(forks_of(confirmation))})."))
    missing = Counter(channel for run in runs for channel in run["missing_channels"])
    if missing:
        blocks.append(Words(f"Not recorded, and so not weighed: {listed(sorted(missing))}.", "note"))
    return Section("Slingshots", context.anchor(result), blocks)


def eos_summary(result: Result, context: Context) -> list[str]:
    """Return what the runs did at the edge of stability."""
    from dynalab.analysis.eos.words import SAID

    runs, found = result.data["runs"], result.data["summary"]
    said = [f"{n:,} {SAID[key]}" for key, n in found["verdicts"].items()]
    line = f"**Edge of stability:** of {count(len(runs), 'run')}, **{listed(said)}**"
    if found["onset"]:
        line += f"; arrival **{passage(found['onset'])}**, median ratio there **{found['ratio'][1]:.3f}**"
    return [line + "."]


def eos_section(result: Result, context: Context) -> Section:
    """Return the section of `analyze eos`."""
    runs = result.data["runs"]
    blocks = _opening(eos_summary(result, context), result, context)
    adaptive = any(run["adaptive"] for run in runs)
    metric = "preconditioned_sharpness" if adaptive else "sharpness"
    drawn = _chosen(runs, context, metric, first=lambda run: run["onset_step"] is not None)
    if drawn:
        names = [run["run"] for run in drawn]
        thresholds = [_curve(context, name, "stability_threshold") for name in names]
        figure = figures.events_over_curves(
            [f"{context.label(run['run'])}: {run['verdict'].replace('_', ' ')}" for run in drawn],
            [_curve(context, name, metric) for name in names],
            [_curve(context, name, "sharpness") for name in names]
            if adaptive
            else [_curve(context, name, "train_loss") for name in names],
            [[(stay["first"], stay["last"], "edge") for stay in _stays(run)] for run in drawn],
            names=(metric.replace("_", " "), "sharpness" if adaptive else "training loss"),
            dashed=thresholds if any(len(curve[0]) for curve in thresholds) else None,
            dashed_name="threshold",
            marked=[{"arrival": run["onset_step"]} for run in drawn],
        )
        caption = (
            f"**Sharpness against its threshold{_some(drawn, runs)}.** Shaded: at the edge of stability"
            + (", where the sharpness itself may go on rising." if adaptive else ".")
        )
        blocks.append(
            Picture("edge", figure, caption, "Sharpness and stability threshold of runs, arrival marked")
        )
    rows = []
    for run in runs:
        loss = run.get("loss") or {}
        ups = [100 * loss[key] for key in ("loss_up_before", "loss_up_after") if key in loss]
        rows.append(
            [
                *(cell(context.label(run["run"])), cell(run["verdict"].replace("_", " "))),
                *(cell(run[key]) for key in ("onset_step", "end_step", "median_ratio", "iqr_ratio")),
                cell(run["fraction_at_edge"]),
                cell(f"{ups[0]:.0f}% / {ups[1]:.0f}%" if ups else None),
                cell(run["reason"]),
            ]
        )
    header = [
        "run",
        "verdict",
        "arrival",
        "left",
        "median ratio",
        "its IQR",
        "share of steps",
        "loss up before / after",
        "why",
    ]
    blocks.append(
        Table(header, rows, "Every run; the ratio is that at the edge, or of the last quarter", sortable=True)
    )
    if said := _measured(runs):
        blocks.append(Words(said, "note"))
    if confirmation := result.data.get("confirmation"):
        blocks += _halved(result, confirmation, context)
    return Section("Edge of stability", context.anchor(result), blocks)


def _measured(runs: Sequence[Any]) -> str:
    """Return what the sharpness was measured on, empty where it was not recorded."""
    sizes = sorted({run["probe_size"] for run in runs if run.get("probe_size")})
    modes = sorted({run["probe_mode"] for run in runs if run.get("probe_mode")})
    worst = [run["residual_max"] for run in runs if run.get("residual_max") is not None]
    if not sizes or not modes:
        return ""
    left = f", residuals at most {100 * max(worst):.1f}% of the eigenvalue" if worst else ""
    named = listed([f"{size:,}" for size in sizes])
    return f"Sharpness on {named} training examples, network in {' and '.join(modes)} mode{left}."


def _halved(result: Result, confirmation: Any, context: Context) -> list[Block]:
    """Return what forks at half the rate say."""
    from dynalab.analysis.eos.confirm import words

    tried = confirmation["runs"]
    said = words(tried)
    forks = listed(confirmation["forks"])
    blocks: list[Block] = [Words(f"**{said[0].upper()}{said[1:]}** (fork: {forks}).")]
    table = result.table("confirmation")
    drawn = [row for row in tried if (table["run"] == row["run"]).any()][:ROWS]
    if drawn:
        own = [table[table["run"] == row["run"]] for row in drawn]
        names = ("step", "sharpness", "threshold", "parent_sharpness")
        figure = figures.halved_rate(
            [f"{context.label(row['run'])}: {row['verdict'].replace('_', ' ')}" for row in drawn],
            [{name: rows[name].to_numpy() for name in names} for rows in own],
            [row["at_step"] for row in drawn],
        )
        caption = (
            f"**Half the rate, twice the threshold{_some(drawn, tried)}.** A sharpness that the threshold held rises "
            "again once the rate is halved."
        )
        blocks.append(
            Picture("halved", figure, caption, "Sharpness of runs and of their forks at half the rate")
        )
    header = ["run", "verdict", "rate halved at", "arrival again", "last ratio", "why"]
    rows = [
        [
            *(cell(context.label(row["run"])), cell(row["verdict"].replace("_", " "))),
            *(cell(row[key]) for key in ("at_step", "fork_onset_step", "fork_last_ratio", "reason")),
        ]
        for row in tried
    ]
    blocks.append(Table(header, rows, "Every fork", folded=len(rows) > 12))
    return blocks


def _opening(summary: Sequence[str], result: Result, context: Context) -> list[Block]:
    """Return how each of these sections begins: what was found, and the warnings."""
    blocks: list[Block] = [Words(summary[0])]
    if lines := context.warnings(result):
        blocks.append(Warnings(lines))
    return blocks


def _event_row(run: Any, event: Any, context: Context) -> list[Cell]:
    return [
        *(cell(context.label(run["run"])), cell(event["kind"].replace("_", " "))),
        *(
            cell(event[key])
            for key in ("onset_step", "peak_step", "end_step", "amplitude_decades", "norm_slope_ratio")
        ),
        *(cell(event["confidence"]), cell(event["reason"])),
    ]


def _span(event: Any) -> tuple[float, float, str]:
    # One without an end goes on to the last row.
    end = event["end_step"] if event["end_step"] is not None else np.inf
    return event["onset_step"], end, event["kind"]


def _chosen(runs: Sequence[Any], context: Context, metric: str, first: Any) -> list[Any]:
    """Return the runs that are drawn: those with something to see before the others, six at most."""
    there = [run for run in runs if len(_curve(context, run["run"], metric)[0])]
    return sorted(there, key=lambda run: not first(run))[:ROWS]


def _curve(context: Context, run: str, metric: str) -> Curve:
    """Return steps and values of a run's metric, empty where it was not recorded."""
    for shown in context.shown:
        for index, item in enumerate(shown.runs):
            if item.id == run and metric in shown.values:
                values = shown.values[metric][index]
                some = np.isfinite(values)
                return shown.steps[metric][some], values[some]
    return np.empty(0), np.empty(0)


def _loss(context: Context, run: str) -> Curve:
    """Return the largest loss known at each row of the training loss."""
    steps, loss = _curve(context, run, "train_loss")
    at, largest = _curve(context, run, "train_loss_max")
    if not len(at):
        return steps, loss
    place = {int(step): value for step, value in zip(at, largest, strict=True)}
    return steps, np.array(
        [max(value, place.get(int(step), value)) for step, value in zip(steps, loss, strict=True)]
    )


def _stays(run: Any) -> list[Any]:
    """Return when a run was at the edge; a result of before holds only how often."""
    return run["stays"] if isinstance(run["stays"], list) else []


def _some(drawn: Sequence[Any], runs: Sequence[Any]) -> str:
    return f" ({len(drawn)} of {count(len(runs), 'run')})" if len(drawn) < len(runs) else ""
