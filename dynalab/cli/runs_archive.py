"""`dynalab runs archive|unpack`."""

from __future__ import annotations

import math
from typing import Any

import click

from dynalab.cli.options import (
    echo,
    emit_json,
    filter_options,
    note,
    result_options,
    target,
    to_options,
    warn,
)
from dynalab.config.places import outputs_root, typed, user_path
from dynalab.store.find import select
from dynalab.store.stored import StoredEnsemble

# Bytes from which on a stranger's archive is not opened without a word.
_LARGE = 10e9


@click.command("archive")
@click.argument("refs", nargs=-1, metavar="[RUN|ENSEMBLE]...")
@filter_options
@to_options("Where: a name that ends in .tar.gz.", required=True)
@result_options
def archive_runs(
    refs: tuple[str, ...],
    filter_text: str | None,
    forks: bool,
    to: str,
    force: bool,
    as_json: bool,
    outputs: str | None,
) -> int:
    """Put ensembles, with what is about them, into one file.

    Analyses and reports go along that are about these ensembles and no others; of single runs the shards that hold
    them. `dynalab runs unpack` opens it, and so does `tar xzf`, which makes an outputs folder.

    \b
    dynalab runs archive cb7150eb3e --to grokking.tar.gz
    dynalab runs archive -f tag=paper --to paper.tar.gz
    """
    from dynalab.cli.progress import pieces
    from dynalab.store.archive import SUFFIXES, write

    path, root = target(to, force, SUFFIXES), outputs_root(outputs)
    selection = select(root, refs, filter_text, StoredEnsemble, forks)
    with pieces("archive", quiet=as_json):
        made = write(selection, root, path)
    if as_json:
        emit_json({"path": str(path), **_fields(made), "warnings": made.left})
    else:
        note(made.said)
        warn(made.left)
        if not made.reports:
            note("no report of these alone is stored; `dynalab report ID` writes one")
        echo(path)
    return 3 if made.left else 0


@click.command("unpack")
@click.argument("file", metavar="FILE")
@click.option("--yes", is_flag=True, help=f"Also where it takes more than {_LARGE / 1e9:.0f} GB.")
@result_options
def unpack_runs(file: str, yes: bool, as_json: bool, outputs: str | None) -> int:
    """Take what `dynalab runs archive` wrote into the outputs folder.

    What is there already is left alone; shards that an ensemble lacks are added to it. The file may be a stranger's: it
    is looked through first, and refused as a whole where it holds links, other names than dynalab gives, or places
    outside.

    \b
    dynalab runs unpack grokking.tar.gz
    """
    from dynalab.store.archive import check_name, look, unpack
    from dynalab.store.paths import OutputPaths
    from dynalab.store.table import notice

    path, root = check_name(user_path(file)), outputs_root(outputs)
    inside = look(path, math.inf if yes else _LARGE)
    note(f"{path.name}: {inside.said}")
    taken = unpack(path, root, inside)
    for paths in OutputPaths(root).ensembles():
        if paths.digest in taken.ensembles:
            notice(paths)
    if as_json:
        emit_json({"outputs": str(root), **_fields(taken), "left": taken.left})
        return 0
    for line in taken.left:
        note(line)
    for digest in taken.ensembles:
        echo(digest)
    if taken.ensembles:
        note(f"next: {typed('runs', 'list', *taken.ensembles[:1], outputs=root)}")
    else:
        note("nothing was new")
    return 0


def _fields(contents: Any) -> dict[str, Any]:
    names = ("ensembles", "analyses", "reports", "shards", "files", "bytes")
    return {name: getattr(contents, name) for name in names}
