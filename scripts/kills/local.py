"""`launcher=local`: a command with its worker processes, all in a process group of their own."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from kills.base import plan


class Local:
    """Starts commands here."""

    name = "local"
    victims = ("worker", "parent", "group")

    def start(self, words: tuple[str, ...], outputs: Path, rng: random.Random) -> Group:
        """Start a command with a plan drawn at random."""
        return Group([*words, *plan(rng, [1, 2, 4]), "--outputs", str(outputs)])


class Group:
    """A process group."""

    def __init__(self, words: list[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dynalab", *words, "-q"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )

    def strike(self, victim: str, rng: random.Random) -> bool:
        """Send SIGKILL to a worker, to the command alone, or to the group."""
        if self._process.poll() is not None:
            return False
        if victim == "group":
            os.killpg(self._process.pid, signal.SIGKILL)
            return True
        if victim == "parent":
            self._process.kill()
            return True
        workers = [pid for pid in self._members() if pid != self._process.pid]
        if not workers:
            return False
        try:
            os.kill(rng.choice(workers), signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def over(self) -> bool:
        """Return whether no process of the group is left."""
        return self._process.poll() is not None and not self._members()

    def wait(self) -> int:
        """Wait for the command; its workers may outlive it by a moment."""
        # What orphans say still goes into the pipe, which is not read to its end for that.
        return self._process.wait(timeout=300)

    def said(self) -> str:
        """Return what a command that ended by itself had to say."""
        assert self._process.stderr is not None
        return self._process.stderr.read()

    def settle(self) -> None:
        """Wait until orphaned workers have saved and ended."""
        deadline = time.monotonic() + 60
        while not self.over():
            if time.monotonic() > deadline:
                raise RuntimeError("workers outlived their command by a minute")
            time.sleep(0.02)

    def _members(self) -> list[int]:
        """Return the living processes of the group."""
        found = []
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit():
                continue
            try:
                state, _, group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            except (OSError, ValueError):
                continue
            if int(group) == self._process.pid and state not in "ZX":
                found.append(int(folder.name))
        return found
