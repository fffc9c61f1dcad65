"""Machines without a home, with a terminal of another encoding, with a notebook's settings: no command dies of them."""

from __future__ import annotations

import io
import os
import pwd
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from dynalab.cli.app import run
from dynalab.cli.options import split_arguments
from dynalab.config.places import cache_folder, user_path
from dynalab.errors import ConfigError, StoreError


@pytest.fixture
def homeless(monkeypatch, tmp_path):
    """A user without HOME and without an account, as containers have; temporary files are the test's own."""

    def nobody(uid):
        raise KeyError(uid)

    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("train task=mlm train.steps=2 --dry-run", 0),
        ("train task=grokking --dry-run", 0),
        ("data list", 0),
        ("config outputs='~/x'", 2),
        ("config --config-dir ~/x", 2),
        ("config --outputs ~nobody_of_this_name/x", 2),
        ("config task=mlm task.corpus='~/x'", 2),
        ("config task=cifar task.root='~/x'", 2),
        ("import ~/x.csv --run run", 2),
        ("data verify cifar10 --checksums ~/x", 2),
        ("runs export --to ~/x.csv", 2),
        ("runs list ~/x", 4),
    ],
)
def test_without_a_home_nothing_is_a_bug(homeless, words, code, capsys, outputs):
    (outputs / "grokking" / "some-0123456789" / "shard-0000-0000-1").mkdir(parents=True)
    assert run(words.split()) == code
    said = capsys.readouterr().err
    assert code == 0 or len(said.strip().splitlines()) == 1
    assert code != 2 or "there is no home folder for ~" in said


def test_caches_stand_where_something_can_be_written(homeless, monkeypatch, tmp_path):
    own = tmp_path / f"dynalab-{os.getuid()}"
    assert cache_folder() == own and own.stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine" / "dynalab"
    # A file in the way; ~ without a home.
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below", "~/cache"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(place))
        assert cache_folder() == own
    own.rmdir()
    own.symlink_to(tmp_path / "mine")
    with pytest.raises(StoreError, match="XDG_CACHE_HOME"):
        cache_folder()
    with pytest.raises(ConfigError, match="no home folder"):
        user_path("~/x")


def test_the_backend_of_a_notebook_does_not_reach_a_command():
    code = "from dynalab.cli.app import run; run(['--version']); import matplotlib; print(matplotlib.get_backend())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "MPLBACKEND": "module://matplotlib_inline.backend_inline"},
    )
    assert done.stdout.split()[-1] == "agg", done.stderr


def test_a_name_that_a_terminal_cannot_show_is_shown_otherwise(monkeypatch):
    for encoding in ("ascii", "latin-1"):
        stream = io.TextIOWrapper(io.BytesIO(), encoding, write_through=True)
        monkeypatch.setattr(sys, "stderr", stream)
        assert run(["train", "task=\u0153\udcff"]) == 2
        assert b"dynalab: task=" in stream.buffer.getvalue()


def test_a_path_with_an_equals_sign_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("lr=0.1").mkdir()
    refs, overrides = split_arguments(
        ["lr=0.1", "./a=b/c", "/x/y=z", "~/a=b", "name=x", "to=a/b=c", "~steps", "cb71"]
    )
    assert refs == ["lr=0.1", "./a=b/c", "/x/y=z", "~/a=b", "cb71"]
    assert overrides == ["name=x", "to=a/b=c", "~steps"]
