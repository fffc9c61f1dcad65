"""`dynalab bench`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from dynalab.cli.options import columns, config_dir_option, echo, emit_json, json_option, note
from dynalab.core.errors import ConfigError
from dynalab.core.words import count

if TYPE_CHECKING:
    from dynalab.launch.throughput import Cell


@click.command("bench")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.0, min_open=True),
    default=1.0,
    show_default=True,
    help="How long each way is timed.",
)
@json_option
@config_dir_option
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def command(overrides: tuple[str, ...], seconds: float, as_json: bool, quiet: bool) -> int:
    """Time the steps of a task over widths (seeds side by side in a worker) and numbers of workers.

    The real step is timed, with its probes and evaluations; nothing is written. `compute.width=`, `compute.workers=`
    and `compute.threads=` narrow what is tried; `seed=` has no meaning here.

    \b
    dynalab bench task=grokking
    dynalab bench task=parity optimizer=sgd
    dynalab bench task=mlm compute.workers=2
    """
    from dynalab.config.command import read_command
    from dynalab.launch.throughput import measure

    parsed = read_command(overrides)
    for line in parsed.notes:
        note(line)
    if len(parsed.requests) != 1:
        raise ConfigError(f"bench times one configuration; these words span {len(parsed.requests)}")
    (request,) = parsed.requests
    check_data = getattr(request.config.task, "check_data", None)
    if check_data is not None:
        check_data()

    def say(cell: Cell) -> None:
        if not quiet:
            note(f"{_named(cell)}: {cell.seed_steps_per_second:,.0f} seed-steps/s")

    cells = measure(request, parsed.settings, seconds, say)
    best = max(cells, key=lambda cell: cell.seed_steps_per_second)
    if as_json:
        emit_json(
            {
                "config": request.config.as_dict(),
                "threads": parsed.settings.compute.threads or 1,
                "seconds": seconds,
                "cells": [dataclasses.asdict(cell) for cell in cells],
                "fastest": {**dataclasses.asdict(best), "ask": best.ask},
            }
        )
        return 0
    rows = [
        [
            cell.width,
            cell.workers,
            f"{cell.steps_per_second:.1f}",
            f"{cell.seed_steps_per_second:.0f}",
            f"{cell.seed_steps_per_second / best.seed_steps_per_second:.2f}",
        ]
        for cell in cells
    ]
    echo(columns(["width", "workers", "steps/s", "steps x seeds/s", "of the fastest"], rows))
    seeds = best.width * best.workers
    echo(f"\nfastest: {_named(best)}; ask for it with {best.ask} (it takes {seeds} seeds or more to fill)")
    return 0


def _named(cell: Cell) -> str:
    return f"{count(cell.workers, 'worker')}, {count(cell.width, 'seed')} wide"
