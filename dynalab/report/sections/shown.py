"""An analysis that says by itself what it found: its blocks as a section of the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dynalab.config.registry import Part
from dynalab.core.runs import Group, Series
from dynalab.core.words import count
from dynalab.report import blocks as page
from dynalab.report import figures
from dynalab.report.figures.events import ROWS
from dynalab.report.sections import generic
from dynalab.report.sections.context import Context
from dynalab.show.blocks import Block, Cell, Code, Figure, Halved, Intervals, Say, Strip, Strips, Table
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
        return block.caption.replace(".**", f" ({ROWS} of {count(len(block.strips), 'run')}).**", 1)
    return block.caption


def _figure(block: Figure, context: Context) -> Any:
    if isinstance(block, Halved):
        return _halved(block.strips[:ROWS], context)
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
    raise TypeError(f"{type(block).__name__}: no such figure")


def _names(strips: Sequence[Strip], context: Context) -> list[str]:
    return [context.label(strip.run) + (f": {strip.label}" if strip.label else "") for strip in strips]


def _halved(strips: Sequence[Strip], context: Context) -> Any:
    def column(series: Series | None, steps: np.ndarray) -> np.ndarray:
        return np.full(len(steps), np.nan) if series is None else series.at(steps)

    steps = [np.empty(0) if strip.left is None else strip.left.steps for strip in strips]
    rows = [
        {
            "step": at,
            "sharpness": column(strip.left, at),
            "threshold": column(strip.dashed, at),
            "parent_sharpness": column(strip.right, at),
        }
        for strip, at in zip(strips, steps, strict=True)
    ]
    marks = [next((int(step) for step in strip.marks.values() if step is not None), 0) for strip in strips]
    return figures.halved_rate(_names(strips, context), rows, marks)


def _strips(strips: Sequence[Strip], block: Strips, context: Context) -> Any:
    return figures.events_over_curves(
        _names(strips, context),
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


def _curve(series: Series | None) -> tuple[np.ndarray, np.ndarray]:
    if series is None:
        return np.empty(0), np.empty(0)
    some = np.isfinite(series.values)
    return series.steps[some], series.values[some]
