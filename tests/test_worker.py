"""`train --prepare` and `worker`: shards for schedulers of any kind; what a failure does to the rest of a command."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType

import pytest
from conftest import Cli, but
from report_fakes import no_drawing
from stored import assert_same, bits, only_ensemble

from dynalab.errors import DynalabError
from dynalab.launch import inline, local
from dynalab.store import runfile
from dynalab.store.paths import EnsemblePaths, ShardPaths
from dynalab.store.stored import StoredEnsemble
from dynalab.training.job import Job
from dynalab.training.session import Session

WORDS = [
    "task=grokking",
    "task.modulus=7",
    "model.width=8",
    "train.steps=20",
    "probes=[gradients]",
    "snapshots.at=never",
]
WORDS += ["eval.every=5", "checkpoint.every=5", "compute.width=1"]
WORDS += ["compute.compile=false"]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the worker sets for its own process is put back."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "1")


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, act) -> None:
    """Do something once when a training has made so many updates."""
    record = Session.record

    def recording(self: Session) -> None:
        record(self)
        if self.loop.step == step:
            monkeypatch.setattr(Session, "record", record)
            act()

    monkeypatch.setattr(Session, "record", recording)


def test_prepared_shards_are_trained_one_by_one_and_a_warning_of_the_scheduler_saves(
    here: Cli, outputs, monkeypatch
):
    assert here("train", *WORDS, "seed=0..2", "--outputs", str(outputs.parent / "straight")).code == 0
    made = here("train", *WORDS, "seed=0..2", "--prepare")
    shards = [Path(line) for line in made.out.splitlines()]
    assert made.code == 0 and len(shards) == 3 and "worker --shard" in made.err
    assert {run.status for run in runfile.read(ShardPaths(shards[0])).runs} == {"planned"}

    at_step(monkeypatch, 12, lambda: signal.raise_signal(signal.SIGUSR1))
    cut = here("worker", "--shard", str(shards[0]), "--json")
    assert cut.code == 130 and cut.json["runs"][0]["status"] == "partial"
    assert "the same command goes on" in cut.err
    for shard in shards[:2]:
        assert here("worker", "--shard", f"{shard}/").code == 0
    again = here("worker", "--shard", str(shards[0]))
    assert again.code == 0 and "all is done" in again.err
    record = runfile.read(ShardPaths(shards[0]))
    assert [item["step"] for item in record.attempts] == [12, 20]
    # The command that made them ready prepares, and trains, what they leave.
    assert here("train", *WORDS, "seed=0..2", "--prepare").out.split() == [str(shards[2])]
    assert here("train", *WORDS, "seed=0..2").code == 0
    one, other = bits(only_ensemble(outputs)), bits(only_ensemble(outputs.parent / "straight"))
    assert_same(one, other, other)


@pytest.mark.parametrize("place", range(12))
def test_a_signal_that_comes_upon_another_stops_as_one_does(place):
    """As of `scancel`, by which Slurm and the job's script both end the worker; an Event would wait for itself."""
    lines = iter(range(10**6))

    def second(frame: FrameType, event: str, argument: object) -> object:
        if event == "line" and next(lines) == place:
            sys.settrace(None)
            signal.raise_signal(signal.SIGTERM)
        return second

    def give_up(*_: object) -> None:
        raise TimeoutError("the handler waits for itself")

    before = signal.signal(signal.SIGALRM, give_up)
    try:
        with inline._stopping() as signals:
            signal.alarm(60)
            sys.settrace(second)
            signal.raise_signal(signal.SIGTERM)
            sys.settrace(None)
            assert signals
    finally:
        sys.settrace(None)
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_a_job_is_what_the_command_said_and_nothing_of_a_folder_is_run(here: Cli, outputs):
    words = ["device=cpu", "checkpoint.keep=[5,10]", "compute.exact=false", "compute.threads=2"]
    (shard,) = here("train", *WORDS, *words, "--prepare", "-q").out.split()
    paths = ShardPaths(Path(shard))
    job = Job.read(paths, folders=(Path("own"),))
    assert (job.device, job.checkpoint_every, job.checkpoint_keep) == ("cpu", 5, [5, 10])
    assert (job.threads, job.exact, job.folders, job.argv[0]) == (2, False, (Path("own"),), "dynalab")
    document = json.loads(paths.job.read_text())
    assert not {"folders", "steal"} & document.keys()
    for wrong in (
        {"device": "tpu"},
        {"threads": 0},
        {"threads": 10**5},
        {"checkpoint_keep": "none"},
        {"argv": "x"},
    ):
        paths.job.write_text(json.dumps(document | wrong))
        answer = here("worker", "--shard", shard)
        assert answer.code == 3 and f"job.json is damaged: {next(iter(wrong))}" in answer.err
    paths.job.write_text(json.dumps(document))
    for path in (paths.job, paths.run):
        held = path.read_text()
        path.write_text(json.dumps(json.loads(held) | {"schema_version": 99}))
        answer = here("worker", "--shard", shard)
        assert answer.code == 3 and "written by a newer dynalab (schema 99)" in answer.err
        path.write_text(held)
    paths.job.unlink()
    assert Job.read(paths).device == "auto"


PROBE = """
from dataclasses import dataclass

from dynalab.probes.base import Cadence


@dataclass(frozen=True, kw_only=True)
class Config(Cadence):
    name: str = "own"


class Probe:
    needs = frozenset()

    def measure(self, state):
        return {"first": next(iter(state.params.values())).flatten(1)[:, 0].double()}


def build(config, network):
    return Probe()
"""


def test_a_worker_has_plug_ins_from_its_own_folder_alone(here: Cli, outputs, tmp_path, monkeypatch):
    source = tmp_path / "mine/probe/own.py"
    source.parent.mkdir(parents=True)
    source.write_text(PROBE)
    source.with_suffix(".yaml").write_text("name: own\nevery: null\nat: null\n")
    mine = ("--config-dir", str(tmp_path / "mine"))
    made = here("train", *but(WORDS, "probes=[own]"), "seed=0..2", "--prepare", "-q", *mine)
    first, second, third = made.out.split()
    # A copy in the outputs folder, where the worker stands too, is a stranger's.
    shutil.copytree(tmp_path / "mine", Path(first) / "own")
    monkeypatch.chdir(first)
    without = here("worker", "--shard", first)
    assert without.code == 2 and "own" in without.err and runfile.read(ShardPaths(Path(first))).attempts == []
    assert here("worker", "--shard", first, *mine).code == 0
    monkeypatch.setenv("DYNALAB_PATH", str(tmp_path / "mine"))
    assert here("worker", "--shard", second).code == 0
    run, *_ = StoredEnsemble(EnsemblePaths(Path(first).parent)).runs
    assert "first" in run.summary["final"]
    # What has changed since is another probe.
    source.write_text(PROBE.replace("[:, 0]", "[:, 1]"))
    changed = here("worker", "--shard", third)
    assert changed.code == 2 and "own" in changed.err and "Traceback" not in changed.err
    assert runfile.read(ShardPaths(Path(third))).attempts == []


@pytest.mark.parametrize("what", ["ensemble", "missing", "elsewhere", "linked"])
def test_what_is_no_shard_is_refused(here: Cli, outputs, tmp_path, what):
    (line,) = here("train", *WORDS, "--prepare", "-q").out.split()
    shard = Path(line)
    link = shard.with_name("shard-0009-0009-1")
    link.symlink_to(shard)
    paths = {"ensemble": shard.parent, "missing": shard / "no", "elsewhere": tmp_path, "linked": link}
    answer = here("worker", "--shard", str(paths[what]))
    said = {"ensemble": f"its shards are {shard.name}", "missing": "no such folder", "linked": "is a link"}
    assert answer.code in (2, 3) and said.get(what, "no shard of") in answer.err
    assert runfile.read(ShardPaths(shard)).attempts == []


def test_folders_of_two_hosts_that_are_copied_together_are_one(here: Cli, outputs, tmp_path, monkeypatch):
    no_drawing(monkeypatch)
    other = tmp_path / "other"
    assert here("train", *WORDS, "seed=0..1").code == 0
    assert here("train", *WORDS, "seed=2..3", "--outputs", str(other)).code == 0
    shutil.copytree(other, outputs, dirs_exist_ok=True, copy_function=shutil.copy)
    listed = here("runs", "list", "--json")
    assert [run["seed"] for run in listed.json["runs"]] == [0, 1, 2, 3]
    # The table of the second host came last, and is written anew by the first command that reads.
    frame = here("runs", "export", "--to", str(tmp_path / "all.csv"), "--json").json
    assert frame["rows"] == 4 * 5
    found = here("analyze", "slingshot", "--json").json["analyses"][0]["runs"]
    assert [item["run"][-5:] for item in found] == [f"s000{seed}" for seed in range(4)]
    assert "all is done" in here("train", *WORDS, "seed=0..3").err
    page = here("report")
    assert page.code == 0 and "4 runs" in Path(page.out.split()[0]).read_text()


def failing(monkeypatch: pytest.MonkeyPatch, *seeds: int) -> None:
    """Have the shards of some seeds fail at their tenth update."""
    record = Session.record

    def recording(self: Session) -> None:
        if self.loop.step == 10 and self._shard.runs[0].seed in seeds:
            raise ValueError("the sensor is on fire")
        record(self)

    monkeypatch.setattr(Session, "record", recording)


def states(outputs: Path) -> list[str]:
    return [run.status for run in StoredEnsemble(only_ensemble(outputs)).runs]


def test_what_failed_is_said_with_its_log_and_is_retried_alone(here: Cli, outputs, monkeypatch):
    with monkeypatch.context() as patched:
        failing(patched, 1)
        answer = here("train", *WORDS, "seed=0..2")
    assert answer.code == 3 and states(outputs) == ["done", "failed", "done"]
    shard = only_ensemble(outputs) / "shard-0001-0001-1"
    (line,) = [line for line in answer.err.splitlines() if line.startswith("failed: ")]
    assert "the sensor is on fire" in line and str(shard / "error.txt") in line
    assert answer.err.count("the sensor is on fire") == 1
    assert (
        answer.err.splitlines()[-1] == "next: the same command goes on with them, from their last checkpoints"
    )
    # Seed 3 is asked for, and waits for a command that trains what is new.
    again = here("train", *WORDS, "seed=0..3", "--retry-failed", "--json")
    assert [run["status"] for run in again.json["ensembles"][0]["runs"]] == ["done"]
    assert again.code == 0 and states(outputs) == ["done"] * 3
    assert here("train", *WORDS, "seed=0..3", "--retry-failed").code == 4
    assert here("train", *WORDS, "--retry-failed", "--force").code == 2
    assert here("train", *but(WORDS, "task.modulus=11"), "--retry-failed").code == 4
    assert only_ensemble(outputs)


@pytest.mark.parametrize(("on_error", "left"), [("continue", "done"), ("stop", "planned")])
def test_a_failure_stops_the_rest_where_that_is_asked_for(here: Cli, outputs, monkeypatch, on_error, left):
    with monkeypatch.context() as patched:
        failing(patched, 0)
        answer = here("train", *WORDS, "seed=0..1", f"on_error={on_error}")
    assert answer.code == 3 and states(outputs) == ["failed", left]
    assert ("on_error=stop:" in answer.err) == (on_error == "stop")
    assert here("train", *WORDS, "seed=0..1", "on_error=stop").code == 0 and states(outputs) == ["done"] * 2


@pytest.mark.parametrize("stop", [False, True])
def test_workers_save_and_no_more_is_begun_after_a_failure(tmp_path, monkeypatch, stop):
    ended: list[local.Worker] = []
    monkeypatch.setattr(local.Worker, "send", lambda self, **task: None)
    monkeypatch.setattr(local.Worker, "release", lambda self: ended.append(self))
    pool = local.Launcher(0, 1)
    pool._workers = [local.Worker(None, card, ready=True) for card in range(2)]  # type: ignore[arg-type]
    one, two = pool._workers
    shards = [ShardPaths(tmp_path / f"shard-{seed}") for seed in range(3)]
    failed = {"event": "refused", "message": "full", "exit_code": 3}
    partial, done = (
        {"event": "finished", "found": {"status": s, "warnings": []}} for s in ("partial", "done")
    )
    rest = [(two, partial)] if stop else [(two, done), (one, done)]
    for item in [(one, failed), *rest]:
        pool._events.put(item)
    report = pool.run(local.Work(shards, 2, Job(), stop=stop), local.Events())
    assert report.failures == {shards[0]: "full"} and report.stopped == stop
    assert {*map(id, ended)} == ({id(one), id(two)} if stop else set())


def test_a_worker_that_is_killed_before_it_can_begin_leaves_the_others(monkeypatch):
    monkeypatch.setattr(local.Worker, "send", lambda self, **task: None)
    pool = local.Launcher(0, 1)
    pool._workers = [local.Worker(None, card) for card in range(2)]  # type: ignore[arg-type]
    one, two = pool._workers
    gone, ready = {"event": "gone", "code": -9}, {"event": "ready", "cuda_devices": 0}
    pool._events.put((one, gone))
    pool._events.put((two, ready))
    assert pool.device("auto") == "cpu" and pool._workers == [two]
    two.ready = False
    for event, code in ((gone, 3), ({"event": "gone", "code": 1}, 2)):
        pool._workers = [two]
        pool._events.put((two, event))
        with pytest.raises(DynalabError, match="could not start") as raised:
            pool.device("auto")
        assert raised.value.exit_code == code
