"""Completion: what a word may become, what the shells make of it, and that nothing broken disturbs them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dynalab.cli.app import COMMANDS, run
from dynalab.cli.completion import HOW
from dynalab.store.paths import ShardPaths

Complete = Callable[..., list[str]]


@pytest.fixture
def complete(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Complete:
    """Return the words that the last one of a line may become; nothing is said beside them."""

    def words_of(line: str, shell: str = "zsh", **environment: str) -> list[str]:
        capsys.readouterr()
        with monkeypatch.context() as patched:
            for name, value in {
                "_DYNALAB_COMPLETE": f"{shell}_complete",
                "COMP_LINE": line,
                **environment,
            }.items():
                patched.setenv(name, value)
            assert run([]) == 0
        said = capsys.readouterr()
        assert said.err == ""
        return [line.split("\t")[1] for line in said.out.splitlines() if "\t" in line]

    return words_of


@pytest.fixture
def stored(outputs: Path) -> Path:
    """An outputs folder of names alone: nothing in its files can be read."""
    for name in (
        "grokking/lr_0.1-0123456789",
        "grokking/default-0123fedcba",
        "imported/elsewhere-aaaaaaaaaa",
    ):
        shard = outputs / name / "shard-0000-0001-2"
        shard.mkdir(parents=True)
        (shard / "run.json").write_text("damaged")
    (outputs / "grokking" / "notes").mkdir()
    (outputs / "analysis" / "hmm-0123456789").mkdir(parents=True)
    (outputs / "analysis" / "eos-bbbbbbbbbb").mkdir()
    return outputs


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("dynalab tr", "train"),
        ("dynalab runs ex", "export"),
        ("dynalab analyze hm", "hmm"),
        ("dynalab train task=gr", "task=grokking"),
        ("dynalab train optimizer=ada", "optimizer=adam optimizer=adamw"),
        ("dynalab train optimizer=sgd,ada", "optimizer=sgd,adam optimizer=sgd,adamw"),
        ("dynalab train probes=[weights,gr", "probes=[weights,gradients"),
        ("dynalab train ++train.ba", "++train.batch_size="),
        ("dynalab train pro", "probes= probe."),
        ("dynalab train optimizer.l", "optimizer.lr="),
        ("dynalab train optimizer=sgd optimizer.mo", "optimizer.momentum="),
        ("dynalab train optimizer=sgd,adamw optimizer.be", "optimizer.betas="),
        ("dynalab train task=parity optimizer.be", ""),
        ("dynalab train experiment=power2022_division model.h", "model.heads="),
        ("dynalab train probe.cur", "probe.curvature."),
        ("dynalab train probe.curvature.ei", "probe.curvature.eigenvalues="),
        ("dynalab train train.loss_dtype=", "train.loss_dtype=float32 train.loss_dtype=float64"),
        ("dynalab train train.sphere=t", "train.sphere=true"),
        ("dynalab train train.clip=", ""),
        ("dynalab train launcher=l", "launcher=local"),
        ("dynalab train edi", ""),
        ("dynalab fork @last 20 edi", "edit= edit."),
        ("dynalab fork @last 20 edit=perturb edit.sc", "edit.scale="),
        ("dynalab analyze hmm max_s", "max_states="),
        ("dynalab analyze hmm hmm.max_s", "hmm.max_states="),
        ("dynalab analyze eos pool=", "pool=true pool=false"),
        ("dynalab report na", "name="),
        ("dynalab figure slings", "slingshots"),
        ("dynalab figure cohen", "cohen2021"),
        ("dynalab figure curv", "curves"),
        ("dynalab runs list -f stat", "status="),
        ("dynalab runs list -f status=d", "status=done status=diverged"),
        ("dynalab runs list -f optimizer.l", "optimizer.lr="),
        ("dynalab report -f task=gr", "task=grokking"),
        ("dynalab experiments power2022_di", "power2022_division"),
        ("dynalab completion ", "bash zsh fish"),
        ("dynalab runs un", "unpack"),
        ("dynalab train on_e", "on_error="),
        ("dynalab train on_error=", "on_error=continue on_error=stop"),
        ("dynalab runs gc --sn", "--snapshots"),
        ("dynalab runs list -f tag", "tag="),
        ("dynalab nosuch ", ""),
        ("dynalab train task=grokking 'task.op", "task.operation="),
    ],
)
def test_what_a_word_may_become(complete, line, expected):
    assert complete(line) == expected.split()


def test_options_and_all_commands(complete):
    assert complete("dynalab ") == list(COMMANDS)
    assert "--dry-run" in complete("dynalab train --d") and "--outputs" in complete("dynalab runs list --o")


def test_what_is_stored_is_offered_by_its_folders_names(complete, stored):
    ids = {"@last", "0123456789", "0123fedcba", "aaaaaaaaaa", "elsewhere"}
    assert set(complete("dynalab runs list ")) == set(complete("dynalab fork ")) == ids
    assert complete("dynalab runs rm hmm-") == ["hmm-0123456789"]
    assert set(complete("dynalab runs show ")) == ids | {"hmm-0123456789", "eos-bbbbbbbbbb"}
    assert complete("dynalab analyze hmm 0123f") == ["0123fedcba"]
    for step in (20, 100):
        kept = ShardPaths(stored / "grokking/default-0123fedcba/shard-0000-0001-2").checkpoint(step)
        kept.root.mkdir(parents=True)
        kept.state.write_text("damaged")
    assert complete("dynalab fork 0123f ") == ["20", "100"] and complete("dynalab fork 0123456789 ") == []
    assert complete("dynalab analyze hmm decode_with=") == ["decode_with=hmm-0123456789", "decode_with=@last"]
    # Their runs stand in run.json, which is damaged.
    assert complete("dynalab runs show 0123f/") == []
    elsewhere = f"dynalab runs list --outputs {stored} 0123f"
    assert complete(elsewhere, DYNALAB_OUTPUTS="/nowhere") == ["0123fedcba"]


def test_what_is_broken_is_passed_over_in_silence(complete, tmp_path):
    (tmp_path / "file").write_text("")
    assert complete("dynalab analyze hmm max_s", DYNALAB_OUTPUTS=str(tmp_path / "file")) == ["max_states="]
    assert complete("dynalab runs show ", DYNALAB_OUTPUTS=str(tmp_path / "absent")) == ["@last"]
    for name in ("optimizer", "analysis"):
        (tmp_path / "parts" / name).mkdir(parents=True)
    (tmp_path / "parts/optimizer/mine.yaml").write_text("name: mine\n")
    (tmp_path / "parts/optimizer/mine.py").write_text("print('loud')\nraise SystemExit(5)\n")
    (tmp_path / "parts/analysis/torn.py").write_text("def (")
    path = {"DYNALAB_PATH": str(tmp_path / "parts")}
    assert complete("dynalab train optimizer=m", **path) == ["optimizer=mine"]
    assert complete("dynalab train optimizer=mine,sgd optimizer.l", **path) == ["optimizer.lr="]
    assert complete("dynalab train optimizer=mine train.ba", **path) == ["train.batch_size="]
    assert "hmm" in complete("dynalab analyze ", **path)
    assert complete("dynalab train optimizer=sg", DYNALAB_PATH="/nowhere") == ["optimizer=sgd"]
    assert complete("dynalab tr", shell="tcsh") == complete("dynalab 'x", shell="bash") == []


def test_bash_is_given_what_stands_behind_the_break(complete):
    assert complete("dynalab train task=gr", "bash", COMP_TAIL="gr") == ["grokking"]
    assert complete("dynalab train task=gr", "bash", COMP_TAIL="task=gr") == ["task=grokking"]
    assert complete("dynalab train task=p", "bash", COMP_TAIL="p") == ["parity"]
    assert complete("dynalab train device=", "bash", COMP_TAIL="") == ["auto", "cpu", "cuda"]


@pytest.fixture
def command(tmp_path: Path) -> dict[str, str]:
    """The environment of a shell in which `dynalab` is a command."""
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "dynalab"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m dynalab "$@"\n')
    script.chmod(0o755)
    return {**os.environ, "PATH": f"{script.parent}:{os.environ['PATH']}", "HOME": str(tmp_path)}


def script_of(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert run(["completion", shell]) == 0
    return capsys.readouterr().out


BASH = """
source "$1"
ask() { _dynalab_completion "$@"; printf '%s ' "${COMPREPLY[@]}"; echo; }
COMP_LINE='dynalab train task=gr x' COMP_POINT=21
COMP_WORDS=(dynalab train task = gr x) COMP_CWORD=4; ask dynalab gr =
unset COMP_LINE COMP_POINT
COMP_WORDS=(dynalab train optimizer = sgd,ad) COMP_CWORD=4; ask
COMP_WORDS=(dynalab train train.sphere =) COMP_CWORD=3; ask
COMP_WORDS=(dynalab train task=gr) COMP_CWORD=2; ask
complete -p dynalab
"""


def test_in_a_real_bash(command, capsys, tmp_path):
    (tmp_path / "script").write_text(script_of("bash", capsys))
    words = ["bash", "--norc", "-c", BASH, "bash", str(tmp_path / "script")]
    done = subprocess.run(words, capture_output=True, text=True, env=command, timeout=300)
    *answers, registered = done.stdout.splitlines()
    assert [line.split() for line in answers] == [
        ["grokking"],
        ["sgd,adam", "sgd,adamw"],
        ["true", "false"],
        ["task=grokking"],
    ]
    assert "_dynalab_completion dynalab" in registered and done.stderr == ""


@pytest.mark.skipif(not shutil.which("fish"), reason="no fish here")
def test_in_a_real_fish(command, capsys):
    asked = f"{script_of('fish', capsys)}\ncomplete -C 'dynalab train train.ba'; complete -C \"dynalab train 'task=gr\""
    done = subprocess.run(
        ["fish", "--no-config", "-c", asked], capture_output=True, text=True, env=command, timeout=300
    )
    first, second = done.stdout.splitlines()
    assert first.split("\t")[0] == "train.batch_size=" and "examples of a batch" in first
    assert second.split("\t")[0] == "task=grokking"


@pytest.mark.skipif(not shutil.which("zsh"), reason="no zsh here")
def test_zsh_reads_the_script(capsys, tmp_path):
    (tmp_path / "script").write_text(script_of("zsh", capsys))
    done = subprocess.run(
        ["zsh", "-f", "-n", str(tmp_path / "script")], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_help_says_where_the_scripts_go(capsys):
    run(["completion", "--help"])
    said = capsys.readouterr().out
    assert all(line in said for line in HOW.values())


@pytest.mark.parametrize(
    "line", ["dynalab train optimizer.l", "dynalab runs show ", "dynalab analyze eos ste"]
)
def test_nothing_slow_is_imported(line):
    code = "import sys; from dynalab.cli.app import run; run([]); print(*sys.modules, file=sys.stderr)"
    environment = {**os.environ, "COMP_LINE": line, "_DYNALAB_COMPLETE": "zsh_complete"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    loaded = {name.partition(".")[0] for name in done.stderr.split()}
    assert done.stdout and not loaded & {
        "torch",
        "pandas",
        "hydra",
        "omegaconf",
        "matplotlib",
        "scipy",
        "hmmlearn",
    }
