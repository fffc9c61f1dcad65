"""Two settings beside each other, as labels and random labels: where regions gather more, and which phases are seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dynalab.analysis.compare.pairs import between_values
from dynalab.analysis.compare.samples import Values
from dynalab.analysis.regions.findings import NAMES, Bounds, Findings, RunFindings
from dynalab.analysis.regions.words import LABELS, POINTS, bounds
from dynalab.core.words import listed, number, p_value, rounded
from dynalab.show.blocks import Block, Cell, Say, Table

# What of a curve is compared, and in words.
COMPARED = {"highest": "highest local complexity", "last": "last local complexity"}


@dataclass(frozen=True)
class Difference:
    """A number of the runs of the second setting against those of the first."""

    points: str  # around `train` or `test` points
    of: str  # `highest` or `last`: local complexity in its highest or last row
    runs: tuple[int, int]  # of the first and of the second
    difference: float | None  # of the means, the second less the first
    interval: Bounds  # 95% interval of that (Welch's; of runs of the same seed, that of their differences)
    ratio: float | None  # of the means, the second over the first
    ratio_interval: Bounds  # 95% interval of that
    p: float  # by permutation of the runs, not corrected for the number of comparisons
    paired: bool  # whether runs of the same seed were compared


@dataclass(frozen=True)
class Seen:
    """In how many runs a phase is seen."""

    points: str  # around `train` or `test` points
    phase: str  # its name
    runs: tuple[int, int]  # in which it is, of the first and of the second setting
    of: tuple[int, int]  # of how many


@dataclass(frozen=True)
class Contrast:
    """What two settings say beside each other."""

    differences: tuple[Difference, ...]
    seen: tuple[Seen, ...]
    reason: str  # why nothing is compared; empty where it is
    last_steps: tuple[int | None, int | None]  # last step of the longest run of the two


def contrast(findings: Mapping[str, Findings]) -> Contrast:
    """Compare two settings, the second with the first, the reference."""
    one, other = findings.values()
    ends = _last(one), _last(other)
    if reason := _apart(one, other):
        return Contrast((), (), reason, ends)
    differences, seen = [], []
    for points in ("train", "test"):
        runs = [_judged(own, points) for own in (one, other)]
        if not all(runs):
            continue
        n, m = map(len, runs)
        for of in COMPARED:
            first, second = (
                Values(
                    tuple(run.run.rpartition("/")[2] for run in own),
                    np.array([getattr(getattr(run, points), of) for run in own]),
                )
                for own in runs
            )
            gap = between_values(first, second)
            differences.append(
                Difference(
                    *(points, of, gap.runs, gap.estimate, gap.interval),
                    *(gap.ratio, gap.ratio_interval, gap.p, gap.paired),
                )
            )
        for phase in NAMES:
            a, b = (sum(getattr(getattr(run, points), phase) is not None for run in own) for own in runs)
            seen.append(Seen(points, phase, (a, b), (n, m)))
    return Contrast(tuple(differences), tuple(seen), "", ends)


def _judged(findings: Findings, points: str) -> list[RunFindings]:
    return [run for run in findings.runs if getattr(run, points) is not None]


def _last(findings: Findings) -> int | None:
    return max((run.last_step for run in findings.runs if run.last_step is not None), default=None)


def _apart(one: Findings, other: Findings) -> str:
    """Return why counts of the two are not of one kind; empty where they are."""
    if not (_judged(one, "train") and _judged(other, "train")):
        return "a setting has no run with the rows that phases take"
    radii = [own.radii[0] for own in (one, other) if own.radii]
    if len(set(radii)) > 1:
        return f"neighbourhoods are of radius {radii[0]:g} and {radii[1]:g}"
    if one.layers != other.layers:
        return f"{one.layers or '?'} and {other.layers or '?'} layers of units are counted"
    places = (own.counted_layers or range(own.layers or 0) for own in (one, other))
    first, second = (listed([*map(str, own)]) for own in places)
    if first != second:
        return f"layers of units {first} of the one and {second} of the other are counted"
    return ""


def show_contrasts(contrasts: Mapping[str, Contrast], findings: Mapping[str, Findings]) -> Iterator[Block]:
    """Yield what settings say beside each other, by name: each with the first, the reference."""
    reference = next(iter(findings))
    rows: list[list[Any]] = []
    for name, found in contrasts.items():
        yield Say(_told(name, reference, found))
        rows += [
            [
                name,
                f"{COMPARED[item.of]} around {POINTS[item.points]}, ratio",
                "not known" if item.ratio is None else rounded(item.ratio),
                Cell(bounds(item.ratio_interval), tone="whole"),
                p_value(item.p),
            ]
            for item in found.differences
        ]
        rows += [
            [
                name,
                f"{LABELS[item.phase]} around {POINTS[item.points]}, runs",
                f"{item.runs[1]:,} of {item.of[1]:,}, against {item.runs[0]:,} of {item.of[0]:,}",
                "",
                "",
            ]
            for item in found.seen
            if any(item.runs)
        ]
    if rows:
        header = ["setting", "what is compared", f"against {reference}", "95% interval", "p"]
        yield Table(header, rows, "Linear regions, setting against setting", sortable=False)
        yield Say(
            "A setting in which nothing can be generalised, as with random labels (`task.label_noise=0.9` of an image "
            "task of ten classes), is a control: what is seen there as well is none of generalisation's doing. "
            "Intervals: of ratios of means, as of `compare`; p: permutations of the runs, not corrected for the "
            "number of rows.",
            note=True,
        )


def _told(name: str, reference: str, found: Contrast) -> str:
    lead = f"**Linear regions of {name}** against {reference}:"
    if found.reason:
        return f"{lead} not compared, since {found.reason}."
    said = [
        f"{words} **{number(rounded(item.ratio))}**{bounds(item.ratio_interval, brackets=True)} times as high"
        for item in found.differences
        for words in [{"highest": "at its highest", "last": "in the last row"}[item.of]]
        if item.points == "train" and item.ratio is not None
    ]
    # Of the last phase that some run has, what comes before it goes without saying.
    for item in [item for item in found.seen if item.points == "train" and any(item.runs)][-1:]:
        said.append(
            f"the {LABELS[item.phase]} is seen in {item.runs[1]:,} of {item.of[1]:,} runs, against "
            f"{item.runs[0]:,} of {item.of[0]:,}"
        )
    one, other = found.last_steps
    ends = "" if one == other else f" (their last steps are {other:,} and {one:,})"
    return f"{lead} around training points local complexity is {'; '.join(said)}{ends}."
