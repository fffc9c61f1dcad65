"""From runs to the store: an ensemble whose identity is its content."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dynalab.config.suggest import listing
from dynalab.core.atomic import check_writable, write_json
from dynalab.core.errors import ConfigError, StoreError
from dynalab.core.words import listed
from dynalab.imports.forms import read_rows
from dynalab.imports.rows import Form, Rows, check_pieces, joined, named_by_tensorboard
from dynalab.imports.runs import Changes, Imported, infinite_words, runs_of
from dynalab.imports.settings import Setting, apart, names_of
from dynalab.imports.table import files_in, read_table, tidy
from dynalab.imports.write import ACCURACIES, make_ensemble, write_config, write_shards
from dynalab.store import runfile
from dynalab.store.lock import Lock
from dynalab.store.names import refuse_links
from dynalab.store.paths import EnsemblePaths, OutputPaths
from dynalab.store.reader import Ensemble
from dynalab.store.stored import IMPORTED, StoredEnsemble
from dynalab.store.table import refresh

if TYPE_CHECKING:
    import pandas as pd

# Raised when statistics of weights change: what was imported before stays as it is.
CHECKPOINTS = "checkpoints-1"
# For imports that other processes make at the same time.
WAIT_SECONDS = 300.0
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,59}$")


@dataclass
class Outcome:
    """What an import did.

    Attributes:
        ensemble: The stored ensemble.
        name: What it was called.
        new: Whether anything was written.
        notes: What was left out or renamed.
        doubts: What was guessed, what may not be what it seems, what was found damaged, what a name meant before.
    """

    ensemble: Ensemble
    name: str
    new: bool
    notes: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Order:
    """What is to be imported, and as what.

    Attributes:
        form: How the tables are read.
        changes: What else is said of their metrics.
        levels: Accuracy -> what counts as memorised (`train_accuracy`) and as generalised (`test_accuracy`); None: as
            it is stored, at first without any.
        force: Store it again, as a new attempt.
    """

    form: Form = field(default_factory=Form)
    changes: Changes = field(default_factory=Changes)
    levels: Mapping[str, float] | None = None
    force: bool = False

    def words(self) -> list[str]:
        """Return the options of the command that say the same of the tables."""
        form, changes = self.form, self.changes
        single = {"--step": form.step, "--key": form.key, "--value": form.value, "--split": form.split}
        pairs = [("--run", column) for column in form.run]
        pairs += [("--setting", column) for column in form.settings]
        pairs += [(option, column) for option, column in single.items() if column is not None]
        wide = ["--wide"] if form.wide else []
        others = [("--map", f"{old}={new}") for old, new in changes.renamed.items()]
        others += [("--const", f"{name}={value!r}") for name, value in changes.constants.items()]
        return [*chain(*pairs), *wide, *chain(*others)]


def import_table(
    source: Path | Sequence[Path] | pd.DataFrame,
    outputs: Path,
    name: str | None = None,
    order: Order | None = None,
    argv: Sequence[str] = (),
) -> Outcome:
    """Import tables of runs.

    Args:
        source: A file (CSV, TSV, Parquet, JSON lines), several, or folders of them; or a data frame.
        outputs: The outputs folder.
        name: What the ensemble is called; default: the name of the file, without its suffix, or of the folder. It means
            what was imported last under it.
        order: How it is read, and what else is said of it.
        argv: The command, for the record.

    Raises:
        ConfigError: A table cannot be read so, or the name cannot be used.
        StoreError: The outputs folder cannot be written.
    """
    (outcome,) = import_settings(source, outputs, name, order, argv)
    return outcome


def import_settings(
    source: Path | Sequence[Path] | pd.DataFrame,
    outputs: Path,
    name: str | None = None,
    order: Order | None = None,
    argv: Sequence[str] = (),
) -> list[Outcome]:
    """Import tables of runs, an ensemble for each setting of `order.form.settings`; without any it is one.

    Each is called by the name and its setting, `mine-lr0.1`; the name alone means all of them.

    Args:
        source: As of `import_table`, and so the following.
        outputs: The outputs folder.
        name: What the ensembles are called together.
        order: How the tables are read.
        argv: The command.

    Raises:
        ConfigError: As `import_table`, or the columns of settings say one setting, or too many.
        StoreError: The outputs folder cannot be written.
    """
    order = order or Order()
    about: dict[str, Any] = {}
    if isinstance(source, Path):
        source = [source]
    if isinstance(source, Sequence):
        if name is None and len(source) != 1:
            raise ConfigError(f"--name NAME is missing: there are {len(source)} files")
        default = source[0].stem if source else ""
        checked = check_name(name if name is not None else default, name)
        found = _read_files(files_in(source), order.form)
        files = [path.name or str(path) for path in source]
        about = {"file": files[0]} if len(files) == 1 else {"files": files}
    else:
        checked = check_name(name if name is not None else "imported", name)
        if not len(source):
            raise ConfigError("the data frame has no rows")
        # A caller's frame stays as it is.
        alone = "" if order.form.split is not None else checked
        frames = apart(tidy(source, "the data frame"), order.form)
        found = {setting: read_rows(frame, order.form, alone) for setting, frame in frames}
    if order.form.settings and len(found) < 2:
        (only,) = found
        said = listed([f"{column} is {value}" for column, value in only])
        raise ConfigError(
            f"--setting {','.join(order.form.settings)}: {said} in every row; expected several settings"
        )
    for rows in found.values():
        check_pieces(rows, order.form)
    imported = [runs_of(rows, order.changes, setting) for setting, rows in found.items()]
    about |= {"form": "wide" if order.form.wide else "long", "options": order.words()}
    return store(imported, outputs, checked, about, order, argv)


def store(
    several: Sequence[Imported],
    outputs: Path,
    name: str,
    about: Mapping[str, Any],
    order: Order,
    argv: Sequence[str] = (),
) -> list[Outcome]:
    """Store runs under a name that was checked, an ensemble a setting; `about` says where they come from.

    Raises:
        ConfigError: A level is of no metric, or two settings would have one name.
        StoreError: They cannot be written.
    """
    for imported in several:
        _check_levels(imported, order)
    names = [[name]]
    if several[0].setting:
        settings = [item.setting for item in several]
        names = [[check_name(one, None), name] for one in names_of(name, settings)]
        _refuse_one_name([one for one, _ in names], settings)
        about = {**about, "family": name}
    paths = OutputPaths(outputs)
    refuse_links(paths.imports_lock.parent)
    check_writable(paths.imports_lock.parent)
    digests = [digest_of(item) for item in several]
    # What a name means is read, then written.
    with Lock(paths.imports_lock, wait=WAIT_SECONDS):
        outcomes = []
        for imported, own, digest in zip(several, names, digests, strict=True):
            said = {"settings": dict(imported.setting)} if imported.setting else {}
            outcomes.append(_store(imported, digest, digests, paths, own, {**about, **said}, order, argv))
        # As they are found by their name.
        places = {item.ensemble.path.name: item.ensemble.id for item in outcomes}
        write_json(
            paths.last, {"schema_version": 1, "ensembles": [places[place] for place in sorted(places)]}
        )
    return outcomes


def _refuse_one_name(names: Sequence[str], settings: Sequence[Setting]) -> None:
    """Refuse settings that differ in what no name can hold, or behind its last letter."""
    first: dict[str, Setting] = {}
    for name, setting in zip(names, settings, strict=True):
        if (other := first.setdefault(name, setting)) is not setting:
            columns = ",".join(column for column, _ in setting)
            one, two = (" ".join(str(value) for _, value in own) for own in (other, setting))
            raise ConfigError(
                f"--setting {columns}: {one} and {two} would both be called {name}; rename one in the table, "
                "or choose a shorter --name"
            )


def _check_levels(imported: Imported, order: Order) -> None:
    """Refuse a level of what has none, and doubt one that no run reaches."""
    for metric, level in (order.levels or {}).items():
        if metric not in ACCURACIES:
            raise ConfigError(
                f"--level {metric}: no accuracy that has a level; legal: {', '.join(ACCURACIES)}"
            )
        if metric not in imported.metrics:
            raise ConfigError(f"--level {metric}: no such metric; there are {listing(imported.metrics)}")
        place = imported.metrics.index(metric)
        highest = max(float(np.fmax.reduce(run.values[:, place], initial=-np.inf)) for run in imported.runs)
        if level > highest:
            imported.doubts.append(
                f"--level {metric}={level:g}: no run gets there; the highest value is {highest:g}"
            )
        if level <= 1 < highest <= 100:
            imported.doubts.append(
                f"--level {metric}={level:g}: values up to {highest:g} look like percent: {metric}={100 * level:g}?"
            )


def _read_files(paths: Sequence[Path], form: Form) -> dict[Setting, Rows]:
    """Return the rows of every setting, in the order in which they come."""
    parts: dict[Setting, list[Rows]] = {}
    labels = [""] if form.split is not None and len(paths) == 1 else _labels_of(paths)
    for path, alone in zip(paths, labels, strict=True):
        frame, notes = read_table(path, form)
        try:
            read = [(setting, read_rows(own, form, alone)) for setting, own in apart(frame, form)]
        except ConfigError as error:
            raise error if len(paths) == 1 else ConfigError(f"{path}: {error}") from error
        for setting, part in read:
            named_by_tensorboard(part, path.stem)
            part.notes += notes
            parts.setdefault(setting, []).append(part)
    return {setting: joined(some) for setting, some in parts.items()}


def _labels_of(paths: Sequence[Path]) -> list[str]:
    """Return what the runs of files are called that name none: their stems, or the parts of their paths that differ."""
    stems = [path.stem for path in paths]
    if len(set(stems)) == len(stems):
        return stems
    parts = [list(path.with_suffix("").parts) for path in paths]
    if len(set(map(tuple, parts))) < len(parts):
        # One table in two formats.
        parts = [list(path.parts) for path in paths]
    while min(map(len, parts)) > 1 and len({own[0] for own in parts}) == 1:
        parts = [own[1:] for own in parts]
    while min(map(len, parts)) > 1 and len({own[-1] for own in parts}) == 1:
        parts = [own[:-1] for own in parts]
    return ["/".join(own) for own in parts]


def digest_of(imported: Imported) -> str:
    """Return the identity of a table's content: its runs, steps, metrics and values, not its format or order.

    What was computed from weights hangs on the machine in its last bits: the weights stand for it.
    """
    order = np.argsort(np.array(imported.metrics))
    order = order[[imported.metrics[place] not in imported.computed for place in order]]
    digest = hashlib.sha256()
    if imported.references is not None:
        digest.update(json.dumps([CHECKPOINTS, [*imported.references.shapes], imported.contents]).encode())
    digest.update(json.dumps(["imported", sorted(imported.metrics)]).encode())
    if imported.setting:
        digest.update(json.dumps(["setting", sorted(imported.setting)]).encode())
    for run in imported.runs:
        # Of runs that seeds name these were not known once, and ids stay.
        seed = None if imported.by_seed else run.seed
        digest.update(json.dumps([run.name, seed, len(run.steps)]).encode())
        digest.update(run.steps.astype("<i8").tobytes())
        values = run.values[:, order].astype("<f8")
        # Every NaN is the same NaN, and there is one zero.
        digest.update((np.where(np.isnan(values), np.nan, values) + 0.0).tobytes())
    return digest.hexdigest()[:10]


def check_name(name: str, given: str | None) -> str:
    """Return a name that was given, or one that is made of what was not.

    Raises:
        ConfigError: The one that was given cannot be used.
    """
    if given is None:
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._-")[:60] or "imported"
    if not _NAME.match(name):
        raise ConfigError(
            f"--name {name}: expected letters, digits, '.', '_' and '-', at most 60, and no dot at the beginning"
        )
    return name


def _store(
    imported: Imported,
    digest: str,
    beside: Collection[str],
    outputs: OutputPaths,
    called: Sequence[str],
    about: Mapping[str, Any],
    order: Order,
    argv: Sequence[str],
) -> Outcome:
    """Store one ensemble under its names, which those `beside` it may share."""
    name = called[0]
    notes, doubts = list(imported.notes), [*imported.doubts, *infinite_words(imported)]
    stored, unread, new = list[StoredEnsemble](), list[str](), True
    for paths in outputs.ensembles():
        if paths.task != IMPORTED:
            continue
        item = StoredEnsemble(paths)
        try:
            _ = item.names
        except StoreError as error:
            if item.id != digest:
                doubts.append(f"{error}; {item.id} is left out")
                continue
            paths.refuse_links()
            # By which levels its runs were judged is not known.
            write_config(paths, {"names": [*called], **about}, None)
            item, unread = StoredEnsemble(paths), [str(error)]
        stored.append(item)
    same = next((item for item in stored if item.id == digest), None)
    taken = [item for item in stored if {*called} & {*item.names} and item.id not in beside]
    if same is None:
        paths = outputs.ensemble(IMPORTED, name, digest)
        make_ensemble(paths, imported, {"names": [*called], **about}, order.levels or {}, argv)
    else:
        paths = same.paths
        paths.refuse_links()
        whole = Ensemble(paths)
        kept = whole.trajectories(statuses=runfile.STATUSES)
        damaged = bool(unread or whole.damaged) or len(kept.runs) != len(imported.runs)
        known = same.config.get("levels")
        levels = dict(order.levels) if order.levels is not None else {} if order.force else known or {}
        lost = {f"{digest}/{run.label}": run.diverged_step(imported.metrics) for run in imported.runs}
        unmarked = not damaged and lost != {run.run: run.diverged_step for run in kept.runs}
        seeds = {f"{digest}/{run.label}": run.seed for run in imported.runs}
        seedless = not damaged and seeds != {run.run: run.seed for run in kept.runs}
        new = order.force or damaged or levels != known or unmarked or seedless
        if known is not None and levels != known:
            before, now = (
                listed([f"{key} {level:g}" for key, level in some.items()]) or "none"
                for some in (known, levels)
            )
            doubts.append(
                f"levels of {listed(same.names)} were {before} and are {now} now, under all names of these runs"
            )
        if seedless:
            notes.append(f"{digest} is stored again: it was not told its seeds")
        if unmarked:
            notes.append(f"{digest} is stored again: it was not told which of its runs diverged")
        if known is None and not unread:
            notes.append(f"{digest} is stored again: it was judged by levels that nobody had given")
        if damaged:
            why = "; ".join([*unread, *whole.warnings][:2]) or "runs were missing"
            doubts.append(f"{digest} was damaged; it is stored again ({why})")
        if new:
            # Who removes the ensemble holds it too.
            with Lock(paths.lock, wait=WAIT_SECONDS):
                write_shards(paths, imported, levels, _next_attempt(paths, same), argv)
        if imported.references is not None:
            # They may have been moved.
            imported.references.write(paths)
        names = list(dict.fromkeys([*same.names, *called]))
        if new or names != same.names:
            write_config(paths, {**same.config["import"], "names": names}, levels)
        if names[0] != name:
            notes.append(f"the same content is stored as {names[0]}; {name} is another name of it")
    # A name means one thing: what was imported last under it.
    for other in taken:
        other.paths.refuse_links()
        left = [word for word in other.names if word not in called]
        write_config(other.paths, {**other.config["import"], "names": left}, other.config.get("levels"))
    for word in called:
        if gone := [other.id for other in taken if word in other.names]:
            stay = "is kept under its id" if len(gone) == 1 else "are kept under their ids"
            doubts.append(f"{word} meant {listed(gone, 3)} before, other runs or values, which {stay}")
    refresh(paths)
    return Outcome(Ensemble(paths), name, new, notes, doubts)


def _next_attempt(paths: EnsemblePaths, stored: StoredEnsemble) -> int:
    """Number of the next attempt; damaged shards count by their names."""
    found = [run.attempt for run in stored.runs]
    for shard in paths.shards():
        tail = re.search(r"-a(\d+)$", shard.root.name)
        found.append(int(tail[1]) if tail else 1)
    return max(found, default=0) + 1
