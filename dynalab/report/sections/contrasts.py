"""What the settings on a page say beside each other, as their analyses have it: each with the first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dynalab.analysis.command import contrast
from dynalab.config.registry import Part
from dynalab.core.errors import StoreError
from dynalab.core.plugins import PluginError, naming
from dynalab.report.choice import is_of_another, part_of
from dynalab.report.gather import Shown
from dynalab.report.sections.context import Context
from dynalab.show.blocks import Block
from dynalab.show.page import settled
from dynalab.store.results import Result

# With more settings a table of pairs would be read by nobody.
MOST = 6


@dataclass(frozen=True)
class Contrasts:
    """The analyses of one kind that are compared."""

    part: Part  # the analysis
    results: Mapping[int, Result]  # place of an ensemble on the page -> its result, the reference's first
    made: Mapping[int, Result]  # place of each other one -> the comparison


def contrasts(shown: Sequence[Shown], outputs: Path) -> tuple[list[Contrasts], list[str]]:
    """Return the comparisons of the first setting with each other, a `Contrasts` a kind, and why some were not made.

    They are stored in the outputs folder, before the page is drawn.
    """
    made_of, refused = [], []
    for kind in dict.fromkeys(result.kind for item in shown for result in item.results):
        part, results = part_of(kind), _compared(shown, kind)
        if part is None or not hasattr(part.module, "contrast") or not 2 <= len(results) <= MOST:
            continue
        (_, one), *others = results.items()
        made = {}
        for place, other in others:
            try:
                with naming(part.module.contrast):
                    made[place] = contrast(part, one, other, outputs)
            except PluginError as error:
                shown[place].leave_out(error)
            except StoreError as error:
                refused.append(f"{error}; {kind}-{one.id} and {kind}-{other.id} are not compared")
        if made:
            made_of.append(Contrasts(part, results, made))
    return made_of, refused


def _compared(shown: Sequence[Shown], kind: str) -> dict[int, Result]:
    """The analysis of each setting that is compared, by its place on the page."""
    results: dict[int, Result] = {}
    for place, item in enumerate(shown):
        for result in item.results:
            if result.kind == kind and not (result.across or is_of_another(result)):
                results.setdefault(place, result)
    return results


def blocks(contrasts: Sequence[Contrasts], shown: Sequence[Shown], titles: Sequence[str]) -> list[Block]:
    """Return the blocks that compare settings, each by its title."""
    context, made = Context(shown, "comparison"), list[Block]()
    for item in contrasts:
        show = item.part.module.show_contrasts
        try:
            with naming(show):
                said = show(
                    {titles[place]: result.restored() for place, result in item.made.items()},
                    {titles[place]: result.restored() for place, result in item.results.items()},
                )
                made += [settled(block, context.label, context.log_steps) for block in said]
        except PluginError as error:
            shown[0].leave_out(error)
    return made
