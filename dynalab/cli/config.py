"""`dynalab config`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import yaml

from dynalab.cli.options import comment_width, config_dir_option, echo, emit_json, note, result_options
from dynalab.config.seeds import format_seeds
from dynalab.config.suggest import did_you_mean, listing
from dynalab.core.errors import ConfigError

if TYPE_CHECKING:
    from dynalab.config.command import Command, Request


@click.command("config")
@click.argument("arguments", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--explain",
    is_flag=True,
    help="Say what keys are: dynalab config --explain KEY..., with or without KEY=VALUE.",
)
@click.option("-p", "--package", metavar="KEY", help="Only this part, for example -p optimizer.")
@click.option("--resolve", is_flag=True, help="Accepted for Hydra's sake; what is printed is resolved.")
@result_options
@config_dir_option
def command(
    arguments: tuple[str, ...],
    explain: bool,
    package: str | None,
    resolve: bool,
    as_json: bool,
    outputs: str | None,
) -> None:
    """Print the composed configuration, every key at the value that training would use.

    \b
    dynalab config task=grokking
    dynalab config task=grokking optimizer=sgd -p optimizer
    dynalab config --explain train.sphere                 # what a key is
    dynalab config --explain optimizer                    # what there is to choose from
    dynalab config task=parity --explain optimizer.lr     # and its value here, and what says it
    """
    from dynalab.config.command import read_command

    keys = [word for word in arguments if explain and "=" not in word and not word.startswith("~")]
    overrides = [word for word in arguments if word not in keys]
    parsed = None if explain and not overrides else read_command(overrides, outputs=outputs)
    for line in parsed.notes if parsed else ():
        note(line)
    if explain:
        _explain(keys, overrides, parsed, as_json)
    elif parsed is not None:
        show(parsed, as_json, package)


def _explain(keys: list[str], overrides: list[str], command: Command | None, as_json: bool) -> None:
    from dynalab.cli.explain import Configuration, explain
    from dynalab.config.typed import flat

    configuration = None
    # Where no key is named, those that are set are meant.
    keys = keys or [word.partition("=")[0].lstrip("+~") for word in overrides]
    if command is not None:
        trees = [flat(_tree(command, request)) for request in command.requests]
        seeds = [word for word in overrides if word.startswith("seed=")]
        configuration = Configuration(command, trees, seeds)
    explain(keys, configuration, as_json)


def _tree(command: Command, request: Request) -> dict[str, Any]:
    """Return one ensemble's configuration with the command's settings beside it."""
    from dynalab.config.explain import null_of, shared
    from dynalab.config.typed import plain
    from dynalab.training.shown import shown

    settings, explained = command.settings, shared()
    seeds = [run.seed for run in request.runs if run.seed is not None]

    def worked_out(name: str, section: Any) -> dict[str, Any]:
        meanings = {item.key.removeprefix(f"{name}."): null_of(item.about) for item in explained[name]}
        return {key: meanings[key] if value is None else value for key, value in plain(section).items()}

    return {
        **shown(request.config, request.steps, settings.folders),
        "seed": format_seeds(seeds) if seeds else None,
        "device": "auto: CUDA where there is one, else CPU" if settings.device == "auto" else settings.device,
        "compute": worked_out("compute", settings.compute),
        "checkpoint": worked_out("checkpoint", settings.checkpoint),
        "launcher": settings.launcher,
        "outputs": str(settings.outputs),
    }


def show(command: Command, as_json: bool, package: str | None = None) -> None:
    """Print the configurations of a command."""
    trees = []
    for request in command.requests:
        tree: Any = _tree(command, request)
        for part in (package or "").split(".") if package else []:
            if not isinstance(tree, dict) or part not in tree:
                legal = [*tree] if isinstance(tree, dict) else []
                there = f"; there are {listing(legal)}" if legal else ""
                raise ConfigError(f"-p {package}: no such part{did_you_mean(part, legal)}{there}")
            tree = tree[part]
        trees.append((request, tree))
    if as_json:
        emit_json({"ensembles": [{"id": request.config.id, "config": tree} for request, tree in trees]})
        return
    from dynalab.config.commented import commented
    from dynalab.config.explain import of_config

    for place, (request, tree) in enumerate(trees):
        if len(trees) > 1:
            echo(f"{'---' if place else ''}\n# {' '.join(request.overrides)}".lstrip("\n"))
        echo(f"# id {request.config.id}")
        if isinstance(tree, dict):
            prefix = f"{package}." if package else ""
            echo(commented(tree, of_config(request.config), comment_width(), prefix))
        else:
            echo(yaml.safe_dump(tree, default_flow_style=True).removesuffix("...\n").rstrip())
