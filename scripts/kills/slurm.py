"""`launcher=slurm`: a command that waits for its jobs, and what befalls these; `scripts/slurm start` first."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from dynalab.core.errors import RunsFailed
from dynalab.store import jobs
from dynalab.store.paths import OutputPaths
from kills.base import plan
from kills.local import Group

# A test cancels what is in the queue, a trial stops the node's daemon: trials and tests are not run at once.
ALONE = "/tmp/dynalab-slurm-tests.lock"
_SCRIPT = Path(__file__).resolve().parents[1] / "slurm"
_MOST_SECONDS = 300.0
_Victim = TypeVar("_Victim")


class Slurm:
    """Starts commands that submit jobs and wait for them.

    `cancel` is `scancel` of a job, `node` a stop of the node's daemon for some seconds, `limit` a time limit,
    `worker` and `term` are SIGKILL and SIGTERM to a worker, `parent` SIGKILL to the command that waits.
    """

    name = "slurm"
    victims = ("cancel", "node", "limit", "worker", "term", "parent")

    def __init__(self) -> None:
        self._alone: int | None = None

    def start(self, words: tuple[str, ...], outputs: Path, rng: random.Random) -> Jobs:
        """Start a command with a plan drawn at random; every job has the shortest time limit that there is."""
        if self._alone is None:
            self._alone = os.open(ALONE, os.O_CREAT | os.O_RDWR)
            fcntl.flock(self._alone, fcntl.LOCK_SH)
        own = ("launcher=slurm", "launcher.wait=true", "launcher.time=1", "launcher.warn=15")
        # Most of a job's time is its start.
        return Jobs([*words, *plan(rng, [2, 4]), *own, "--outputs", str(outputs)], outputs)


class Jobs(Group):
    """A command and the jobs of its outputs folder."""

    def __init__(self, words: list[str], outputs: Path) -> None:
        super().__init__(words)
        self._outputs = outputs

    def strike(self, victim: str, rng: random.Random) -> bool:
        """Do it to a job or worker drawn at random, once there is one; a time limit is waited for."""
        if victim == "parent":
            return super().strike(victim, rng)
        if victim == "node":
            return not self.over() and _stop_node(rng.uniform(0, 4))
        if victim == "cancel":
            job = self._drawn(lambda: [task.job for task in self._queue() if task.job], rng)
            return job is not None and not subprocess.run(["scancel", job], timeout=30).returncode
        worker = self._drawn(self._workers, rng)
        if worker is None:
            return False
        try:
            if victim == "limit":
                return _until_limit(worker)
            os.kill(worker, signal.SIGKILL if victim == "worker" else signal.SIGTERM)
        except (ProcessLookupError, FileNotFoundError):
            return False
        return True

    def over(self) -> bool:
        """Return whether the command has ended and no job is left."""
        return super().over() and not self._queue() and not self._workers()

    def wait(self) -> int:
        """Wait for the command, which waits for its jobs."""
        self._until(lambda: self._process.poll() is not None, "the command")
        return self._process.wait()

    def settle(self) -> None:
        """Wait until no job is left."""
        self._until(self.over, "jobs")

    def _until(self, ended: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _MOST_SECONDS
        while not ended():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{what} took more than {_MOST_SECONDS:.0f} s")
            time.sleep(0.5)
            for task in self._queue():
                # Slurm has a job that was put in the queue again wait for two minutes.
                if task.reason == "BeginTime":
                    words = ["scontrol", "update", f"jobid={task.job}", "starttime=now"]
                    subprocess.run(words, capture_output=True, timeout=30)

    def _drawn(self, victims: Callable[[], list[_Victim]], rng: random.Random) -> _Victim | None:
        while not (there := victims()):
            if self.over():
                return None
            time.sleep(0.05)
        return rng.choice(there)

    def _queue(self) -> list[jobs.Task]:
        with contextlib.suppress(RunsFailed):
            return list(jobs.under_way(OutputPaths(self._outputs)).values())
        # It does not answer: something may be there.
        return [jobs.Task("", "UNKNOWN")]

    def _workers(self) -> list[int]:
        """Return the processes that train a shard of the folder."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = path.read_bytes().split(b"\0")
                if b"--shard" in words and any(os.fsencode(f"{self._outputs}/") in word for word in words):
                    found.append(int(path.parent.name))
        return sorted(found)


def _until_limit(worker: int) -> bool:
    """Hold a worker where it is until the warning ahead of its time limit has come, which it then finds.

    A training of seconds would otherwise be over long before; Slurm looks at its clocks twice a minute.
    """
    os.kill(worker, signal.SIGSTOP)
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            status = (Path("/proc") / str(worker) / "status").read_text()
            pending = int(status.partition("ShdPnd:")[2].split()[0], 16)
            if pending & 1 << signal.SIGTERM - 1:
                return True
            time.sleep(0.05)
    finally:
        os.kill(worker, signal.SIGCONT)
    raise RuntimeError("no warning came within 120 s of a time limit of 60 s")


def _stop_node(seconds: float) -> bool:
    """Stop the node's daemon for a while; jobs outlive it. False where another trial has stopped it."""
    try:
        pid = int(_pid_file().read_text())
        os.kill(pid, signal.SIGTERM)
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return False
    try:
        time.sleep(seconds)
        while Path(f"/proc/{pid}").exists():
            time.sleep(0.05)
    finally:
        subprocess.run(["bash", str(_SCRIPT), "start"], check=True, capture_output=True, timeout=60)
    return True


def _pid_file() -> Path:
    done = subprocess.run(
        ["scontrol", "show", "config"], capture_output=True, text=True, check=True, timeout=30
    )
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("SlurmdPidFile"))
    return Path(line.partition("=")[2].strip())
