"""`dynalab new`."""

from __future__ import annotations

import importlib.util
import keyword
import os
import re
import shlex
from pathlib import Path

import click

from dynalab.cli.options import echo, note
from dynalab.core.errors import ConfigError, StoreError

TEMPLATES = Path(__file__).parent / "templates"
# What the files there are named, and call themselves.
_NAME = "blank"
# Group -> the words that use a part of it.
USES = {
    "task": ("train", "task={}", "seed=0..3"),
    "model": ("train", "task=digits", "model={}", "seed=0..3"),
    "optimizer": ("train", "task=digits", "optimizer={}", "seed=0..3"),
    "schedule": ("train", "task=digits", "schedule={}", "seed=0..3"),
    "average": ("train", "task=digits", "average={}", "seed=0..3"),
    "probe": ("train", "task=digits", "probes=[weights,gradients,{}]", "seed=0..3"),
    "edit": ("fork", "@last", "100", "edit={}"),
    "analysis": ("analyze", "{}"),
}
# Folders of the outputs that hold no task, and a kind of analysis that nobody asks for.
_TAKEN = {"task": ("analysis", "imported", "logs", "reports", "reproduce"), "analysis": ("base", "contrast")}
# Hydra takes these for numbers, yes or no, or nothing.
_NO_WORDS = ("true", "false", "yes", "no", "on", "off", "y", "n", "null", "none", "inf", "nan")


@click.command("new")
@click.argument("group", metavar="|".join(USES), type=click.Choice([*USES]))
@click.argument("name")
@click.option(
    "--config-dir",
    "config_dir",
    metavar="DIR",
    help="The folder of your parts, made where it is not there (default: the first of DYNALAB_PATH, else ./mine).",
)
def command(group: str, name: str, config_dir: str | None) -> None:
    """Write a part of your own, which works, and a test of it: DIR/GROUP/NAME.py, and NAME.yaml where the group has it.

    The command that uses it is said at the end. docs/extending.md tells what each group's part is given and returns.

    \b
    dynalab new probe flatness
    dynalab new task addition --config-dir ~/lab
    """
    from dynalab.config.places import real_path, user_path

    listed = _listed()
    folder = user_path(config_dir or (listed or ["mine"])[0])
    check_name(group, name, folder)
    files = texts(group, name, folder)
    write(folder / group, files)
    for file in files:
        echo(folder / group / file)
    found = not config_dir and bool(listed)
    words = [word.format(name) for word in USES[group]]
    note(f"use it:   {shlex.join(['dynalab', *words, *([] if found else ['--config-dir', str(folder)])])}")
    note(f"test it:  pytest {shlex.quote(str(folder / group / test_name(group, name, folder)))}")
    if not found:
        note(
            f"for good: export DYNALAB_PATH={shlex.quote(str(real_path(folder)))}   # then without --config-dir"
        )


def _listed() -> list[str]:
    """Return the folders of `DYNALAB_PATH`, which need not be there yet."""
    return [text for text in os.environ.get("DYNALAB_PATH", "").split(os.pathsep) if text]


def check_name(group: str, name: str, folder: Path) -> None:
    """Check that a new part of a group may have a name.

    Raises:
        ConfigError: It is no name of Python's, is read as something else by Hydra or by Python, or is taken.
    """
    from dynalab.config.places import real_path, user_path
    from dynalab.config.registry import names

    key = f"new {group} {name}"
    if not name.isascii() or not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
        like = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_0123456789")
        hint = f", for example {like}" if like.isidentifier() and not keyword.iskeyword(like) else ""
        raise ConfigError(f"{key}: expected a name as Python has them, of letters, digits and _{hint}")
    if name.lower() in _NO_WORDS:
        raise ConfigError(f"{key}: on a command line {name} is no word; take another name")
    if name in _TAKEN.get(group, ()) or name in names(group):
        raise ConfigError(f"{key}: dynalab has {name} itself, and would take yours for it; take another name")
    if importlib.util.find_spec(name) is not None:
        raise ConfigError(
            f"{key}: a Python module has this name, which a file beside a test hides; take another name"
        )
    for other in map(user_path, _listed()):
        if real_path(other) != real_path(folder) and (there := other / group / f"{name}.py").exists():
            raise ConfigError(f"{key}: {there} has this name already")


def test_name(group: str, name: str, folder: Path) -> str:
    """Return the name of a part's test, by which pytest can tell it from those of other groups."""
    plain = f"test_{name}.py"
    taken = any((folder / other / plain).exists() for other in USES if other != group)
    return f"test_{group}_{name}.py" if taken else plain


def texts(group: str, name: str, folder: Path) -> dict[str, str]:
    """Return the files of a new part: name -> text."""
    files = {}
    for path in sorted((TEMPLATES / group).glob(f"*{_NAME}.*")):
        file = (
            test_name(group, name, folder)
            if path.stem.startswith("test_")
            else path.name.replace(_NAME, name)
        )
        text = path.read_text(encoding="utf-8")
        files[file] = re.sub(rf"(?<![^\W_]){_NAME}(?![^\W_])", name, text)
    return files


def write(folder: Path, files: dict[str, str]) -> None:
    """Write files in a folder: all, or none where one is there.

    Raises:
        ConfigError: A file of that name is there.
        StoreError: The folder cannot be written.
    """
    for file in files:
        if os.path.lexists(folder / file):
            raise ConfigError(
                f"{folder / file} is there already, and is left alone; take another name, or remove it"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            with open(folder / file, "x", encoding="utf-8") as target:
                target.write(text)
    except OSError as error:
        raise StoreError(
            f"cannot write {folder}: {error.strerror}; name another with --config-dir"
        ) from error
