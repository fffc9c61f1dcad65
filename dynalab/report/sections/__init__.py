"""How the result of an analysis is shown: as the analysis says, or as plain tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from dynalab.config import registry
from dynalab.core.errors import ConfigError, StoreError
from dynalab.report.blocks import Section
from dynalab.report.choice import key_words
from dynalab.report.sections import generic, shown
from dynalab.report.sections.context import Context
from dynalab.show.blocks import Say
from dynalab.store.results import Result, reading


@dataclass(frozen=True)
class Renderer:
    """How a kind of analysis is shown."""

    section: Callable[[Result, Context], Section]  # result, context -> its part of the page
    # Result, context -> sentences for the summary at the top; `**` makes words bold.
    summary: Callable[[Result, Context], list[str]]


_GENERIC = Renderer(generic.section, generic.summary)


def _own(kind: str) -> Renderer | None:
    """Return what an analysis says of itself; None where there is no such analysis, or it says nothing."""
    try:
        part = registry.find("analysis", kind, registry.search_path())
    except ConfigError:
        return None
    if not hasattr(part.module, "show"):
        return None
    return Renderer(
        lambda result, context: shown.section(part, result, context),
        lambda result, context: shown.summary(part, result, context),
    )


def _keys(words: list[str]) -> str:
    """The keys that an analysis was given, in words."""
    return f"{' '.join(f'`{word}`' for word in words)}, not with the default keys alone"


def renderer(kind: str) -> Renderer:
    """Return how a kind of analysis is shown; a result of another form is named as damaged, and the page goes on."""
    found = _own(kind) or _GENERIC

    def section(result: Result, context: Context) -> Section:
        try:
            with reading(result):
                part = found.section(result, context)
                if words := key_words(result):
                    part = replace(part, blocks=[Say(f"Made with {_keys(words)}.", note=True), *part.blocks])
                return part
        except StoreError as error:
            context.leave_out(result, str(error))
            return Section(kind, context.anchor(result))

    def summary(result: Result, context: Context) -> list[str]:
        try:
            with reading(result):
                lines = found.summary(result, context)
                words = key_words(result)
                return [*lines[:-1], f"{lines[-1]} Made with {_keys(words)}."] if lines and words else lines
        except StoreError as error:
            context.leave_out(result, str(error))
            return []

    return Renderer(section, summary)
