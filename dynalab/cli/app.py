"""The root of the command line: subcommands found by name, errors turned into lines and exit codes."""

from __future__ import annotations

import errno
import importlib
import io
import os
import sys
import traceback
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import click

from dynalab.cli.options import note
from dynalab.core.errors import DynalabError
from dynalab.core.plugins import naming
from dynalab.core.version import __version__

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# Command -> its module, and the line that `dynalab --help` shows without importing it.
COMMANDS = {
    "train": ("dynalab.cli.train", "Train the seeds of one or many configurations."),
    "import": (
        "dynalab.cli.imports",
        "Take in runs that were trained elsewhere: CSV, Parquet or JSON lines.",
    ),
    "analyze": (
        "dynalab.cli.analyze",
        "Infer what happened: phases, detours, edge of stability, slingshots.",
    ),
    "fork": ("dynalab.cli.fork", "Go on from a stored state with something changed."),
    "reproduce": ("dynalab.cli.reproduce", "Try a paper's claims, and say of each what holds here."),
    "report": ("dynalab.cli.report", "Write one self-contained HTML page."),
    "figure": ("dynalab.cli.figure", "Draw one figure of the page for a paper."),
    "runs": (
        "dynalab.cli.runs",
        "List, show, watch, compare, query, tag, archive and remove what is stored.",
    ),
    "worker": ("dynalab.cli.worker", "Train one shard, handed over by a scheduler."),
    "config": ("dynalab.cli.config", "Print the composed configuration, or say what its keys are."),
    "experiments": (
        "dynalab.cli.experiments",
        "List the papers' settings that can be named, and what they show.",
    ),
    "bench": ("dynalab.cli.bench", "Time a task's steps over widths and numbers of workers."),
    "data": ("dynalab.cli.data", "List, fetch and verify data sets."),
    "doctor": ("dynalab.cli.doctor", "Look whether all that training relies on holds on this machine."),
    "completion": (
        "dynalab.cli.completion",
        "Print a script that completes what is typed in bash, zsh or fish.",
    ),
    "new": ("dynalab.cli.new", "Write a task, model, optimizer, probe or analysis of your own, with a test."),
}

EXIT_CODES = """\b
Exit codes: 0 done; 1 a bug of dynalab's; 2 usage or configuration; 3 some runs failed, or another command
trains them, or what was made could not be stored (the rest is whole); 4 nothing matched; 130 interrupted
(state saved, the same command goes on)."""


class Lazy(click.Group):
    """A group that imports a subcommand when it is called, and knows what a mistyped one may have meant."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a subcommand."""
        if cmd_name not in COMMANDS:
            return None
        return importlib.import_module(COMMANDS[cmd_name][0]).command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the subcommand, or say which one is near."""
        if args and args[0] not in COMMANDS:
            from dynalab.config.suggest import did_you_mean

            hint = did_you_mean(args[0], COMMANDS)
            raise click.UsageError(f"no command {args[0]}{hint}; there are {', '.join(COMMANDS)}", ctx)
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None and not ctx.resilient_parsing:
            _require_once(command, rest)
        return name, command, rest

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """Return the subcommands and options that a word may become, without importing them."""
        from click.shell_completion import CompletionItem

        commands = [CompletionItem(name, help=line) for name, (_, line) in COMMANDS.items()]
        options = click.Command.shell_complete(self, ctx, incomplete) if incomplete.startswith("-") else []
        return [item for item in commands if item.value.startswith(incomplete)] + options

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the subcommands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


def _require_once(command: click.Command, words: list[str]) -> None:
    """Refuse an option or a key that is given twice and counts once: click, and Hydra, take the last in silence."""
    while isinstance(command, click.Group):
        found = command.commands.get(words[0]) if words else None
        if found is None:
            return
        command, words = found, words[1:]
    try:
        values, _, order = command.make_parser(click.Context(command)).parse_args([*words])
    except click.UsageError:
        # Said where the command is read.
        return
    for option in order:
        once = isinstance(option, click.Option) and not (option.multiple or option.is_flag)
        if once and (times := order.count(option)) > 1:
            cells = [
                (word.partition("=")[0], word.partition("=")[2] or after)
                for word, after in pairwise([*words, ""])
            ]
            given = [value for name, value in cells if name in option.opts]
            if len({*given}) != 1:
                both = " ".join([max(option.opts, key=len), *given])
                raise click.UsageError(f"{both}: given {times} times; expected once")
    for argument in order:
        if isinstance(argument, click.Argument) and "=VALUE" in (argument.metavar or ""):
            from dynalab.config.repeated import require_once

            # Several values of a key are a sweep where something is trained.
            sweeps = command.name in ("train", "fork", "config")
            words = values[argument.name]
            # Without any it is a mark of click's own.
            require_once(
                words if isinstance(words, list | tuple) else (), f"{values.get('kind')}.", sweeps=sweeps
            )


@click.command(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXIT_CODES)
@click.version_option(__version__, prog_name="dynalab")
def app() -> None:
    """dynalab: train many seeds, and see what happened in them.

    \b
    dynalab train task=grokking seed=0..19     # every seed, side by side
    dynalab analyze hmm                        # the phases they went through
    dynalab report                             # one page that shows it
    """


def run(args: Sequence[str]) -> int:
    """Run a command line and return its exit code; no error escapes."""
    # Figures are drawn into files. The backend of a notebook, which its shell inherits, may not exist here.
    os.environ["MPLBACKEND"] = "agg"
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name that this terminal's encoding does not have is shown, not died of.
            stream.reconfigure(errors="backslashreplace")
    if asked := os.environ.get("_DYNALAB_COMPLETE"):
        from dynalab.cli.completion import answer

        return answer(app, asked)
    try:
        with naming():
            result = app.main(list(args), prog_name="dynalab", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except (click.exceptions.Abort, KeyboardInterrupt):
        _say("interrupted")
        return 130
    except click.ClickException as error:
        _say(_words(error))
        return 2
    except DynalabError as error:
        _say(str(error))
        return error.exit_code
    except BrokenPipeError:
        return _unread()
    except SystemExit:
        # click's way to end where the reader left.
        if not type(sys.stdout).__name__.endswith("PacifyFlushWrapper"):
            raise
        return _unread()
    except OSError as error:
        if error.errno == errno.ENOSPC:
            _say("cannot write standard output: no space left on device")
            return 3
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and error.filename is not None:
            _say(f"cannot read or write {error.filename}: {error.strerror}")
            return 3
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            # No file can be of that name: whatever was looked for there was typed.
            _say(f"{str(error.filename)[:80]!r}: {error.strerror}")
            return 2
        return _bug(error)
    except Exception as error:
        return _bug(error)


def _unread() -> int:
    """End where the reader of our output left (`| head`): there is no one to tell."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0


def _bug(error: Exception) -> int:
    _say(f"a bug of dynalab's: {type(error).__name__}: {error}; traceback in {_store_traceback()}")
    return 1


def _words(error: click.ClickException) -> str:
    """Return what click found wrong: of a word that is none of several these, as of a key, and the nearest."""
    import re

    from dynalab.config.suggest import did_you_mean
    from dynalab.core.words import listed

    param = getattr(error, "param", None)
    given = re.match(r"'(.*)' is not (?:one of )?'", error.message)
    if given is None or param is None or not isinstance(param.type, click.Choice):
        return error.format_message()
    legal = [str(choice) for choice in param.type.choices]
    option = f"{max(param.opts, key=len)} " if isinstance(param, click.Option) else ""
    return f"{option}{given[1]}: expected {listed(legal, 20, 'or')}{did_you_mean(given[1], legal)}"


def _say(line: str) -> None:
    note(f"dynalab: {line}")


def _store_traceback() -> str:
    import tempfile
    from datetime import datetime
    from pathlib import Path

    from dynalab.config.places import outputs_root
    from dynalab.core.atomic import write_text
    from dynalab.store.names import refuse_links
    from dynalab.store.paths import OutputPaths

    name = f"bug-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}.txt"
    for find in (lambda: OutputPaths(outputs_root()).logs, lambda: Path(tempfile.gettempdir())):
        try:
            folder = find()
            refuse_links(folder)
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / name, f"{' '.join(sys.argv)}\n\n{traceback.format_exc()}")
            return str(folder / name)
        except (OSError, DynalabError):
            continue
    return "nowhere: no folder could be written"
