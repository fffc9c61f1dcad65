"""Jobs of a scheduler that train shards of an outputs folder: what was submitted, and what the queue says of it.

A submission is one array of jobs. Its name is random and written down, with its shards, before it is submitted, so that
what is in the queue can be told whatever becomes of the command that submitted it. What is written down only names
shards: whether a job lives is Slurm's to say.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dynalab.core.atomic import storing, write_json
from dynalab.core.errors import ConfigError, RunsFailed, StoreError
from dynalab.store import runfile
from dynalab.store.names import inside, is_shard, refuse_links
from dynalab.store.paths import OutputPaths, ShardPaths
from dynalab.store.read import check, read_json

NAME = re.compile(r"dynalab-[0-9a-f]{12}")
SECONDS = 30.0
# What a display may know of the queue is so old.
_KEPT_SECONDS = 5.0
# No state of Slurm's: sbatch took it a moment ago.
SUBMITTED = "SUBMITTED"
_WAITS = (
    "PENDING",
    "CONFIGURING",
    "REQUEUED",
    "REQUEUE_HOLD",
    "REQUEUE_FED",
    "SPECIAL_EXIT",
    "RESV_DEL_HOLD",
)


def fresh_name() -> str:
    """Return a name for an array of jobs that no other has."""
    return f"dynalab-{secrets.token_hex(6)}"


@dataclass(frozen=True)
class Submission:
    """One array of jobs; task i trains `shards[i]`."""

    outputs: OutputPaths
    name: str
    shards: tuple[ShardPaths, ...]

    @classmethod
    def new(cls, outputs: OutputPaths, shards: Sequence[ShardPaths]) -> Submission:
        """Name a submission and write it down.

        Raises:
            StoreError: It cannot be written.
        """
        made = cls(outputs, fresh_name(), tuple(shards))
        refuse_links(outputs.jobs)
        with storing(outputs.jobs):
            outputs.jobs.mkdir(parents=True, exist_ok=True)
        names = [str(paths.root.relative_to(outputs.root)) for paths in shards]
        write_json(made.place.with_suffix(".json"), {"schema_version": 1, "shards": names})
        return made

    @property
    def place(self) -> Path:
        """Its file, without an ending."""
        return self.outputs.jobs / self.name

    def log(self, index: int) -> Path:
        """Return what a job printed."""
        return self.outputs.jobs / f"{self.name}-{index}.txt"

    def forget(self) -> None:
        """Take back what was written down, as of a submission that was refused."""
        with contextlib.suppress(OSError):
            self.place.with_suffix(".json").unlink(missing_ok=True)


@dataclass(frozen=True)
class Task:
    """What is known of one job: its id, `17_3`, its state in Slurm's words, and why it waits."""

    job: str
    state: str = SUBMITTED
    reason: str = ""

    @property
    def array(self) -> Task:
        """The same of its whole array: of all tasks of which the same is known."""
        return replace(self, job=self.job.partition("_")[0])

    @property
    def waits(self) -> bool:
        """Whether it has not begun, or is to begin again."""
        return self.state in _WAITS

    @property
    def standing(self) -> str:
        """`submitted` by this command, else `queued` or `running`."""
        return "submitted" if self.state == SUBMITTED else "queued" if self.waits else "running"

    @property
    def said(self) -> str:
        """How a user reads it."""
        why = f" ({self.reason})" if self.waits and self.reason not in ("", "None") else ""
        return f"{self.standing} as job {self.job}{why}"


def submissions(outputs: OutputPaths) -> list[Submission]:
    """Return what was submitted of an outputs folder; files that are no submission of dynalab's are left out."""
    found = []
    for path in inside(outputs.jobs, NAME, ".json") if not outputs.jobs.is_symlink() else ():
        with contextlib.suppress(StoreError, ValueError, LookupError, TypeError):
            about = read_json(path)
            check(about, {"shards": [is_shard]})
            shards = tuple(ShardPaths(outputs.root / name) for name in about["shards"])
            found.append(Submission(outputs, path.stem, shards))
    return found


def ask(several: Sequence[Submission]) -> dict[tuple[str, int], Task]:
    """Return (submission, index) -> what the queue says of that job; those that ended are not among them.

    Raises:
        ConfigError: There is no squeue.
        RunsFailed: It does not answer.
    """
    found: dict[tuple[str, int], Task] = {}
    # A hundred names are a few kilobytes of a command line.
    for first in range(0, len(several), 100):
        names = ",".join(item.name for item in several[first : first + 100])
        form = "--format=%j|%F|%K|%T|%r"
        for line in slurm("squeue", "--noheader", "--array", f"--name={names}", form).splitlines():
            name, job, index, state, reason = [part.strip() for part in line.split("|", 4)]
            if index.isdigit():
                found[name, int(index)] = Task(f"{job}_{index}", state, reason)
    return found


def under_way(outputs: OutputPaths) -> dict[ShardPaths, Task]:
    """Return shard -> the job that trains it or waits for it.

    Raises:
        ConfigError: There is no squeue.
        RunsFailed: It does not answer.
    """
    several = submissions(outputs)
    tasks = ask(several)
    return {
        shard: tasks[item.name, index]
        for item in several
        for index, shard in enumerate(item.shards)
        if (item.name, index) in tasks
    }


@dataclass
class _Glance:
    """What was known a moment ago."""

    time: float = -1e9
    found: dict[ShardPaths, Task] = field(default_factory=dict)


_glances: dict[Path, _Glance] = {}


def glance(outputs: OutputPaths) -> dict[ShardPaths, Task]:
    """Return `under_way`, a few seconds old at most, for who only looks; nothing where there is no Slurm to ask."""
    seen = _glances.setdefault(outputs.root, _Glance())
    if time.monotonic() - seen.time > _KEPT_SECONDS:
        try:
            found = under_way(outputs) if outputs.jobs.is_dir() else {}
        except (ConfigError, RunsFailed):
            found = {}
        seen.found, seen.time = found, time.monotonic()
    return seen.found


def sweep(outputs: OutputPaths) -> None:
    """Remove what was written down of submissions all of whose shards are done, and what their jobs printed."""
    for item in submissions(outputs):
        if all(map(_ended, item.shards)):
            item.forget()
            for index in range(len(item.shards)):
                with contextlib.suppress(OSError):
                    item.log(index).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        outputs.jobs.rmdir()


def _ended(shard: ShardPaths) -> bool:
    try:
        return not shard.root.exists() or runfile.read(shard).status in runfile.FINAL
    except StoreError:
        return False


def slurm(command: str, *words: str, given: str | None = None) -> str:
    """Return what a command of Slurm's prints.

    Args:
        command: `sbatch`, `squeue`, `scancel`.
        words: Its words.
        given: What it reads.

    Raises:
        ConfigError: There is no such command.
        RunsFailed: It fails, or does not answer.
    """
    try:
        done = subprocess.run(
            [command, *words],
            input=given,
            stdin=subprocess.DEVNULL if given is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
        )
    except FileNotFoundError as error:
        raise ConfigError(
            f"launcher=slurm: there is no {command} here; run it where jobs are submitted"
        ) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RunsFailed(
            f"launcher=slurm: {command} does not answer ({error}); nothing is submitted"
        ) from error
    if done.returncode:
        line = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        down = command == "squeue" or "contact" in line or "onnect" in line
        kind, what = (RunsFailed, "does not answer") if down else (ConfigError, "refuses")
        raise kind(f"launcher=slurm: {command} {what}: {line}; nothing is submitted")
    return done.stdout
