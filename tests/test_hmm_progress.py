"""How far the fits are: told in this process by any number of workers, drawn on a terminal, and nowhere else."""

import contextlib
import os
import pty
import subprocess
import sys

import pytest

from dynalab.analysis.hmm import workers
from dynalab.cli import progress
from dynalab.core.progress import counted, telling

DRAW = """
from dynalab.analysis.hmm import workers
from dynalab.cli.progress import pieces
with pieces("hmm"):
    workers.spread(abs, [-1, -2, -3], [0, 0, 0], 1)
"""


def test_every_fit_is_told_and_nothing_changes():
    tasks = [-3, 1, -2]
    plain = workers.spread(abs, tasks, [1, 3, 2], 1)
    told = []
    with telling(lambda *what: told.append(what)):
        assert workers.spread(abs, tasks, [1, 3, 2], 1) == plain == [3, 1, 2]
    assert told == [("builtins", done, 3) for done in range(4)]
    workers.spread(abs, tasks, [1, 3, 2], 1)
    assert len(told) == 4, "the block is over"


def test_things_are_told_as_they_come():
    told = []
    with telling(lambda *what: told.append(what)):
        assert list(counted("ab", "rows", "run 1 of 2")) == ["a", "b"]
    assert told == [("run 1 of 2", done, 2, "rows") for done in range(3)]
    assert list(counted("ab", "rows")) == ["a", "b"] and len(told) == 3


def test_over_processes():
    told = []
    with telling(lambda *what: told.append(what)):
        assert workers.spread(abs, [-3, 1, -2, 5], [1, 4, 2, 3], 2) == [3, 1, 2, 5]
    assert told == [("builtins", done, 4) for done in range(5)]


def test_silent_without_a_terminal(capfd: pytest.CaptureFixture[str]):
    with progress.pieces("hmm"):
        workers.spread(abs, [-1, -2], [0, 0], 1)
    assert capfd.readouterr() == ("", "")


def test_a_line_on_a_terminal():
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "CI": "", "COLUMNS": "80"}
    done = subprocess.run(
        [sys.executable, "-c", DRAW], stdout=subprocess.PIPE, stderr=theirs, env=environment, check=True
    )
    os.close(theirs)
    drawn = ""
    # A slow machine draws it more often than is read at once; an error is the end.
    with contextlib.suppress(OSError):
        while part := os.read(ours, 65536):
            drawn += part.decode()
    os.close(ours)
    assert done.stdout == b"" and "3/3" in drawn and "hmm: builtins" in drawn and "fits" in drawn


def test_every_part_has_words():
    from dynalab.analysis.hmm import baselines, paper, selection, stability, tasks

    for module in (baselines, paper, selection, stability, tasks):
        assert module.__name__.rpartition(".")[2] in progress.PARTS
