"""The directions of training: how straight the path of the weights is, beside a random walk with the same steps.

Cosines between the weights of all pairs of steps (the trajectory map), between their differences from the first (the
relative map), their means, the angles between consecutive updates and between rows as seen from the first one and from
the origin, and how much longer the path is than its displacement: of all weights, of every layer, and of every kind of
parameter (queries, keys and values where the model names them), after Singh et al. 2024 (arXiv 2403.07379; ICLR 2025).

None of these numbers says anything by itself. A random walk has a mean similarity of 2/3 relative to its start, and .61
of its variance in one direction; and the similarity of the weights themselves is near 1 wherever they move by less than
the norm that they began with. So beside each stands what is expected of a random walk with the same start and steps of
the same lengths. An excess of 0 is no more direction than diffusion has; and an excess is no progress either: on a
plateau, at a rate that is too small, a path is straight as well.

Rows are the weights that were kept (`snapshots.every`, `snapshots.at`), of which a block of parameters is in memory at
a time, or those of the probe `directions`, which has no maps and no layers. What happens between two rows is not seen:
a path that swings to and fro there is no longer for it, so numbers compare between runs with rows at the same steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dynalab.analysis.base import Group, Keys, Needs, Run, key
from dynalab.analysis.directions.findings import Findings, Part, PartSummary, Summary
from dynalab.analysis.directions.measure import Measured, of_probe, of_weights, source_of, too_few
from dynalab.analysis.directions.summary import show
from dynalab.analysis.sources import record_of
from dynalab.analysis.stored import Shapes
from dynalab.config.suggest import did_you_mean
from dynalab.core.errors import ConfigError, NothingMatched
from dynalab.core.progress import counted
from dynalab.core.words import count, listed
from dynalab.probes import directions as probe

__all__ = ["NEEDS", "TITLE", "VERSION", "Config", "Findings", "analyse", "show"]

VERSION = 2
TITLE = "Directions of training"
FIGURES = ("trajectory-maps", "directions", "directions-of-parts")
RECORD = record_of("directions")


def NEEDS(config: Config | None = None) -> Needs:
    """Return what it reads: weights that were kept, the probe's columns, or either."""
    source = "auto" if config is None else config.source
    return Needs(
        columns=("displacement",) if source == "probe" else (),
        optional=tuple(probe.COLUMNS),
        record=RECORD[source],
        statuses=("done", "diverged"),
        weights=source == "weights",
    )


@dataclass(frozen=True, kw_only=True)
class Config(Keys):
    """Keys of the analysis."""

    source: str = key(
        "auto",
        "rows: weights that were kept, those of the probe, or (auto) these where no run kept three",
        one_of=tuple(RECORD),
    )
    parts: list[str] | None = key(None, "layers and kinds of parameters that are looked at; null: all")
    rows: int = key(
        100,
        "rows of a map at most, evenly among those that were kept; shares and apex angles are of these",
        least=3,
    )


def analyse(groups: Sequence[Group], config: Config) -> Findings:
    """Measure the path of every run.

    Raises:
        NothingMatched: No run has weights of three steps, nor as many rows of the probe.
        ConfigError: There is no such layer or kind.
    """
    if all(too_few(run, source_of(group, config.source)) for group in groups for run in group.runs):
        raise _nothing(groups[0], config)
    warnings: dict[str, list[str]] = {}
    found = [item for group in groups for item in _of_group(group, config, warnings)]
    runs = tuple(item.findings for item in found)
    moving = [item for item in found if item.findings.verdict == "measured"]
    wholes = [[item.findings.whole] for item in moving if item.findings.whole]
    summary = Summary(
        len(moving),
        next(iter(_over(wholes)), None),
        _over([item.layers for item in moving]),
        _over([item.findings.kinds for item in moving]),
    )
    curves, maps = (_joined([getattr(item, name) for item in found]) for name in ("curves", "maps"))
    # Each once, however many groups it is of.
    said = tuple(f"{listed(groups_of, 3)}: {line}" for line, groups_of in warnings.items())
    return Findings(runs, summary, said, curves=curves, maps=maps, layers=_layers(found))


def _nothing(group: Group, config: Config) -> NothingMatched:
    """Return the error that no run has enough rows, with what makes some."""
    few = too_few(group.runs[0], source_of(group, config.source))
    assert few is not None
    how = f"dynalab train ... {RECORD[config.source]}"
    if group.imported:
        how = group.runs[0].weights.keep
    return NothingMatched(f"{group.runs[0].id}: {few.findings.reason}: {how}")


def _of_group(group: Group, config: Config, warnings: dict[str, list[str]]) -> Iterator[Measured]:
    shapes: Shapes | None = None
    source = source_of(group, config.source)
    if source == "probe" and config.parts is not None:
        line = "the probe measures all weights together, so parts= is not looked at"
        warnings.setdefault(line, []).append(group.id)
    for run in counted(group.runs, "runs", group.id):
        if few := too_few(run, source):
            yield few
        elif source == "weights":
            if shapes is None:
                shapes = _shapes(run, config)
                if not shapes.known:
                    tensors = count(len(shapes.sizes), "tensor")
                    line = f"the network is not known, so all {tensors} that were kept count as weights"
                    warnings.setdefault(line, []).append(group.id)
            yield of_weights(
                run, shapes, config.rows, lambda part: config.parts is None or part in config.parts
            )
        else:
            yield of_probe(run)


def _shapes(run: Run, config: Config) -> Shapes:
    """Return the tensors of a run's network, which has the parts that are asked for."""
    shapes = Shapes.of(run)
    legal = [*shapes.layers, *shapes.kinds]
    for part in config.parts or ():
        if part not in legal:
            hint = did_you_mean(part, legal)
            raise ConfigError(f"parts={part}: {run.id} has the layers and kinds {listed(legal, 20)}{hint}")
    return shapes


def _over(parts: Sequence[Sequence[Part]]) -> tuple[PartSummary, ...]:
    """Return every part over runs, given those of each run, in the order in which they first come."""
    of: dict[str, list[Part]] = {}
    for own in parts:
        for part in own:
            of.setdefault(part.part, []).append(part)
    return tuple(PartSummary.of(same) for same in of.values())


def _joined(tables: Sequence[Any]) -> Any:
    import pandas as pd

    some = [table for table in tables if table is not None]
    return pd.concat(some, ignore_index=True) if some else None


def _layers(found: Sequence[Measured]) -> Any:
    """Return a table with a row a run and layer; None where there is none."""
    import pandas as pd

    rows = []
    for item in found:
        for part in item.layers:
            row: dict[str, Any] = {"run": item.findings.run, "layer": part.part, "weights": part.weights}
            for name, against in part.measures.items():
                row |= {name: against.value, f"{name}_null": against.null}
            rows.append(row | {"path_length": part.path_length})
    return pd.DataFrame(rows) if rows else None
