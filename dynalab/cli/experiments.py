"""`dynalab experiments`."""

from __future__ import annotations

import itertools
import textwrap
from dataclasses import asdict

import click
import yaml

from dynalab.cli.options import columns_of_terminal, config_dir_option, echo, emit_json, json_option, note
from dynalab.config.experiments import Experiment, experiments, matching
from dynalab.config.registry import search_path
from dynalab.config.suggest import did_you_mean, listing
from dynalab.core.errors import ConfigError, NothingMatched


@click.command("experiments")
@click.argument("names", nargs=-1, metavar="[EXPERIMENT]...")
@click.option(
    "-f",
    "--filter",
    "words",
    metavar="WORDS",
    default="",
    help="Those of a task, paper or model: 'digits cohen'.",
)
@json_option
@config_dir_option
def command(names: tuple[str, ...], words: str, as_json: bool) -> None:
    """List the experiments that can be named: papers' settings, shipped, and your own; EXPERIMENT shows one whole.

    \b
    dynalab experiments
    dynalab experiments -f slingshot
    dynalab experiments cohen2021_eos
    dynalab train experiment=cohen2021_eos seed=0..4
    """
    listed = experiments(search_path())
    if names:
        known = {item.name: item for item in listed}
        for name in names:
            if name not in known:
                hint = did_you_mean(name, known)
                raise ConfigError(f"experiments {name}: no such experiment{hint}; there are {listing(known)}")
        listed = [known[name] for name in names]
    chosen = list(matching(listed, words.split()))
    if not chosen:
        raise NothingMatched(f"-f {words}: no experiment; `dynalab experiments` lists all {len(listed)}")
    if as_json:
        own = ({"path": str(item.path), "then": list(item.then), "command": item.command} for item in chosen)
        emit_json({"experiments": [asdict(item) | more for item, more in zip(chosen, own, strict=True)]})
        return
    width = columns_of_terminal()
    if not names:
        _list(chosen, width)
        return
    for place, item in enumerate(chosen):
        echo("\n".join([""] * bool(place) + _whole(item, width)))


def _list(chosen: list[Experiment], width: int) -> None:
    """Print a line for each, those of one paper together."""
    column = max(len(item.name) for item in chosen) + 2
    for paper, items in itertools.groupby(chosen, key=_paper):
        echo(paper or "without a paper")
        for item in items:
            shows = textwrap.shorten(item.shows, max(width - column - 2, 20), placeholder=" ...")
            echo(f"  {item.name:<{column}}{shows}".rstrip())
    note("dynalab experiments NAME shows one whole; dynalab train experiment=NAME trains it")


def _paper(item: Experiment) -> str:
    return f"{item.paper}, arXiv {item.arxiv}" if item.arxiv else item.paper


def _whole(item: Experiment, width: int) -> list[str]:
    lines = [": ".join(filter(None, [item.name, _paper(item)]))]
    begins = " ".join(f"{group}={name}" for group, name in item.parts.items())
    for text in filter(None, [item.shows, item.text, begins and f"Begins with {begins} and sets"]):
        lines += textwrap.wrap(
            text, width, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
        )
    keys = yaml.safe_dump(item.keys, sort_keys=False, default_flow_style=None, width=width - 4).rstrip()
    lines += textwrap.indent(keys, "    ").splitlines() if item.keys else []
    return [*lines, "", item.command, *item.then]
