"""The worker that begins while the command is read: taken once, for its number of threads, else ended."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from dynalab.launch import ahead


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[str]]:
    """Processes that were started as workers, which wait for the end of their input."""
    made: list[subprocess.Popen[str]] = []

    def spawn(threads: int) -> subprocess.Popen[str]:
        code = [sys.executable, "-S", "-c", "input()"]
        made.append(subprocess.Popen(code, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return made[-1]

    monkeypatch.setattr(ahead, "spawn", spawn)
    return made


def test_what_was_begun_is_taken_by_the_first(started):
    with ahead.beginning():
        assert ahead.worker(1) is started[0] and len(started) == 1
        assert ahead.worker(1) is started[1]
    assert [process.poll() for process in started] == [None, None]
    for process in started:
        with process:
            process.kill()


@pytest.mark.parametrize("threads", [None, 2])
def test_what_nobody_takes_is_ended(started, threads):
    with pytest.raises(KeyboardInterrupt), ahead.beginning():
        if threads:
            with ahead.worker(threads) as other:
                assert other is not started[0] and started[0].poll() == -9
                other.kill()
        raise KeyboardInterrupt
    assert started[0].poll() == -9 and started[0].stdout.closed


def test_one_that_died_is_not_taken(started):
    with ahead.beginning():
        started[0].kill()
        started[0].wait()
        with ahead.worker(1) as other:
            assert other is started[1]
            other.kill()


def test_it_begins_where_it_will_be_needed_and_there_is_a_core_for_it(tmp_path, monkeypatch):
    argv = ["dynalab", "train", "task=parity"]

    def likely(*words: str, outputs: str | None = str(tmp_path)) -> bool:
        return ahead.is_likely(["task=parity", *words], outputs, argv)

    monkeypatch.setattr(ahead, "cores", lambda: 2)
    assert likely() and likely("compute.width=2", "seed=0..3")
    for word in ("launcher=inline", "+launcher.time=1", "compute.threads=2", "++compute.exact=false"):
        assert not likely(word)
    last = {"schema_version": 1, "ensembles": ["0123456789"]}
    for content, expected in (
        (last, True),
        ({**last, "argv": argv}, False),
        ({**last, "argv": []}, True),
        ([], True),
    ):
        (tmp_path / "last.json").write_text(json.dumps(content))
        assert likely() == likely(f"outputs={tmp_path}", outputs=None) == expected
    (tmp_path / "file").touch()
    assert not likely(outputs=str(tmp_path / "file"))
    monkeypatch.setattr(ahead, "cores", lambda: 1)
    (tmp_path / "last.json").unlink()
    assert not likely()
