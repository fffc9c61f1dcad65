"""What is measured of the runs, and on which steps; and the rows that it gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from torch import Tensor, nn

from dynalab.config import registry
from dynalab.config.ensemble import EnsembleConfig
from dynalab.core.blocks import TYPES, Block
from dynalab.core.plugins import place_of, refuse, require
from dynalab.core.state import ProbeState
from dynalab.core.words import listed
from dynalab.probes.base import Probe
from dynalab.store.names import BLOCK, block_series
from dynalab.tasks.checks import check_values
from dynalab.training.cadence import Cadence, cadence, probe_cadences

# What a probe may say that it needs.
_OPTIONAL = {item.name for item in fields(ProbeState)} - {"step", "params"}


@dataclass(frozen=True)
class Measurement:
    """A probe and the grid that it is measured on."""

    name: str
    probe: Probe
    grid: Cadence
    _names: list[tuple[str, ...]] = field(default_factory=list)

    @property
    def blocks(self) -> Mapping[str, Block]:
        """What the probe declares of those of its values that are blocks."""
        return getattr(self.probe, "blocks", {})

    def measure(self, state: ProbeState, rows: dict[str, dict[str, Tensor]]) -> None:
        """Add its values, each of shape (S,), to a row; blocks, (S, ...), have a row each.

        Args:
            state: What is measured.
            rows: The rows of this step, by series, of which some stand already.

        Raises:
            PluginError: A plug-in's are no such values, or have the name of another.
        """
        measure = self.probe.measure
        row = measure(state)
        some = isinstance(row, dict) and (row or not place_of(measure))
        require(some, measure, row, "a dictionary, name -> one value a run")
        width, blocks = next(iter(state.params.values())).shape[0], self.blocks
        check_values(measure, {name: value for name, value in row.items() if name not in blocks}, width)
        _check_blocks(self.probe, row, blocks, width)
        of = {name: block_series(name) if name in blocks else self.grid.name for name in row}
        if not self._names:
            self._names.append(tuple(row))
            if place_of(measure) and (same := sorted(name for name in row if name in rows.get(of[name], ()))):
                refuse(measure, row, f"other names than {listed(same)}, which the row has already")
        require(
            tuple(row) == self._names[0], measure, row, f"{listed(self._names[0])}, as in the rows before"
        )
        for name, value in row.items():
            rows.setdefault(of[name], {})[name] = value


def _check_blocks(probe: Probe, row: Mapping[str, Tensor], blocks: Mapping[str, Block], width: int) -> None:
    """Check that blocks are what a probe declares them to be; a `PluginError` where a plug-in's are not."""
    for name, block in blocks.items():
        legal = f"blocks whose types are among {listed(TYPES)}, under names of small letters, digits and _"
        require(BLOCK.fullmatch(name) and block.dtype in TYPES, probe, block, legal)
        value, shape = row.get(name), (width, *block.shape)
        form = (getattr(value, "shape", None), str(getattr(value, "dtype", "")).removeprefix("torch."))
        wanted = f"a tensor of shape {shape} and type {block.dtype}, one block a run, for {name!r}"
        require(form == (shape, block.dtype), probe.measure, value, wanted)


def measurements(
    config: EnsembleConfig, network: nn.Module, folders: Sequence[Path], every: Mapping[str, int] | None
) -> list[Measurement]:
    """Return a configuration's probes for a network; `every` has the distances of rows that were fixed before."""
    every = {**probe_cadences(config, folders), **(every or {})}
    made = []
    for name, section in config.probe.items():
        part = registry.find("probe", name, folders)
        probe = part.build(section, network)
        for needed in ("needs", "measure"):
            require(hasattr(probe, needed), part.module.build, probe, f"a probe, which has `{needed}`")
        unknown = sorted({*probe.needs} - _OPTIONAL)
        require(not unknown, probe, unknown, f"needs among {listed(sorted(_OPTIONAL))}")
        made.append(Measurement(name, probe, cadence(section.every or every.get(name), section.at)))
    return made


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
            rows[run] |= {name: value[run] for name, value in row.items() if name not in item.blocks}
    return rows
