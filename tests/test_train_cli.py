"""`dynalab train` as a user types it: the JSON contract, skip, resume, extension, interruption."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fates
import numpy as np
import pytest
from conftest import TINY, but
from stored import assert_same, bits, difference, only_ensemble

from dynalab.cli.app import run as command
from dynalab.cli.outcome import _generalised

STATUSES = {"planned", "running", "done", "partial", "diverged", "failed", "crashed"}
SUMMARY = {"memorised_step", "generalised_step", "diverged_step", "final", "final_steps"}


def test_json_of_a_sweep_is_one_object_as_the_contract_says(cli, here, outputs, tiny):
    words = [*but(tiny, "train.steps=50"), "seed=range(3)", "optimizer.lr=1e-3,1e-2", "--json"]
    answer = cli("train", *words)
    assert answer.code == 0, answer.err
    document = answer.json  # fails if anything else is on standard output
    assert next(iter(document)) == "schema_version"
    assert len(document["ensembles"]) == 2
    for entry, rate in zip(document["ensembles"], (1e-3, 1e-2), strict=True):
        assert set(entry) == {"id", "path", "config", "runs"}
        assert entry["config"]["optimizer"]["lr"] == rate
        assert Path(entry["path"]).is_dir() and entry["path"].endswith(entry["id"])
        assert [run["seed"] for run in entry["runs"]] == [0, 1, 2]
        for run in entry["runs"]:
            assert set(run) == {"id", "seed", "status", "steps", "requested_steps", "summary"}
            assert run["id"] == f"{entry['id']}/s{run['seed']:04d}"
            assert (run["status"], run["steps"], run["requested_steps"]) == ("done", 50, 50)
            assert set(run["summary"]) == SUMMARY
            assert run["summary"]["final"]["step"] == 50
    listed = here("runs", "list", "--json").json["runs"]
    assert len(listed) == 6
    assert {
        "id",
        "seed",
        "status",
        "steps",
        "requested_steps",
        "summary",
        "ensemble",
        "task",
        "started",
    } == set(listed[0])


def test_the_same_command_again_trains_nothing_and_imports_no_torch(here, outputs, tiny):
    assert here("train", *tiny, "seed=0..2").code == 0
    before = {path: path.stat().st_mtime_ns for path in outputs.rglob("*.npy")}
    code = (
        "import sys; from dynalab.cli.app import run; "
        "code = run(sys.argv[1:]); "
        "assert code == 0, code; "
        "heavy = {'torch', 'hmmlearn', 'matplotlib'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "train", *tiny, "seed=0..2"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "all is done" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in outputs.rglob("*.npy")} == before


def test_more_seeds_train_only_the_new_ones(here, outputs, tiny):
    here("train", *tiny, "seed=0..2")
    before = bits(only_ensemble(outputs))
    answer = here("train", *tiny, "seed=0..4", "--json")
    assert "2 new, 0 to go on, 3 done" in answer.err
    assert [run["seed"] for run in answer.json["ensembles"][0]["runs"]] == [0, 1, 2, 3, 4]
    after = bits(only_ensemble(outputs))
    assert sorted(after) == ["s0000", "s0001", "s0002", "s0003", "s0004"]
    assert all(not difference(before[label], after[label]) for label in before)


def test_more_steps_go_on_and_equal_a_run_from_nothing(here, outputs, tiny, tmp_path, capsys):
    here("train", *tiny, "seed=0..2")
    # As if it had been cut off on its way to 6,000: what is asked now counts.
    (path,) = outputs.rglob("run.json")
    record = json.loads(path.read_text())
    for item in (record, *record["runs"]):
        item["status"] = "partial"
    path.write_text(json.dumps(record | {"requested_steps": 6000}))
    before = path.read_bytes()
    assert command(["train", *but(tiny, "train.steps=40"), "seed=0..2", "-q"]) == 0
    said = capsys.readouterr()
    assert "3 of its runs were cut off at 60 of 6,000 steps" in said.err and "all is done" not in said.err
    assert "3 partial" in said.out and path.read_bytes() == before
    assert command(["train", *tiny, "seed=0..2", "-q", "launcher=inline"]) == 0
    said = capsys.readouterr()
    assert "cut off" not in said.err and "3 done" in said.out
    assert command(["train", *but(tiny, "train.steps=95"), "seed=0..2", "--dry-run", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["ensembles"]
    assert entry["partial"] == ["s0000", "s0001", "s0002"] and entry["steps"] == 95
    longer = here("train", *but(tiny, "train.steps=95"), "seed=0..2", "--json")
    assert longer.code == 0, longer.err
    assert [run["steps"] for run in longer.json["ensembles"][0]["runs"]] == [95] * 3
    assert json.loads(path.read_text())["requested_steps"] == 95
    here("train", *but(tiny, "train.steps=95"), "seed=0..2", DYNALAB_OUTPUTS=str(tmp_path / "fresh"))
    one, other = bits(only_ensemble(outputs)), bits(only_ensemble(tmp_path / "fresh"))
    assert_same(one, other, one)
    fewer = here("train", *but(tiny, "train.steps=40"), "seed=0..2", "--json").json["ensembles"][0]["runs"][0]
    assert (fewer["status"], fewer["steps"], fewer["requested_steps"]) == ("done", 95, 40)


def test_a_schedule_that_needs_the_total_is_another_ensemble_when_longer(here, outputs, tiny):
    for steps in ("40", "60"):
        here("train", *but(tiny, f"train.steps={steps}"), "schedule=cosine", "seed=0")
    assert len(list(outputs.glob("grokking/*/config.yaml"))) == 2
    for steps in ("40", "60"):
        here("train", *but(tiny, f"train.steps={steps}"), "schedule=cosine", "schedule.total=100", "seed=0")
    assert len(list(outputs.glob("grokking/*/config.yaml"))) == 3


def test_dry_run_prints_the_plan_and_writes_nothing(here, outputs, tiny):
    answer = here("train", *tiny, "seed=0..3", "optimizer.lr=0.1,0.2", "--dry-run", "--json")
    assert answer.code == 0 and not outputs.exists()
    plan = answer.json
    assert [entry["new"] for entry in plan["ensembles"]] == [["s0000", "s0001", "s0002", "s0003"]] * 2
    here("train", *tiny, "seed=0..1", "optimizer.lr=0.1")
    last = (outputs / "last.json").read_bytes()
    again = here("train", *tiny, "seed=0..3", "optimizer.lr=0.1,0.2", "--dry-run", "--json").json["ensembles"]
    assert again[0]["done"] == ["s0000", "s0001"] and again[0]["new"] == ["s0002", "s0003"]
    assert again[0]["seconds"] > 0
    assert (outputs / "last.json").read_bytes() == last


def test_runs_that_did_not_generalise_are_counted_and_a_task_without_a_level_says_so():
    runs: Any = [SimpleNamespace(summary={"generalised_step": None}), SimpleNamespace(summary=None)]
    assert [_generalised(some, level) for some, level in (([], 0.9), (runs, 0.9), (runs, None))] == [
        None,
        "0 of 2",
        "no level",
    ]


def test_last_names_nothing_that_a_worker_refused(outputs, tiny, capsys):
    inline = ["train", *but(tiny, "train.steps=2"), "launcher=inline", "-q"]
    assert command([*inline, "model=resnet20,embedding_mlp", "seed=0"]) == 2
    table, last = capsys.readouterr().out.splitlines(), (outputs / "last.json").read_bytes()
    assert table[1].split()[1:] == ["0", "1", "refused", "-", "-", "-"]
    assert table[2].endswith(only_ensemble(outputs).name)
    assert json.loads(last)["ensembles"] == [only_ensemble(outputs).name.rpartition("-")[2]]
    assert command([*inline, "model=resnet20", "--json"]) == 2
    (entry,) = json.loads(capsys.readouterr().out)["ensembles"]
    assert entry["path"] is None and entry["runs"] == []
    assert (outputs / "last.json").read_bytes() == last
    (outputs / "last.json").unlink()
    assert command([*inline, "model=resnet20"]) == 2 and not (outputs / "last.json").exists()


def test_multirun_is_accepted_and_the_seed_spellings_agree(here, outputs, tiny):
    for spelling in ("seed=0..1", "seed=range(2)", "seed=[0,1]", "seed=0,1"):
        assert here("train", "-m", *but(tiny, "train.steps=5"), spelling).code == 0
    assert sorted(bits(only_ensemble(outputs))) == ["s0000", "s0001"]


def test_force_keeps_the_old_attempt_and_reads_the_new(here, outputs, tiny):
    here("train", *tiny, "seed=0..1")
    first = bits(only_ensemble(outputs))
    assert here("train", *tiny, "seed=0..1", "--force").code == 0
    shards = sorted(path.name for path in only_ensemble(outputs).glob("shard-*"))
    assert len(shards) == 2 and sum(name.endswith("-a2") for name in shards) == 1
    assert len(here("runs", "list", "--json").json["runs"]) == 2
    assert not difference(first["s0000"], bits(only_ensemble(outputs))["s0000"])


def test_a_diverging_seed_leaves_its_siblings_alone(here, outputs, tiny, tmp_path):
    # Seed 1 starts from an initialisation that a rate this high blows up; the others live.
    words = but(tiny, "optimizer=sgd", "optimizer.lr=0.9", "optimizer.momentum=0.9", "train.steps=200")
    answer = here("train", *words, "seed=0..5", "--json")
    runs = answer.json["ensembles"][0]["runs"]
    diverged = [run for run in runs if run["status"] == "diverged"]
    whole = [run for run in runs if run["status"] == "done"]
    assert diverged and whole, [run["status"] for run in runs]
    assert answer.code == 3
    for run in diverged:
        assert run["summary"]["diverged_step"] == run["steps"] < 200
    seed = whole[0]["seed"]
    here("train", *words, f"seed={seed}", DYNALAB_OUTPUTS=str(tmp_path / "alone"))
    label = f"s{seed:04d}"
    alone = bits(only_ensemble(tmp_path / "alone"))[label]
    assert difference(bits(only_ensemble(outputs))[label], alone) == []
    again = here("train", *words, "seed=0..5", "--json")
    assert again.code == 3 and "all is done" not in again.err
    assert [run["status"] for run in again.json["ensembles"][0]["runs"]] == [run["status"] for run in runs]


def start(words: list[str], outputs: Path, ctrl_c: Any = signal.SIG_DFL) -> subprocess.Popen[str]:
    """Start a command in a process group of its own."""
    with (outputs.parent / "stderr.txt").open("w") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", "dynalab", "train", *words],
            env={**os.environ, "DYNALAB_OUTPUTS": str(outputs)},
            stdout=subprocess.DEVNULL,
            stderr=errors,
            text=True,
            start_new_session=True,
            # A suite in the background of a script has Ctrl-C ignored, and hands that on.
            preexec_fn=lambda: signal.signal(signal.SIGINT, ctrl_c),
        )


def finish(process: subprocess.Popen[str], outputs: Path, timeout: float = 200) -> tuple[int, str]:
    """Wait for a command, and return its exit code and what it said."""
    code = process.wait(timeout=timeout)
    return code, (outputs.parent / "stderr.txt").read_text()


def wait_for_rows(outputs: Path, rows: int, process: subprocess.Popen[str], shards: int = 2) -> None:
    """Wait until each of the `shards` workers has written, not the first of them alone."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and process.poll() is None:
        # Not below `.training`, which goes when the command does.
        found = [*outputs.glob("[!.]*/*/*/series/*.npy")]
        sizes, begun = [path.stat().st_size for path in found], {path.parent for path in found}
        if len(begun) >= shards and min(sizes) > 400 * rows:
            return
        time.sleep(0.01)


# Rows and checkpoints are written most of the time. While the file that GATE names is there, each update waits as well,
# and after some rows for as long as there is somebody who is to be interrupted while training, however long another
# process takes to begin: the last 200 updates take 200 s.
WAIT = """
if step is not None and os.path.exists(os.environ.get("GATE", "")): time.sleep(0.05 if step < 40 else 1)
"""
LONG = ["train.steps=240", "eval.every=2", "probe.weights.every=80", "checkpoint.every=8"]
LONG += ["seed=0..2", "compute.workers=2"]


@pytest.fixture(scope="module")
def long(tmp_path_factory) -> list[str]:
    return [*fates.write(tmp_path_factory.mktemp("mine"), WAIT), *LONG]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, long) -> dict:
    outputs = tmp_path_factory.mktemp("whole")
    assert command(["train", *long, "launcher=inline", "--outputs", str(outputs)]) == 0
    return bits(only_ensemble(outputs))


@pytest.fixture
def gate(tmp_path, monkeypatch) -> Path:
    """The file that holds up whoever is started."""
    path = tmp_path / "gate"
    path.touch()
    monkeypatch.setenv("GATE", str(path))
    return path


def members(group: int) -> list[int]:
    """Return the living processes of a process group: a command, what workers are forked from, and the workers."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, own = path.read_text(errors="replace").rpartition(")")[2].split()[:3]
            # One that has ended may not have been waited for.
            found += [int(path.parent.name)] if int(own) == group and state not in "ZX" else []
    return found


def wait_for_the_end(group: int) -> None:
    deadline = time.monotonic() + 120
    while members(group) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not members(group)


def test_kill_nine_of_the_group_at_any_moment_loses_nothing(here, outputs, long, uninterrupted):
    rng = np.random.default_rng(0)
    for _ in range(3):
        process = start(long, outputs)
        wait_for_rows(outputs, 1, process)
        time.sleep(rng.uniform(0, 0.7))
        # It may have ended by itself.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        wait_for_the_end(process.pid)
    answer = here("train", *long)
    assert answer.code == 0, answer.err
    found = bits(only_ensemble(outputs))
    assert_same(found, uninterrupted, found)


def test_workers_of_a_killed_parent_save_and_end(here, outputs, long, gate, uninterrupted):
    words = but(long, "checkpoint.every=1000000")
    process = start(words, outputs)
    wait_for_rows(outputs, 1, process)
    assert len(members(process.pid)) > 2
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_for_the_end(process.pid)
    records = [json.loads(path.read_text()) for path in outputs.rglob("run.json")]
    assert {record["status"] for record in records} == {"partial"}
    assert all(record["steps"] > 0 for record in records)
    gate.unlink()
    answer = here("train", *words)
    assert answer.code == 0, answer.err
    found = bits(only_ensemble(outputs))
    assert_same(found, uninterrupted, found)


@pytest.mark.parametrize("to_group", [True, False])
def test_ctrl_c_saves_and_the_same_command_goes_on(here, outputs, long, gate, uninterrupted, to_group):
    process = start(long, outputs)
    wait_for_rows(outputs, 1, process)
    (os.killpg if to_group else os.kill)(process.pid, signal.SIGINT)
    code, errors = finish(process, outputs)
    assert code == 130, errors
    assert "Traceback" not in errors
    assert {json.loads(path.read_text())["status"] for path in outputs.rglob("run.json")} == {"partial"}
    gate.unlink()
    assert here("train", *long).code == 0
    found = bits(only_ensemble(outputs))
    assert_same(found, uninterrupted, found)


def test_ignored_ctrl_c_stops_nothing_and_a_worker_that_is_told_to_stop_is_named(outputs, long, gate):
    process = start(long, outputs, signal.SIG_IGN)
    wait_for_rows(outputs, 1, process)
    os.killpg(process.pid, signal.SIGINT)

    def rows() -> int:
        return sum(path.stat().st_size for path in outputs.glob("[!.]*/*/*/series/*.npy"))

    before, deadline = rows(), time.monotonic() + 240
    while rows() < 1.3 * before and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    locks = [*outputs.glob("[!.]*/*/shard-*/lock")]
    assert len(locks) == 2 and process.poll() is None
    for lock in locks:
        os.kill(json.loads(lock.read_text())["pid"], signal.SIGTERM)
    code, errors = finish(process, outputs)
    assert code == 3 and "its worker was told to stop; its state is saved" in errors, errors
    assert {json.loads(path.read_text())["status"] for path in outputs.rglob("run.json")} == {"partial"}


def test_a_second_command_does_not_touch_what_the_first_is_training(here, outputs, long, gate, uninterrupted):
    process = start(long, outputs)
    wait_for_rows(outputs, 1, process)
    answer = here("train", *long)
    gate.unlink()
    assert answer.code == 3
    assert "process" in answer.err and "--steal" in answer.err and "Traceback" not in answer.err
    assert process.wait(timeout=200) == 0
    found = bits(only_ensemble(outputs))
    assert_same(found, uninterrupted, found)


def test_the_planner_tries_once_and_says_what_it_found(cli, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("CXX", "no-such-compiler")
    words = but([word for word in TINY if not word.startswith("compute")], "train.steps=10")
    # Work that is short is not tried beyond its narrowest layout; nor is anything tried twice.
    answers = [cli("train", *words, f"seed={seeds}", "compute.workers=1") for seeds in ("0..7", "8..15")]
    assert all(answer.code == 0 and "8 seeds wide (compute.workers=1)" in answer.err for answer in answers)
    kept = json.loads((tmp_path / "cache/dynalab/trials.json").read_text())
    ((_, entry),) = kept.items()
    assert [item[:2] for item in entry["timings"]] == [[2, 1]]
    assert entry["run_bytes"] >= 0
    kept = json.loads((tmp_path / "cache/dynalab/exactness.json").read_text())
    assert list(kept.values()) == ["hold"]
    # A plan on whatever device there is knows it, and what would be faster where there is much to do.
    words += ["seed=16..23", "compute.workers=1"]
    short, long = (cli("train", *but(words, f"train.steps={steps}"), "--dry-run") for steps in (15, 10**9))
    elsewhere = (
        command(["train", *words, f"outputs={tmp_path / 'none'}", "--dry-run"]),
        capsys.readouterr().out,
    )
    assert elsewhere[0] == 0 and "updates about " in elsewhere[1]
    # However busy the machine is.
    assert re.search(r"  about \d\d? s", short.out) and "compiled code" not in short.err
    assert "about" in long.out and "with a C++ compiler (apt-get install g++) these updates" in long.err
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "compute.compile" not in cli("train", *words, f"train.steps={10**9}", "--dry-run").err
    # A damaged file is only a cache.
    (tmp_path / "cache/dynalab/trials.json").write_text("{")
    assert command(["train", *words, "--dry-run"]) == 0


def test_without_exactness_a_lone_seed_has_no_companion(here, outputs):
    words = [*TINY, "compute.exact=false", "compute.threads=2"]
    assert here("train", *words, "seed=3").code == 0
    (run_file,) = outputs.glob("grokking/*/shard-*/run.json")
    plan = json.loads(run_file.read_text())["plan"]
    assert plan["exact"] is False and plan["threads"] == 2
    # Kept on resume, and said.
    answer = here("train", *but(TINY, "train.steps=80"), "seed=3")
    assert answer.code == 0 and "goes on as it began" in answer.err
    assert json.loads(run_file.read_text())["plan"]["threads"] == 2
