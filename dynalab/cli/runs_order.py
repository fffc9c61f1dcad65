"""`dynalab runs tag|du|gc`: keeping order in an outputs folder."""

from __future__ import annotations

import click

from dynalab.cli.options import columns, echo, emit_json, filter_options, note, result_options, warn
from dynalab.config.places import outputs_root
from dynalab.core.errors import ConfigError, NothingMatched
from dynalab.core.words import count
from dynalab.store import tags, usage, waste
from dynalab.store.find import select
from dynalab.store.paths import OutputPaths
from dynalab.store.stored import StoredEnsemble


@click.command("tag")
@click.argument("refs", nargs=-1, metavar="[RUN|ENSEMBLE]...")
@filter_options
@click.option("--add", metavar="TAG", multiple=True, help="A tag to put on them; may be given again.")
@click.option("--remove", metavar="TAG", multiple=True, help="A tag to take away; may be given again.")
@result_options
def tag_runs(
    refs: tuple[str, ...],
    filter_text: str | None,
    forks: bool,
    add: tuple[str, ...],
    remove: tuple[str, ...],
    as_json: bool,
    outputs: str | None,
) -> int:
    """Tag runs or ensembles, or say which tags there are.

    An ensemble that is named has its tags as a whole, runs that are trained later included. `-f tag=paper` finds what
    is tagged, in every command that takes a filter. No id changes.

    \b
    dynalab runs tag cb7150eb3e --add paper
    dynalab runs tag -f 'generalised>5000' --add late
    dynalab runs tag cb7150eb3e/s0003 --remove paper
    dynalab runs list -f tag=paper
    """
    for tag in (*add, *remove):
        tags.check_tag(tag)
    if twice := {*add} & {*remove}:
        raise ConfigError(f"{min(twice)}: both added and removed")
    changes = bool(add or remove)
    if changes and not refs and filter_text is None:
        raise ConfigError("tag: name what to tag, an id or -f TERMS (@last is the last that were trained)")
    root = outputs_root(outputs)
    selection = select(root, refs or ("@all",), filter_text, StoredEnsemble, forks)
    if changes:
        for ensemble, runs in selection:
            every = [run.label for run in ensemble.runs]
            # A filter, or a run's own id, means these runs; an ensemble's means what becomes of it as well.
            whole = filter_text is None and len(runs) == len(every)
            tags.change(ensemble.paths, None if whole else [run.label for run in runs], every, add, remove)
            ensemble.__dict__.pop("tags", None)
    found = [
        {"run": run.id, "tags": own}
        for ensemble, runs in selection
        for run in runs
        if changes or tags.of_run(ensemble.tags, run.label)
        for own in [tags.of_run(ensemble.tags, run.label)]
    ]
    if as_json:
        emit_json({"tagged": found})
    elif found:
        echo(columns(["run", "tags"], [[item["run"], ", ".join(item["tags"]) or None] for item in found]))
    else:
        note("no run of these is tagged; `dynalab runs tag ID --add TAG` does it")
    warn([line for ensemble, _ in selection for line in ensemble.warnings])
    return 3 if any(ensemble.damaged for ensemble, _ in selection) else 0


@click.command("du")
@click.argument("refs", nargs=-1, metavar="[RUN|ENSEMBLE]...")
@filter_options
@click.option("-e", "--ensembles", is_flag=True, help="A line an ensemble instead of a line a task.")
@result_options
def show_usage(
    refs: tuple[str, ...],
    filter_text: str | None,
    forks: bool,
    ensembles: bool,
    as_json: bool,
    outputs: str | None,
) -> int:
    """Say what takes how much room on the disk, and what it is.

    \b
    dynalab runs du
    dynalab runs du -e
    dynalab runs du -f 'task=grokking status=done'
    """
    root = outputs_root(outputs)
    paths = OutputPaths(root)
    chosen = None
    if refs or filter_text is not None:
        chosen = [ensemble.paths for ensemble, _ in select(root, refs, filter_text, StoredEnsemble, forks)]
    elif not root.is_dir():
        raise NothingMatched(f"{root} does not exist; it holds no runs")
    elif ensembles:
        chosen = paths.ensembles()
    found = usage.of_outputs(paths, chosen)
    total = usage.Usage("total", root)
    for item in found:
        total.add(item)
    if as_json:
        emit_json({"places": [_place(item) for item in found], "total": _place(total)})
        return 0
    rows = [
        [item.name, *(_size(item.bytes[kind]) for kind in usage.KINDS), _size(item.total), item.files]
        for item in [*found, total]
    ]
    echo(columns(["ensemble" if chosen is not None else "folder", *usage.KINDS, "total", "files"], rows))
    return 0


def _place(item: usage.Usage) -> dict[str, object]:
    kinds = {kind: item.bytes[kind] for kind in usage.KINDS}
    return {
        "name": item.name,
        "path": str(item.path),
        "bytes": item.total,
        "kinds": kinds,
        "files": item.files,
    }


def _size(n: int) -> str | None:
    """Return bytes in the unit that fits; None for none."""
    if not n:
        return None
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000  # type: ignore[assignment]
    return f"{n:,.3g} TB"


@click.command("gc")
@click.argument("refs", nargs=-1, metavar="[RUN|ENSEMBLE]...")
@filter_options
@click.option(
    "--snapshots",
    type=click.IntRange(min=0),
    metavar="N",
    help="Snapshots of weights beyond N a shard as well; the first, the last and some between them stay.",
)
@click.option("--yes", is_flag=True, help="Remove it; without it nothing is.")
@result_options
def collect_waste(
    refs: tuple[str, ...],
    filter_text: str | None,
    forks: bool,
    snapshots: int | None,
    yes: bool,
    as_json: bool,
    outputs: str | None,
) -> int:
    """List what can go without a loss, and remove it with --yes.

    Damaged pieces that dynalab set aside or cannot read, attempts of which a later one is done, what killed writers
    left over, and with --snapshots weights beyond a number. Nothing of a shard that a living process writes is touched.
    Which runs are listed and analysed does not change, but analyses of weights see fewer snapshots.

    \b
    dynalab runs gc                     # says what would go
    dynalab runs gc --snapshots 10 --yes
    """
    root = outputs_root(outputs)
    if refs or filter_text is not None:
        chosen = [ensemble.paths for ensemble, _ in select(root, refs, filter_text, StoredEnsemble, forks)]
    else:
        chosen = OutputPaths(root).ensembles()
    found = waste.find(chosen, root, snapshots, note)
    size = sum(item.size for item in found)
    if yes:
        waste.remove(found, root)
    if as_json:
        items = [{"path": str(item.path), "why": item.why, "bytes": item.size} for item in found]
        emit_json({"removed": yes, "items": items, "bytes": size})
        return 0
    groups: dict[tuple[str, str], list[waste.Waste]] = {}
    for item in found:
        where = f"{item.ensemble.digest}/{item.shard.root.name}" if item.shard else item.ensemble.digest
        groups.setdefault((where, item.why), []).append(item)
    if found:
        rows = [[*key, len(some), _size(sum(item.size for item in some))] for key, some in groups.items()]
        echo(columns(["where", "why", "pieces", "size"], rows))
    what = f"{count(len(found), 'piece')}, {_size(size) or '0 B'}"
    note(f"removed {what}" if yes and found else f"{what}; --yes removes it" if found else "nothing can go")
    return 0
