"""What workers are forked from: how they begin, what becomes of them, and of those that cannot."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dynalab.launch import forkserver
from dynalab.launch.forkserver import Forked, ForkServer
from dynalab.launch.process import Process

# Instead of imports that take seconds; workers wait before they do anything.
WAITING = "import signal\nfaulthandler.enable = lambda **_: signal.pause()"
SEEDED = "import json, numpy\nfaulthandler.enable = lambda **_: os.write(2, json.dumps(numpy.random.rand()).encode())"
NO_FORK = "def refuse(): raise OSError(11, 'no more processes')\nos.fork = refuse"
Begin = Callable[[str], ForkServer]


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Begin]:
    """Start a server that imports nothing slow, after some code; ended behind the test."""
    made: list[ForkServer] = []

    def start(code: str) -> ForkServer:
        head = "import faulthandler, os, runpy, sys\nsys.modules['torch'] = None"
        lines = f"{head}\n{code}\nrunpy.run_module('dynalab.worker', run_name='__main__')"
        monkeypatch.setattr(forkserver, "python", lambda module: [sys.executable, "-c", lines])
        made.append(ForkServer(1))
        return made[-1]

    yield start
    for server in made:
        server.close()


def begun(worker: Process) -> int:
    """Wait until it has its number, which is returned."""
    assert isinstance(worker, Forked)
    while worker._pid is None:
        os.sched_yield()
    return worker._pid


def close(*workers: Process) -> None:
    for worker in workers:
        worker.kill()
        for stream in (worker.stdin, worker.stdout, worker.stderr):
            assert stream is not None
            stream.close()


def test_workers_are_forks_of_one_process_and_their_ends_are_known(begin):
    server = begin(WAITING)
    first, second, third = (server.worker() for _ in range(3))
    parents = {
        Path(f"/proc/{begun(worker)}/stat").read_text().rpartition(")")[2].split()[1]
        for worker in (first, second)
    }
    assert len(parents) == 1 and parents != {str(os.getpid())}
    first.kill()
    assert first.wait() == -signal.SIGKILL
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(timeout=0.01)
    os.kill(begun(third), signal.SIGUSR1)
    assert third.wait() == -signal.SIGUSR1 and server.serves(1) and not server.serves(2)
    # Neither reads what is another's: the end of one's pipes is seen at once.
    assert first.stdout.read() == third.stdout.read() == ""
    close(first, second, third)


def test_one_that_is_killed_before_it_begins_ends(begin):
    server = begin(WAITING)
    os.kill(server._process.pid, signal.SIGSTOP)
    worker = server.worker()
    worker.kill()
    os.kill(server._process.pid, signal.SIGCONT)
    assert worker.wait() == -signal.SIGKILL
    close(worker)


@pytest.mark.parametrize(("code", "said"), [("", "torch"), (NO_FORK, "no more processes")])
def test_one_that_cannot_begin_says_why_and_the_server_goes_on(begin, code, said):
    server = begin(code)
    for _ in range(2):
        worker = server.worker()
        assert said in worker.stderr.read() and worker.wait() == 1
        close(worker)
    assert server.serves(1)


def test_workers_of_a_server_that_died_have_ended(begin):
    server = begin(WAITING)
    worker = server.worker()
    number = begun(worker)
    os.kill(server._process.pid, signal.SIGKILL)
    assert worker.wait() == -signal.SIGKILL and not server.serves(1)
    late = server.worker()
    assert late.wait() == -signal.SIGKILL and late.stdout.read() == ""
    os.kill(number, signal.SIGKILL)
    close(worker, late)


def test_workers_draw_apart(begin):
    server = begin(SEEDED)
    workers = [server.worker() for _ in range(3)]
    drawn = {json.loads(worker.stderr.readline().partition("Traceback")[0]) for worker in workers}
    assert len(drawn) == 3
    close(*workers)


def test_where_forks_are_not_to_be_trusted_workers_are_processes(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(forkserver, "spawn", lambda threads: ("spawned", threads))
    server = ForkServer(3)
    assert server.worker() == ("spawned", 3) and server.serves(3) and not server.serves(1)
    server.close()
