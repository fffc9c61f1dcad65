"""What became of papers' claims, on a page that shows the ensembles that they are about."""

from __future__ import annotations

import shlex
from collections.abc import Collection
from pathlib import Path

from dynalab.core.errors import StoreError
from dynalab.core.words import count, number, spoken
from dynalab.report.blocks import Section
from dynalab.reproduce.result import Outcome, Removed, Reproduction, read
from dynalab.reproduce.verdict import bounds_in_words, tally
from dynalab.show.blocks import Block, Cell, Number, Regions, Say, Table, Warnings
from dynalab.show.page import settled
from dynalab.show.plots.regions import COLOURS
from dynalab.store.paths import OutputPaths

_PLACES = {"agrees": "inside", "disagrees": "outside"}


def reproductions(outputs: Path, ensembles: Collection[str]) -> tuple[list[Reproduction], list[str]]:
    """Return the stored reproductions all of whose ensembles are shown, and a line about each that is damaged."""
    found, lines = [], []
    for path in OutputPaths(outputs).stored_reproductions():
        try:
            made = read(path)
        except StoreError as error:
            lines.append(str(error))
            continue
        if made.ensembles and set(made.ensembles) <= set(ensembles):
            found.append(made)
    return found, lines


def headline(made: Reproduction) -> str:
    """Return what a reproduction comes to, in a sentence."""
    agree = sum(item.verdict == "agrees" for item in made.removals)
    said, whose = tally(claim.verdict for claim in made.claims), made.paper or "this sheet"
    line = f"Of the {len(made.claims)} claims of {whose}, **{said}**"
    if len(made.claims) == 1:
        line = f"The claim of {whose} **{said.removeprefix('1 ')}**"
    if agree:
        of = count(len(made.removals), "removal")
        line += f"; without its cause the main one agrees as well, under {agree} of {of}"
    return f"{line} (`{made.name}` at scale {made.scale})."


def claimed(made: Reproduction) -> Number:
    """Return what is written large of a reproduction: how many of its claims agree."""
    of, agree = len(made.claims), sum(claim.verdict == "agrees" for claim in made.claims)
    others = tally(claim.verdict for claim in made.claims if claim.verdict != "agrees") if agree < of else ""
    return Number(f"{agree} of {of}", f"claims that agree, {made.paper or made.name}", others)


def section(made: Reproduction) -> Section:
    """Return the section of a reproduction."""
    blocks: list[Block] = [Say(headline(made), headline=True)]
    if made.failed:
        blocks.append(Warnings([f"{item.command} ({item.words}): {item.why}" for item in made.failed]))
    rows = [
        [
            claim.says,
            _published(claim),
            _here(claim),
            _verdict(claim),
        ]
        for claim in made.claims
    ]
    blocks.append(Table(["claim", "published", "here", "verdict"], rows, made.title, sortable=False))
    if measured := [claim for claim in made.claims if claim.measured is not None]:
        figure = Regions(
            name="claims",
            caption="**Claims that were measured**: estimate and 95% interval; shaded, the region fixed before.",
            alt="Estimates of claims with their intervals against their regions",
            labels=[claim.id.replace("_", " ") for claim in measured],
            values=[float(claim.measured or 0) for claim in measured],
            intervals=[claim.interval for claim in measured],
            regions=[claim.region for claim in measured],
            notes=[str(spoken(claim.verdict)) for claim in measured],
            places=[_PLACES.get(claim.verdict, "open") for claim in measured],
            axes=[
                f"{claim.statistic}{f' in {claim.unit}' if claim.unit else ''}, n = {claim.n}"
                for claim in measured
            ],
        )
        blocks.append(settled(figure))
    if made.removals:
        removed = [[item.removes, _here(item), _verdict(item)] for item in made.removals]
        caption = f"With its cause taken away the claim `{made.main}` must not agree"
        blocks.append(Table(["without", "here", "verdict"], removed, caption, sortable=False))
        if apart := [*made.removed, *made.removed_runs]:
            command = shlex.join(["dynalab", "report", *apart])
            blocks.append(
                Say(f"The runs of removals are not compared with these: `{command}` shows them", note=True)
            )
    why = [[claim.id.replace("_", " "), claim.statistic, claim.n, claim.why] for claim in made.claims]
    blocks.append(Table(["claim", "statistic", "n", "why"], why, "How each verdict came about", folded=True))
    return Section(
        f"Reproduction: {made.paper or made.name}",
        f"reproduce-{made.name}-{made.scale}",
        blocks,
        lead="claims",
    )


def _published(claim: Outcome) -> str | None:
    parts = [claim.published, f"({claim.section})" if claim.section else None]
    return " ".join(str(part) for part in parts if part is not None) or None


def _here(item: Outcome | Removed) -> str | None:
    if item.measured is None:
        return f"{bounds_in_words(item.interval)}, n = {item.n}" if item.interval else None
    interval = f" [{bounds_in_words(item.interval)}]" if item.interval else ""
    return f"{number(item.measured)}{interval}, n = {item.n}"


def _verdict(item: Outcome | Removed) -> Cell:
    """Return the cell of a verdict, with the colour that it has in the figure."""
    colour, said = COLOURS[_PLACES.get(item.verdict, "open")], str(spoken(item.verdict))
    if item.measured is None:
        return Cell(item.verdict, said, "quiet")
    if isinstance(item, Removed) and item.verdict == "agrees":
        return Cell(item.verdict, f"{said}, which it must not", "bad", swatch=colour)
    return Cell(item.verdict, said, swatch=colour)
