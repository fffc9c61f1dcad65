"""Ensembles with all that is about them as one file, `x.tar.gz`, and back; what is opened may be a stranger's.

Plain `tar xzf` makes an outputs folder of it as well: every name in it begins with `outputs/`.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dynalab.core.atomic import discard, replacing, storing
from dynalab.core.errors import ConfigError
from dynalab.core.progress import counted
from dynalab.core.words import count, listed
from dynalab.store import lock
from dynalab.store.code import TEXT
from dynalab.store.find import Selection
from dynalab.store.lock import Lock
from dynalab.store.members import PASSING, TOP, opened
from dynalab.store.names import NAME, SHARD, inside, refuse_links
from dynalab.store.paths import EnsemblePaths, OutputPaths, ShardPaths
from dynalab.store.results import Result, results
from dynalab.store.stored import StoredEnsemble

SUFFIXES = (".tar.gz", ".tgz")
_DIGEST = re.compile(r"(?<![0-9a-f])[0-9a-f]{10}(?![0-9a-f])")


@dataclass
class Contents:
    """What is in an archive: ids of ensembles, names of analyses and reports; files and their bytes.

    Attributes:
        shards: Number of shards.
        left: What was left out, or left alone, and why; a line each.
    """

    ensembles: list[str] = field(default_factory=list)
    analyses: list[str] = field(default_factory=list)
    reports: list[str] = field(default_factory=list)
    shards: int = 0
    files: int = 0
    bytes: int = 0
    left: list[str] = field(default_factory=list)

    @property
    def said(self) -> str:
        """Return it in words."""
        counts = [count(len(self.ensembles), "ensemble"), count(self.shards, "shard")]
        counts += [count(len(self.analyses), "analysis", "analyses"), count(len(self.reports), "report")]
        return f"{', '.join(counts)}: {count(self.files, 'file')}, {self.bytes / 1e6:,.1f} MB"


def check_name(path: Path) -> Path:
    """Return where an archive is or goes, or raise a `ConfigError`: its name says otherwise."""
    if not path.name.endswith(SUFFIXES):
        raise ConfigError(f"{path}: expected a name that ends in {' or '.join(SUFFIXES)}")
    return path


def write(selection: Selection[StoredEnsemble], outputs: Path, path: Path) -> Contents:
    """Write the shards of some runs, and the analyses and reports that are about these ensembles and no others.

    Raises:
        StoreError: The disk is full, or all of it is being trained.
    """
    made, ids = Contents(), [ensemble.id for ensemble, _ in selection]
    with (
        replacing(path) as temporary,
        tarfile.open(temporary, "w:gz", compresslevel=6, format=tarfile.PAX_FORMAT) as tar,
    ):
        for ensemble, runs in selection:
            _add_ensemble(tar, made, ensemble, {run.shard for run in runs}, len(runs) == len(ensemble.runs))
        for result in _about(outputs, ids):
            _add(tar, made, result.paths.root, ("analysis", result.paths.root.name))
            made.analyses.append(result.paths.root.name)
        for report in _reports(outputs, ids):
            _add(tar, made, report, ("reports", report.name))
            made.reports.append(report.name)
        last = json.dumps({"schema_version": 1, "ensembles": ids}).encode()
        about = tarfile.TarInfo(f"{TOP}/last.json")
        about.size = len(last)
        tar.addfile(about, io.BytesIO(last))
    return made


def _add_ensemble(
    tar: tarfile.TarFile, made: Contents, ensemble: StoredEnsemble, chosen: set[ShardPaths], whole: bool
) -> None:
    place = (ensemble.task, ensemble.path.name)
    for paths in counted(ensemble.paths.shards(), "shards", ensemble.id):
        if not (whole or paths in chosen):
            continue
        if owner := lock.holder(paths.lock):
            made.left.append(
                f"{ensemble.id}/{paths.root.name} is being trained by {owner.said} and is left out"
            )
            continue
        _add(tar, made, paths.root, (*place, paths.root.name))
        made.shards += 1
    for item in sorted(ensemble.path.iterdir()):
        # The tables are of all runs; whoever reads writes them anew.
        if item.is_file() and (whole or item.suffix != ".parquet"):
            _add(tar, made, item, (*place, item.name))
    made.ensembles.append(ensemble.id)


def _add(tar: tarfile.TarFile, made: Contents, path: Path, place: tuple[str, ...]) -> None:
    """Add a file, or the files of a folder; what is hidden, of the moment or a link stays."""
    if path.name in PASSING or path.name.startswith("."):
        return
    if path.is_symlink():
        made.left.append(f"{path} is a link and is left out")
    elif path.is_dir():
        for item in sorted(path.iterdir()):
            _add(tar, made, item, (*place, item.name))
    elif path.is_file():
        info = tar.gettarinfo(path, "/".join((TOP, *place)))
        # Who made it, and with which rights, is nobody's business elsewhere.
        info.uid = info.gid = 0
        info.uname = info.gname = ""
        info.mode = 0o644
        # A hard link within the folder is a file of its own.
        info.type, info.linkname, info.size = tarfile.REGTYPE, "", path.stat().st_size
        with path.open("rb") as file:
            tar.addfile(info, file)
        made.files += 1
        made.bytes += info.size


def _about(outputs: Path, ids: Sequence[str]) -> list[Result]:
    return [result for result in results(outputs, ids) if {*result.ensembles} <= {*ids}]


def _reports(outputs: Path, ids: Sequence[str]) -> Iterator[Path]:
    """Yield the reports that name some of these ensembles and no other that is stored here."""
    paths = OutputPaths(outputs)
    known = {item.digest for item in paths.ensembles()}
    for folder in sorted(paths.reports.glob("*/")):
        with contextlib.suppress(OSError):
            named = {*_DIGEST.findall((folder / "index.html").read_text("utf-8", "replace"))} & known
            if named and named <= {*ids} and NAME.fullmatch(folder.name) and not folder.is_symlink():
                yield folder


def look(path: Path, most_bytes: float = math.inf) -> Contents:
    """Return what an archive holds; nothing is written.

    Args:
        path: The archive.
        most_bytes: What its files may take; where they are said to take more, no more of it is read.

    Raises:
        ConfigError: There is none, or it takes more.
        StoreError: It is damaged, or holds what dynalab does not put there: links, other names, places outside.
    """
    found = Contents()
    names: dict[str, set[str]] = {"analysis": set(), "reports": set()}
    ensembles: set[str] = set()
    shards: set[tuple[str, ...]] = set()
    with opened(path) as archive:
        for member, parts in archive:
            if not member.isreg():
                continue
            found.bytes += member.size
            if found.bytes > most_bytes:
                raise ConfigError(
                    f"unpack: {path} takes more than {most_bytes / 1e9:,.0f} GB; --yes opens it"
                )
            if len(parts) < 3:
                continue
            found.files += 1
            if parts[0] in names:
                names[parts[0]].add(parts[1])
            else:
                ensembles.add(parts[1].rpartition("-")[2])
                shards |= {parts[:3]} if SHARD.fullmatch(parts[2]) else set()
    found.analyses, found.reports = sorted(names["analysis"]), sorted(names["reports"])
    found.ensembles, found.shards = sorted(ensembles), len(shards)
    return found


def unpack(path: Path, outputs: Path, inside: Contents) -> Contents:
    """Take an archive that was looked through into an outputs folder; what is there already is left alone.

    Raises:
        ConfigError: There is no archive, or no room for it.
        StoreError: As `look`, or it cannot be written; what was there is as it was.
    """
    with storing(outputs):
        outputs.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(outputs).free
        if inside.bytes > free:
            raise ConfigError(
                f"{path} needs {inside.bytes / 1e6:,.0f} MB, and {outputs} has {free / 1e6:,.0f} MB free"
            )
        place = Path(tempfile.mkdtemp(prefix=".unpacked.", suffix=".tmp", dir=outputs))
    try:
        with opened(path) as archive, storing(outputs):
            for member, _ in archive:
                if member.isreg():
                    archive.extract(member, place)
        return _take_in(OutputPaths(place / TOP), OutputPaths(outputs), inside)
    finally:
        discard(place)


def _take_in(made: OutputPaths, outputs: OutputPaths, inside: Contents) -> Contents:
    taken = Contents(files=inside.files, bytes=inside.bytes)
    known = {paths.digest: paths for paths in outputs.ensembles()}
    for paths in made.ensembles():
        there = known.get(paths.digest) or outputs.ensemble(paths.task, paths.root.name[:-11], paths.digest)
        _take_ensemble(paths, there, taken)
    for kind, folders, names in (
        ("analysis", made.analyses, taken.analyses),
        ("report", made.reports, taken.reports),
    ):
        target = outputs.analyses if kind == "analysis" else outputs.reports
        refuse_links(target)
        for folder in sorted(folders.glob("*/")):
            if os.path.lexists(target / folder.name):
                taken.left.append(f"{kind} {folder.name} is there already")
                continue
            with storing(target):
                target.mkdir(parents=True, exist_ok=True)
                os.rename(folder, target / folder.name)
            names.append(folder.name)
    return taken


def _take_ensemble(paths: EnsemblePaths, there: EnsemblePaths, taken: Contents) -> None:
    there.refuse_links()
    if not os.path.lexists(there.root):
        taken.shards += len(paths.shards())
        with storing(there.root):
            there.root.parent.mkdir(parents=True, exist_ok=True)
            os.rename(paths.root, there.root)
        taken.ensembles.append(there.digest)
        return
    left, before = [], taken.shards
    with Lock(there.lock, wait=10.0), storing(there.root):
        for text in inside(paths.root, TEXT):
            if not os.path.lexists(there.root / text.name):
                os.rename(text, there.root / text.name)
        for shard in paths.shards():
            target = there.shard(shard.root.name)
            if os.path.lexists(target.root):
                left.append(shard.root.name)
                continue
            os.rename(shard.root, target.root)
            taken.shards += 1
    if left:
        taken.left.append(
            f"{there.digest}: {listed(left, 3)} {'is' if len(left) == 1 else 'are'} there already"
        )
    if taken.shards > before:
        taken.ensembles.append(there.digest)
