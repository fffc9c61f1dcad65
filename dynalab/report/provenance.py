"""What was run: the configuration, who ran it when and where, and the commands that do it again."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from dynalab.config.forks import fork_command
from dynalab.config.registry import search_path
from dynalab.config.schema import STREAMS
from dynalab.config.seeds import format_seeds
from dynalab.config.typed import flat
from dynalab.config.words import word_of
from dynalab.core.errors import DynalabError, StoreError
from dynalab.core.words import count, listed, number
from dynalab.report.blocks import Section
from dynalab.report.choice import analyze_command
from dynalab.report.gather import Shown
from dynalab.show.blocks import Block, Cell, Code, Say, Table
from dynalab.store.code import codes
from dynalab.store.read import read_yaml
from dynalab.store.reader import Ensemble, StoredRun
from dynalab.training.shown import shown_stored


@lru_cache(maxsize=64)
def _defaults(task: str) -> dict[str, Any] | None:
    from dynalab.config.compose import Composer

    try:
        return flat(Composer(search_path()).defaults(task).as_dict())
    except DynalabError:
        return None


def differences(ensemble: Ensemble) -> dict[str, tuple[Any, Any]] | None:
    """Return key -> (value here, the task's default) where they differ; None for a task that is not known here."""
    base = _defaults(ensemble.task)
    if base is None:
        return None
    here = flat({key: value for key, value in ensemble.config.items() if key != "sources"})
    keys = [
        key
        for key in dict.fromkeys([*here, *base])
        if here.get(key) != base.get(key) and (key in here or not _is_later(key, here, base))
    ]
    return {key: (here.get(key), base.get(key)) for key in keys}


def _is_later(key: str, here: Mapping[str, Any], base: Mapping[str, Any]) -> bool:
    """Return whether a key that is not stored came with a later dynalab: it trained as its neutral value does."""
    section = key.rpartition(".")[0]
    name = f"{section}.name"
    stored = any(other.startswith(f"{section}.") for other in here)
    return stored and here.get(name) == base.get(name)


def attempts(runs: Sequence[StoredRun]) -> list[tuple[str, dict[str, Any]]]:
    """Return (shard, record) of every process that worked on some runs."""
    shards = {run.shard.root: run.record for run in runs}
    return [(root.name, attempt) for root, record in shards.items() for attempt in record.attempts]


def seeds_of(runs: Sequence[StoredRun]) -> str:
    """Return the seeds of runs in the grammar of `seed=`, or the labels of runs that have none."""
    seeds = [run.seed for run in runs if run.seed is not None]
    return format_seeds(seeds) if seeds else listed([run.label for run in runs])


def train_command(shown: Shown) -> str | None:
    """Return the command that trains the shown runs again, or imports them; None where it is not known."""
    if shown.ensemble.imported:
        return _import_command(shown.ensemble)
    try:
        words = read_yaml(shown.ensemble.paths.overrides)
    except StoreError:
        return None
    if not isinstance(words, list) or not shown.runs:
        return None
    words = [
        str(word) for word in words if str(word).partition("=")[0] not in ("train.steps", "train.epochs")
    ]
    streams = shown.ensemble.config.get("seed_streams") or {}
    typed = {word.partition("=")[0] for word in words}
    words += [
        f"seed_streams.{name}={format_seeds(streams[name])}"
        for name in STREAMS
        if isinstance(streams.get(name), list) and f"seed_streams.{name}" not in typed
    ]
    steps = max(run.requested_steps for run in shown.runs)
    seeds = [run.seed for run in shown.runs if run.seed is not None]
    if not seeds:
        first, free = shown.runs[0], [name for name in STREAMS if streams.get(name) is None][:1]
        own = [item.streams for item in first.record.runs if item.label == first.label]
        seeds = [item[name] for item in own for name in free if name in item]
    folders = dict.fromkeys(folder for run in shown.runs for folder in run.record.folders)
    options = [word for folder in folders for word in ("--config-dir", folder)]
    words += [f"train.steps={steps}", *([f"seed={format_seeds(seeds)}"] if seeds else [])]
    if made := fork_command(words, *options):
        return shlex.join(made)
    return shlex.join(["dynalab", "train", *words, *options])


def answers(shown: Shown) -> list[str]:
    """Return the sentence that a page on imported runs alone begins with; none where they were trained here."""
    return [_imported(shown.ensemble)] if shown.ensemble.imported else []


def _imported(ensemble: Ensemble) -> str:
    about = ensemble.config.get("import") or {}
    files = _files(about)
    what = "checkpoints" if about.get("form") == "checkpoints" else f"the file{'s' * (len(files) > 1)}"
    source = f"{what} **{listed(files, 6)}**" if files else "a data frame"
    names = listed(ensemble.names, 6) if ensemble.names else ensemble.id
    return f"These runs were trained elsewhere and imported from {source} as **{names}**."


def _import_command(ensemble: Ensemble) -> str | None:
    about = ensemble.config.get("import") or {}
    files = _files(about)
    if not files or not ensemble.names:
        return None
    if isinstance(about.get("options"), list):
        options = [str(word) for word in about["options"]]
    else:
        form = ["--wide"] if about.get("form") == "wide" else ["--run", str(about.get("run"))]
        options = [*form, "--step", str(about.get("step"))]
    levels = [
        word
        for name, level in (ensemble.config.get("levels") or {}).items()
        for word in ("--level", f"{name}={level!r}")
    ]
    how = ["--checkpoints"] if about.get("form") == "checkpoints" else []
    return shlex.join(
        [
            "dynalab",
            "import",
            *how,
            *files,
            "--name",
            str(about.get("family") or ensemble.names[0]),
            *options,
            *levels,
        ]
    )


def _files(about: Mapping[str, Any]) -> list[str]:
    return [str(name) for name in about.get("files") or [about.get("file")] if name]


def section(shown: Shown, home: Path) -> Section:
    """Return the section on what was run, with paths from the report's folder."""
    commands = [line for line in [train_command(shown), *map(analyze_command, shown.results)] if line]
    # With every key at the value that training used.
    steps = max((run.requested_steps for run in shown.runs), default=None)
    config = shown_stored(shown.ensemble.config, steps, search_path())
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True).rstrip()
    blocks = [
        _settings(shown.ensemble),
        Table(["", ""], _facts(shown, home), sortable=False),
        Code("\n".join(commands), "To repeat it"),
        Code(text, "The whole configuration", folded=True),
        *_history(shown),
    ]
    return Section("What was run", f"{shown.anchor}-run", blocks)


def _settings(ensemble: Ensemble) -> Block:
    """Return what sets an ensemble apart from the task's defaults, or where it was imported from."""
    if ensemble.imported:
        return Say(_imported(ensemble))
    differing = differences(ensemble)
    if differing is None:
        return Say(f"There is no configuration of the task **{ensemble.task}** here to compare with.")
    if not differing:
        return Say(f"Every key stands at the default of task={ensemble.task}.")
    rows = [[key, word_of(a), Cell(word_of(b), tone="quiet")] for key, (a, b) in differing.items()]
    caption = f"Differences to the defaults of task={ensemble.task}"
    return Table(["key", "here", "default"], rows, caption, sortable=False)


def _facts(shown: Shown, home: Path) -> list[tuple[str, str | Cell]]:
    records = [record for _, record in attempts(shown.runs)]
    facts: list[tuple[str, str | Cell]] = [("ensemble", shown.ensemble.id)]
    many = f"{seeds_of(shown.runs)} ({count(len(shown.runs), 'run')})"
    facts.append(("seeds" if any(run.seed is not None for run in shown.runs) else "runs", many))
    steps = sorted({run.steps for run in shown.runs})
    if steps:
        facts.append(("steps", number(steps[0]) if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}"))
    for key in ("dynalab", "torch", "python", "device", "cpu", "host"):
        values = list(dict.fromkeys(str(record[key]) for record in records if record.get(key) is not None))
        if values:
            facts.append((key, listed(values, 6)))
    commits = dict.fromkeys(
        f"{record['commit'][:12]}{' with local changes' if record.get('dirty') else ''}"
        for record in records
        if record.get("commit")
    )
    if commits:
        facts.append(("commit", listed(list(commits), 6)))
    for item in codes(shown.ensemble.paths, records):
        link = os.path.relpath(item.patch, home) if item.patch else ""
        facts.append(("code", Cell(item.line, link=link)))
    started = min((record["started"] for record in records if record.get("started")), default=None)
    # Not yet, as long as a process is at it, or if the last one was killed.
    last = {run.shard.root: run.record.attempts[-1] for run in shown.runs if run.record.attempts}.values()
    ends = [record.get("ended") for record in last]
    ended = max((end for end in ends if end), default=None) if all(ends) else None
    if started:
        span = f"{_time(started)} to {_time(ended)}" if ended else f"from {_time(started)}"
        facts.append(("trained", span))
    seconds = sum(record.get("train_seconds") or record.get("seconds") or 0 for record in records)
    if seconds:
        facts.append(("training time", f"{_duration(seconds)}, summed over the workers"))
    path = os.path.relpath(shown.ensemble.path, home)
    facts.append(("data", Cell(path, link=path)))
    for result in shown.results:
        path = os.path.relpath(result.paths.root, home)
        facts.append((f"{result.kind} result", Cell(path, link=path)))
    return facts


def _time(text: str) -> str:
    return text.replace("T", " ").replace("+00:00", " UTC")


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    return (
        f"{seconds:.0f} s"
        if minutes < 2
        else f"{minutes:.0f} min"
        if minutes < 120
        else f"{minutes / 60:.1f} h"
    )


def _history(shown: Shown) -> Iterator[Table]:
    rows = []
    for shard, record in attempts(shown.runs):
        argv = [str(word) for word in record.get("argv") or ()]
        command = shlex.join([Path(argv[0]).name, *argv[1:]]) if argv else None
        started, seconds = record.get("started"), record.get("seconds")
        span = [started and _time(started), record.get("first_step"), record.get("step")]
        took = None if seconds is None else round(seconds, 1)
        rows.append([shard, *span, took, record.get("host"), record.get("device"), command])
    if rows:
        header = ["shard", "started", "from step", "to step", "seconds", "host", "device", "command"]
        yield Table(header, rows, "Every process that worked on it", folded=True, sortable=False)
