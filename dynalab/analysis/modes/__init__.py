"""Modes of training: weights that move alike, and the networks that they make, beside averages of the same size.

Correlation Mode Decomposition (Brokman et al. 2024, arXiv 2312.13247): the path of every weight over the snapshots is
taken as a slope times the path of its mode's reference weight, plus an offset. A sample of the weights is clustered by
absolute correlation, each cluster is known by the weight that is most like the others, and all weights go to the
reference that they correlate with most.

How many modes there are is chosen by snapshots that are held out, every fourth. The others find the references; slopes
and offsets that are fitted to them are asked for what was held out (those of the result are fitted to all), and the
smallest number is taken that is not worse than the best by more than one standard error or a hundredth of the variance
(`modes=` names another; `choose=examples` takes that whose networks are best, as windows are chosen).

What modes make of the last snapshot is a network. So is an average of snapshots, for less: modes take two numbers and a
name a weight. The network is therefore held against the last weights, EMA, LAWA, SWA and the principal components of
the path, each with the window that is best on every other held-out example, within no more floats than the modes take;
all are judged on the examples between, run by run. That modes beat the last weights says only that averaging does.

Averages are over the snapshots that were kept, modes likewise: `snapshots.every=` keeps them evenly. Of checkpoints
from elsewhere the weights are read and no network is run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dynalab.analysis.base import Group, Keys, Needs, Run, key
from dynalab.analysis.directions.path import choose
from dynalab.analysis.modes import tables
from dynalab.analysis.modes.findings import Findings, RunFindings
from dynalab.analysis.modes.judge import Scores, judged, summary_of
from dynalab.analysis.modes.measure import FEWEST, Measured, few, of_group
from dynalab.analysis.modes.settings import MODES, SIZES, settings
from dynalab.analysis.modes.summary import show
from dynalab.core.errors import NothingMatched
from dynalab.core.modes import SAMPLED
from dynalab.core.words import count, which_runs

__all__ = ["NEEDS", "TITLE", "VERSION", "Config", "Findings", "analyse", "show"]

VERSION = 4
TITLE = "Modes of training"
FIGURES = ("modes", "modes-against-averages", "modes-floats")
RECORD = "snapshots.every=20"
NEEDS = Needs(record=RECORD, weights=True)


@dataclass(frozen=True, kw_only=True)
class Config(Keys):
    """Keys of the analysis."""

    modes: int | None = key(None, "number of modes; null: chosen by snapshots that are held out", least=1)
    choose: str = key(
        "snapshots",
        "what chooses their number: snapshots that are held out, or held-out examples, as they choose windows",
        one_of=("snapshots", "examples"),
    )
    sampled: int = key(SAMPLED, "weights that are clustered", least=2)
    rows: int = key(
        200,
        "snapshots that are read at most, evenly among those that were kept; the last always",
        least=FEWEST,
    )
    networks: bool = key(True, "whether networks are run, to hold them against averages")
    examples: int | None = key(
        None, "held-out examples of each run; null: those that its rows are evaluated on", least=2
    )
    margin: float | None = key(
        None,
        "difference within which two methods are equivalent; null: .005 of an accuracy, of a loss a hundredth of it",
        above=0,
    )


def analyse(groups: Sequence[Group], config: Config) -> Findings:
    """Decompose every run, and hold its network against averages.

    Raises:
        NothingMatched: No run has four snapshots.
    """
    every = [run for group in groups for run in group.runs]
    steps = {run.id: _steps(run, config.rows) for run in every}
    enough = [len(own) for run, own in zip(every, steps.values(), strict=True) if not few(run, own)]
    if not enough:
        raise _nothing(every[0])
    least = min(enough)
    counts = [config.modes] if config.modes else [size for size in SIZES if size < least]
    tried = settings(least, counts)
    found: dict[str, RunFindings | Measured] = {}
    for group in groups:
        items = of_group(group, steps, counts, tried, config.sampled, config.examples, config.networks)
        found |= {(item.run if isinstance(item, RunFindings) else item.run.id): item for item in items}
    moving = sorted(
        (item for item in found.values() if isinstance(item, Measured)), key=lambda item: item.run.id
    )
    scores = Scores.of(moving, tried)
    chosen = {item.run.id: item.decomposition.chosen() for item in moving}
    if scores is not None and config.choose == "examples":
        best = scores.best(MODES)
        chosen |= dict.fromkeys(scores.runs, best - len(tried) + len(counts))
    told = {item.run.id: item.told(counts, chosen[item.run.id]) for item in moving}
    summary = summary_of([*told.values()])
    if scores is not None:
        places = np.array([chosen[run] for run in scores.runs]) + len(tried) - len(counts)
        summary, told = judged(summary, told, scores, places, config.margin)
    runs = [item if isinstance(item := found[run.id], RunFindings) else told[run.id] for run in every]
    picked = [(item, chosen[item.run.id]) for item in moving]
    return Findings(
        tuple(runs),
        summary,
        tuple(_warnings(groups, moving, told, config)),
        modes=tables.of_modes(picked),
        parts=tables.of_parts(picked),
        paths=tables.of_paths(picked),
        networks=tables.of_networks(scores),
    )


def _steps(run: Run, most: int) -> list[int]:
    grid = run.weights.grid
    return [grid[place] for place in choose(len(grid), most)] if grid else []


def _nothing(run: Run) -> NothingMatched:
    kept = count(len(run.weights.grid), "step")
    how = f"dynalab train ... {RECORD}" if run.learner is not None else run.weights.keep
    return NothingMatched(f"{run.id}: weights were kept at {kept}, and modes take {FEWEST}: {how}")


def _warnings(
    groups: Sequence[Group], moving: Sequence[Measured], told: dict[str, RunFindings], config: Config
) -> Iterator[str]:
    """Yield what has to be read before the numbers."""
    unknown = [item for item in moving if not item.shapes.known]
    if unknown:
        tensors = count(len(unknown[0].shapes.sizes), "tensor")
        which = which_runs([item.run.id for item in unknown], len(moving))
        yield f"{which}: the network is not known, so all {tensors} that were kept count as weights"
    if config.networks and (alone := [item.run.id for item in moving if item.values is None]):
        yield (
            f"{which_runs(alone, len(moving))}: the network is not known, so no network is run: modes are not held "
            "against averages"
        )
    fewer = [run for run in told.values() if config.modes and (run.modes or 0) < config.modes]
    if fewer:
        yield (
            f"modes={config.modes}: in {count(len(fewer), 'run')} of {len(told):,} fewer can be told apart, as few as "
            f"{min(run.modes or 0 for run in fewer)}"
        )
    if config.modes and (short := [run for run in told.values() if run.rows <= config.modes]):
        yield (
            f"modes={config.modes}: {short[0].run} has {count(short[0].rows, 'snapshot')}, with which as many paths "
            "are alike by chance"
        )
    if not config.modes and moving:
        shortest, longest = (find(moving, key=lambda item: len(item.steps)) for find in (min, max))
        fewest = len(shortest.steps)
        if fewest <= SIZES[-1] and 2 * fewest < len(longest.steps):
            yield (
                f"{shortest.run.id} has {count(fewest, 'snapshot')}, so that fewer modes are tried of all runs: "
                "modes= names a number"
            )
        most = max((run.counts[-1].modes for run in told.values()), default=0)
        if reached := [run for run in told.values() if run.modes == most]:
            yield (
                f"{count(len(reached), 'run')} of {len(told):,} take{'s' * (len(reached) == 1)} {count(most, 'mode')}, "
                "the most that were tried: modes= names more"
            )
    if uneven := [item.run.id for item in moving if _uneven(item.steps)]:
        yield (
            f"{which_runs(uneven, len(moving))}: snapshots are not evenly spaced, and averages are over these: "
            "snapshots.every= keeps them evenly"
        )


def _uneven(steps: np.ndarray) -> bool:
    apart = np.diff(steps)
    # The last one may come early.
    return bool(len(apart) > 1 and apart[:-1].max() >= 2 * apart[:-1].min())
