"""What begins while the command is read: taken once, for its number of threads, else ended."""

from __future__ import annotations

import json

import pytest

from dynalab.launch import ahead


class Server:
    """Stands for what workers are forked from."""

    def __init__(self, threads: int) -> None:
        self.threads, self.lives = threads, True

    def serves(self, threads: int) -> bool:
        return self.lives and threads == self.threads

    def close(self) -> None:
        self.lives = False


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Server]:
    """The servers that were started."""
    made: list[Server] = []
    monkeypatch.setattr(ahead, "ForkServer", lambda threads: made.append(Server(threads)) or made[-1])
    return made


def test_what_was_begun_is_taken_by_the_first(started):
    with ahead.beginning():
        assert ahead.server(1) is started[0] and len(started) == 1
        assert ahead.server(1) is started[1]
    assert all(server.lives for server in started)


@pytest.mark.parametrize("threads", [None, 2])
def test_what_nobody_takes_is_ended(started, threads):
    with pytest.raises(KeyboardInterrupt), ahead.beginning():
        if threads:
            assert ahead.server(threads) is started[1] and not started[0].lives
        raise KeyboardInterrupt
    assert [server.lives for server in started] == [False, True][: len(started)]


def test_one_that_died_is_not_taken(started):
    with ahead.beginning():
        started[0].close()
        assert ahead.server(1) is started[1]


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
