"""An analysis that says by itself what it found: its blocks as a section of the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dynalab.config.registry import Part
from dynalab.core.runs import Group
from dynalab.report import blocks as page
from dynalab.report.sections import generic
from dynalab.report.sections.context import Context
from dynalab.show import plots
from dynalab.show.blocks import Block, Cell, Code, Say, Table
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
    figure = plots.draw(block, context.label, context.log_steps)
    return page.Picture(block.name, figure, plots.caption(block), block.alt, block.titles)


def _cell(value: Any, context: Context) -> page.Cell:
    if not isinstance(value, Cell):
        return page.cell(value)
    plain = page.cell(value.value, tone=value.tone)
    text = context.label(value.run) if value.run else value.text or plain.text
    return page.Cell(text, plain.sort, plain.number, plain.tone)
