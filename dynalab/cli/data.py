"""`dynalab data list|fetch|verify|checksum`: the image data sets that lie in files."""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import click

from dynalab.cli.options import columns, echo, emit_json, json_option, note, target, to_options
from dynalab.config.places import user_path
from dynalab.config.suggest import did_you_mean, listing
from dynalab.core.atomic import storing, write_text
from dynalab.core.errors import ConfigError
from dynalab.tasks.images.sets import (
    SETS,
    DataSet,
    damaged,
    data_root,
    own_files,
    read_table,
    require_present,
)

root_option = click.option(
    "--root", metavar="DIR", help="The folder of data sets (also DYNALAB_DATA; default ./data)."
)
# Part of scikit-learn and of CPython; listed, so that nobody looks for them.
BUNDLED = {"digits": "scikit-learn's digits", "mlm": "CPython's documentation"}


@click.group("data")
def command() -> None:
    """List, download and verify data sets."""


@command.command("list")
@root_option
@json_option
def list_sets(root: str | None, as_json: bool) -> int:
    """List the data sets, whether they are whole, and where.

    What lies in files is read and compared with its checksums.

    \b
    dynalab data list
    """
    folder = data_root(root)
    sets: list[dict[str, Any]] = [
        {"name": name, "title": title, "status": "bundled", "path": None} for name, title in BUNDLED.items()
    ]
    for data in SETS.values():
        lacking = data.missing(folder)
        status = "missing" if len(lacking) == len(data.files) else "incomplete"
        if not lacking:
            status = "damaged" if damaged(data, folder) else "present"
        sets.append(
            {"name": data.name, "title": data.title, "status": status, "path": str(folder / data.folder)}
        )
    if as_json:
        emit_json({"root": str(folder), "sets": sets})
    else:
        header = ["name", "title", "status", "path"]
        echo(columns(header, [[item[key] for key in header] for item in sets]))
    return 0


@command.command("fetch")
@click.argument("name")
@root_option
@json_option
def fetch(name: str, root: str | None, as_json: bool) -> int:
    """Download a data set, through torchvision.

    What is there and whole is left as it is.

    \b
    dynalab data fetch cifar10
    """
    data = _named(name)
    folder = data_root(root)
    path = folder / data.folder
    bad = damaged(data, folder)
    if bad or data.missing(folder):
        with storing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for file in bad:
                note(f"{file} is not what its checksum says; it is replaced")
                (path / file).unlink()
        note(f"downloading {data.title} to {folder}")
        _download(data, folder)
    require_present(data, folder, f"data fetch {name}")
    if as_json:
        emit_json({"name": name, "path": str(path), "status": "present"})
    else:
        echo(path)
    return 0


@command.command("verify")
@click.argument("name")
@root_option
@click.option("--checksums", metavar="FILE", help="A table for files of your own, as task.checksums.")
@json_option
def verify(name: str, root: str | None, checksums: str | None, as_json: bool) -> int:
    """Check the MD5 of every file of a data set.

    \b
    dynalab data verify cifar10
    """
    data = _named(name)
    if checksums is not None:
        data = data.with_table(read_table(str(user_path(checksums).absolute())))
    folder = data_root(root)
    lacking, bad = data.missing(folder), damaged(data, folder)
    states = {
        file: "missing" if file in lacking else "damaged" if file in bad else "ok" for file in data.files
    }
    if as_json:
        files = [{"name": file, "status": status} for file, status in states.items()]
        emit_json(
            {"name": name, "path": str(folder / data.folder), "ok": not (lacking or bad), "files": files}
        )
    else:
        echo(columns(["file", "status"], list(states.items())))
    require_present(data, folder, f"data verify {name}")
    if bad:
        raise ConfigError(
            f"{data.title} in {folder / data.folder}: {', '.join(bad)} is not what its checksum says\n"
            f"delete it and get it again: dynalab data fetch {name}"
        )
    return 0


@command.command("checksum")
@click.argument("directory", metavar="DIR")
@to_options("Where to write it; default: standard output.")
@json_option
def checksum(directory: str, to: str | None, force: bool, as_json: bool) -> int:
    """Write the table of your own files, for task.checksums.

    They are in the format of MNIST or CIFAR; DIR is the folder that holds them, or the folder of data sets above it.

    \b
    dynalab data checksum data/cifar-10-batches-py --to mine.json
    """
    from dynalab.tasks.images.formats import read_split

    path = None if to is None else target(to, force).absolute()
    data, folder = own_files(user_path(directory).absolute())
    counts = [len(read_split(data, folder, held_out)[1]) for held_out in (False, True)]
    table = {"train": counts[0], "test": counts[1], "files": dict(data.files)}
    if path is not None:
        write_text(path, json.dumps(table, indent=1) + "\n")
        task = "mnist" if data.name == "mnist" else f"cifar task.classes={data.classes}"
        root = folder.parents[data.folder.count("/")]
        if root / data.folder == folder:
            note(f"use it: task={task} task.root={root} task.checksums={path}")
        else:
            note(
                f"use it: task={task} task.checksums={path}, with the files in {data.folder} below task.root"
            )
    if as_json:
        emit_json({"name": data.name, "path": to, **table})
    else:
        click.echo(to or json.dumps(table, indent=1))
    return 0


def _named(name: str) -> DataSet:
    """Return a data set that lies in files, or raise a `ConfigError`."""
    if name in BUNDLED:
        raise ConfigError(
            f"{name}: comes with dynalab ({BUNDLED[name]}); there is nothing to fetch or verify"
        )
    if name not in SETS:
        raise ConfigError(f"{name}: no such data set{did_you_mean(name, SETS)}; there are {listing(SETS)}")
    return SETS[name]


def _download(data: DataSet, folder: Path) -> None:
    """Download and unpack a data set; what torchvision prints goes to standard error."""
    import http.client

    with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
        # Python 3.12 warns that torchvision unpacks without a filter; the archive's checksum was right.
        warnings.simplefilter("ignore", DeprecationWarning)
        from torchvision import datasets

        kind = {"mnist": datasets.MNIST, "cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[
            data.name
        ]
        try:
            kind(folder, download=True)
        # No network (OSError), a broken answer, an archive with another checksum (RuntimeError).
        except (OSError, http.client.HTTPException, RuntimeError, EOFError) as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise ConfigError(
                f"{data.title} could not be downloaded: {reason}\n"
                f"on a machine with a network run `dynalab data fetch {data.name} --root DIR`, then put the files in "
                f"{folder / data.folder}: {', '.join(data.files)}"
            ) from error
