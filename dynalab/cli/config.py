"""`dynalab config`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import yaml

from dynalab.cli.options import config_dir_option, echo, emit_json, note, result_options
from dynalab.config.seeds import format_seeds
from dynalab.core.errors import ConfigError

if TYPE_CHECKING:
    from dynalab.config.command import Command, Request


@click.command("config")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("-p", "--package", metavar="KEY", help="Only this part, for example -p optimizer.")
@click.option("--resolve", is_flag=True, help="Accepted for Hydra's sake; what is printed is resolved.")
@result_options
@config_dir_option
def command(
    overrides: tuple[str, ...],
    package: str | None,
    resolve: bool,
    as_json: bool,
    outputs: str | None,
) -> None:
    """Print the composed configuration, every key at the value that training would use.

    \b
    dynalab config task=grokking
    dynalab config task=grokking optimizer=sgd -p optimizer
    """
    from dynalab.config.command import read_command

    parsed = read_command(overrides, outputs=outputs)
    for line in parsed.notes:
        note(line)
    show(parsed, as_json, package)


def _tree(command: Command, request: Request) -> dict[str, Any]:
    """Return one ensemble's configuration with the command's settings beside it."""
    from dynalab.config.typed import plain
    from dynalab.training.shown import shown

    settings = command.settings
    seeds = [run.seed for run in request.runs if run.seed is not None]
    return {
        **shown(request.config, request.steps, settings.folders),
        "seed": format_seeds(seeds) if seeds else None,
        "device": "auto: CUDA where there is one, else CPU" if settings.device == "auto" else settings.device,
        "compute": _worked_out(plain(settings.compute), "by the planner, from a trial of the step"),
        "checkpoint": _worked_out(
            plain(settings.checkpoint), "by the clock: at most 30 s of training are lost"
        ),
        "launcher": settings.launcher,
        "outputs": str(settings.outputs),
    }


def _worked_out(section: dict[str, Any], how: str) -> dict[str, Any]:
    return {key: how if value is None else value for key, value in section.items()}


def show(command: Command, as_json: bool, package: str | None = None) -> None:
    """Print the configurations of a command."""
    trees = []
    for request in command.requests:
        tree: Any = _tree(command, request)
        for part in (package or "").split(".") if package else []:
            if not isinstance(tree, dict) or part not in tree:
                raise ConfigError(f"-p {package}: no such part")
            tree = tree[part]
        trees.append((request, tree))
    if as_json:
        emit_json({"ensembles": [{"id": request.config.id, "config": tree} for request, tree in trees]})
        return
    for place, (request, tree) in enumerate(trees):
        if len(trees) > 1:
            echo(f"{'---' if place else ''}\n# {' '.join(request.overrides)}".lstrip("\n"))
        echo(f"# id {request.config.id}")
        echo(yaml.safe_dump(tree, sort_keys=False, default_flow_style=None).rstrip())
