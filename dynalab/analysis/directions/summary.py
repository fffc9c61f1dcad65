"""What is said of the directions of training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dynalab.analysis.base import Group, Series
from dynalab.analysis.directions.findings import Findings, Over, PartSummary
from dynalab.analysis.directions.path import Measure
from dynalab.core.words import LINES, count, number, rounded
from dynalab.show.blocks import (
    Block,
    Dots,
    Figure,
    Lines,
    Panel,
    Say,
    Similarities,
    SimilarityMap,
    Table,
    run_cell,
    run_label,
)

# Of a measure: its name, the unit behind a number.
NAMES: Mapping[Measure, tuple[str, str]] = {
    "directional_similarity": ("similarity", ""),
    "relative_similarity": ("relative similarity", ""),
    "principal_share": ("first principal share", ""),
    "update_angle": ("angle between updates", "°"),
    "apex_angle": ("apex angle, from the start", "°"),
    "origin_angle": ("angle at the origin", "°"),
    "displacement": ("displacement", ""),
    "tortuosity": ("tortuosity", ""),
}
# What is in the table of single runs.
SHOWN: Sequence[Measure] = (
    "relative_similarity",
    "directional_similarity",
    "principal_share",
    "update_angle",
    "tortuosity",
)
WALK = "a random walk with the same start and lengths of steps"
# As Singh et al. (2024) define the mean directional similarity; the walk's is the same.
PAIRS = "each with itself among them"
MOST = 30  # parts that are drawn


def show(findings: Findings, groups: Sequence[Group]) -> Iterator[Block]:
    """Yield what a reader sees; without groups (a terminal) there is no figure."""
    yield Say(f"**Directions:** {_headline(findings)}.", headline=True)
    if groups:
        yield from _figures(findings)
    whole = findings.summary.whole
    if whole is not None:
        rows: list[list[Any]] = [
            [name, *_cells(whole.measures[key], unit)]
            for key, (name, unit) in NAMES.items()
            if whole.measures[key].runs
        ]
        of = _over(findings)
        header = ["of all weights", "measured", "random walk", "excess", "95% interval"]
        yield Table(
            header,
            rows,
            f"Against {WALK}{of}; similarities are means over all pairs of rows, {PAIRS}",
            sortable=False,
        )
    parts = [*findings.summary.kinds, *findings.summary.layers]
    if len(parts) > 1:
        kinds = len(findings.summary.kinds)
        rows = [
            [
                "kind" if place < kinds else "layer",
                part.part,
                part.weights,
                *_cells(part.measures["relative_similarity"]),
            ]
            for place, part in enumerate(parts)
        ]
        header = ["part", "name", "weights", "relative similarity", "random walk", "excess", "95% interval"]
        yield Table(header, rows, f"Kinds of parameters, and layers{_over(findings)}")
    rows = []
    for run in findings.runs:
        values = [run.whole.measures[key].value if run.whole else None for key in SHOWN]
        rows.append([run_cell(run.run), *values, run.whole.path_length if run.whole else None, run.reason])
    measures = [", ".join(filter(None, NAMES[key])) for key in SHOWN]
    yield Table(["run", *measures, "length", "rows"], rows, "Every run")


def _headline(findings: Findings) -> str:
    summary, runs = findings.summary, findings.runs
    if summary.whole is None:
        still = sum(run.verdict == "still" for run in runs)
        if still:
            return f"the weights of {count(still, 'run')} of {len(runs):,} never move, so that they have no direction"
        return f"no run of {len(runs):,} has the three rows that a path takes"
    over, share = (summary.whole.measures[name] for name in ("relative_similarity", "principal_share"))
    text = f"the cosines of all pairs of differences from the start, {PAIRS}, have a mean of "
    text += f"**{number(rounded(over.value))}**"
    text += f", those of {WALK} of {number(rounded(over.null))}: an excess of {_excess(over)}"
    if share.runs:
        text += (
            f"; {number(rounded(share.value))} of the variance lies along one direction, of the walk's "
            f"{number(rounded(share.null))}"
        )
    return text + _over(findings)


def _over(findings: Findings) -> str:
    runs = findings.summary.runs
    return f" (means over {count(runs, 'run')})" if runs > 1 else ""


def _excess(over: Over) -> str:
    low, high = over.interval
    told = f" [{_signed(low)}, {_signed(high)}]" if low is not None and high is not None else ""
    return f"**{_signed(over.excess)}**{told}"


def _cells(over: Over, unit: str = "") -> list[str]:
    low, high = over.interval
    interval = "" if low is None or high is None else f"{_signed(low)}{unit} to {_signed(high)}{unit}"
    values = [f"{number(rounded(value))}{unit}" for value in (over.value, over.null)]
    return [*values, f"{_signed(over.excess)}{unit}", interval]


def _signed(value: float | None) -> str:
    return number(None) if value is None else f"{value:+.3g}" if abs(value) >= 5e-4 else "0"


def _figures(findings: Findings) -> Iterator[Figure]:
    if findings.maps is not None and findings.summary.runs:
        yield _maps(findings)
    if findings.curves is not None and findings.summary.runs:
        yield _curves(findings)
    parts = [*findings.summary.kinds, *findings.summary.layers]
    if len(parts) > 1:
        yield _parts(parts)


def _maps(findings: Findings) -> Similarities:
    """Return the maps of the first run, and mean and spread over the runs that have the same steps."""
    moving = [run.run for run in findings.runs if run.verdict == "measured" and run.source == "weights"]
    tables = {run: table for run, table in findings.maps.groupby("run", sort=False) if run in moving}
    first, table = next(iter(tables.items()))
    steps = np.unique(table["step"])
    label = run_label(first)
    maps = [
        SimilarityMap(
            title=f"{label}: weights", steps=steps, values=_square(table, "directional_similarity")
        ),
        SimilarityMap(
            title=f"{label}: relative to step {steps[0]:,}",
            steps=steps[1:],
            values=_square(table, "relative_similarity")[1:, 1:],
        ),
    ]
    same = [own for own in tables.values() if np.array_equal(np.unique(own["step"]), steps)]
    if len(same) > 1:
        stack = np.stack([_square(own, "relative_similarity")[1:, 1:] for own in same])
        for title, values, spread in (
            (f"mean of {len(same):,} runs, relative", stack.mean(0), False),
            (f"spread of {len(same):,} runs, relative", stack.std(0, ddof=1), True),
        ):
            maps.append(SimilarityMap(title=title, steps=steps[1:], values=values, spread=spread))
    return Similarities(
        name="trajectory-maps",
        caption="**Trajectory maps.** Cosines between the weights of all pairs of steps, and between their "
        "differences from the first one. A straight path is 1 everywhere; a random walk falls off, as "
        "the root of the ratio of the squared steps gone.",
        alt="Cosines between the weights of all pairs of steps, as maps",
        maps=maps,
    )


def _square(table: Any, name: str) -> np.ndarray:
    """Return a symmetric map from the pairs of its upper triangle."""
    steps = np.unique(table["step"])
    values = np.full((len(steps), len(steps)), np.nan)
    row, column = (np.searchsorted(steps, table[axis]) for axis in ("step", "other"))
    values[row, column] = values[column, row] = table[name]
    return values


def _curves(findings: Findings) -> Lines:
    """Return similarities up to every step beside the random walk's, and their difference."""
    tables = dict(iter(findings.curves.groupby("run", sort=False)))
    moving = {run.run: tables[run.run] for run in findings.runs if run.verdict == "measured"}

    def curves(name: str, less: str = "") -> dict[str, Series]:
        return {
            run: Series.of(
                table["step"].to_numpy(), (table[name] - (table[less] if less else 0.0)).to_numpy()
            )
            for run, table in moving.items()
        }

    panels = [
        Panel(
            title=title,
            curves={"measured": curves(name), "random walk": curves(f"{name}_null")},
        )
        for name, title in (
            ("relative_similarity", "relative similarity up to a step"),
            ("directional_similarity", "similarity up to a step"),
        )
    ]
    excess = curves("relative_similarity", "relative_similarity_null")
    panels.insert(1, Panel(title="excess of the relative similarity", curves={"excess": excess}, level=0.0))
    spread = f" {LINES}" if len(moving) > 2 else ""
    return Lines(
        name="directions",
        caption=f"**Direction over training.** Mean cosine of all pairs of rows so far, beside that of {WALK}. An "
        f"excess of 0 is no more direction than diffusion has.{spread}",
        alt="Mean directional similarity over training, and that of a random walk",
        panels=panels,
    )


def _parts(parts: Sequence[PartSummary]) -> Dots:
    """Return the excess of kinds and layers with its interval."""
    some = f" ({MOST} of {len(parts):,})" if len(parts) > MOST else ""
    parts = parts[:MOST]
    overs = [part.measures["relative_similarity"] for part in parts]
    return Dots(
        name="directions-of-parts",
        caption=f"**Direction of kinds of parameters and of layers{some}.** Relative similarity less that of a random "
        "walk with the steps of the same weights. Coloured where the interval leaves out 0.",
        alt="Excess of the relative similarity, layer by layer",
        labels=[part.part for part in parts],
        values=[over.excess for over in overs],
        intervals=[None if None in over.interval else over.interval for over in overs],
        marked=[_leaves_out_0(over) for over in overs],
        notes=[f"{count(part.weights, 'weight')}" if part.weights else "" for part in parts],
        unit="excess of the relative similarity",
        way="",
    )


def _leaves_out_0(over: Over) -> bool:
    low, high = over.interval
    return low is not None and high is not None and (low > 0 or high < 0)
