"""How the result of an analysis is shown: as the analysis says, or as plain tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from dynalab.analysis.command import blocks_of
from dynalab.config.registry import Part, find, search_path
from dynalab.core.errors import ConfigError, StoreError
from dynalab.core.plugins import PluginError, naming
from dynalab.core.words import count
from dynalab.report.blocks import Section
from dynalab.report.choice import key_words
from dynalab.report.gather import LANDMARKS
from dynalab.report.sections.context import Context
from dynalab.show.blocks import Block, Number, Raster, Say, Warnings, in_order
from dynalab.show.page import settled
from dynalab.show.values import tables_of
from dynalab.store.results import Result, reading
from dynalab.store.runfile import STATUSES

# Keys that every result has and the page shows elsewhere.
_KNOWN = (
    *("schema_version", "id", "kind", "ensemble", "ensembles", "warnings", "config", "inputs", "version"),
    *("created", "dynalab"),
)


class Rendered(NamedTuple):
    """An analysis on the page."""

    lines: Sequence[str]  # its sentences for the top, in which `**` makes words bold
    section: Section  # its part
    numbers: Sequence[Number] = ()  # what is written large there
    states: Raster | None = None  # in which state every run is when


def render(result: Result, context: Context) -> Rendered:
    """Return an analysis as the page shows it.

    A result of another form is named as damaged, so is what a plug-in's error leaves out, and the page goes on.
    """
    try:
        part = _part(result.kind)
        with reading(result):
            known = part and hasattr(part.module, "show") and not _is_of_before(part, result)
            with naming(part and getattr(part.module, "show", None)):
                made = (_shown if known else _tables)(part, result, context)
            if words := key_words(result):
                keys = (
                    f"Made with {' '.join(f'`{word}`' for word in words)}, not with the default keys alone."
                )
                section = replace(made.section, blocks=[Say(keys, note=True), *made.section.blocks])
                lines = [*made.lines[:-1], f"{made.lines[-1]} {keys}"] if made.lines else []
                made = made._replace(section=section, lines=lines)
            return made
    except PluginError as error:
        context.shown[0].leave_out(error)
    except StoreError as error:
        context.leave_out(result, str(error))
    return Rendered([], Section(result.kind, context.anchor(result)))


def _part(kind: str) -> Part | None:
    """Return an analysis, None where there is none; one that cannot be imported is the user's to mend."""
    try:
        return find("analysis", kind, search_path())
    except PluginError:
        raise
    except ConfigError:
        return None


def _is_of_before(part: Part, result: Result) -> bool:
    """Whether another version made a result, in a form that is not known any more; another is damaged."""
    version = getattr(part.module, "VERSION", 1)
    return result.value is None and result.data.get("version", version) != version


def _shown(part: Part | None, result: Result, context: Context) -> Rendered:
    """Return what an analysis says by itself."""
    assert part is not None
    groups = [item.ensemble.group(STATUSES, [run.id for run in item.runs]) for item in context.shown]
    blocks = blocks_of(part, result.restored(), groups)
    lines = [block.text for block in blocks if isinstance(block, Say) and block.headline]
    marked = [_marked(block, context) for block in in_order(blocks, context.warnings(result))]
    title = getattr(part.module, "TITLE", part.name.replace("_", " ").capitalize())
    if callable(title):
        title = title(result.value)
    drawn = [settled(block, context.label, context.log_steps) for block in marked]
    large = [block for block in drawn if isinstance(block, Number)]
    inside = [block for block in drawn if not isinstance(block, Number)]
    # Headlines stand at the top of the page; a section of nothing else repeats them.
    kept = [block for block in inside if not (isinstance(block, Say) and block.headline)] or inside
    lead = getattr(part.module, "LEAD", "")
    states = next((block for block in marked if isinstance(block, Raster)), None)
    return Rendered(lines, Section(title, context.anchor(result), kept, lead=lead), large, states)


def _tables(_: Part | None, result: Result, context: Context) -> Rendered:
    """Return the values and lists of any analysis as plain tables."""
    blocks: list[Block] = [Warnings(lines)] if (lines := context.warnings(result)) else []
    blocks += tables_of({key: value for key, value in result.data.items() if key not in _KNOWN})
    runs = count(len(result.data.get("inputs") or []), "run")
    sentence = f"Analysis **{result.kind}** of {runs}: see below."
    return Rendered([sentence], Section(result.kind, context.anchor(result), blocks))


def _marked(block: Block, context: Context) -> Block:
    """Return a figure of runs with the landmarks that they have reached."""
    if not isinstance(block, Raster):
        return block
    known = {run.id: run.summary or {} for run in context.runs}
    summaries = [known.get(run, {}) for run in block.runs]
    landmarks = {name: [summary.get(key) for summary in summaries] for name, key in LANDMARKS.items()}
    return replace(block, landmarks=landmarks)
