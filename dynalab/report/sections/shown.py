"""An analysis that says by itself what it found: its blocks as a section of the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dynalab.config.registry import Part
from dynalab.core.runs import Group
from dynalab.report.blocks import Section
from dynalab.report.gather import LANDMARKS
from dynalab.report.sections import generic
from dynalab.report.sections.context import Context
from dynalab.show.blocks import Block, Raster, Say, in_order
from dynalab.show.page import settled
from dynalab.store.results import Result
from dynalab.store.runfile import STATUSES


def summary(part: Part, result: Result, context: Context) -> list[str]:
    """Return the headlines of an analysis."""
    if _is_of_before(part, result):
        return generic.summary(result, context)
    return [block.text for block in _said(part, result, []) if isinstance(block, Say) and block.headline]


def section(part: Part, result: Result, context: Context) -> Section:
    """Return the section of an analysis; of one whose findings cannot be restored its plain tables."""
    if _is_of_before(part, result):
        return generic.section(result, context)
    groups = [item.ensemble.group(STATUSES, [run.id for run in item.runs]) for item in context.shown]
    said = in_order(_said(part, result, groups), context.warnings(result))
    blocks = [settled(_marked(block, context), context.label, context.log_steps) for block in said]
    title = getattr(part.module, "TITLE", part.name.replace("_", " ").capitalize())
    if callable(title):
        title = title(result.value)
    return Section(title, context.anchor(result), blocks)


def _is_of_before(part: Part, result: Result) -> bool:
    """Whether another version made a result, in a form that is not known any more; another is damaged."""
    version = getattr(part.module, "VERSION", 1)
    return result.value is None and result.data.get("version", version) != version


def _said(part: Part, result: Result, groups: Sequence[Group]) -> list[Block]:
    return list(part.module.show(result.restored(), groups))


def _marked(block: Block, context: Context) -> Block:
    """Return a figure of runs with the landmarks that they have reached."""
    if not isinstance(block, Raster):
        return block
    summaries = {run.id: run.summary or {} for run in context.runs}
    landmarks = {
        name: [summaries.get(run, {}).get(key) for run in block.runs] for name, key in LANDMARKS.items()
    }
    return replace(block, landmarks=landmarks)
