"""Options that mean the same in every command, and the ways a command answers."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dynalab.config.places import user_path
from dynalab.config.seeds import format_seeds
from dynalab.core.errors import ConfigError
from dynalab.core.tables import aligned
from dynalab.core.words import clean as clean
from dynalab.core.words import count

if TYPE_CHECKING:
    from dynalab.store.stored import StoredRun

F = TypeVar("F", bound=Callable[..., Any])
# No key of an analysis or a report has a slash before its `=`; a folder's path has.
_OVERRIDE = re.compile(r"[^/=]*=|~(?!/)")

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
filter_option = click.option(
    "-f",
    "--filter",
    "filter_text",
    metavar="TERMS",
    help="Runs for which all terms hold: 'task=grokking seed<5'.",
)


def filter_options(function: F) -> F:
    """Add --filter, and --forks: without it what an id does not name is no fork."""
    about = (
        "Forks as well, of an ensemble that is named its own; without it they are left out where no id names them and "
        "no term of -f is on parent or edit."
    )
    return filter_option(click.option("--forks", is_flag=True, help=about)(function))


def result_options(function: F) -> F:
    """Add --json and --outputs."""
    about = "The outputs folder (also DYNALAB_OUTPUTS; default ./outputs)."
    return json_option(click.option("--outputs", metavar="DIR", help=about)(function))


def config_dir_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --config-dir: the folders are searched while the command works; and -v, for errors in what is found there."""

    @click.option(
        "--config-dir",
        "config_dirs",
        metavar="DIR",
        multiple=True,
        help="A folder of your own tasks, models and configurations (also DYNALAB_PATH).",
    )
    @click.option(
        "-v", "--verbose", is_flag=True, help="Show the whole traceback of an error in a part of your own."
    )
    @functools.wraps(function)
    def command(*args: Any, config_dirs: tuple[str, ...], verbose: bool, **kwargs: Any) -> Any:
        from dynalab.config.registry import searching
        from dynalab.core.plugins import PluginError, naming, trace

        try:
            with searching(config_dirs), naming():
                return function(*args, **kwargs)
        except PluginError as error:
            if verbose:
                note(trace(error))
            raise

    return command


def to_options(about: str, *, required: bool = False) -> Callable[[F], F]:
    """Add --to, which `target` makes a path of, and --force."""

    def add(function: F) -> F:
        function = click.option("--force", is_flag=True, help="Write over a file that is there.")(function)
        return click.option("--to", required=required, metavar="FILE", help=about)(function)

    return add


def target(to: str, force: bool, suffixes: Sequence[str] = ()) -> Path:
    """Return where `--to` writes: the one way in which commands find a place for a file of the user's.

    Raises:
        ConfigError: Its suffix is none of those that there are, its folder does not exist, a folder or a device is
            there, or a file and not `--force`.
    """
    path = user_path(to)
    # Of a name that is a suffix alone, as .csv, no format is known.
    if suffixes and not path.name[1:].lower().endswith(tuple(suffixes)):
        found = path.suffix or "(no suffix)"
        raise ConfigError(f"--to {to}: unknown format {found}; legal: {', '.join(suffixes)}")
    if path.is_dir() or not path.parent.is_dir():
        raise ConfigError(f"--to {to}: {'a folder' if path.is_dir() else f'{path.parent} is no folder'}")
    if path.exists() and not path.is_file():
        raise ConfigError(f"--to {to}: no file that can be written over is there")
    if os.path.lexists(path) and not force:
        raise ConfigError(f"--to {to}: a file is there; --force writes over it")
    return path


def quiet_option(function: F) -> F:
    """Add -q."""
    return click.option("-q", "--quiet", is_flag=True, help="No progress.")(function)


def emit_json(value: dict[str, Any]) -> None:
    """Print one JSON object, `schema_version` first."""
    click.echo(json.dumps({"schema_version": 1, **value}, allow_nan=False))


def echo(text: object = "", *, err: bool = False) -> None:
    """Print a text; the one way to the terminal, but for JSON, which escapes by itself."""
    click.echo(clean(text), err=err)


def note(line: str) -> None:
    """Print a line for the user's eyes on standard error."""
    echo(line, err=True)


def warn(lines: Sequence[str]) -> None:
    """Print warnings on standard error."""
    for line in lines:
        note(f"warning: {line}")


def columns_of_terminal() -> int:
    """Return the width that lines are fitted to: the terminal's, or what is comfortable where it goes to a file."""
    return shutil.get_terminal_size((120, 24)).columns


def comment_width() -> int | None:
    """Return the width that comments are cut to: the terminal's, or COLUMNS; None elsewhere, where others read them."""
    return columns_of_terminal() if sys.stdout.isatty() or "COLUMNS" in os.environ else None


def table_width() -> int | None:
    """Return the terminal's width, to which tables are fitted; None elsewhere, where others read them."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def columns(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a plain table: aligned columns that fit the terminal, a dash for what is missing."""
    cells = [[cell(item) for item in row] for row in [header, *rows]]
    return "\n".join(aligned(cells, width=table_width()))


def cell(value: Any) -> str:
    """Return a value as a part of a line."""
    return "-" if value is None else clean(value).replace("\n", "\\n").replace("\t", "\\t")


def run_fields(run: StoredRun) -> dict[str, Any]:
    """Return a run as `--json` gives it."""
    names = ("id", "seed", "status", "steps", "requested_steps", "summary")
    return {name: getattr(run, name) for name in names}


def named_seeds(seeds: Sequence[int | None]) -> str:
    """Return the seeds of runs in the grammar of `seed=`; of runs that have none, how many they are."""
    known = [seed for seed in seeds if seed is not None]
    return format_seeds(known) if known else count(len(seeds), "run")


def span(values: Sequence[int]) -> str | None:
    """Return the smallest and the largest of some numbers, as one where they are equal."""
    low, high = min(values, default=None), max(values, default=None)
    return None if low is None else str(low) if low == high else f"{low}..{high}"


def shortened(names: Sequence[str], most: int = 3) -> str:
    """Return some names, the first of many."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def is_interactive() -> bool:
    """Return whether live output makes sense: a terminal, and not CI."""
    return (
        sys.stderr.isatty()
        and os.environ.get("CI", "") in ("", "0", "false")
        and os.environ.get("TERM") != "dumb"
    )


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split arguments into (references to runs, overrides): what has an `=` is an override, but for a path."""
    refs = [word for word in arguments if not _OVERRIDE.match(word) or os.path.isdir(word)]
    return refs, [word for word in arguments if word not in refs]
