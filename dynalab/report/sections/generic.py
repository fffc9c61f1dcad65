"""An analysis without a section of its own: its values and lists as plain tables."""

from __future__ import annotations

from dynalab.core.words import count
from dynalab.report.blocks import Section
from dynalab.report.sections.context import Context
from dynalab.show.blocks import Block, Warnings
from dynalab.show.values import tables_of
from dynalab.store.results import Result

# Keys that every result has and the page shows elsewhere.
_KNOWN = (
    "schema_version",
    "id",
    "kind",
    "ensemble",
    "ensembles",
    "warnings",
    "config",
    "inputs",
    "version",
    "created",
    "dynalab",
)


def summary(result: Result, context: Context) -> list[str]:
    """Return a sentence that names the analysis."""
    inputs = result.data.get("inputs") or []
    return [f"Analysis **{result.kind}** of {count(len(inputs), 'run')}: see below."]


def section(result: Result, context: Context) -> Section:
    """Return the section of any analysis."""
    blocks: list[Block] = []
    if lines := context.warnings(result):
        blocks.append(Warnings(lines))
    blocks += tables_of({key: value for key, value in result.data.items() if key not in _KNOWN})
    return Section(f"{result.kind}", context.anchor(result), blocks)
