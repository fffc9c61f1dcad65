"""The section of an analysis of variance: which random stream the spread of the convergence step comes from."""

from __future__ import annotations

from typing import Any

import numpy as np

from dynalab.report import figures
from dynalab.report.blocks import Block, Cell, Picture, Section, Table, Warnings, Words, cell
from dynalab.report.sections.context import Context
from dynalab.report.words import count, listed, number
from dynalab.store.results import Result


def summary(result: Result, context: Context) -> list[str]:
    """Return the largest source in a sentence."""
    known = [row for row in result.data["shares"] if row["share"] is not None]
    if not known:
        return [f"**Variance** of {count(result.data['cells'], 'run')}: the convergence step does not vary."]
    first = max(known, key=lambda row: row["share"])
    return [
        f"**Variance** of the convergence step over {count(result.data['cells'], 'run')}: **{first['source']}** has "
        f"the largest share, **{first['share']:.0%}** [{_interval(first)}]."
    ]


def section(result: Result, context: Context) -> Section:
    """Return the section."""
    data = result.data
    rule = data["convergence_rule"]
    crossed = listed([f"{n} seeds of {name}" for name, n in data["levels"].items()])
    sign = "at least" if rule["direction"] == "up" else "at most"
    unit, mean = ("in logarithm", "geometric mean") if data["log_time"] else ("steps", "mean")
    lead = (
        f"**{count(data['cells'], 'run')}**: {crossed}, crossed. Convergence ({rule['metric']} {sign} "
        f"{number(rule['threshold'])} for {count(rule['persistence'], 'row')}) comes at step "
        f"**{number(_round(data['mean_step']))}** on the {mean}, with a standard deviation of "
        f"**{number(_round(data['sd']))}** {unit}."
    )
    blocks: list[Block] = [Words(lead)]
    if lines := context.warnings(result):
        blocks.append(Warnings(lines))
    if all(row["share"] is not None for row in data["shares"]):
        blocks.append(_picture(data))
    blocks.append(_table(data, unit))
    if len(data.get("interactions") or []) > 1:
        rows = [
            [
                cell(" x ".join(item["sources"])),
                cell(None if item["share"] is None else f"{item['share']:.1%}"),
            ]
            for item in data["interactions"]
        ]
        caption = "What the residual is made of: interactions, the last with all other noise"
        blocks.append(Table(["streams", "share"], rows, caption, folded=True))
    return Section("Where the spread comes from", context.anchor(result), blocks)


def _interval(row: Any) -> str:
    low, high = row["interval"]
    return f"{low:.0%} to {high:.0%}"


def _round(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.3g}") if abs(value) < 100 else float(round(value))


def _picture(data: Any) -> Picture:
    rows = data["shares"]
    factors = list(data["levels"])
    levels = [[] for _ in factors]  # type: list[list[int]]
    for run in data["convergence"]:
        pieces = run["run"].rpartition("/")[2].split("-")
        for place, name in enumerate(factors):
            levels[place] += [int(piece[len(name) :]) for piece in pieces if piece.startswith(name)]
    steps = [np.nan if run["step"] is None else float(run["step"]) for run in data["convergence"]]
    figure = figures.variance_shares(
        [row["source"] for row in rows],
        np.array([row["share"] for row in rows]),
        np.array([row["interval"] for row in rows]),
        factors=factors,
        levels=[np.array(own) for own in levels],
        values=np.array(steps),
    )
    caption = (
        "**Share of every stream** in the variance of the convergence step, with 95% intervals; beside it the runs by "
        "the seed of each stream (a dash is their mean). A stream that decides much has dashes far apart."
    )
    words = ", ".join(f"{row['source']} {row['share']:.0%}" for row in rows)
    return Picture("shares", figure, caption, f"Shares of the variance: {words}")


def _table(data: Any, unit: str) -> Table:
    cells = []
    for row in data["shares"]:
        known = row["share"] is not None
        note = "estimated below 0, set to 0" if row.get("negative") else ""
        cells.append(
            [
                cell(row["source"]),
                Cell(f"{row['share']:.1%}", row["share"], True) if known else cell(None),
                cell(_interval(row) if known else None),
                cell(_round(row["sd"])),
                cell(note),
            ]
        )
    header = ["source", "share", "95% interval", f"standard deviation ({unit})", ""]
    return Table(header, cells, "Shares of the variance")
