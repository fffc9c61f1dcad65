"""What `dynalab doctor` looks at: whether this machine, its folders and its launchers do what training relies on."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from dynalab.config import compiling
from dynalab.core import machine
from dynalab.core.atomic import sync, sync_path
from dynalab.core.errors import DynalabError
from dynalab.core.version import __version__
from dynalab.core.words import count, listed
from dynalab.store import commands, lock, runfile
from dynalab.store.paths import OutputPaths
from dynalab.training.planner import HOLD, RUN_BY_RUN
from dynalab.training.provenance import cpu_type

OK, WARNING, FAILED = "ok", "warning", "failed"
_TRIED = ("task=grokking", "task.modulus=11", "model.width=16")
# Of these file systems locks and syncs are known to be slow or late; exclusive creation holds on all.
_REMOTE = (
    "nfs",
    "nfs4",
    "lustre",
    "cifs",
    "smb3",
    "fuse.sshfs",
    "9p",
    "gpfs",
    "beegfs",
    "ceph",
    "fuse.glusterfs",
)
_SLOW_SECONDS, _SKEW_SECONDS = 0.2, 2.0
_LITTLE_BYTES = 2e9


@dataclass(frozen=True)
class Check:
    """What was looked at, its state (`ok`, `warning` or `failed`), and what was found, in a line."""

    what: str
    state: str
    finding: str


def checks(outputs: Path) -> Iterator[Check]:
    """Look at everything, the quick things first; a check that breaks has failed, and the others go on."""
    looks: list[tuple[str, Callable[[], Check]]] = [
        ("installation", _installation),
        ("extras", _extras),
        ("processor", _processor),
        ("memory", _memory),
        ("threads", _threads),
        ("compiler", _compiler),
        ("quotas", _quotas),
        ("outputs", lambda: _folder(outputs)),
        ("locks", lambda: _locks(outputs)),
        ("clock", lambda: _clock(outputs)),
        ("runs", lambda: _runs(outputs)),
        ("slurm", _slurm),
        ("launcher", _launcher),
        ("bits", _bits),
    ]
    for what, look in looks:
        try:
            yield look()
        except (DynalabError, OSError, ValueError, RuntimeError, ImportError) as error:
            yield Check(what, FAILED, f"{type(error).__name__}: {error}".splitlines()[0])


def _installation() -> Check:
    needed = [
        re.split(r"[^\w.-]", line, maxsplit=1)[0]
        for line in metadata.requires("dynalab") or ()
        if "extra ==" not in line
    ]
    missing = [name for name in needed if _version(name) is None]
    shown = ", ".join(f"{name} {_version(name)}" for name in ("torch", "numpy", "hydra-core", "hmmlearn"))
    python = platform.python_version()
    if missing:
        return Check("installation", FAILED, f"missing: {listed(missing)}; pip install dynalab")
    if not (3, 11) <= sys.version_info[:2] < (3, 14):
        return Check("installation", FAILED, f"Python {python}; dynalab needs 3.11, 3.12 or 3.13")
    return Check("installation", OK, f"dynalab {__version__}, Python {python}, {shown}")


def _version(name: str) -> str | None:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    return None


def _extras() -> Check:
    names = sorted(
        re.split(r"[^\w.-]", line, maxsplit=1)[0]
        for line in metadata.requires("dynalab") or ()
        if "extra ==" in line
    )
    words = [
        f"{name} {found}" if (found := _version(name)) else f"no {name}" for name in dict.fromkeys(names)
    ]
    return Check("extras", OK, ", ".join(words) or "none")


def _processor() -> Check:
    cards = machine.cards()
    found = f"; {listed(cards)}, driver {machine.driver() or 'unknown'}" if cards else "; no NVIDIA card"
    return Check("processor", OK, f"{cpu_type()}, {count(machine.cores(), 'core')} to be used{found}")


def _memory() -> Check:
    free = machine.free_memory()
    if free is None:
        return Check("memory", OK, "what is free cannot be told here")
    state = WARNING if free < _LITTLE_BYTES else OK
    return Check("memory", state, f"{free / 1e9:.1f} GB free")


def _threads() -> Check:
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", *machine.VARIABLES)
    chosen = [f"{name}={os.environ[name]}" for name in names if name in os.environ]
    whole = os.cpu_count() or 1
    cores = machine.cores()
    share = "" if cores >= whole else f" of {whole}, by affinity or a quota"
    return Check(
        "threads", OK, f"one a worker on {count(cores, 'core')}{share}; set: {listed(chosen) or 'nothing'}"
    )


def _compiler() -> Check:
    command = compiling.compiler()
    if command is None:
        return Check("compiler", OK, "no C++ compiler: updates, rows and hmm take longer")
    return Check("compiler", OK, f"{command[0]}, for updates, rows and hmm")


def _quotas() -> Check:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    processes, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    size, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    words = [
        f"{count(files, 'open file')}" if files != resource.RLIM_INFINITY else "open files without limit"
    ]
    words += [f"{count(processes, 'process', 'processes')}"] if processes != resource.RLIM_INFINITY else []
    words += [f"files of {size / 1e6:,.0f} MB at most"] if size != resource.RLIM_INFINITY else []
    state = WARNING if 0 <= files < 256 or size != resource.RLIM_INFINITY else OK
    return Check("quotas", state, ", ".join(words))


def _there(outputs: Path) -> Path:
    """Return the folder where files can be tried: the outputs folder, or what it will be made in."""
    return next(path for path in (outputs, *outputs.parents) if path.is_dir())


def _folder(outputs: Path) -> Check:
    place = _there(outputs)
    path = place / f".doctor.{os.urandom(6).hex()}.tmp"
    began = time.perf_counter()
    try:
        with path.open("wb") as file:
            file.write(b"x" * 1_000_000)
            file.flush()
            sync(file.fileno())
        os.replace(path, path.with_suffix(".moved.tmp"))
        sync_path(place)
    finally:
        for left in (path, path.with_suffix(".moved.tmp")):
            left.unlink(missing_ok=True)
    seconds = time.perf_counter() - began
    kind, usage = _file_system(place), shutil.disk_usage(place)
    new = "" if place == outputs else ", to be made"
    finding = (
        f"{outputs}{new}: {kind}, {usage.free / 1e9:,.1f} GB free, 1 MB written and synced in {seconds:.3f} s"
    )
    little, slow = usage.free < _LITTLE_BYTES, seconds > _SLOW_SECONDS
    finding += "; little room" if little else ""
    finding += "; slow: checkpoint.every= makes checkpoints rarer" if slow else ""
    return Check("outputs", WARNING if little or slow else OK, finding)


def _file_system(place: Path) -> str:
    """Return the type of the file system of a folder."""
    best = ("", "unknown file system")
    with contextlib.suppress(OSError):
        for line in Path("/proc/mounts").read_text().splitlines():
            mount, kind = (part.replace("\\040", " ") for part in line.split(" ")[1:3])
            if place.resolve().is_relative_to(mount) and len(mount) >= len(best[0]):
                best = (mount, kind)
    return f"{best[1]} (shared)" if best[1] in _REMOTE else best[1]


def _locks(outputs: Path) -> Check:
    place = _there(outputs) / f".doctor.{os.urandom(6).hex()}.lock"
    with lock.Lock(place, beats=False) as held:
        try:
            os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            return Check(
                "locks", FAILED, f"{place.parent}: two processes can make the same file; no lock holds here"
            )
        except FileExistsError:
            pass
        if not held.mine():
            return Check("locks", FAILED, f"{place.parent}: a lock that was just made cannot be read back")
    return Check("locks", OK, "exclusive creation holds; who owns a lock can be told")


def _clock(outputs: Path) -> Check:
    path = _there(outputs) / f".doctor.{os.urandom(6).hex()}.tmp"
    try:
        before = time.time()
        path.write_bytes(b"x")
        skew = path.stat().st_mtime - before
    finally:
        path.unlink(missing_ok=True)
    if abs(skew) > _SKEW_SECONDS:
        return Check(
            "clock", WARNING, f"the file server's clock is {skew:+.0f} s off ours; times of runs will be, too"
        )
    return Check("clock", OK, "that of the file system is ours")


def _runs(outputs: Path) -> Check:
    paths = OutputPaths(outputs)
    states: dict[str, int] = {}
    damaged = 0
    for shard in (shard for item in paths.ensembles() for shard in item.shards()):
        try:
            for run in runfile.read(shard).runs:
                states[run.status] = states.get(run.status, 0) + 1
        except DynalabError:
            damaged += 1
    n_commands = len(commands.living(paths))
    words = [f"{n:,} {name}" for name, n in sorted(states.items(), key=lambda item: -item[1])]
    words += [f"{count(damaged, 'shard')} damaged"] if damaged else []
    words += [f"{count(n_commands, 'command')} training"] if n_commands else []
    bad = damaged or states.get("crashed") or states.get("failed")
    more = "; the same command goes on with crashed and failed ones" if bad and not damaged else ""
    return Check("runs", WARNING if bad else OK, (", ".join(words) or "none stored") + more)


def _slurm() -> Check:
    if shutil.which("sbatch") is None:
        return Check("slurm", OK, "no sbatch here")
    return Check("slurm", OK, "sbatch is here; `dynalab train ... launcher=slurm` submits a job a shard")


def _launcher() -> Check:
    from dynalab.launch.base import launcher

    began = time.perf_counter()
    pool = launcher("local")(1, 1)
    try:
        device = pool.device("auto")
    finally:
        pool.close()
    return Check(
        "launcher", OK, f"a worker starts in {time.perf_counter() - began:.1f} s and trains on {device}"
    )


def _bits() -> Check:
    from dynalab.config.command import read_command
    from dynalab.launch.base import launcher

    (request,) = read_command([*_TRIED, "seed=0"]).requests
    pool = launcher("local")(1, 1)
    try:
        pool.device("cpu")
        answer = pool.trial("exactness", config=request.config.as_dict(), width=4, run_steps=1e6) or {}
    finally:
        pool.close()
    match answer.get("found"):
        case found if found == HOLD:
            return Check(
                "bits",
                OK,
                "a seed's bits are its own here, whatever is trained beside it (tried on grokking)",
            )
        case found if found == RUN_BY_RUN:
            return Check(
                "bits",
                WARNING,
                "bits hold only where seeds are trained one by one; training does so by itself",
            )
        case None:
            return Check("bits", WARNING, f"could not be tried: {answer.get('message', 'it took too long')}")
    return Check("bits", WARNING, "bits depend on where in memory numbers lie; MKL_CBWR=COMPATIBLE may help")
