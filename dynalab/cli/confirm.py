"""`dynalab analyze slingshot|eos --confirm`: train again with one thing changed, compare, and keep what came out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynalab.cli.options import note

if TYPE_CHECKING:
    from dynalab.store.stored import StoredRun

# Runs and the step that the fork of each begins at or before, the change, and the length (None: as the runs); returns
# the forks, the step that each begins at, and their runs: those of one checkpoint are trained together.
Train = Callable[[Sequence[tuple[Any, int]], Any, "int | None"], list[tuple[Any, int, list[Any]]]]


def confirm(
    inputs: Any, result: Any, part: Any, config: Any, root: Path, folders: Sequence[Path], quiet: bool
) -> Any:
    """Return an analysis with the word of forks on what it found, stored.

    Args:
        inputs: What the analysis was made from.
        result: The analysis.
        part: The analysis' part.
        config: Its configuration.
        root: The outputs folder.
        folders: A user's plug-in folders.
        quiet: Whether nothing is shown on the way.

    Raises:
        ConfigError: The runs cannot be trained again, or are several ensembles.
    """
    from dynalab.core.errors import ConfigError
    from dynalab.store.results import write_result

    if hasattr(part.module, "explore"):
        return _explored(inputs, result, part, config, root, folders, quiet)
    confirms = {"slingshot": _slingshots, "eos": _edges}
    if part.name not in confirms:
        raise ConfigError(f"--confirm: confirms slingshots and the edge, and this is analyze {part.name}")
    if len(inputs.ensembles) != 1:
        raise ConfigError("--confirm: takes one ensemble at a time; leave out pool=true")
    if getattr(config, "steps", None) is not None:
        raise ConfigError(f"--confirm: looks at whole runs; leave out steps={config.steps}")
    with contextlib.ExitStack() as stack:
        train = _trainer(inputs, root, folders, quiet, stack)
        found = confirms[part.name](inputs, result, part, config, root, train)
    if found is None:
        return result
    confirmation, own = found
    tables = {name: result.table(name) for name in result.tables()} | own
    data = {**result.data, "confirmation": confirmation, "tables": sorted(tables)}
    return write_result(result.paths, data, tables)


def _explored(
    inputs: Any, result: Any, part: Any, config: Any, root: Path, folders: Sequence[Path], quiet: bool
) -> Any:
    """Return the analysis as the module's own forks leave it."""
    from dynalab.cli.train import watching
    from dynalab.explore import drive

    with contextlib.ExitStack() as stack:
        trainer = drive.Trainer(root, folders, watching(stack, quiet))
        found = drive.confirm(inputs, result, part, config, trainer)
    if found is None:
        note(f"analyze {part.name} found nothing that training again could confirm")
        return result
    return found


def _trainer(
    inputs: Any, root: Path, folders: Sequence[Path], quiet: bool, stack: contextlib.ExitStack
) -> Train:
    """Return what trains forks from the nearest checkpoints, and shows how it goes."""
    from dynalab.cli.train import watching
    from dynalab.launch.fork import fork
    from dynalab.store.branch import kept_before

    watch = watching(stack, quiet)

    def train(
        runs: Sequence[tuple[StoredRun, int]], change: Any, steps: int | None
    ) -> list[tuple[Any, int, list[StoredRun]]]:
        groups: dict[int, list[StoredRun]] = {}
        for run, before in runs:
            groups.setdefault(kept_before(run, before), []).append(run)
        return [
            (fork(inputs.ensembles[0], own, change, root, folders, watch, step=step, steps=steps), step, own)
            for step, own in sorted(groups.items())
        ]

    return train


def _slingshots(inputs: Any, result: Any, part: Any, config: Any, root: Path, train: Train) -> Any:
    """Train runs with slingshots again, from before the first one on, with the loss in float64."""
    from dynalab.analysis.command import analyse
    from dynalab.analysis.slingshot.confirm import compare, first_onsets
    from dynalab.launch.fork import Override

    onsets = first_onsets(result.data)
    if not onsets:
        note("no slingshots, so nothing to confirm")
        return None
    made = train(
        [(run, onsets[run.id] - 1) for run in inputs.runs if run.id in onsets],
        Override("train.loss_dtype", "float64", "float64"),
        None,
    )
    again = [
        (analyse(_of_fork(fork, runs, part), part, config, root).data, step) for fork, step, runs in made
    ]
    return compare(result.data, again), {}


def _edges(inputs: Any, result: Any, part: Any, config: Any, root: Path, train: Train) -> Any:
    """Train runs that arrived at the edge again, at half the rate from soon after on."""
    import pandas as pd

    from dynalab.analysis.base import on_one_grid
    from dynalab.analysis.eos.confirm import compare, halvings
    from dynalab.launch.fork import Override

    table = result.table("ratios")
    curves = {
        name: (rows["step"].to_numpy(), rows["ratio"].to_numpy()) for name, rows in table.groupby("run")
    }
    wanted = halvings(result.data, curves, config)
    if not wanted:
        note("no run arrived at the edge, so nothing to confirm")
        return None
    entries: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    forks = []
    for item in wanted:
        runs = [(run, item.at) for run in inputs.runs if run.id in item.runs]
        for fork, step, chosen in train(
            runs, Override("train.halve_at", item.at, f"half-{item.at}"), item.steps
        ):
            columns = part.module.COLUMNS
            trajectories = on_one_grid(_of_fork(fork, chosen, part).groups, columns)
            own, drawn = compare(on_one_grid(inputs.groups, columns), trajectories, item.at, config)
            entries += [{**entry, "from_step": step} for entry in own]
            rows += drawn
            forks.append(fork.id)
    entries.sort(key=lambda entry: entry["run"])
    confirmation = {"change": "train.halve_at", "forks": forks, "runs": entries}
    return confirmation, {"confirmation": pd.DataFrame(rows)}


def _of_fork(fork: Any, runs: Sequence[StoredRun], part: Any) -> Any:
    """Return what an analysis is given of a fork."""
    from dynalab.analysis.command import gather

    labels = {run.label for run in runs}
    (found,) = gather([(fork, [run for run in fork.runs if run.label in labels])], part)
    return found
