"""An analysis that says by itself what it found: its blocks as a section of the page."""

from __future__ import annotations

from collections.abc import Sequence

from dynalab.config.registry import Part
from dynalab.core.runs import Group
from dynalab.report.blocks import Section
from dynalab.report.sections import generic
from dynalab.report.sections.context import Context
from dynalab.show.blocks import Block, Say, in_order
from dynalab.show.page import settled
from dynalab.store.results import Result
from dynalab.store.runfile import STATUSES


def summary(part: Part, result: Result, context: Context) -> list[str]:
    """Return the headlines of an analysis."""
    if result.value is None:
        return generic.summary(result, context)
    return [block.text for block in _said(part, result, []) if isinstance(block, Say) and block.headline]


def section(part: Part, result: Result, context: Context) -> Section:
    """Return the section of an analysis; of one whose findings cannot be restored its plain tables."""
    if result.value is None:
        return generic.section(result, context)
    groups = [item.ensemble.group(STATUSES, [run.id for run in item.runs]) for item in context.shown]
    said = in_order(_said(part, result, groups), context.warnings(result))
    blocks = [settled(block, context.label, context.log_steps) for block in said]
    title = getattr(part.module, "TITLE", part.name.replace("_", " ").capitalize())
    return Section(title, context.anchor(result), blocks)


def _said(part: Part, result: Result, groups: Sequence[Group]) -> list[Block]:
    return list(part.module.show(result.value, groups))
