"""An analysis that says by itself what it found: its blocks as a section of the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dynalab.config.registry import Part
from dynalab.core.runs import Group, Series
from dynalab.report import blocks as page
from dynalab.report import figures
from dynalab.report.figures.events import ROWS
from dynalab.report.figures.plateau import LinePanel, line_panels
from dynalab.report.sections import generic
from dynalab.report.sections.context import Context
from dynalab.show.blocks import (
    Block,
    Cell,
    Code,
    Figure,
    Heatmap,
    Intervals,
    Lines,
    Say,
    Strip,
    Strips,
    Table,
)
from dynalab.store.results import Result
from dynalab.store.runfile import STATUSES


def summary(part: Part, result: Result, context: Context) -> list[str]:
    """Return the headlines of an analysis."""
    if result.value is None:
        return generic.summary(result, context)
    return [block.text for block in _said(part, result, []) if isinstance(block, Say) and block.headline]


def section(part: Part, result: Result, context: Context) -> page.Section:
    """Return the section of an analysis; of one whose findings cannot be restored its plain tables."""
    if result.value is None:
        return generic.section(result, context)
    groups = [item.ensemble.group(STATUSES, [run.id for run in item.runs]) for item in context.shown]
    said = _said(part, result, groups)
    opening = [block for block in said if isinstance(block, Say) and block.headline]
    blocks: list[page.Block] = [page.Words(block.text) for block in opening]
    if lines := context.warnings(result):
        blocks.append(page.Warnings(lines))
    blocks += [_block(block, context) for block in said if block not in opening]
    title = getattr(part.module, "TITLE", part.name.replace("_", " ").capitalize())
    return page.Section(title, context.anchor(result), blocks)


def _said(part: Part, result: Result, groups: Sequence[Group]) -> list[Block]:
    return list(part.module.show(result.value, groups))


def _block(block: Block, context: Context) -> page.Block:
    if isinstance(block, Say):
        return page.Words(block.text, "note" if block.note else "")
    if isinstance(block, Table):
        rows = [[_cell(value, context) for value in row] for row in block.rows]
        return page.Table(block.header, rows, block.caption, block.folded, block.sortable)
    if isinstance(block, Code):
        return page.Code(block.text, block.caption, block.folded)
    return page.Picture(block.name, _figure(block, context), _caption(block), block.alt, block.titles)


def _cell(value: Any, context: Context) -> page.Cell:
    if not isinstance(value, Cell):
        return page.cell(value)
    plain = page.cell(value.value, tone=value.tone)
    text = context.label(value.run) if value.run else value.text or plain.text
    return page.Cell(text, plain.sort, plain.number, plain.tone)


def _caption(block: Figure) -> str:
    if isinstance(block, Strips) and len(block.strips) > ROWS:
        return f"{block.caption} Drawn are {ROWS} of {len(block.strips):,} runs."
    return block.caption


def _figure(block: Figure, context: Context) -> Any:
    if isinstance(block, Strips):
        return _strips(block.strips[:ROWS], block, context)
    if isinstance(block, Intervals):
        return figures.variance_shares(
            block.labels,
            block.shares,
            block.intervals,
            factors=[column.name.removeprefix("seed of ") for column in block.columns],
            levels=[column.levels for column in block.columns],
            values=block.columns[0].values if block.columns else None,
        )
    if isinstance(block, Lines):
        return _lines(block, context)
    if isinstance(block, Heatmap):
        return figures.spectral_density(
            [context.label(item.run) for item in block.maps],
            [item.steps for item in block.maps],
            [item.values for item in block.maps],
            block.edges,
            largest=[_curve(item.line) for item in block.maps] if block.line else None,
            threshold=[_curve(item.dashed) for item in block.maps] if block.dashed else None,
        )
    raise TypeError(f"{type(block).__name__}: no such figure")


def _strips(strips: Sequence[Strip], block: Strips, context: Context) -> Any:
    return figures.events_over_curves(
        [context.label(strip.run) + (f": {strip.label}" if strip.label else "") for strip in strips],
        [_curve(strip.left) for strip in strips],
        [_curve(strip.right) for strip in strips] if block.right else None,
        [
            [(span.begin, np.inf if span.end is None else span.end, span.kind) for span in strip.spans]
            for strip in strips
        ],
        names=(block.left, block.right),
        dashed=[_curve(strip.dashed) for strip in strips] if block.dashed else None,
        dashed_name=block.dashed,
        marked=[strip.marks for strip in strips],
    )


def _lines(block: Lines, context: Context) -> Any:
    # A row a run in every panel: those that diverged are marked in all.
    runs = list(dict.fromkeys(run for panel in block.panels for own in panel.curves.values() for run in own))
    panels = []
    for panel in block.panels:
        everything = [series.steps for own in panel.curves.values() for series in own.values()]
        steps = np.unique(np.concatenate(everything or [np.empty(0, np.int64)]))
        absent = np.full(len(steps), np.nan)
        series = {
            label: np.stack([own[run].at(steps) if run in own else absent for run in runs])
            for label, own in panel.curves.items()
        }
        panels.append(LinePanel(panel.title, steps, series, panel.logarithmic, panel.level))
    diverged = np.array([block.diverged.get(run, np.nan) for run in runs], float)
    return line_panels(panels, marked=block.marks, diverged=diverged, log_steps=context.log_steps)


def _curve(series: Series | None) -> tuple[np.ndarray, np.ndarray]:
    if series is None:
        return np.empty(0), np.empty(0)
    some = np.isfinite(series.values)
    return series.steps[some], series.values[some]
