"""Hybrids: full training up to a step, from there on that of the normalisation's scalars alone.

Runs are trained again from each of some steps on with all other weights held (`dynalab fork REF STEP edit=freeze
edit.keep=norm`), and their ends compared with those of full training, seed by seed: from which step on is what is left
to learn within less than a hundredth of the weights? After Singh et al. 2024 (arXiv 2403.07379; ICLR 2025), whose
ResNet-20 on CIFAR-10 does nearly as well from an early to middle epoch on.

A hybrid is as good as full training where the 95% interval of the mean difference leaves out all that is worse by more
than the margin, and worse where it leaves out all that is not; else it cannot be told. A hybrid from the last step on
is full training, with a difference of 0. Other parts, as `keep=head`, are named as in the edit.

The forks are ordinary ensembles: called again it trains nothing, and what was cut off goes on. A fork begins at the
newest checkpoint up to its step, else at the start: `checkpoint.keep=all` makes it cheaper.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dynalab.analysis.base import Group, Keys, Needs, Run, key
from dynalab.analysis.hybrid.findings import (
    Findings,
    Hybrid,
    Over,
    Point,
    RunFindings,
    Summary,
    first_step,
    verdict_of,
)
from dynalab.analysis.hybrid.summary import reason_of, show
from dynalab.config.suggest import did_you_mean
from dynalab.core.convergence import direction_of
from dynalab.core.errors import ConfigError, NothingMatched
from dynalab.core.forks import parent_and_step
from dynalab.core.progress import counted
from dynalab.core.waves import Fork
from dynalab.core.words import listed
from dynalab.edits.base import PARTS, names_of

__all__ = ["NEEDS", "TITLE", "VERSION", "Config", "Findings", "explore", "show"]

VERSION = 2
TITLE = "Training a part alone"
FIGURES = ("hybrid",)
METRICS = ("test_accuracy", "test_loss", "train_accuracy", "train_loss")
NORM = "norm"
# Where no steps are given: shares of training after which the rest is held.
SHARES = (0, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2)


def NEEDS(config: Config | None = None) -> Needs:
    """Return what it reads."""
    metric = None if config is None else config.metric
    return Needs(
        columns=(metric or ("test_accuracy", "test_loss"),),
        optional=METRICS,
        record="model=mlp model.norm=batch",
        network=True,
    )


@dataclass(frozen=True, kw_only=True)
class Config(Keys):
    """Keys of the analysis."""

    at: list[int] | None = key(
        None,
        "steps from which on the rest is held; null: 0, 1/32, 1/16, 1/8, 1/4 and 1/2 of training",
        least=0,
    )
    keep: Any = key([NORM], f"parts that go on being trained: {PARTS}", kind="a list of parts")
    metric: str | None = key(
        None, "what has to be as good as in full training; null: test_accuracy, else test_loss"
    )
    margin: float | None = key(
        None, "by how much it may be worse; null: .01 of an accuracy, of others a tenth of its mean", above=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.metric is not None and direction_of(self.metric) is None:
            raise ConfigError(
                f"metric={self.metric}: expected one that ends in loss, error or accuracy, as {listed(METRICS)}"
            )
        object.__setattr__(self, "keep", list(names_of(self.keep, "keep")))
        if not self.keep:
            raise ConfigError("keep=[]: name the parts that go on being trained, for example keep=[norm]")


def explore(
    groups: Sequence[Group], config: Config
) -> Generator[Sequence[Fork], Mapping[str, Sequence[Group]], Findings]:
    """Train every run again from each step on, with some parts alone.

    Raises:
        NothingMatched: The network has no normalisation with scalars.
        ConfigError: It has no such part, or the runs no such step.
    """
    (group,) = groups
    length = max(int(run.grid[-1]) for run in group.runs)
    runs = tuple(run for run in group.runs if run.grid[-1] == length)
    warnings = list(_shorter(group, runs, length))
    trained, weights = _weights(runs[0], config.keep)
    steps = _steps(config.at, runs[0], length)
    asked = [
        Fork(str(step), tuple(run.id for run in runs), step, _freeze(config.keep), length)
        for step in steps
        if step < length
    ]
    made: Mapping[str, Sequence[Group]] = (yield asked) if asked else {}
    forks = {step: {run.label: run for own in made.get(str(step), ()) for run in own.runs} for step in steps}
    forks[length] = {run.label: run for run in runs}
    metric = config.metric or next(name for name in METRICS if any(run.first(name) for run in runs))
    names = [name for name in dict.fromkeys([metric, *METRICS]) if any(run.first(name) for run in runs)]
    found = tuple(
        RunFindings(
            run.id,
            _final(run, names, length),
            tuple(_hybrid(step, forks[step].get(run.label), names, length) for step in steps),
        )
        for run in counted(runs, "runs", "their ends")
    )
    warnings += [line for own in made.values() for item in own for line in item.warnings]
    ids = [item.id for step in steps for item in made.get(str(step), ())]
    summary = _summary(found, steps, names, config, (trained, weights), length)
    said = tuple(dict.fromkeys(warnings))
    return Findings(found, summary, tuple(dict.fromkeys(ids)), said, finals=_table(found))


def _freeze(keep: Sequence[str]) -> dict[str, Any]:
    return {"edit": "freeze", "edit.keep": list(keep)}


def _shorter(group: Group, runs: Sequence[Run], length: int) -> list[str]:
    left = [run.label for run in group.runs if run not in runs]
    return [f"left out, of fewer than {length:,} steps: {listed(left)}"] if left else []


def _weights(run: Run, keep: Sequence[str]) -> tuple[int, int]:
    """Return how many weights are in the parts that are kept, and how many are trained."""
    from dynalab.models.describe import parts_of

    network = run.network(run.weights.steps[-1])
    parts = parts_of(network)
    sizes = {name: param.numel() for name, param in network.named_parameters() if param.requires_grad}
    model = (run.config.get("model") or {}).get("name")
    for part in keep:
        if part == NORM and part not in parts:
            raise NothingMatched(
                f"{run.id}: model={model} has no normalisation with scalars of its own, as model=mlp model.norm=batch "
                f"has; keep= trains another of its parts: {listed(sorted(parts), 12)}"
            )
        if part not in parts:
            raise ConfigError(
                f"keep={part}: model={model} has no such part{did_you_mean(part, parts)}; there are "
                f"{listed(sorted(parts), 20)}"
            )
    kept = {name for part in keep for name in parts[part]} & set(sizes)
    if not kept or len(kept) == len(sizes):
        which = "every" if kept else "no"
        raise ConfigError(f"keep={','.join(keep)}: {which} trained weight is among these parts")
    return sum(sizes[name] for name in kept), sum(sizes.values())


def _steps(at: Sequence[int] | None, run: Run, length: int) -> list[int]:
    """Return the steps from which on the rest is held, ascending."""
    parent = run.config.get("parent")
    first = parent_and_step(str(parent))[1] if parent else 0
    if at is None:
        steps = {first + round(share * (length - first)) for share in SHARES}
        return sorted(step for step in steps if step < length)
    for step in at:
        if not first <= step <= length:
            raise ConfigError(f"at={step}: expected steps of these runs, from {first:,} to {length:,}")
    if not at:
        raise ConfigError("at=[]: name steps of the runs, or null for a grid of them")
    return sorted(set(at))


def _final(run: Run, names: Sequence[str], length: int) -> dict[str, float | None]:
    """Return the metrics of a run in its last row; None where it has none there."""
    table = run.table(names)[run.grid == length]
    values = table[0] if len(table) else np.full(len(names), np.nan)
    return {name: float(x) if math.isfinite(x) else None for name, x in zip(names, values, strict=True)}


def _hybrid(step: int, fork: Run | None, names: Sequence[str], length: int) -> Hybrid:
    if fork is None:
        return Hybrid(step, None, dict.fromkeys(names))
    return Hybrid(step, fork.id, _final(fork, names, length))


def _summary(
    runs: Sequence[RunFindings],
    steps: Sequence[int],
    names: Sequence[str],
    config: Config,
    weights: tuple[int, int],
    length: int,
) -> Summary:
    full = {name: _column([run.final[name] for run in runs]) for name in names}
    metric, (trained, total) = names[0], weights
    up = direction_of(metric) == "up"
    tenth = abs(float(np.nanmean(full[metric]))) / 10 if np.isfinite(full[metric]).any() else 0.0
    margin = config.margin or (0.01 if metric.endswith("accuracy") else tenth)
    points = []
    for place, step in enumerate(steps):
        overs = {
            name: Over.of(_column([run.hybrids[place].final[name] for run in runs]), full[name])
            for name in names
        }
        if step == length:
            # Full training itself: that its difference is 0 needs no interval.
            overs = {name: replace(over, interval=(0.0, 0.0)) for name, over in overs.items() if over.runs}
        points.append(Point(step, verdict_of(overs[metric], len(runs), margin, up), overs))
    # Of full training itself there is nothing to tell.
    tried = [point for point in points if point.at_step < length] or points
    first, low, high = first_step(tried, metric, margin, up)
    verdict = "within" if high is not None else tried[-1].verdict
    found = Summary(
        runs=len(runs),
        keep=tuple(config.keep),
        trained=trained,
        weights=total,
        share=trained / total,
        metric=metric,
        margin=margin,
        steps=length,
        points=tuple(points),
        verdict=verdict,
        reason="",
        step=first,
        interval=(low, high),
    )
    return replace(found, reason=reason_of(found))


def _column(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], float)


def _table(runs: Sequence[RunFindings]) -> Any:
    import pandas as pd

    return pd.DataFrame(
        [
            {
                "run": run.run,
                "at_step": hybrid.at_step,
                "metric": name,
                "hybrid": np.nan if value is None else value,
                "full": np.nan if run.final[name] is None else run.final[name],
            }
            for run in runs
            for hybrid in run.hybrids
            for name, value in hybrid.final.items()
        ]
    )
