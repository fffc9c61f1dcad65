"""The README: every command in it runs (reduced, or as a dry run), its code works, its links lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text()
REDUCED = ["train.steps=40", "snapshots.at=never", "task.modulus=11"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.S)


def commands() -> list[list[str]]:
    found = []
    for block in blocks("bash"):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words:
                found.append(words)
    return found


def reduced(words: list[str]) -> list[str]:
    """Shorten a training or a fit; what a dry run only plans stays as it is."""
    if words[:3] == ["dynalab", "analyze", "hmm"]:
        return [*words, "stability=false", "baselines=false", "restarts=2"]
    if words[1] == "fork":
        return [*("20" if word == "200" else word for word in words), "launcher=inline"]
    if words[1] != "train" or "--dry-run" in words:
        return words
    own = [word for word in REDUCED if not (word.startswith("task.") and "task=line" in words)]
    small = (
        ["model.width=16"]
        if not any(word.startswith("model=") for word in words) and "task=line" not in words
        else []
    )
    return [*words, *own, *small]


def test_every_command_runs(cli, here, tmp_path, monkeypatch):
    """In one folder, in order, as a reader would type them: the first in a process of its own, with workers."""
    (task_yaml,) = blocks("yaml")
    task_py = next(block for block in blocks("python") if "def build" in block)
    (tmp_path / "mine/task").mkdir(parents=True)
    (tmp_path / "mine/task/line.yaml").write_text(task_yaml)
    (tmp_path / "mine/task/line.py").write_text(task_py)
    (tmp_path / "mine/analysis").mkdir()
    own = next(block for block in blocks("python") if "def analyse" in block)
    (tmp_path / "mine/analysis/knees.py").write_text(own)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DYNALAB_OUTPUTS")
    ran = 0
    for words in commands():
        if words[0] != "dynalab":
            assert words[0] in ("git", "scripts/demo", "scripts/test"), words
            continue
        done = (here if ran else cli)(*reduced(words)[1:])
        assert done.code == 0, (words, done)
        assert done.out.strip(), words
        ran += 1
    assert ran >= 12


def test_the_python_example_runs(tmp_path, monkeypatch):
    code = next(block for block in blocks("python") if "import dynalab" in block)
    code = code.replace('"train.steps=200"', '"train.steps=100", "model.width=16", "task.modulus=11"')
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})


def test_links_and_pictures_are_there():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert target.startswith("https://") or (ROOT / target).exists(), target


@pytest.mark.parametrize("name", ["scripts/demo", "scripts/test", "scripts/verify", ".ci/run"])
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
    first = subprocess.run(words, capture_output=True, text=True, timeout=280, check=False)
    assert first.returncode == 0, first.stderr
    report = first.stdout.strip().splitlines()[-1].removeprefix("The report: ")
    assert Path(report).is_file() and Path(report).is_relative_to(outputs)
    again = subprocess.run(words, capture_output=True, text=True, timeout=100, check=False)
    assert "all is done" in again.stderr and "installing" not in again.stderr
    assert again.stdout.strip().endswith(report)


@pytest.mark.skipif(not (ROOT / ".venv").is_dir(), reason="the scripts' own environment is not set up")
def test_scripts_test_passes_its_arguments_on():
    words = [ROOT / "scripts/test", "-n", "0", "--collect-only", "tests/test_seeds.py"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100, check=False)
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
