"""What became of a training, as commands that train say it: lines, a table, JSON, the plan of a dry run."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any

from dynalab.cli import next_step
from dynalab.cli.options import columns, echo, emit_json, named_seeds, note, run_fields, span, warn
from dynalab.cli.watching import faster
from dynalab.core.stats import fallen, quantile
from dynalab.core.words import count, number

if TYPE_CHECKING:
    from dynalab.launch.train import Outcome
    from dynalab.store.stored import StoredRun


def tell_prepared(outcome: Outcome, as_json: bool, quiet: bool) -> int:
    """Print the folders of shards that are ready to be trained; return the exit code."""
    warn([line for layout in outcome.layouts for line in layout.warnings] + outcome.warnings)
    for line in outcome.held:
        note(line)
    shards = [str(paths.root) for paths in outcome.prepared]
    if as_json:
        emit_json({"shards": shards, "ensembles": _ensembles_json(outcome)})
    elif shards:
        echo("\n".join(shards))
    if not quiet:
        note(
            f"{count(len(shards), 'shard is', 'shards are')} ready for `dynalab worker --shard`; this command without "
            "--prepare trains what they leave"
            if shards
            else "nothing to train: all is done"
        )
    return 3 if outcome.held or any(layout.damaged for layout in outcome.layouts) else 0


def conclude(outcome: Outcome, dry_run: bool, as_json: bool, quiet: bool) -> int:
    """Say what became of the work, and what comes next; return the exit code."""
    warn([line for layout in outcome.layouts for line in layout.warnings] + outcome.report.warnings)
    for layout in outcome.layouts:
        for steps, once in sorted(set(layout.cut_off.values())):
            n_runs = sum(item == (steps, once) for item in layout.cut_off.values())
            verb, them = ("was", "it") if n_runs == 1 else ("were", "them")
            note(
                f"{layout.paths.root.name}: {n_runs} of its runs {verb} cut off at {steps:,} of {once:,} steps, which "
                f"is enough for train.steps={layout.request.steps}; train.steps={once} goes on, train.steps={steps} "
                f"ends {them} there"
            )
    for line in outcome.held:
        note(line)
    for layout, own in zip(outcome.layouts, outcome.stored, strict=True):
        n_diverged = sum(run.status == "diverged" for run in own)
        if n_diverged:
            note(
                f"{layout.paths.root.name}: {n_diverged} of {count(len(layout.request.runs), 'run')} diverged"
            )
    # What happened to several shards alike differs in their folders alone.
    failed: dict[str, dict[str, str]] = {}
    for shard, line in outcome.report.failures.items():
        alike = line.replace(f"{shard.root}{os.sep}", "")
        failed.setdefault(alike, {})[f"{shard.root.parent.name}/{shard.root.name}"] = line
    for alike, lines in failed.items():
        (name, line), more = next(iter(lines.items())), len(lines) - 1
        note(f"failed: {name} and {more} more: {alike}" if more else f"failed: {name}: {line}")
    _tell_what_stays(outcome)
    _tell_jobs(outcome)
    if outcome.report.stopped:
        note(
            "on_error=stop: what was being trained is saved, and no more was begun; the same command goes on with all"
        )
    if dry_run:
        warn(outcome.warnings)
        _print_plan(outcome, as_json)
        return outcome.exit_code if outcome.report.failures else 0
    if as_json:
        queued = [
            {"shard": str(paths.root), "job": task.job, "standing": task.standing, "said": task.said}
            for paths, task in outcome.report.jobs.items()
        ]
        about = {"jobs": queued} if queued else {}
        emit_json({"ensembles": _ensembles_json(outcome), **about})
    else:
        _print_table(outcome)
    if outcome.report.interrupted:
        if not outcome.report.jobs:
            note("interrupted; the state is saved and the same command goes on")
        return 130
    code = outcome.exit_code
    if code == 3 and not (as_json or quiet):
        if outcome.report.failures:
            note("next: the same command goes on with them, from their last checkpoints")
        elif outcome.held:
            note("no run failed: another command trains what is missing, and until it has the exit code is 3")
    if not code and not (as_json or quiet or outcome.report.jobs):
        next_step.after_training(outcome.layouts)
    return code


def _tell_jobs(outcome: Outcome) -> None:
    """Say which jobs of a scheduler have what is not trained yet."""
    arrays = Counter(task.array for task in outcome.report.jobs.values())
    for task, n in arrays.items():
        note(f"{count(n, 'shard')} {task.said}")
    if arrays:
        note("`dynalab runs watch` shows how far they are; the same command collects them")


def _tell_what_stays(outcome: Outcome) -> None:
    """Say what becomes of runs that failed for a plug-in's sake once they had rows."""
    for layout in outcome.layouts:
        stay = [
            shard for shard in layout.work if outcome.report.codes.get(shard) == 2 and shard.run.is_file()
        ]
        if stay and layout.request.config.sources:
            name = layout.paths.root.name
            note(
                f"{name}: its rows stay, and so does its status. A plug-in that is mended makes another ensemble; "
                f"`dynalab runs rm {layout.request.config.id}` removes this one"
            )


def _ensembles_json(outcome: Outcome) -> list[dict[str, Any]]:
    return [
        {
            "id": layout.request.config.id,
            "path": str(layout.paths.root) if layout.paths.root.is_dir() else None,
            "config": {key: part for key, part in layout.request.config.as_dict().items() if key != "origin"},
            "runs": [run_fields(run) | {"requested_steps": layout.request.steps} for run in runs],
        }
        for layout, runs in zip(outcome.layouts, outcome.stored, strict=True)
    ]


def _print_table(outcome: Outcome) -> None:
    rows = []
    for layout, runs in zip(outcome.layouts, outcome.stored, strict=True):
        config = layout.request.config
        path = layout.paths.root if layout.paths.root.is_dir() else None
        seeds, counts = [run.seed for run in runs], Counter(run.status for run in runs)
        if path is None:
            # A configuration that its worker refused leaves no folder.
            seeds, counts = (
                [run.seed for run in layout.request.runs],
                Counter(refused=len(layout.request.runs)),
            )
        status = ", ".join(f"{n} {name}" for name, n in counts.items())
        steps = span([run.steps for run in runs])
        reached = _generalised(runs, config.levels.test_accuracy)
        rows.append([config.id, named_seeds(seeds), status, steps, reached, path])
    echo(columns(["ensemble", "seeds", "status", "steps", "generalised", "path"], rows))
    if (
        not any(layout.work or layout.cut_off or layout.queued for layout in outcome.layouts)
        and outcome.exit_code == 0
    ):
        note("nothing to train: all is done")


def _generalised(runs: list[StoredRun], level: float | None) -> str | None:
    """Return how many runs reached the level of generalisation, the median step, and how many fell below again."""
    summaries = [run.summary or {} for run in runs]
    steps = [item.get("generalised_step") for item in summaries]
    reached = len(steps) - steps.count(None)
    ends = [item["final"] for item in summaries if item.get("final")]
    if not runs or (ends and not any("test_accuracy" in end for end in ends)):
        # A regression has nothing to generalise by.
        return None
    if not reached and level is None:
        return "no level"
    middle = quantile(steps, 0.5)
    fell = fallen(summaries, "generalised_step", "test_accuracy", level)
    lost = f", {fell} below it at the end" if fell else ""
    return f"{reached} of {len(runs)}{'' if middle is None else f', median {number(middle)}'}{lost}"


def _print_plan(outcome: Outcome, as_json: bool) -> None:
    from dynalab.launch.train import seconds_per_step

    entries: list[dict[str, Any]] = []
    # A trial of an earlier command leaves rows out.
    part = ""
    for layout, rate in zip(outcome.layouts, seconds_per_step(outcome.layouts), strict=True):
        request = layout.request
        if rate is None and len(outcome.layouts) == 1:
            rate, part = outcome.plan.step_seconds, "updates "
        seconds = None if rate is None else rate * layout.steps_left() / max(outcome.plan.workers, 1)
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
                "new": [*layout.new, *layout.laid],
                "seconds": seconds if layout.work else 0.0,
            }
        )
    if as_json:
        emit_json({"dry_run": True, "plan": outcome.plan.reason, "ensembles": entries})
        return
    rows = [
        [
            entry["id"],
            named_seeds(entry["seeds"]),
            entry["steps"],
            *(len(entry[state]) for state in ("done", "partial", "new")),
            "unknown" if entry["seconds"] is None else f"{part}about {entry['seconds']:.0f} s",
            " ".join(entry["overrides"]) or "-",
        ]
        for entry in entries
    ]
    header = ["ensemble", "seeds", "steps", "done", "partial", "new", "time", "overrides"]
    echo(columns(header, rows))
    note(f"plan: {outcome.plan.reason}; nothing was written")
    if hint := faster(outcome):
        note(hint)
