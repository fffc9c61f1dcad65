"""Uncommitted changes of the code that trained: kept once, of nothing outside a repository, by no program of it."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from importlib import metadata
from pathlib import Path

import pytest
from conftest import Cli
from stored import only_ensemble

from dynalab.store.code import codes
from dynalab.store.paths import EnsemblePaths
from dynalab.training import code, provenance
from dynalab.training.code import changes_of, code_of

WORDS = [
    "task=grokking",
    "task.modulus=7",
    "model.width=8",
    "train.steps=2",
    "probes=[]",
    "snapshots.at=never",
]


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", "-C", folder, *who, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A project with one commit, a change, an untracked file and a link to what is outside."""
    folder = tmp_path / "my project"
    folder.mkdir()
    (tmp_path / "outside").write_text("a secret\n")
    (folder / "part.py").write_text("rate = 1\n")
    (folder / ".gitignore").write_text("ignored\n")
    (folder / "link").symlink_to("part.py")
    git(folder, "init")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "first")
    (folder / "part.py").write_text("rate = 2\n")
    (folder / "link").unlink()
    (folder / "link").symlink_to(tmp_path / "outside")
    (folder / "ignored").write_text("a secret\n")
    (folder / "new.py").write_text("a secret\n")
    (folder / "fold").symlink_to(tmp_path)
    return folder


@pytest.fixture(autouse=True)
def anew():
    changes_of.cache_clear()
    yield
    changes_of.cache_clear()


def test_a_checkouts_state_is_asked_for_without_its_lock(repository):
    # Whoever holds the lock writes down that the file is as it was.
    os.utime(repository / ".gitignore", (1, 1))
    index = (repository / ".git/index").read_bytes()
    assert provenance._git(repository, "status", "--porcelain", "--untracked-files=no") != ""
    assert (repository / ".git/index").read_bytes() == index


def test_changes_are_kept_once_shown_and_archived(repository: Path, here: Cli, tmp_path, monkeypatch):
    monkeypatch.chdir(repository)
    monkeypatch.setattr(code, "_OWN", tmp_path)
    outputs = repository / "outputs"
    place = ["--outputs", str(outputs)]
    assert here("train", *WORDS, "seed=0..1", "compute.width=1", *place).code == 0
    folder = only_ensemble(outputs)
    ident = folder.name[-10:]
    (patch,) = folder.glob("code-*.diff")
    text = patch.read_text()
    assert "-rate = 1\n+rate = 2\n" in text and "a secret" not in text
    shown = here("runs", "show", ident, "--json", *place).json["ensembles"][0]
    commit = git(repository, "rev-parse", "HEAD")
    line = f"my project at commit {commit[:12]}, with the changes in {patch.name}, 2 untracked files"
    assert line in shown["code"] and line in here("runs", "show", ident, *place).out.replace("\n    ", " ")
    (listed,) = folder.glob("packages-*.txt")
    assert f"\ntorch=={metadata.version('torch')}\n" in listed.read_text()
    for shard in shown["shards"]:
        assert shard["attempts"][-1]["packages"] == listed.name
        (record,) = [item for item in shard["attempts"][-1]["code"] if item["name"] == "my project"]
        assert record == {
            "name": "my project",
            "commit": commit,
            "patch": patch.name,
            "untracked": ["fold", "new.py"],
            "n_untracked": 2,
        }
    # The patch makes of the commit what trained.
    git(repository, "stash")
    git(repository, "apply", str(patch))
    assert (repository / "part.py").read_text() == "rate = 2\n"
    # Into another outputs folder, and into one that has the ensemble without it.
    target = tmp_path / "x.tgz"
    assert here("runs", "archive", ident, "--to", str(target), *place).code == 0
    with tarfile.open(target) as archive:
        assert [name for name in archive.getnames() if name.endswith(".diff")]
    patch.unlink()
    assert "with the changes" not in here("runs", "show", ident, *place).out
    assert here("runs", "unpack", str(target), *place).code == 0 and patch.read_text() == text


def test_no_program_of_a_repository_is_run_and_outputs_are_no_code(repository: Path, tmp_path, monkeypatch):
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/pwned\n")
    program.chmod(0o755)
    for key in ("diff.external", "core.fsmonitor", "diff.x.command", "diff.x.textconv", "core.pager"):
        git(repository, "config", key, str(program))
    (repository / ".gitattributes").write_text("*.py diff=x\n")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    outputs = repository / "outputs"
    outputs.mkdir()
    (outputs / "run").write_text("1")
    monkeypatch.delenv("GIT_DIR")
    git(repository, "-c", "core.fsmonitor=false", "add", "-f", "outputs")
    (tmp_path / "pwned").unlink(missing_ok=True)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    (found,) = changes_of((repository,), outputs)
    assert b"rate = 2" in found.patch and b"outputs" not in found.patch and not (tmp_path / "pwned").exists()
    # A repository in the outputs folder is a stranger's.
    assert changes_of((repository,), tmp_path) == () == changes_of((tmp_path,), outputs)


def test_a_long_patch_is_cut_and_a_repository_without_a_commit_is_named(
    repository: Path, tmp_path, monkeypatch
):
    (repository / "part.py").write_text("x = 1\n" * 10_000)
    monkeypatch.setattr(code, "MOST_BYTES", 1_000)
    monkeypatch.setattr(code, "_OWN", repository)
    (found,) = changes_of((repository,), tmp_path / "outputs")
    assert len(found.patch) < 1_100 and found.patch.endswith(b"bytes\n") and b"\n# cut here" in found.patch
    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init")
    (empty / "a").write_text("")
    (found,) = changes_of((empty,), tmp_path / "outputs")
    assert (found.commit, found.patch, found.untracked) == (None, b"", ("a",))
    # Where nothing can be written training goes on, and where there is no git.
    monkeypatch.setattr(Path, "cwd", lambda: repository)
    (record,) = code_of(EnsemblePaths(tmp_path / "no/such/folder"), ())["code"]
    assert "patch" not in record
    changes_of.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert code_of(EnsemblePaths(tmp_path / "no/such/folder"), ()) == {}


def test_what_a_stranger_says_of_code_is_no_file_elsewhere(tmp_path):
    paths = EnsemblePaths(tmp_path)
    (tmp_path / "code-0123456789ab.diff").symlink_to("/etc/passwd")
    names = ["../../x", "code-0123456789ab.diff", 7]
    records: list[object] = [{"name": "a", "commit": 3, "patch": name, "n_untracked": "x"} for name in names]
    attempts = [{"code": [*records, 7, {"name": []}]}, {"code": "x"}, {}]
    assert [item.line for item in codes(paths, json.loads(json.dumps(attempts)))] == ["a, without a commit"]
