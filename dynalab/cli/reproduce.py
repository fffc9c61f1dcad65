"""`dynalab reproduce`."""

from __future__ import annotations

import contextlib
import textwrap
from typing import TYPE_CHECKING, Any

import click

from dynalab.cli import next_step
from dynalab.cli.options import (
    columns,
    columns_of_terminal,
    config_dir_option,
    echo,
    emit_json,
    note,
    quiet_option,
    result_options,
    warn,
)

if TYPE_CHECKING:
    from dynalab.reproduce.commands import Run
    from dynalab.reproduce.result import Reproduction
    from dynalab.reproduce.sheet import Sheet

# What whoever runs a sheet may say of how; what is computed is the sheet's to say.
SETTINGS = ("device", "launcher", "compute", "checkpoint", "outputs")
SCALES = ("ci", "cpu", "paper")
# What becomes of the main claim where its cause is taken away.
_WITHOUT = {
    "agrees": "agrees as well, so that it was not tested",
    "disagrees": "no longer holds",
    "undecided": "is undecided, and does not agree",
    "not_at_this_scale": "cannot be told at this scale",
}


@click.command("reproduce")
@click.argument("arguments", nargs=-1, metavar="[SHEET|SETTING=VALUE]...")
@click.option("--list", "listing", is_flag=True, help="Name the sheets, with their scales and minutes.")
@click.option(
    "--scale",
    type=click.Choice(SCALES),
    default="cpu",
    show_default=True,
    help="`ci`: seconds, which try the machinery; `cpu`: minutes on two cores; `paper`: the published setting.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be trained and write nothing.")
@result_options
@config_dir_option
@quiet_option
def command(
    arguments: tuple[str, ...],
    listing: bool,
    scale: Any,
    dry_run: bool,
    as_json: bool,
    outputs: str | None,
    quiet: bool,
) -> int:
    """Try a paper's claims: train what it trained, analyse, and say of each claim what holds here.

    A sheet has the commands, the claims, and the regions where their statistics have to lie, fixed before anything was
    run. A claim agrees where the 95% interval lies inside its region, disagrees where it lies outside, and is
    undecided in between. Under a removal the cause of the main claim is taken away: it must not agree.

    What is stored is not trained again. SETTING is of how it is trained: device, launcher, compute.*, checkpoint.*.

    \b
    dynalab reproduce --list
    dynalab reproduce thilak2022
    dynalab reproduce thilak2022 barak2022 --scale ci
    dynalab reproduce power2022 --scale paper device=cuda
    dynalab reproduce mine --config-dir sheets      # sheets/reproduce/mine.yaml
    """
    from dynalab.cli.options import split_arguments
    from dynalab.config.overrides import parse, settings
    from dynalab.config.places import outputs_root
    from dynalab.config.registry import search_path
    from dynalab.config.suggest import did_you_mean
    from dynalab.core.errors import ConfigError
    from dynalab.reproduce.elsewhere import elsewhere
    from dynalab.reproduce.reading import located, path_of, read_sheet, sheet_names

    folders = search_path()
    names, words = split_arguments(arguments)
    own, overrides = settings(parse(words), "outputs")
    for item in overrides:
        if item.key.partition(".")[0] not in SETTINGS:
            raise ConfigError(
                f"{item.written}: what a sheet trains is its own to say; settings of how it is trained are "
                f"{', '.join(SETTINGS)}{did_you_mean(item.key, SETTINGS)}"
            )
    if listing:
        if names:
            raise ConfigError(f"reproduce --list {names[0]}: it lists all sheets; leave out the name")
        sheets: dict[str, Sheet] = {}
        for name in sheet_names(folders):
            try:
                sheets[name] = read_sheet(name, folders)
            except ConfigError as error:
                warn([f"{error}; it is left out"])
        _list(sheets, as_json)
        return 0
    if not names:
        raise ConfigError(f"name a sheet: {', '.join(sheet_names(folders))} (`dynalab reproduce --list`)")
    from dynalab.cli.progress import pieces
    from dynalab.cli.watching import interruptible, watching
    from dynalab.reproduce.commands import Run
    from dynalab.reproduce.result import Reproduction
    from dynalab.reproduce.run import reproduce, scale_of
    from dynalab.reproduce.sheet import SheetError

    for name in names:
        if name not in sheet_names(folders) and (hint := elsewhere(name, folders)):
            raise ConfigError(f"reproduce {name}: {hint}")
    sheets = {name: read_sheet(name, folders) for name in names}
    for name, sheet in sheets.items():
        scale_of(name, sheet, scale)
    root = outputs_root(own["outputs"] or outputs)
    made, plans = list[Reproduction](), list[dict[str, Any]]()
    for name, sheet in sheets.items():
        with contextlib.ExitStack() as stack:
            interruptible(stack)
            silent, shown = quiet or as_json, contextlib.ExitStack()
            run = Run(
                root,
                overrides,
                watching(stack, silent, shown),
                tell=_silent if silent else note,
                warn=lambda line: warn([line]),
                dry_run=dry_run,
            )
            try:
                if dry_run:
                    plans.append(_planned(name, sheet, scale, run))
                    continue
                with pieces(name, shown, quiet=silent):
                    made.append(reproduce(name, sheet, scale, run))
            except SheetError as error:
                raise located(error, path_of(name, folders)) from error
            except ConfigError as error:
                raise ConfigError(f"reproduce {name}: {error}") from error
            except KeyboardInterrupt:
                note(f"interrupted in {name}; the state is saved and the same command goes on")
                return 130
        if not as_json:
            _print(made[-1])
    if dry_run:
        if as_json:
            emit_json({"dry_run": True, "sheets": plans})
            return 0
        for planned in plans:
            _print_plan(planned)
        note("nothing was written")
        return 0
    if as_json:
        emit_json({"sheets": [item.as_json() for item in made]})
    elif not quiet:
        next_step.say(root, "report", f"{made[-1].name}-{made[-1].scale}")
    return max(item.exit_code for item in made)


def _silent(line: str) -> None:
    """Say nothing."""


def _list(sheets: dict[str, Sheet], as_json: bool) -> None:
    """Name the sheets."""
    if as_json:
        listed = [
            {"name": name, "title": sheet.title, "scales": list(sheet.scales)}
            for name, sheet in sheets.items()
        ]
        emit_json({"sheets": listed})
        return
    rows = [
        [
            name,
            str(sheet.source or "") or None,
            ", ".join(f"{scale} {_minutes(item.minutes)}" for scale, item in sheet.scales.items()),
            sheet.title,
        ]
        for name, sheet in sheets.items()
    ]
    echo(columns(["sheet", "paper", "scales", "title"], rows))
    note("dynalab reproduce SHEET tries its claims at scale cpu; --scale takes another")


def _minutes(minutes: float) -> str:
    """Return a time in the unit that fits."""
    if minutes < 1:
        return f"{60 * minutes:.0f} s"
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.0f} h"


def _planned(name: str, sheet: Sheet, scale: Any, run: Run) -> dict[str, Any]:
    """Return what a sheet would train."""
    from dynalab.reproduce.commands import carry_out
    from dynalab.reproduce.run import plan

    planned = plan(name, sheet, scale, run)
    layouts = [layout for outcome in carry_out(planned.read, run).outcomes for layout in outcome.layouts]
    work = [
        {
            "id": layout.request.config.id,
            "overrides": layout.request.overrides,
            "steps": layout.request.steps,
            **{state: len(getattr(layout, state)) for state in ("done", "resumed", "new")},
        }
        for layout in layouts
    ]
    return {
        "name": name,
        "scale": scale,
        "minutes": sheet.scales[scale].minutes,
        "commands": [{"name": step.name, "words": step.text} for step in planned.every],
        "ensembles": work,
    }


def _print_plan(planned: dict[str, Any]) -> None:
    """Print what a sheet would train; forks are planned when what they go on from is there."""
    echo(f"{planned['name']} at scale {planned['scale']}: about {_minutes(planned['minutes'])} on two cores")
    echo(columns(["command", "words"], [[item["name"], item["words"]] for item in planned["commands"]]))
    rows = [
        [*(item[key] for key in ("id", "steps", "done", "resumed", "new")), " ".join(item["overrides"])]
        for item in planned["ensembles"]
    ]
    echo(columns(["ensemble", "steps", "done", "partial", "new", "overrides"], rows))


def _print(made: Reproduction) -> None:
    """Print what became of a sheet's claims."""
    from dynalab.core.words import count, spoken
    from dynalab.reproduce.verdict import tally

    paper = ", ".join(filter(None, [made.paper, made.arxiv and f"arXiv {made.arxiv}"]))
    echo(f"{made.name} at scale {made.scale}: {made.title}{f' ({paper})' if paper else ''}")
    rows = [[claim.id, _short(claim.published), _here(claim), spoken(claim.verdict)] for claim in made.claims]
    rows += [
        [f"{item.claim} without", _short(item.removes), _here(item), spoken(item.verdict)]
        for item in made.removals
    ]
    echo(columns(["claim", "published", "here", "verdict"], rows))
    echo()
    for claim in made.claims:
        place = f" ({claim.section})" if claim.section else ""
        _paragraph(f"{claim.id}: {claim.says}{place}. {claim.why[:1].upper()}{claim.why[1:]}.")
    for item in made.removals:
        _paragraph(f"Without {item.removes} the claim {item.claim} {_WITHOUT[item.verdict]}: {item.why}.")
    for failed in made.failed:
        _paragraph(f"failed: {failed.command} ({failed.words}): {failed.why}")
    echo(f"{count(len(made.claims), 'claim')}: {tally(claim.verdict for claim in made.claims)}")


def _short(value: object) -> str | None:
    """Return what fits into a column; the whole stands on the page and in the JSON."""
    return None if value is None else textwrap.shorten(str(value), 44, placeholder=" ...")


def _paragraph(text: str) -> None:
    lines = textwrap.wrap(text, columns_of_terminal(), subsequent_indent="  ", break_on_hyphens=False)
    echo("\n".join(lines))


def _here(item: Any) -> str | None:
    """Return what was measured, with its interval."""
    from dynalab.core.words import number
    from dynalab.reproduce.verdict import bounds_in_words

    if item.measured is None:
        return f"{bounds_in_words(item.interval)}, n={item.n}" if item.interval else None
    interval = f" [{bounds_in_words(item.interval)}]" if item.interval else ""
    return f"{number(item.measured)}{interval}, n={item.n}"
