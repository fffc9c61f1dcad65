"""Workers as forks of one process that has imported torch: they begin at once and share what it has in memory.

A worker that imports by itself takes seconds of a processor and a quarter of a gigabyte. The server has one thread and
never asks for a card, so that its forks are as good as processes of their own. Where the system is not Linux, whose
libraries do not all bear a fork, they are that.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from typing import IO

from dynalab.launch.process import Process, python, spawn, worker_environment


class Forked:
    """A worker that a server forked, as a `subprocess.Popen` of it would be: pipes to it, its end, its exit code."""

    def __init__(self, stdin: IO[str], stdout: IO[str], stderr: IO[str]) -> None:
        self.stdin: IO[str] | None = stdin
        self.stdout: IO[str] | None = stdout
        self.stderr: IO[str] | None = stderr
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._pid: int | None = None
        self._code: int | None = None
        self._killed = False

    def began(self, pid: int) -> None:
        """Note its number; one that was to be killed before is killed now."""
        with self._lock:
            self._pid = pid
        if self._killed:
            self.kill()

    def ended(self, code: int) -> None:
        """Note its exit code, negative for the number of a signal."""
        with self._lock:
            self._code = code
        self._ended.set()

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit code once it has ended.

        Raises:
            subprocess.TimeoutExpired: It takes longer than so many seconds.
        """
        if not self._ended.wait(timeout):
            raise subprocess.TimeoutExpired("worker", timeout or 0.0)
        assert self._code is not None
        return self._code

    def kill(self) -> None:
        """End it at once."""
        self._killed = True
        with self._lock, contextlib.suppress(ProcessLookupError):
            # Its number is another's, perhaps, once it has ended.
            if self._pid is not None and self._code is None:
                os.kill(self._pid, signal.SIGKILL)


class ForkServer:
    """The process that workers for so many threads are forked from, which begins to import at once."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._process: subprocess.Popen[bytes] | None = None
        self._asked: collections.deque[Forked] = collections.deque()
        self._living: dict[int, Forked] = {}
        if sys.platform != "linux":
            return
        self._socket, theirs = socket.socketpair()
        with theirs:
            # What it has to say of itself its forks say again; in the command's own process group, as they are.
            self._process = subprocess.Popen(
                [*python("dynalab.worker"), "forks"],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=worker_environment(threads),
            )
        self._follower = threading.Thread(target=self._follow, args=(self._process,), daemon=True)
        self._follower.start()

    def serves(self, threads: int) -> bool:
        """Return whether it lives, and forks workers for so many threads."""
        return self._threads == threads and (self._process is None or self._process.poll() is None)

    def worker(self) -> Process:
        """Start a worker."""
        if self._process is None:
            return spawn(self._threads)
        (input_read, input_write), (output_read, output_write), (said_read, said_write) = (
            os.pipe() for _ in range(3)
        )
        forked = Forked(os.fdopen(input_write, "w"), os.fdopen(output_read), os.fdopen(said_read))
        self._asked.append(forked)
        theirs = [input_read, output_write, said_write]
        try:
            socket.send_fds(self._socket, [b"\n"], theirs)
        except OSError:
            forked.ended(self._process.wait())
        for descriptor in theirs:
            os.close(descriptor)
        return forked

    def _follow(self, process: subprocess.Popen[bytes]) -> None:
        """Read which workers began, in the order in which they were asked for, and which ended."""
        with self._socket, self._socket.makefile() as lines, contextlib.suppress(OSError):
            for line in lines:
                pid, code = json.loads(line)
                if code is None:
                    self._living[pid] = self._asked.popleft()
                    self._living[pid].began(pid)
                else:
                    (self._asked.popleft() if pid is None else self._living.pop(pid)).ended(code)
        # Those that live still end as well, for they have lost their parent.
        code = process.wait()
        for forked in (*self._asked, *self._living.values()):
            forked.ended(code)

    def close(self) -> None:
        """Let it end; workers that have not ended save and end."""
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._process.kill()
            self._follower.join()
