"""One writer a folder: who holds a lock, whether that process lives, and how exactly one takes over a dead one's."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from report_fakes import make_ensemble
from test_import import table

import dynalab
from dynalab.cli.app import run as command
from dynalab.config.command import read_command
from dynalab.config.schema import Compute
from dynalab.core import processes
from dynalab.errors import Locked, RunsFailed, StoreError
from dynalab.imports import store as imports
from dynalab.launch import crash, layout
from dynalab.launch.layout import lay_out
from dynalab.store import checkpoint, lock, owner, remove, runfile
from dynalab.store.find import select
from dynalab.store.later import Later
from dynalab.store.leftovers import tidy
from dynalab.store.lock import Lock, holder
from dynalab.store.owner import Owner
from dynalab.store.paths import OutputPaths, ShardPaths
from dynalab.store.stored import StoredEnsemble
from dynalab.training.planner import plan

ELSEWHERE = Owner("elsewhere", "another boot", 1, "1", "pid:[1]", "ab")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals of a heartbeat that a test can wait for."""
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.05)


class Clock:
    """Goes on while somebody sleeps, and not otherwise: a busy machine misses no look."""

    def __init__(self) -> None:
        self.now, self.slept = 0.0, lambda: None

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of those who watch locks."""
    made = Clock()
    monkeypatch.setattr(lock, "time", made)
    return made


@pytest.fixture
def unwatched(monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens is to be decided without watching any heartbeat."""

    def watched(*_: object) -> None:
        raise AssertionError("a heartbeat was watched")

    monkeypatch.setattr(lock._Watch, "look", watched)


@pytest.fixture(scope="module")
def dead() -> Owner:
    """A process of this machine that is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return replace(Owner.me(), pid=process.pid, started="1")


def names(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


def of_before(someone: Owner) -> bytes:
    """Return the lock file of a version that knew neither pid namespaces nor tokens."""
    kept = ("host", "boot", "pid", "started")
    return json.dumps({key: value for key, value in asdict(someone).items() if key in kept}).encode()


@contextlib.contextmanager
def repeating(act: Callable[[], None]) -> Iterator[None]:
    """Do something every few milliseconds, in a thread."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.01):
            act()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_one_writer_at_a_time(path, unwatched):
    with Lock(path), pytest.raises(Locked, match=f"process {os.getpid()} on"), Lock(path):
        pass
    assert names(path.parent) == []


@pytest.mark.parametrize("how", ["dead", "reused pid", "steal"])
def test_a_lock_is_taken_over_at_once_where_the_kernel_says_so(path, dead, unwatched, how):
    someone = {"dead": dead, "reused pid": replace(Owner.me(), started="1"), "steal": Owner.me()}[how]
    path.write_bytes(someone.to_bytes())
    # Whatever a file server's clock says.
    os.utime(path, (time.time() + 300,) * 2)
    assert (holder(path) is None) == (how != "steal")
    with Lock(path, steal=how == "steal") as taken:
        assert taken.mine() and path.read_bytes() != someone.to_bytes()
    assert names(path.parent) == []


HOLDER = """
import sys, pathlib
from dynalab.store import lock
lock.HEARTBEAT_SECONDS = 0.05
with lock.Lock(pathlib.Path(sys.argv[1])) as held:
    print("held", flush=True)
    sys.stdin.readline()
    print(held.mine(), flush=True)
"""


def test_a_writer_that_is_paused_keeps_its_lock_however_long(path, quick):
    words = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        process.send_signal(signal.SIGSTOP)
        try:
            os.utime(path, (time.time() - 86400,) * 2)
            for _ in range(12):
                time.sleep(0.02)
                assert holder(path).pid == process.pid
            with pytest.raises(Locked, match=str(process.pid)), Lock(path, wait=0.3):
                pass
        finally:
            process.send_signal(signal.SIGCONT)
        assert process.communicate("go on\n")[0] == "True\n"
    assert names(path.parent) == []


@pytest.mark.parametrize("seconds", [-40, 300])
@pytest.mark.parametrize("how", ["elsewhere", "rebooted", "other namespace", "of before", "empty"])
def test_elsewhere_a_silent_owner_is_watched_for_three_intervals(path, quick, clock, dead, how, seconds):
    path.write_bytes(
        {
            "elsewhere": ELSEWHERE.to_bytes(),
            # Two machines of one image have the same name: that alone does not make another boot a dead one.
            "rebooted": replace(Owner.me(), boot="another boot").to_bytes(),
            "other namespace": replace(Owner.me(), space="pid:[1]", pid=dead.pid).to_bytes(),
            "of before": of_before(dead),
            "empty": b"",
        }[how]
    )
    os.utime(path, (time.time() + seconds,) * 2)
    assert holder(path) is not None, "who only looks cannot tell"
    looks = []
    with pytest.MonkeyPatch.context() as patch:
        look = lock._Watch.look
        patch.setattr(lock._Watch, "look", lambda *args: looks.append(look(*args)) or looks[-1])
        with Lock(path) as taken:
            assert taken.mine()
    assert looks.count(None) >= lock.MISSED_BEATS and looks[-1] is False
    assert names(path.parent) == []


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine the thread that beats may come late."""
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(lock, "MISSED_BEATS", 100)


def test_elsewhere_a_beating_owner_keeps_its_lock(path, patient, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(processes, "space", lambda: "pid:[1]")
        held = Lock(path).__enter__()
    assert held._owner.lives() is None
    before, deadline = path.stat().st_size, time.monotonic() + 60
    with pytest.raises(Locked), Lock(path, wait=0.5):
        pass
    assert held.mine() and holder(path) == held._owner
    while (beats := int(json.loads(path.read_bytes())["beat"])) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert path.stat().st_size == before and beats > 1
    held.__exit__()
    assert names(path.parent) == []


def test_the_heartbeat_of_before_counts_whatever_the_clock_of_the_file_server(path, patient):
    path.write_bytes(of_before(ELSEWHERE))
    with (
        repeating(lambda: os.utime(path, (time.time() - 40,) * 2)),
        pytest.raises(Locked),
        Lock(path, wait=0.5),
    ):
        pass
    assert path.read_bytes() == of_before(ELSEWHERE)


def test_a_watcher_that_was_frozen_itself_has_seen_nothing_meanwhile(clock):
    sights = [lock._Sighting(b"%d" % beat, 0, True) for beat in range(3)]
    watch, found = lock._Watch(sights[0]), []
    for seconds, beat in [(9, 0), (1000, 0), (9, 1), (1000, 1), (9, 1), (9, 1), (9, 1), (9, 2), (1000, 0)]:
        clock.sleep(seconds)
        found.append(watch.look(sights[beat]))
    assert found == [None, None, True, True, True, True, False, True, None]


def test_all_locks_are_watched_at_the_same_time(tmp_path, clock):
    paths = [tmp_path / str(number) for number in range(4)]
    for each in paths[:3]:
        each.write_bytes(replace(ELSEWHERE, token=each.name).to_bytes())
    said: list[str] = []
    clock.slept = lambda: os.utime(paths[0], (clock.now, clock.now))
    assert lock.watch(paths, said.append) and 29 < clock.now < 31
    assert [holder(each) is not None for each in paths] == [True, False, False, False]
    (line,) = said
    assert line.startswith("watching the heartbeat of process 1 on elsewhere and ")
    assert line.endswith("more for up to 30 s: from here it cannot be seen otherwise whether they live")
    assert not lock.watch(paths, said.append) and len(said) == 1


@pytest.mark.parametrize("blind", ["hidepid", "no /proc", "/proc of another namespace"])
def test_a_living_owner_counts_as_alive_where_proc_does_not_show_it(blind, dead, monkeypatch):
    alive = replace(Owner.me(), pid=os.getppid(), started="7")
    monkeypatch.setattr(processes, "state_and_start", lambda pid: None)
    if blind == "hidepid":

        def refuse(pid: int, number: int) -> None:
            raise ProcessLookupError if pid == dead.pid else PermissionError

        monkeypatch.setattr(processes.os, "kill", refuse)
    elif blind == "no /proc":
        monkeypatch.setattr(processes, "boot", lambda: "")
        monkeypatch.setattr(processes, "space", lambda: "")
    else:
        monkeypatch.setattr(processes, "state_and_start", lambda pid: ("S", "8"))
        monkeypatch.setattr(processes.os, "readlink", lambda path: "4711")
        alive = replace(alive, space="4711")
    assert alive.lives() is True
    # Without a name of the kernel a missing process may be one of another machine.
    assert replace(dead, space=alive.space).lives() is (None if blind == "no /proc" else False)
    if blind == "no /proc":
        assert replace(alive, host="elsewhere").lives() is None


@pytest.mark.parametrize("name", ["boot", "space"])
def test_an_owner_under_another_kernel_or_namespace_is_never_said_to_be_dead(dead, name):
    assert dead.lives() is False and Owner.me().lives() is True
    assert replace(dead, host="renamed").lives() is False
    assert replace(dead, **{name: "other"}).lives() is None
    # What an older version did not write down is not held against a living process.
    assert replace(Owner.me(), space="", token="").lives() is True and replace(dead, space="").lives() is None


def test_a_host_that_is_renamed_keeps_its_locks(path, unwatched, monkeypatch):
    with Lock(path) as held:
        monkeypatch.setattr(owner.socket, "gethostname", lambda: "renamed")
        assert held.mine() and holder(path) is not None
        with pytest.raises(Locked), Lock(path):
            pass
    assert names(path.parent) == []


def test_of_three_that_find_a_dead_lock_exactly_one_gets_it(path, dead, monkeypatch):
    monkeypatch.setattr(lock, "_POLL_SECONDS", 0.0005)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for number in range(40):
            path.write_bytes(replace(dead, token=str(number)).to_bytes())
            start, over, found = threading.Barrier(3), threading.Barrier(3), []

            def attempt(start=start, over=over, found=found) -> None:
                start.wait()
                try:
                    with Lock(path, beats=False) as held:
                        found.append("held")
                        over.wait()
                        found.append(held.mine())
                except Locked:
                    found.append("refused")
                    over.wait()

            threads = [threading.Thread(target=attempt) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sorted(map(str, found)) == ["True", "held", "refused", "refused"]
            assert names(path.parent) == []
    finally:
        sys.setswitchinterval(before)


def test_who_finds_a_lock_dead_never_removes_its_successor(path, dead):
    path.write_bytes(dead.to_bytes())
    seen = lock._look(path)
    with Lock(path) as successor:
        assert not lock._remove(path, seen)
        assert successor.mine() and names(path.parent) == ["lock"]


def test_takers_that_died_on_the_way_are_no_hindrance(path, dead):
    tokens = iter("abc")
    at = path
    for _ in range(3):
        # A dead lock, the guard of one that died taking it over, and the guard of one that died taking over that.
        at.write_bytes(replace(dead, token=next(tokens)).to_bytes())
        guards: list[Path] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lock, "_create", lambda path, owner, guards=guards: guards.append(path))
            patch.setattr(lock, "_alive", lambda *_: True)
            lock._remove(at, lock._look(at))
        (at,) = guards
    assert len(names(path.parent)) == 3 and at.parent == path.parent
    with Lock(path) as held:
        assert held.mine() and names(path.parent) == ["lock"]


@pytest.mark.parametrize("place", ["of a command", "of a shard"])
def test_the_guard_of_one_that_died_as_it_let_go_is_removed_where_nobody_takes_that_lock_again(
    tmp_path, dead, place
):
    outputs = OutputPaths(tmp_path)
    shard = ShardPaths(tmp_path / "parity" / "default-0123456789" / "shard-0-1-0")
    at = outputs.commands / "077adeafeb05.lock" if place == "of a command" else shard.lock
    at.parent.mkdir(parents=True)
    contents = {"a": dead.to_bytes(), "b": Owner.me().to_bytes(), "c": b"somebody else's"}
    guards = {name: lock._guard(at, name * 16) for name in contents}
    for name, guard in guards.items():
        guard.write_bytes(contents[name])
    tidy(outputs, [shard.ensemble])
    assert {name for name, guard in guards.items() if guard.exists()} == {"b", "c"}
    for name in "bc":
        guards[name].unlink()
    guards["a"].write_bytes(dead.to_bytes())
    tidy(outputs, [shard.ensemble])
    assert names(at.parent) == [] if place == "of a shard" else not at.parent.exists()


def test_a_release_leaves_the_lock_of_another_alone(path, monkeypatch):
    create = lock._create

    def late(at: Path, someone: Owner) -> bool:
        made = create(at, someone)
        if at != path:
            # Between the last look and the removal another took over.
            path.write_bytes(ELSEWHERE.to_bytes())
        return made

    with Lock(path) as held:
        monkeypatch.setattr(lock, "_create", late)
    assert not held.mine() and names(path.parent) == ["lock"]
    assert path.read_bytes() == ELSEWHERE.to_bytes()


def test_a_full_disk_does_not_keep_a_lock(path, monkeypatch):
    with Lock(path):
        monkeypatch.setattr(lock.os, "fdopen", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    assert names(path.parent) == []


def test_two_that_steal_at_once_do_not_rob_each_other(path):
    path.write_bytes(Owner.me().to_bytes())
    thief = Lock(path, steal=True)
    with Lock(path, steal=True) as first, pytest.MonkeyPatch.context() as patch:
        # The second looked before the first had it.
        looks = iter([lock._Sighting(ELSEWHERE.to_bytes(), 0, True)])
        look = lock._look
        patch.setattr(lock, "_look", lambda at: next(looks, None) or look(at))
        with pytest.raises(Locked), thief:
            pass
        assert first.mine()


HOSTILE = [
    b"{", b"null", b"[]", b'"host boot pid started"', b"7", b"{}", b"\xff\xfe", b"[" * 4000, b"x" * 100_000,
    json.dumps({**asdict(ELSEWHERE), "pid": 0}).encode(), json.dumps({**asdict(ELSEWHERE), "pid": -1}).encode(),
    json.dumps({**asdict(ELSEWHERE), "pid": 10**30}).encode(),
    json.dumps({**asdict(ELSEWHERE), "pid": True}).encode(),
    json.dumps({**asdict(ELSEWHERE), "host": ["a"]}).encode(),
    json.dumps({**asdict(ELSEWHERE), "token": {"../../x": 1}}).encode(),
]  # fmt: skip


@pytest.mark.parametrize("data", HOSTILE, ids=range(len(HOSTILE)))
def test_a_file_that_names_no_owner_is_no_lock(path, unwatched, data):
    path.write_bytes(data)
    assert holder(path) is None
    with Lock(path) as held:
        assert held.mine()
    assert names(path.parent) == []


@pytest.mark.parametrize("kind", ["link", "broken link", "pipe", "folder"])
def test_what_is_no_file_is_no_lock_and_nothing_behind_it_is_touched(tmp_path, unwatched, kind):
    path, target = tmp_path / "own" / "lock", tmp_path / "target"
    path.parent.mkdir()
    target.write_bytes(ELSEWHERE.to_bytes())
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(target if kind == "link" else tmp_path / "nowhere")
    assert holder(path) is None
    if kind == "folder":
        with pytest.raises(StoreError, match="cannot write"), Lock(path):
            pass
    else:
        with Lock(path) as held:
            assert held.mine()
        assert names(path.parent) == []
    assert names(tmp_path) == ["own", "target"] and target.read_bytes() == ELSEWHERE.to_bytes()


def test_names_in_a_lock_file_cannot_write_on_the_terminal():
    said = replace(ELSEWHERE, host="\x1b[31m" + "é" * 500 + "\n").said
    assert said.isprintable() and len(said) < 100


def test_a_lock_that_cannot_be_read_is_not_called_lost(path, monkeypatch):
    with Lock(path) as held:
        with monkeypatch.context() as patch:
            patch.setattr(lock, "_read", lambda _: (_ for _ in ()).throw(OSError(24, "Too many open files")))
            with pytest.raises(StoreError, match="Too many open files"):
                held.require()
        held.require()
        path.unlink()
        with pytest.raises(Locked, match="removed or taken over"):
            held.require()
        path.write_bytes(ELSEWHERE.to_bytes())
        with pytest.raises(Locked, match="taken over by process 1 on elsewhere"):
            held.require()


def test_what_waits_to_be_written_is_not_written_once_the_lock_is_lost(tmp_path):
    held = [True]

    def require() -> None:
        if not held[0]:
            raise Locked("lost")

    files, gate = Later(require=require), threading.Event()
    files.write(tmp_path / "first", b"1")
    files.wait()
    files._pool.submit(gate.wait)
    files.write(tmp_path / "second", b"2")
    held[0] = False
    gate.set()
    with pytest.raises(Locked):
        files.wait()
    shard = ShardPaths(tmp_path / "shard-0000-0000-1")
    with pytest.raises(Locked):
        checkpoint.save_bytes(shard, checkpoint.CheckpointState(1, {}), b"", b"", require)
    answers = iter([True])
    with pytest.raises(Locked):
        # Lost while it was being written.
        checkpoint.save_bytes(
            shard, checkpoint.CheckpointState(1, {}), b"", b"", lambda: next(answers, None) or require()
        )
    assert names(shard.checkpoint_folder) == [] and not (tmp_path / "second").exists()


TINY = ["task=grokking", "task.modulus=11", "model.width=8", "train.steps=40", "launcher=inline", "seed=0,1"]


def laid_out(outputs: Path, words: Sequence[str] = TINY, **keys: bool) -> layout.Layout:
    (request,) = read_command(words, outputs=str(outputs)).requests
    return lay_out(OutputPaths(outputs), request, lambda count: plan(count, Compute(width=1)), **keys)


@pytest.mark.parametrize("how", ["robbed", "removed", "robbed, then an error"])
def test_a_writer_that_lost_its_lock_writes_nothing_more(outputs, one_thread, how):
    from dynalab.training.job import Control, Job
    from dynalab.training.shard import train_shard

    # Snapshots are written by a thread, which asks by itself.
    paths = laid_out(outputs, [*TINY, "snapshots.at=never"]).work[0]
    found: dict[str, bytes] = {}
    calls: list[int] = []

    def files() -> dict[str, bytes]:
        return {str(item): item.read_bytes() for item in outputs.rglob("*") if item.is_file()}

    def stop() -> bool:
        calls.append(1)
        if len(calls) == 3:
            if how == "removed":
                paths.root.rename(outputs / "removed")
            else:
                paths.lock.write_bytes(ELSEWHERE.to_bytes())
            found.update(files())
            if how == "robbed, then an error":
                raise ValueError("as when a file is gone")
        return False

    with pytest.raises(Locked, match="stops without writing"):
        train_shard(paths, Job(), Control(stop))
    assert found and files() == found and paths.root.exists() == (how != "removed")


def test_a_death_is_not_written_into_what_another_has_taken_over(outputs):
    paths = laid_out(outputs).work[0]
    before = paths.run.read_bytes()
    with Lock(paths.lock):
        crash.record_death(paths, "killed", [])
    assert paths.run.read_bytes() == before and not paths.error.exists()
    crash.record_death(paths, "killed", [])
    assert runfile.read(paths).status == "crashed" and "killed" in paths.error.read_text()


def test_a_silent_lock_of_another_machine_is_watched_once_and_then_out_of_the_way(outputs, quick):
    paths = laid_out(outputs).work[0]
    paths.lock.write_bytes(ELSEWHERE.to_bytes())
    found = laid_out(outputs, write=False)
    assert found.busy == {"s0000": "process 1 on elsewhere"} and found.locks == {paths.lock}
    assert lock.watch(found.locks, lambda line: None)
    found = laid_out(outputs)
    assert not found.busy and found.laid == ["s0000", "s0001"] and not paths.lock.exists()


def test_who_is_not_quick_enough_finds_the_runs_busy(outputs, monkeypatch):
    paths = laid_out(outputs).work[0]
    with Lock(paths.lock):
        monkeypatch.setattr(lock, "holder", lambda _: None)
        before = paths.run.read_bytes()
        found = laid_out(outputs)
        assert list(found.busy) == ["s0000"] and found.laid == ["s0001"] and paths not in found.work
        assert paths.run.read_bytes() == before


def test_python_says_that_another_process_holds_the_runs(outputs):
    held = [Lock(paths.lock) for paths in laid_out(outputs).work]
    with held[0], held[1], pytest.raises(RunsFailed, match=f"being trained by process {os.getpid()}"):
        dynalab.train(TINY, outputs=outputs)


def test_refused_shards_stay_where_another_command_holds_them(outputs):
    found = laid_out(outputs)
    with Lock(found.work[0].lock):
        layout.discard_untrained(found.paths, found.work)
    assert found.paths.shards() == [found.work[0]]
    layout.discard_untrained(found.paths, found.work[:1])
    assert not found.paths.root.exists()


def test_rm_holds_the_locks_of_what_it_removes(outputs, monkeypatch):
    ensemble = make_ensemble(outputs, n_runs=4, shards=2)
    ours = [ensemble.paths.lock, *(shard.lock for shard in ensemble.paths.shards())]
    refused = []
    rename = os.rename

    def watched(*args: object) -> None:
        for path in ours:
            with contextlib.suppress(Locked), Lock(path):
                raise AssertionError(f"{path} is free")
            refused.append(path)
        rename(*args)

    monkeypatch.setattr(remove.os, "rename", watched)
    assert command(["runs", "rm", ensemble.id, "--yes"]) == 0
    assert refused == ours and not ensemble.path.exists()


@pytest.mark.parametrize("when", ["before", "after it was asked"])
@pytest.mark.parametrize("place", [0, 1])
def test_rm_refuses_what_is_being_written_and_removes_none_of_it(outputs, monkeypatch, capsys, when, place):
    ensemble = make_ensemble(outputs, n_runs=4, shards=2)
    if when != "before":
        monkeypatch.setattr(remove.lock, "holder", lambda _: None)
    with Lock(ensemble.paths.shards()[place].lock):
        before = sorted(outputs.rglob("*"))
        assert command(["runs", "rm", ensemble.id, "--yes"]) == 3
        assert sorted(outputs.rglob("*")) == before
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert f"process {os.getpid()} on" in line


def test_rm_of_a_link_leaves_no_lock_behind_it(outputs, tmp_path):
    ensemble = make_ensemble(outputs, n_runs=2)
    ensemble.path.rename(tmp_path / "moved")
    ensemble.path.symlink_to(tmp_path / "moved")
    (removal,) = remove.plan(select(outputs, [ensemble.id], None, StoredEnsemble), outputs)
    before = {item: item.stat().st_mtime_ns for item in (tmp_path / "moved").rglob("*")}
    remove.remove(removal, outputs)
    assert {item: item.stat().st_mtime_ns for item in (tmp_path / "moved").rglob("*")} == before
    assert not ensemble.path.is_symlink()


def test_rm_spares_an_ensemble_that_has_grown_since_it_was_asked_about(outputs):
    ensemble = make_ensemble(outputs, n_runs=4, shards=2)
    (removal,) = remove.plan(select(outputs, [ensemble.id], None, StoredEnsemble), outputs)
    new = ensemble.paths.shard("shard-0007-0007-1")
    new.root.mkdir()
    with pytest.raises(StoreError, match="has changed"):
        remove.remove(removal, outputs)
    assert len(ensemble.paths.shards()) == 3


def test_an_import_does_not_write_into_what_is_being_removed(outputs, monkeypatch):
    frame, keys = table(2), {"run": "run", "step": "step"}
    ensemble = dynalab.import_runs(frame, "mine", **keys)
    before = ensemble.paths.shards()
    monkeypatch.setattr(imports, "WAIT_SECONDS", 0.0)
    with Lock(ensemble.paths.lock), pytest.raises(Locked):
        dynalab.import_runs(frame, "mine", **keys, force=True)
    assert ensemble.paths.shards() == before


def test_a_removed_shard_is_not_made_again_by_a_worker_that_comes_late(outputs):
    from dynalab.training.job import Control, Job
    from dynalab.training.shard import train_shard

    found = laid_out(outputs)
    (removal,) = remove.plan(select(outputs, [found.paths.digest], None, StoredEnsemble), outputs)
    remove.remove(removal, outputs)
    with pytest.raises(StoreError, match="No such file"):
        train_shard(found.work[0], Job(), Control())
    assert not found.paths.root.exists()
