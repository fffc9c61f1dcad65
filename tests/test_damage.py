"""Damaged files, full disks and what cannot be used: one or two clear lines, the right exit code, nothing harmed."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import but
from stored import assert_same, bits, only_ensemble

from dynalab.core.atomic import write_json

WORDS = ["train.steps=100", "checkpoint.every=30", "eval.every=10", "seed=0..1", "compute.workers=1"]


def clear(answer, code: int) -> None:
    assert answer.code == code, (answer.code, answer.err)
    assert "Traceback" not in answer.err


@pytest.mark.parametrize(
    "words",
    [
        ["task=groking"],
        ["trian.steps=5"],
        ["train.steps=abc"],
        ["seed="],
        ["seed=-1"],
        ["device=cuda", "seed=0"],
        ["device=cuda:3", "seed=0"],
    ],
)
def test_bad_words_end_with_two_and_one_or_two_lines(here, outputs, words):
    answer = here("train", *words)
    clear(answer, 2)
    assert answer.out == "" and 1 <= len(answer.err.strip().splitlines()) <= 2
    assert words[0].partition("=")[0] in answer.err
    assert not outputs.exists() or not list(outputs.rglob("run.json"))


def test_a_mistyped_command_and_option_are_told_what_they_may_have_been(here):
    answer = here("trian", "task=grokking")
    clear(answer, 2)
    assert "did you mean train" in answer.err
    clear(here("train", "--jsn"), 2)
    clear(here("analyze", "hmn"), 2)


def test_outputs_that_cannot_be_written_are_named(here, tmp_path, tiny):
    file = tmp_path / "file"
    file.write_text("")
    for outputs, code in ((str(file), 2), (str(file / "below"), 2), ("/proc/dynalab", 3)):
        answer = here("train", *tiny, "seed=0", "--outputs", outputs)
        clear(answer, code)
        assert outputs in answer.err and len(answer.err.strip().splitlines()) <= 2


@pytest.mark.parametrize("limit", [4_000, 12_000])
def test_a_disk_that_fills_harms_nothing_stored(here, outputs, tiny, limit, tmp_path):
    """Files may grow to `limit` bytes: enough for run.json and the first rows, not for all."""
    words = but(tiny, *but(WORDS, "eval.every=1"))
    code = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "from dynalab.cli.app import run\n"
        "sys.exit(run(sys.argv[1:]))\n"
    )
    # First, for no compiler writes so little: what it makes is kept for both.
    here("train", *words, DYNALAB_OUTPUTS=str(tmp_path / "whole"))
    done = subprocess.run(
        [sys.executable, "-c", code, "train", *words], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 3, (done.returncode, done.stderr)
    assert "Traceback" not in done.stderr and "cannot write" in done.stderr
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != limit
    assert here("train", *words).code == 0
    found, whole = bits(only_ensemble(outputs)), bits(only_ensemble(tmp_path / "whole"))
    assert_same(found, whole, whole)


@pytest.fixture
def trained(here, outputs, tiny) -> tuple[Path, dict]:
    assert here("train", *but(tiny, *WORDS)).code == 0
    ensemble = only_ensemble(outputs)
    (shard,) = ensemble.glob("shard-*")
    return shard, bits(ensemble)


def flip(path: Path, place: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 1
    path.write_bytes(bytes(data))


def cut_short(shard: Path) -> None:
    """Make a finished shard look as a killed one does."""
    record = json.loads((shard / "run.json").read_text())
    record["status"] = "running"
    for run in record["runs"]:
        run["status"] = "running"
    write_json(shard / "run.json", record)


def test_a_damaged_newest_checkpoint_is_passed_over_with_a_warning(here, outputs, tiny, trained):
    shard, whole = trained
    assert sorted(path.name for path in (shard / "checkpoints").iterdir()) == [
        "step-00000090",
        "step-00000100",
    ]
    flip(shard / "checkpoints/step-00000100/model.safetensors")
    cut_short(shard)
    answer = here("train", *but(tiny, *WORDS))
    clear(answer, 0)
    assert "model.safetensors is damaged" in answer.err and "step 90" in answer.err
    found = bits(only_ensemble(outputs))
    assert_same(found, whole, whole)


def test_with_every_checkpoint_damaged_training_starts_over_and_says_so(here, outputs, tiny, trained):
    shard, whole = trained
    for path in (shard / "checkpoints").glob("*/state.json"):
        flip(path)
    cut_short(shard)
    answer = here("train", *but(tiny, *WORDS))
    assert "the start" in answer.err and "Traceback" not in answer.err
    found = bits(only_ensemble(outputs))
    assert_same(found, whole, whole)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("harm", ["flip", "cut", "gone", "header"])
def test_a_damaged_series_is_left_out_by_readers_and_mended_by_training(here, outputs, tiny, trained, harm):
    shard, whole = trained
    path = shard / "series/every-10.npy"
    if harm == "flip":
        flip(path, 0.9)
    elif harm == "header":
        path.write_bytes(b"garbage!" + path.read_bytes()[8:])
    elif harm == "cut":
        path.write_bytes(path.read_bytes()[:-300])
    else:
        path.unlink()
    before = {item: item.read_bytes() for item in shard.rglob("*.safetensors")}
    for words in (["analyze", "hmm"], ["report"]):
        answer = here(*words)
        assert answer.code in (3, 4) and "Traceback" not in answer.err, (words, answer)
        assert "every-10.npy" in answer.err and shard.name in answer.err + answer.out
    assert {item: item.read_bytes() for item in shard.rglob("*.safetensors")} == before
    answer = here("train", *but(tiny, *WORDS))
    clear(answer, 0)
    assert "every-10.npy" in answer.err
    found = bits(only_ensemble(outputs))
    assert_same(found, whole, whole)


def test_a_damaged_run_json_is_named_and_left_alone(here, outputs, tiny, trained):
    shard, _ = trained
    (shard / "run.json").write_text("{")
    for words in (["runs", "list"], ["train", *but(tiny, *WORDS)]):
        answer = here(*words)
        clear(answer, 3)
        assert "run.json is damaged" in answer.err
    assert (shard / "run.json").read_text() == "{"
    assert len(list(shard.parent.glob("shard-*"))) == 1


def test_another_version_midway_is_refused_and_recorded_with_anyway(here, outputs, tiny, trained):
    shard, _ = trained
    cut_short(shard)
    record = json.loads((shard / "run.json").read_text())
    record["attempts"][-1]["torch"] = "1.0"
    write_json(shard / "run.json", record)
    answer = here("train", *but(tiny, *but(WORDS, "train.steps=120")))
    clear(answer, 2)
    assert "torch 1.0" in answer.err and "--anyway" in answer.err
    assert here("train", *but(tiny, *but(WORDS, "train.steps=120")), "--anyway").code == 0
    attempts = json.loads((shard / "run.json").read_text())["attempts"]
    assert attempts[-1]["torch"] != "1.0" and attempts[0]["torch"] == "1.0"


def test_analyses_and_reports_without_anything_end_with_four(here, outputs):
    for words in (["analyze", "hmm"], ["report"], ["runs", "show", "abc"]):
        answer = here(*words)
        clear(answer, 4)
        assert "dynalab train" in answer.err
    listed = here("runs", "list", "--json")
    assert (listed.code, listed.json["runs"]) == (0, [])


def test_ids_that_fit_nothing_or_too_much_are_told_apart(here, outputs, tiny):
    here(
        "train",
        *but(tiny, "train.steps=2"),
        "seed=0",
        "optimizer.lr=1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18",
    )
    ids = [path.parent.name.rpartition("-")[2] for path in outputs.glob("*/*/config.yaml")]
    first = [item[0] for item in ids]
    twice = next(letter for letter in first if first.count(letter) > 1)
    answer = here("runs", "show", twice)
    clear(answer, 2)
    assert "ambiguous" in answer.err
    clear(here("runs", "show", "zzzz"), 4)
    clear(here("runs", "list", "-f", "optimizer.lr>100"), 4)
    clear(here("runs", "list", "-f", "no.such=1"), 2)
    found = here("runs", "list", "-f", "optimizer.lr<3 task=grokking", "--json").json["runs"]
    assert len(found) == 2
    assert len(np.unique([run["ensemble"] for run in found])) == 2


def test_a_reader_that_leaves_early_is_no_error():
    words = [sys.executable, "-m", "dynalab", "config", "--explain"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as asked:
        asked.stdout.close()
        assert asked.stderr.read() == b""
    assert asked.returncode == 0


def test_output_into_a_closed_pipe_is_quiet(here, tiny, outputs):
    here("train", *but(tiny, "train.steps=2"), "seed=0..30")
    done = subprocess.run(
        f"{sys.executable} -m dynalab runs list | head -1",
        shell=True,
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert done.stderr == ""
