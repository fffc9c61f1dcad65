"""Fixtures that drive the real command line in folders of their own."""

from __future__ import annotations

import gc
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# Before anything here loads torch: it tells MKL which kernels to choose.
import dynalab

# Small enough that a run takes milliseconds: 11 x 11 pairs, 16 wide.
TINY = ["task=grokking", "task.modulus=11", "model.width=16", "train.steps=60", "probe.weights.every=20"]
# One worker imports torch once; what needs several says so.
TINY += ["compute.workers=1"]

# Less than a millisecond a step, in this process.
SMALL = ["task=grokking", "task.modulus=7", "model.width=8", "train.steps=20", "snapshots.at=never"]
SMALL += ["launcher=inline"]


def but(words: Sequence[str], *others: str) -> list[str]:
    """Return words of a command with others in the place of those of the same keys: it takes a key once."""
    keys = {word.partition("=")[0] for word in others}
    return [*(word for word in words if word.partition("=")[0] not in keys), *others]


def pytest_collection() -> None:
    """Look for no garbage while all tests' libraries are imported, which made a quarter of the time that takes."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Nor in what is imported from then on: it stays."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Draw the same in a test that draws without a seed, its fixtures included, whichever tests ran before."""
    random.seed(0)
    np.random.seed(0)
    if torch := sys.modules.get("torch"):
        # As where it is loaded in the test.
        torch.manual_seed(67280421310721)


@pytest.fixture(autouse=True)
def _isolated(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every test has an outputs folder of its own, and none of the user's settings."""
    monkeypatch.setenv("DYNALAB_OUTPUTS", str(tmp_path / "outputs"))
    # What was tried of a network on this machine holds for all tests, whichever of pytest's processes runs them.
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    monkeypatch.setenv("XDG_CACHE_HOME", str(shared / "cache"))
    monkeypatch.delenv("DYNALAB_PATH", raising=False)
    # What a terminal, or a job that the tests run in, would say.
    for name in ("COLUMNS", "LINES", *(name for name in os.environ if name.startswith("SLURM_"))):
        if name != "SLURM_CONF":
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    # Tests run beside each other as it is; `test_same_results_same_bytes` has a second process that draws.
    monkeypatch.setattr("dynalab.show.drawer.cores", lambda: 1)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As in a worker: a seed's bits are its own with one thread. Torch's setting is put back."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    return tmp_path / "outputs"


@dataclass(frozen=True)
class Answer:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Answer]


def run_cli(*words: str, cwd: Path | None = None, **environment: str) -> Answer:
    done = subprocess.run(
        [sys.executable, "-m", "dynalab", *words],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        timeout=600,
    )
    return Answer(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def cli() -> Cli:
    """Run `dynalab` as a user does, in a process of its own."""
    return run_cli


@pytest.fixture
def tiny() -> list[str]:
    return list(TINY)


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run `dynalab` in this process, which trains, too, unless a launcher is named: for what it does, not who does."""
    from dynalab.cli.app import run

    def run_here(*words: str, **environment: str) -> Answer:
        capsys.readouterr()
        named = any(word.startswith("launcher=") for word in words)
        own = ["launcher=inline"] if words[0] == "train" and not named else []
        with monkeypatch.context() as patched:
            for name, value in environment.items():
                patched.setenv(name, value)
            code = run([*words, *own])
        said = capsys.readouterr()
        return Answer(code, said.out, said.err)

    return run_here


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages are made without drawing their figures, which is most of their time: for tests of what a page says."""
    from report_fakes import no_drawing

    no_drawing(monkeypatch)


@pytest.fixture(scope="session")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], tuple[list[Any], Any]]:
    """Copy an outputs folder to a new place: two ensembles of two seeds, which `@last` means, and a fork.

    The function returns the two and the fork. What it copies is trained once for all modules.
    """
    made = tmp_path_factory.mktemp("small") / "outputs"
    words = [*SMALL, "optimizer=adamw,sgd", "seed=0..1"]
    swept = [item.id for item in dynalab.train(words, outputs=made)]
    (fork,) = dynalab.fork(swept[0], 10, ["edit=perturb", "launcher=inline"], outputs=made)
    dynalab.train(words, outputs=made)

    def copy(place: Path) -> tuple[list[Any], Any]:
        shutil.copytree(made, place)
        return dynalab.load_all(*swept, outputs=place), dynalab.load(fork.id, outputs=place)

    return copy
