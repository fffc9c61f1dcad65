"""README and docs: every command and example runs (reduced, or as a dry run); the scripts are whole."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README, EXAMPLES, FORKS, PYTHON = (
    (ROOT / name).read_text("utf-8")
    for name in ("README.md", "docs/examples.md", "docs/forks.md", "docs/python.md")
)
REDUCED = ["train.steps=40", "snapshots.at=never", "task.modulus=11"]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)


def commands(text: str) -> list[list[str]]:
    lines = [line for block in blocks(text, "bash") for line in block.splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def reduced(words: list[str]) -> list[str]:
    """Shorten a training or a fit; what a dry run only plans stays as it is."""
    if words[:3] == ["dynalab", "analyze", "hmm"]:
        return [*words, "stability=false", "baselines=false", "restarts=2"]
    if words[1] == "reproduce":
        return [*words, "--dry-run"]
    if words[1] == "fork":
        return [*("20" if word == "200" else word for word in words), "launcher=inline"]
    if words[1] != "train" or "--dry-run" in words:
        return words
    own = "task=line" in words
    kept = [word for word in words if not word.startswith("train.steps=")]
    return [
        *kept,
        *(word for word in REDUCED if not (own and word.startswith("task."))),
        *["model.width=16"] * (not own),
    ]


def parts(folder: Path, text: str) -> None:
    """Write the files of a page, each named by the words before its block, into a folder."""
    for name, block in re.findall(r"`(mine/\S+\.(?:py|yaml))`[^`]*?:\n\n```\w+\n(.*?)```", text, re.S):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(block)


def test_every_command_runs(cli, here, tmp_path, monkeypatch):
    """In one folder, in order, as a reader would type them: the first in a process of its own, with workers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DYNALAB_OUTPUTS")
    ran = 0
    for text in (README, EXAMPLES, FORKS):
        parts(tmp_path, text)
        for words in commands(text):
            if words[0] != "dynalab":
                assert words[0] in ("git", "scripts/demo", "scripts/test"), words
                continue
            done = (here if ran else cli)(*reduced(words)[1:])
            assert done.code == 0, (words, done)
            assert done.out.strip(), words
            ran += 1
    assert ran >= 16 and {path.name for path in tmp_path.rglob("mine/*/*")} >= {
        "halving.py",
        "knees.py",
        "line.yaml",
    }


def test_the_python_examples_run(tmp_path, monkeypatch):
    """In one folder: what one page trains and fits, the next finds."""
    monkeypatch.chdir(tmp_path)
    ran = 0
    for code in blocks(README + PYTHON, "python"):
        if "import dynalab\n" in code:
            small = code.replace(
                '"train.steps=200"', '"train.steps=100", "model.width=16", "task.modulus=11"'
            )
            exec(compile(small, "README.md", "exec"), {"__name__": "__main__"})
            ran += 1
    assert ran == 3


@pytest.mark.parametrize(
    "name", ["scripts/demo", "scripts/test", "scripts/verify", "scripts/docs", ".ci/run"]
)
def test_scripts_are_executable_and_parse(name):
    path = ROOT / name
    assert os.access(path, os.X_OK)
    subprocess.run(["bash", "-n", path], check=True)


@pytest.mark.skipif(not (ROOT / ".venv").is_dir(), reason="the scripts' own environment is not set up")
def test_the_demo_runs_twice_and_trains_once(outputs):
    words = [
        ROOT / "scripts/demo",
        "train.steps=60",
        "model.width=16",
        "task.modulus=11",
        "snapshots.at=never",
    ]
    first = subprocess.run(words, capture_output=True, text=True, timeout=900, check=False)
    assert first.returncode == 0, first.stderr
    report = first.stdout.strip().splitlines()[-1].removeprefix("The report: ")
    assert Path(report).is_file() and Path(report).is_relative_to(outputs)
    again = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert "all is done" in again.stderr and "installing" not in again.stderr
    assert again.stdout.strip().endswith(report)


@pytest.mark.skipif(not (ROOT / ".venv").is_dir(), reason="the scripts' own environment is not set up")
def test_scripts_test_passes_its_arguments_on():
    words = [ROOT / "scripts/test", "-n", "0", "--collect-only", "tests/test_seeds.py"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "test_seeds.py" in done.stdout


def test_verify_names_its_bars_and_each_has_a_twin_in_the_suite():
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/verify_bars.py", "--list"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(done.stdout.splitlines()) >= 9
    for twin in re.findall(r'"(test_\w+\.py)"', (ROOT / "scripts/verify_bars.py").read_text()):
        assert (ROOT / "tests" / twin).is_file(), twin
