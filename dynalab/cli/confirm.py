"""`dynalab analyze slingshot --confirm`: train again with the loss in float64, compare, and keep what came out."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dynalab.cli.options import note


def confirm(
    inputs: Any, result: Any, part: Any, config: Any, root: Path, folders: Sequence[Path], quiet: bool
) -> Any:
    """Return an analysis with the word of a fork on its slingshots, stored.

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
    from dynalab.analysis.command import analyse, gather
    from dynalab.analysis.slingshot.confirm import compare
    from dynalab.cli.progress import Watch, live, wants_live
    from dynalab.cli.train import describe_work
    from dynalab.errors import ConfigError
    from dynalab.launch.fork import Float64, fork
    from dynalab.store.results import write_result

    if part.name != "slingshot":
        raise ConfigError(f"--confirm: confirms slingshots, and this is analyze {part.name}")
    if len(inputs.ensembles) != 1:
        raise ConfigError("--confirm: takes one ensemble at a time; leave out pool=true")
    found = {run["run"] for run in result["runs"] if any(e["kind"] == "slingshot" for e in run["events"])}
    runs = [run for run in inputs.runs if run.id in found]
    if not runs:
        note("no slingshots, so nothing to confirm")
        return result
    with contextlib.ExitStack() as stack:

        def watch(outcome: Any) -> Any:
            if not quiet:
                note(describe_work(outcome))
            watcher = Watch(outcome, wants_live(quiet))  # type: ignore[arg-type]
            stack.enter_context(live(watcher))
            return watcher.events()

        trained = fork(inputs.ensembles[0], runs, Float64(), root, folders, watch)
    (other,) = gather(
        [(trained, [run for run in trained.runs if run.label in {r.label for r in runs}])], part
    )
    again = analyse(other, part, config, root)
    data = {**result.data, "confirmation": compare(result.data, again.data)}
    return write_result(result.paths, data, {name: result.table(name) for name in result.tables()})
