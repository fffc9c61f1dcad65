"""`dynalab train`."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from dynalab.cli.options import (
    columns,
    config_dir_option,
    echo,
    emit_json,
    json_option,
    note,
    outputs_option,
    verbosity_options,
    warn,
)

if TYPE_CHECKING:
    from dynalab.config.command import Command
    from dynalab.launch.train import Outcome


@click.command("train", context_settings={"ignore_unknown_options": False})
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--dry-run", is_flag=True, help="Print the plan and write nothing.")
@click.option("--force", is_flag=True, help="Train again, as a new attempt beside the old one.")
@click.option("--anyway", is_flag=True, help="Go on under other versions than a half-done run began with.")
@click.option("--steal", is_flag=True, help="Take over shards that another process holds.")
@click.option(
    "--cfg", type=click.Choice(["job"]), help="Print the composed configuration and exit, as Hydra does."
)
@click.option("-m", "--multirun", is_flag=True, help="Accepted for Hydra's sake; sweeps need no switch.")
@json_option
@outputs_option
@config_dir_option
@verbosity_options
def command(
    overrides: tuple[str, ...],
    dry_run: bool,
    force: bool,
    anyway: bool,
    steal: bool,
    cfg: str | None,
    multirun: bool,
    as_json: bool,
    outputs: str | None,
    verbose: bool,
    quiet: bool,
) -> int:
    """Train the seeds of one or many configurations.

    What is stored is not trained again: the same command skips what is done, resumes what was cut off, and trains
    only seeds that are new.

    \b
    dynalab train task=grokking seed=0..19
    dynalab train task=grokking optimizer.lr=1e-3,3e-3 seed=0..9     # a sweep: 2 ensembles of 10 seeds
    dynalab train task=grokking task.operation=subtract seed=1,5,9
    dynalab train experiment=nanda2023_addition seed=0..4            # a paper's setting
    """
    from dynalab.config.command import read_command

    parsed = read_command(overrides, outputs=outputs)
    for line in parsed.notes:
        note(line)
    if cfg:
        from dynalab.cli.config import show

        show(parsed, as_json)
        return 0
    from dynalab.launch.train import Options, train

    with contextlib.ExitStack() as stack:
        before = signal.signal(signal.SIGTERM, _interrupt)
        stack.callback(signal.signal, signal.SIGTERM, before)

        options = Options(force, anyway, steal, dry_run, ("dynalab", *sys.argv[1:]))
        outcome = train(parsed, options, watching(stack, quiet), note)
    warn([line for layout in outcome.layouts for line in layout.warnings] + outcome.report.warnings)
    for layout in outcome.layouts:
        for steps, once in sorted(set(layout.cut_off.values())):
            n_runs = sum(item == (steps, once) for item in layout.cut_off.values())
            note(
                f"{layout.paths.root.name}: {n_runs} of its runs were cut off at {steps:,} of {once:,} steps, which is "
                f"enough for train.steps={layout.request.steps}; train.steps={once} goes on, train.steps={steps} ends "
                "them there"
            )
    for line in outcome.held:
        note(line)
    for layout in outcome.layouts:
        n_diverged = sum(run["status"] == "diverged" for run in _runs_json(layout))
        if n_diverged:
            note(f"{layout.paths.root.name}: {n_diverged} of {len(layout.request.runs)} runs diverged")
    for shard, line in outcome.report.failures.items():
        note(f"failed: {shard.root.parent.name}/{shard.root.name}: {line}")
    if dry_run:
        _print_plan(parsed, outcome, as_json)
        return outcome.exit_code if outcome.report.failures else 0
    if as_json:
        emit_json({"ensembles": [_ensemble_json(layout) for layout in outcome.layouts]})
    else:
        _print_table(outcome)
    if outcome.report.interrupted:
        note("interrupted; the state is saved and the same command goes on")
        return 130
    return outcome.exit_code


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def watching(stack: contextlib.ExitStack, quiet: bool) -> Callable[[Outcome], Any]:
    """Return what training is watched with: it says what is to be done, and shows how it goes.

    Args:
        stack: Ends the display.
        quiet: Whether nothing is shown.
    """
    from dynalab.cli.progress import Watch, live, wants_live

    def watch(outcome: Outcome) -> Any:
        if not quiet:
            note(describe_work(outcome))
        watcher = Watch(outcome, wants_live(quiet))  # type: ignore[arg-type]
        stack.enter_context(live(watcher))
        return watcher.events()

    return watch


def describe_work(outcome: Outcome) -> str:
    """Return one line that says what will be trained and how."""
    n_new = sum(len(layout.new) for layout in outcome.layouts)
    n_resumed = sum(len(layout.resumed) for layout in outcome.layouts)
    n_done = sum(len(layout.done) for layout in outcome.layouts)
    parts = [f"{n_new} new", f"{n_resumed} to go on", f"{n_done} done"]
    ensembles = f"{len(outcome.layouts)} ensemble{'s' * (len(outcome.layouts) != 1)}"
    how = f"; {outcome.plan.reason}" if n_new else ""
    step = outcome.plan.step_seconds
    if step is not None and len(outcome.layouts) == 1:
        busy = max(min(outcome.plan.workers, len(outcome.layouts[0].work)), 1)
        how += f"; about {_duration(step * outcome.layouts[0].steps_left() / busy)}"
    return f"training {ensembles}: {', '.join(parts)} runs{how}"


def _duration(seconds: float) -> str:
    """Return a time in the unit that fits."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _runs_json(layout: Any) -> list[dict[str, Any]]:
    from dynalab.launch.train import stored_runs

    return [
        {
            "id": run.id,
            "seed": run.seed,
            "status": run.status,
            "steps": run.steps,
            "requested_steps": layout.request.steps,
            "summary": run.summary,
        }
        for run in stored_runs(layout)
    ]


def _ensemble_json(layout: Any) -> dict[str, Any]:
    request = layout.request
    return {
        "id": request.config.id,
        "path": str(layout.paths.root) if layout.paths.root.is_dir() else None,
        "config": request.config.as_dict(),
        "runs": _runs_json(layout),
    }


def _print_table(outcome: Outcome) -> None:
    from collections import Counter

    from dynalab.config.seeds import format_seeds

    rows = []
    for layout in outcome.layouts:
        runs = _runs_json(layout)
        seeds = [run["seed"] for run in runs if run["seed"] is not None]
        counts = Counter(run["status"] for run in runs)
        status = ", ".join(f"{count} {name}" for name, count in counts.items())
        named = format_seeds(seeds) if seeds else f"{len(runs)} runs"
        steps = _span([run["steps"] for run in runs])
        # A configuration that its worker refused leaves no folder.
        path = layout.paths.root if layout.paths.root.is_dir() else None
        status = status if path else "refused"
        config = layout.request.config
        rows.append([config.id, named, status, steps, _generalised(runs, config.levels.test_accuracy), path])
    echo(columns(["ensemble", "seeds", "status", "steps", "generalised", "path"], rows))
    if not any(layout.work or layout.cut_off for layout in outcome.layouts) and outcome.exit_code == 0:
        note("nothing to train: all is done")


def _span(values: list[int]) -> str | None:
    """Return the smallest and the largest of some numbers, as one where they are equal."""
    if not values:
        return None
    return str(values[0]) if min(values) == max(values) else f"{min(values)}..{max(values)}"


def _generalised(runs: list[dict[str, Any]], level: float | None) -> str | None:
    """Return how many runs reached the level of generalisation, the median step, and how many fell below again."""
    from dynalab.core.stats import fallen, quantile

    summaries = [run["summary"] or {} for run in runs]
    steps = [item.get("generalised_step") for item in summaries]
    reached = len(steps) - steps.count(None)
    if not reached:
        return None
    middle = quantile(steps, 0.5)
    fell = fallen(summaries, "generalised_step", "test_accuracy", level)
    lost = f", {fell} below it at the end" if fell else ""
    return f"{reached} of {len(runs)}{'' if middle is None else f', median {middle:.0f}'}{lost}"


def _print_plan(parsed: Command, outcome: Outcome, as_json: bool) -> None:
    from dynalab.config.seeds import format_seeds
    from dynalab.launch.train import seconds_per_step

    entries: list[dict[str, Any]] = []
    for layout, rate in zip(outcome.layouts, seconds_per_step(outcome.layouts), strict=True):
        request = layout.request
        left = layout.steps_left()
        seconds = None if rate is None else rate * left / max(outcome.plan.workers, 1)
        seconds = seconds if layout.work else 0.0
        entries.append(
            {
                "id": request.config.id,
                "path": str(layout.paths.root),
                "overrides": request.overrides,
                "steps": request.steps,
                "seeds": [run.seed for run in request.runs],
                "runs": [f"{request.config.id}/{run.label}" for run in request.runs],
                "done": layout.done,
                "partial": layout.resumed,
                "new": layout.new,
                "seconds": seconds,
            }
        )
    if as_json:
        emit_json({"dry_run": True, "plan": outcome.plan.reason, "ensembles": entries})
        return
    rows = []
    for entry, layout in zip(entries, outcome.layouts, strict=True):
        seeds = [run.seed for run in layout.request.runs if run.seed is not None]
        rows.append(
            [
                entry["id"],
                format_seeds(seeds) if seeds else f"{len(entry['runs'])} runs",
                entry["steps"],
                len(layout.done),
                len(layout.resumed),
                len(layout.new),
                "unknown" if entry["seconds"] is None else f"about {entry['seconds']:.0f} s",
                " ".join(entry["overrides"]) or "-",
            ]
        )
    header = ["ensemble", "seeds", "steps", "done", "partial", "new", "time", "overrides"]
    echo(columns(header, rows))
    note(f"plan: {outcome.plan.reason}; nothing was written")
