"""What a run was begun by, torch or a build of compiled code, it goes on by, whatever is asked and what there is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest
from conftest import but
from stored import assert_same, bits, difference, only_ensemble

import dynalab
from dynalab.config import compiling
from dynalab.config.command import read_command
from dynalab.core.atomic import write_json
from dynalab.errors import ConfigError
from dynalab.launch.train import Options
from dynalab.launch.train import train as launch
from dynalab.networks import compiler
from dynalab.probes import spectra

pytestmark = pytest.mark.skipif(compiling.compiler() is None, reason="no C++ compiler on this machine")

WORDS = ["task=grokking", "task.modulus=7", "model.width=8", "eval.every=4", "probe.weights.every=4"]
WORDS += ["snapshots.at=[8,24]", "launcher=inline", "compute.width=2"]
WAYS = ("torch", "compiled")
SAID = "updates go on by torch, for they could not be compiled before"


@contextmanager
def lacking() -> Iterator[None]:
    """No compiled code can be had: there is no compiler, or what it makes cannot be kept."""
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv("CXX", raising=False)
        patched.setattr(compiling, "COMPILERS", ("no-such-compiler",))
        patched.setattr(spectra, "library", lambda: None)
        yield


def begin(outputs: Path, way: str, steps: int = 12) -> Path:
    """Train some runs by torch, by compiled code, or by what another machine compiled; return their shard."""
    there = {*outputs.glob("*/*/shard-*")}
    with lacking() if way == "torch" else nullcontext():
        go_on(outputs, steps=steps)
    (shard,) = {*outputs.glob("*/*/shard-*")} - there
    if way == "torch":
        assert names(shard) == (way, way)
    if way == "other":
        record = json.loads((shard / "run.json").read_text())
        record["plan"] |= {"rows": "spectra-0", "compiled": "compiled-0"}
        write_json(shard / "run.json", record)
    return shard


def names(shard: Path) -> tuple[str, str]:
    """Return what makes the rows and the updates of a shard, without the number of a build."""
    plan = json.loads((shard / "run.json").read_text())["plan"]
    rows = "torch" if plan["rows"] == "torch" else "compiled"
    made = "compiled" if plan["compile"] else "torch"
    assert (plan.get("compiled", "torch") != "torch") == plan["compile"]
    return rows, made


def go_on(outputs: Path, *words: str, steps: int = 24, seeds: str = "0..1", **options: bool) -> list[str]:
    """Train to some steps, and return what was warned of."""
    command = read_command(
        [*WORDS, f"seed={seeds}", f"train.steps={steps}", "checkpoint.keep=[8]", *words], outputs=outputs
    )
    outcome = launch(command, Options(**options))
    outcome.require_whole()
    return outcome.report.warnings


MADE: dict[str, dict] = {}


@pytest.fixture
def whole(tmp_path) -> dict[str, dict]:
    """The bits of runs that were made in one go, once: way -> label -> bits."""
    if not MADE:
        for way in WAYS:
            begin(tmp_path / way, way, 24)
            MADE[way] = bits(only_ensemble(tmp_path / way))
        assert difference(MADE["torch"]["s0000"], MADE["compiled"]["s0000"])
    return MADE


@pytest.mark.parametrize("asked", ["null", "false", "true"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("retry", [False, True], ids=["more steps", "retry"])
def test_it_goes_on_by_the_code_it_began_with(outputs, whole, way, asked, retry):
    shard = begin(outputs, way)
    if retry:
        record = json.loads((shard / "run.json").read_text())
        record |= {"status": "failed", "requested_steps": 24}
        for run in record["runs"]:
            run["status"] = "failed"
        write_json(shard / "run.json", record)
    said = go_on(outputs, f"compute.compile={asked}", retry=retry)
    ensemble = only_ensemble(outputs)
    if asked == "null":
        assert said == ([f"{ensemble.name}: {SAID}"] if way == "torch" else [])
    else:
        other = {"torch": "true", "compiled": "false"}[way]
        how = {"torch": "without", "compiled": "with"}[way]
        line = f"{shard.name} goes on as it began, {how} compute.compile=true"
        assert said == ([line] if asked == other else [])
    assert names(shard) == (way, way)
    assert_same(bits(ensemble), whole[way], whole[way])


@pytest.mark.parametrize("asked", ["null", "false", "true"])
def test_code_that_another_machine_compiled_is_refused(outputs, whole, asked):
    """What is done stays so; with --anyway it goes on by that which there is, and stays with it."""
    shard = begin(outputs, "other")
    before = (shard / "run.json").read_bytes()
    with pytest.raises(
        ConfigError, match="begun in code of another compiler, processor or version of dynalab"
    ):
        go_on(outputs, f"compute.compile={asked}")
    assert (shard / "run.json").read_bytes() == before
    go_on(outputs, f"compute.compile={asked}", anyway=True)
    # Their bits are the same in truth.
    assert_same(bits(only_ensemble(outputs)), whole["compiled"], whole["compiled"])
    assert go_on(outputs, f"compute.compile={asked}", steps=28)[1:] == []


@pytest.mark.parametrize("asked", ["null", "false", "true"])
def test_without_a_compiler_what_was_compiled_is_refused_in_a_line(outputs, asked):
    shard = begin(outputs, "compiled")
    before = (shard / "run.json").read_bytes()
    with lacking():
        with pytest.raises(ConfigError, match="there is no C\\+\\+ compiler \\(install one"):
            go_on(outputs, f"compute.compile={asked}")
        assert (shard / "run.json").read_bytes() == before
        if asked == "true":
            with pytest.raises(ConfigError, match="a C\\+\\+ compiler is needed"):
                go_on(outputs, "compute.compile=true", anyway=True)
            return
        go_on(outputs, f"compute.compile={asked}", steps=16, anyway=True)
        go_on(outputs, f"compute.compile={asked}", steps=20)
    # It stays with torch, and that is said where nobody asked for it.
    said = go_on(outputs, f"compute.compile={asked}")
    assert said == ([f"{only_ensemble(outputs).name}: {SAID}"] if asked == "null" else [])
    assert names(shard) == ("torch", "torch")


def test_a_compiler_that_fails_is_named_in_the_refusal(outputs, tmp_path, monkeypatch):
    shard = begin(outputs, "compiled")
    record = json.loads((shard / "run.json").read_text())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(
        ConfigError, match=r"its updates were made in compiled code.*could not compile compiled\.cpp"
    ):
        go_on(outputs)
    assert json.loads((shard / "run.json").read_text()) == record


def test_of_what_nothing_is_kept_begins_anew_by_what_there_is(outputs, whole):
    shard = begin(outputs, "compiled")
    record = json.loads((shard / "run.json").read_text())
    record |= {"status": "failed", "steps": 0, "marks": {}}
    for run in record["runs"]:
        run |= {"status": "failed", "steps": 0}
    write_json(shard / "run.json", record)
    for item in (shard / "checkpoints").rglob("*.*"):
        item.unlink()
    for folder in (shard / "checkpoints").iterdir():
        folder.rmdir()
    with lacking():
        go_on(outputs)
    assert names(shard) == ("torch", "torch")
    assert_same(bits(only_ensemble(outputs)), whole["torch"], whole["torch"])


@pytest.mark.parametrize("way", WAYS)
def test_a_fork_is_made_by_the_code_of_its_parent(outputs, whole, way):
    """Where that can be had; one without a word is its parent, to the bit."""
    begin(outputs, way, 24)
    parent = only_ensemble(outputs).name.rpartition("-")[2]
    if way == "compiled":
        with lacking(), pytest.raises(ConfigError, match="a C\\+\\+ compiler"):
            dynalab.fork(parent, 8, ["launcher=inline"], outputs=outputs)
    (fork,) = dynalab.fork(parent, 8, ["launcher=inline"], outputs=outputs)
    (shard,) = Path(fork.path).glob("shard-*")
    assert names(shard) == (way, way)
    assert_same(bits(Path(fork.path)), whole[way], whole[way])


def test_a_fork_of_what_another_machine_compiled_is_refused(outputs):
    begin(outputs, "other", 24)
    parent = only_ensemble(outputs).name.rpartition("-")[2]
    with pytest.raises(ConfigError, match="begun in code of another compiler"):
        dynalab.fork(parent, 8, ["launcher=inline"], outputs=outputs)


@pytest.mark.parametrize("kept", [8, 24], ids=["from what is kept", "from the start"])
def test_runs_made_in_two_ways_are_never_in_one_shard(outputs, whole, kept):
    """Neither as they go on, nor as they are forked: each equals those that were made in one go by its own code."""
    keep = f"checkpoint.keep=[{kept}]"
    with lacking():
        go_on(outputs, keep, steps=24, seeds="0")
    go_on(outputs, keep)
    ensemble = only_ensemble(outputs)
    mixed = {"s0000": whole["torch"]["s0000"], "s0001": whole["compiled"]["s0001"]}
    assert_same(bits(ensemble), mixed, mixed)
    (fork,) = dynalab.fork(ensemble.name.rpartition("-")[2], 8, ["launcher=inline"], outputs=outputs)
    found = bits(Path(fork.path))
    for label, run in mixed.items():
        # Without a checkpoint of their parent rows are found once more, by what there is: the same but for rounding.
        apart = [name for name in difference(found[label], run) if kept == 8 or "step-" in name]
        assert apart == [], label
    assert [names(path)[1] for path in sorted(Path(fork.path).glob("shard-*"))] == [*WAYS]


@pytest.mark.parametrize("way", WAYS)
def test_losses_of_stored_weights_are_the_recorded_rows(outputs, way):
    begin(outputs, way, 24)
    made = dynalab.load(outputs=outputs)
    group = made.group()
    stack = group.stack(24)
    for split in ("train", "test"):
        found = stack.measures(stack.params, stack.examples(split))["loss"].tolist()
        assert found == [run.series[f"{split}_loss"].at(np.array([24]))[0] for run in group.runs]


def test_a_compiler_that_fails_is_asked_once_in_a_while(tmp_path, monkeypatch):
    """One whose output cannot be kept takes as long as one that does its work, and every trial asks for it."""
    made, asked = compiling._made, []
    monkeypatch.setattr(compiling, "_made", lambda *words: asked.append(words) or made(*words))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", "false")
    said: list[str] = []
    assert [compiler.made(None, said.append) for _ in range(3)] == [None] * 3
    assert len(asked) == 1 and len({*said}) == 1 and "could not compile" in said[0]
    monkeypatch.setattr(compiling, "_failed", {})
    monkeypatch.setattr(compiling, "AGAIN_SECONDS", 0.0)
    assert [compiler.made(None) for _ in range(3)] == [None] * 3 and len(asked) == 4


def test_what_began_with_no_room_for_compiled_code_goes_on(here, outputs, tmp_path, tiny):
    """Files may grow to what a training needs and no library does."""
    words = but(tiny, "seed=0..1", "train.steps=30")
    code = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))\n"
        "from dynalab.cli.app import run\n"
        "sys.exit(run(sys.argv[1:]))\n"
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(tmp_path / "full"))
        done = subprocess.run(
            [sys.executable, "-c", code, "train", *words, "launcher=inline"],
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0 and "updates are made by torch, for " in done.stderr, done.stderr
    answer = here("train", *but(words, "train.steps=60"))
    assert answer.code == 0 and SAID in answer.err, answer.err
    with lacking():
        assert here("train", *but(words, "train.steps=60"), DYNALAB_OUTPUTS=str(tmp_path / "whole")).code == 0
    found, torchs = bits(only_ensemble(outputs)), bits(only_ensemble(tmp_path / "whole"))
    assert_same(found, torchs, torchs)
