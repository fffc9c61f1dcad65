"""A task, a model and a probe of one's own, outside the package: two files each, no fork."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from stored import bits, difference, only_ensemble

TASK = '''
"""Fit a line."""
from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    name: str = "line"
    slope: float = 2.0


def build(config):
    import torch
    from dynalab.tasks.base import Batch, InputSpec

    class Data:
        def __init__(self, streams, device):
            self.inputs = torch.stack([torch.randn(32, 1, generator=s.torch("split")) for s in streams]).to(device)

        def _batch(self):
            return Batch(self.inputs, config.slope * self.inputs)

        def train_batch(self, step):
            return self._batch()

        def eval_batches(self, split):
            return [self._batch()]

    class Task:
        spec = InputSpec(kind="vector", symbols=1, classes=1)

        def data(self, streams, *, batch_size, eval_size, device):
            return Data(streams, device)

        def model(self):
            return torch.nn.Linear(1, 1)

        def loss(self, outputs, batch):
            return (outputs - batch.targets).square().mean(dim=(1, 2))

        def metrics(self, outputs, batch):
            return {"error": (outputs - batch.targets).abs().mean(dim=(1, 2))}

    return Task()
'''
TASK_YAML = """
# @package _global_
defaults:
  - _defaults
  - override /model: task
  - override /optimizer: sgd
task: {name: line, slope: 2.0}
train: {steps: 40}
eval: {every: 5}
tuned:
  optimizer:
    sgd: {lr: 0.1}
convergence: {metric: test_error, threshold: 0.05, direction: down}
"""
PROBE = """
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Config:
    name: str = "slope"
    every: int | None = None
    at: Any = None


def build(config, network):
    class Slope:
        needs = frozenset()

        def measure(self, state):
            return {"slope": state.params["weight"][:, 0, 0].double()}

    return Slope()
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    for name, text in {
        "task/line.py": TASK,
        "task/line.yaml": TASK_YAML,
        "probe/slope.py": PROBE,
        "probe/slope.yaml": "name: slope\nevery: null\nat: null\n",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


WORDS = ["task=line", "probes=[weights,slope]", "probe.slope.every=10", "seed=0..2"]


def test_a_task_and_a_probe_of_ones_own_train_in_workers(cli, here, outputs, mine):
    answer = cli("train", *WORDS, "--config-dir", str(mine), "--json")
    assert answer.code == 0, answer.err
    (entry,) = answer.json["ensembles"]
    assert [run["status"] for run in entry["runs"]] == ["done"] * 3
    rows = np.load(next(Path(entry["path"]).glob("shard-*/series/every-10.npy")))
    assert abs(rows["slope"][-1] - 2.0).max() < 0.05
    assert entry["runs"][0]["summary"]["generalised_step"] is None, (
        "a task without accuracies has no such landmark"
    )
    assert Path(entry["path"]).parent.name == "line"
    # Found again by the environment variable, and done.
    again = here("train", *WORDS, DYNALAB_PATH=str(mine))
    assert again.code == 0 and "all is done" in again.err
    # One seed alone has the same bits here as well.
    here(
        "train",
        *WORDS[:-1],
        "seed=1",
        "--config-dir",
        str(mine),
        DYNALAB_OUTPUTS=str(outputs.parent / "alone"),
    )
    alone = bits(only_ensemble(outputs.parent / "alone"))["s0001"]
    assert difference(alone, bits(only_ensemble(outputs))["s0001"]) == []


def test_a_changed_plug_in_is_another_ensemble(here, outputs, mine):
    here("train", *WORDS, "--config-dir", str(mine))
    path = mine / "task/line.py"
    path.write_text(path.read_text() + "\n# changed\n")
    answer = here("train", *WORDS, "--config-dir", str(mine), "--dry-run", "--json")
    assert answer.json["ensembles"][0]["done"] == []


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("syntax", "cannot be imported"),
        ("no Config", "no dataclass named Config"),
        ("no build", "no function build"),
    ],
)
def test_a_broken_plug_in_is_one_clear_line(cli, mine, harm, said):
    path = mine / "task/line.py"
    text = {"syntax": "def", "no Config": "x = 1", "no build": TASK.partition("def build")[0]}[harm]
    path.write_text(text)
    answer = cli("train", *WORDS, "--config-dir", str(mine), "launcher=inline")
    assert answer.code == 2, answer.err
    assert said in answer.err and "Traceback" not in answer.err and len(answer.err.strip().splitlines()) <= 2


def test_a_model_that_does_not_fit_the_task_is_a_configuration_error(here, mine):
    answer = here("train", *WORDS, "model=gromov", "--config-dir", str(mine))
    assert answer.code == 2, answer.err
    assert "pairs" in answer.err and "Traceback" not in answer.err


def test_an_installed_package_adds_a_task_by_entry_point(outputs, mine, tmp_path):
    site = tmp_path / "site"
    package = site / "lines"
    (package / "conf/task").mkdir(parents=True)
    text = TASK + "\nfrom pathlib import Path\nCONF = Path(__file__).parent / 'conf'\n"
    (package / "__init__.py").write_text("")
    (package / "line.py").write_text(text)
    (package / "conf/task/line.yaml").write_text(TASK_YAML)
    info = site / "lines-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lines\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[dynalab.tasks]\nline = lines.line\n")
    done = subprocess.run(
        [sys.executable, "-m", "dynalab", "train", "task=line", "seed=0..1", "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(site)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [run["status"] for run in json.loads(done.stdout)["ensembles"][0]["runs"]] == ["done", "done"]
