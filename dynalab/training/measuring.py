"""What is measured of the runs, and on which steps; and the rows that it gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from dynalab.config import registry
from dynalab.config.ensemble import EnsembleConfig
from dynalab.core.state import ProbeState
from dynalab.probes.base import Probe
from dynalab.training.cadence import Cadence, cadence, probe_cadences


@dataclass(frozen=True)
class Measurement:
    """A probe and the grid that it is measured on."""

    name: str
    probe: Probe
    grid: Cadence


def measurements(
    config: EnsembleConfig, network: nn.Module, folders: Sequence[Path], every: Mapping[str, int] | None
) -> list[Measurement]:
    """Return a configuration's probes for a network; `every` has the distances of rows that were fixed before."""
    every = {**probe_cadences(config, folders), **(every or {})}
    return [
        Measurement(
            name,
            registry.find("probe", name, folders).build(section, network),
            cadence(section.every or every.get(name), section.at),
        )
        for name, section in config.probe.items()
    ]


def needs_of(items: Iterable[Measurement]) -> set[str]:
    """Return which optional fields of a `ProbeState` some measurements need."""
    return {need for item in items for need in item.probe.needs}


def rows_of_runs(
    items: Iterable[Measurement], state: ProbeState, runs: Sequence[int]
) -> dict[int, dict[str, Tensor]]:
    """Measure single runs: place of the run -> metric -> ()."""
    rows: dict[int, dict[str, Tensor]] = {run: {} for run in runs}
    for item in items:
        for run in runs:
            row = item.probe.measure_run(state, run)  # type: ignore[attr-defined]
            rows[run] |= {name: value[run] for name, value in row.items()}
    return rows
